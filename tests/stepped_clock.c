/* A program's wall clock, off by as many microseconds as the file of STEPPED_CLOCK holds: for LD_PRELOAD.
 * libfaketime does not go with jemalloc, which asks for the time while it starts. No headers, so that a compiler is all
 * that it takes. */
struct timeval { long tv_sec, tv_usec; };
struct timespec { long tv_sec, tv_nsec; };
long syscall(long number, ...);
char *getenv(const char *name);
int open(const char *path, int flags, ...);
long pread(int file, void *to, unsigned long size, long offset);

#if defined(__x86_64__)
#define CLOCK_GETTIME 228
#elif defined(__aarch64__)
#define CLOCK_GETTIME 113
#endif

int gettimeofday(struct timeval *now, void *zone) {
    static int file = -1;
    struct timespec real;
    long off = 0;
    (void)zone;
    if (file < 0) file = open(getenv("STEPPED_CLOCK"), 0);
    if (pread(file, &off, sizeof off, 0) != sizeof off) off = 0;
    syscall(CLOCK_GETTIME, 0L, &real);
    long us = real.tv_sec * 1000000 + real.tv_nsec / 1000 + off;
    now->tv_sec = us / 1000000;
    now->tv_usec = us % 1000000;
    return 0;
}
