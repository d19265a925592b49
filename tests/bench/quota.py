"""What one quota decision costs: our engine beside redis-py, on one real Redis, in alternating rounds of one run.

Usage: python tests/bench/quota.py [--decisions N] [--rounds N]

64 decisions are in flight. CPU is that of this process (client) and of Redis (`INFO cpu`), divided by the decisions.
`redis-py` awaits one EVALSHA a decision over a pool; `redis-py pipeline` collects what one turn of the event loop asks
and sends it as one pipeline, the best that can be had from it; both run the same script. Machines differ: what counts
are the ratios within one run. The targets are those of the project for one core of its reference machine.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import redis.asyncio as aioredis
import uvloop
from redis import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from redis_server import RedisServer

from authz.core.quota import Within, outcome
from authz.edge.store.place import read_place
from authz.edge.store.redis import RedisStore
from authz.edge.store.script import NONCE, SOURCE, Asked, Plan, decode, redis_key
from authz.policy.limits import Calendar, Limit, calendar_limit, rate_limit

IN_FLIGHT = 64
SECOND = 1_000_000
DAY = calendar_limit(name="daily", requests=10**9, calendar=Calendar.DAY)
STEADY = rate_limit(name="steady", requests=10**6, per_us=SECOND, burst=10**7)
HOURLY = rate_limit(name="hourly", requests=10**8, per_us=3600 * SECOND)
LIMITS: dict[int, tuple[Limit, ...]] = {1: (STEADY,), 2: (STEADY, DAY), 3: (STEADY, DAY, HOURLY)}
CLIENTS = (1, 100, 100_000, 200_000)  # the last: more than the store keeps plans of
CLIENT_TARGET_US, REDIS_TARGET_US, HOT_TARGET, MEMORY_TARGET = 15, 12, 50_000, 200


class Contender(Protocol):
    name: str

    async def open(self) -> None: ...

    async def spend(self, key: str, limits: tuple[Limit, ...]) -> bool: ...

    async def close(self) -> None: ...


class Ours:
    name = "clientpolicy"

    def __init__(self, url: str) -> None:
        self._store = RedisStore(read_place(url), prefix="ours:")

    async def open(self) -> None:
        await self._store.open()
        while not self._store.nodes[0].is_up:
            await asyncio.sleep(0.01)

    async def spend(self, key: str, limits: tuple[Limit, ...]) -> bool:
        return isinstance(await self._store.spend(key, limits, now_us=0), Within)

    async def close(self) -> None:
        await self._store.close()


class RedisPy:
    """One EVALSHA a decision; what it sends and reads is what our engine sends and reads."""

    name = "redis-py"

    def __init__(self, url: str) -> None:
        pool = aioredis.BlockingConnectionPool.from_url(
            url, max_connections=IN_FLIGHT, timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._redis = aioredis.Redis(connection_pool=pool)
        self._sha = ""
        self._plans: dict[tuple[str, int], tuple[Plan, bytes, bytes]] = {}

    async def open(self) -> None:
        self._sha = await self._redis.script_load(SOURCE)

    def words(self, key: str, limits: tuple[Limit, ...]) -> tuple[Plan, bytes, bytes]:
        found = self._plans.get((key, len(limits)))
        if found is None:
            name = redis_key(f"{self.name}:", b"x", key)
            plan = Plan(name, limits)
            argument = plan.argument.partition(b"\r\n")[2].removesuffix(b"\r\n")
            found = self._plans[key, len(limits)] = plan, name, argument
        return found

    @staticmethod
    def passed(plan: Plan, reply: object) -> bool:
        (admission,) = decode(1, [Asked(plan, 1, 1)], reply)
        return isinstance(outcome(admission, plan.limits), Within)

    async def spend(self, key: str, limits: tuple[Limit, ...]) -> bool:
        plan, name, argument = self.words(key, limits)
        return self.passed(plan, await self._redis.evalsha(self._sha, 1, name, NONCE.pack(1), argument))

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


class RedisPyPipeline(RedisPy):
    name = "redis-py pipeline"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._pending: list[tuple[Plan, bytes, bytes, asyncio.Future[bool]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def spend(self, key: str, limits: tuple[Limit, ...]) -> bool:
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending.append((*self.words(key, limits), waiter))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await waiter

    async def _flush(self) -> None:
        while self._pending:
            asked, self._pending = self._pending, []
            pipeline = self._redis.pipeline(transaction=False)
            for _, name, argument, _ in asked:
                pipeline.evalsha(self._sha, 1, name, NONCE.pack(1), argument)
            for (plan, _, _, waiter), reply in zip(asked, await pipeline.execute(), strict=True):
                waiter.set_result(self.passed(plan, reply))
        self._flushing = None


@dataclass
class Measured:
    per_s: list[float] = field(default_factory=list)
    client_us: list[float] = field(default_factory=list)
    redis_us: list[float] = field(default_factory=list)


class Bench:
    def __init__(self, server: RedisServer) -> None:
        self._plain = Redis.from_url(server.url)

    def _redis_cpu_s(self) -> float:
        told = self._plain.info("cpu")
        return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])

    async def run(self, contender: Contender, keys: list[str], limits: tuple[Limit, ...], into: Measured) -> None:
        left = iter(keys)
        refused = 0

        async def worker() -> None:
            nonlocal refused
            for key in left:
                refused += not await contender.spend(key, limits)

        redis_s, cpu_s, started = self._redis_cpu_s(), time.process_time(), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        elapsed_s = time.perf_counter() - started
        into.client_us.append((time.process_time() - cpu_s) / len(keys) * 1e6)
        into.redis_us.append((self._redis_cpu_s() - redis_s) / len(keys) * 1e6)
        into.per_s.append(len(keys) / elapsed_s)
        if refused > len(keys) // 1000:  # a decision without an answer in time is none, on a machine that others use
            raise RuntimeError(f"{refused} of {len(keys)} decisions of {contender.name} were not made")

    async def memory(self, contender: Contender, clients: int) -> float:
        """Return the bytes that a client with two limits takes in Redis, all that it grew by counted."""
        self._plain.flushall()
        before = int(self._plain.info("memory")["used_memory_dataset"]) + int(
            self._plain.info("memory")["used_memory_overhead"]
        )
        for first in range(0, clients, 200):
            calls: list[Awaitable[bool]] = [
                contender.spend(f"m{n}", LIMITS[2]) for n in range(first, min(clients, first + 200))
            ]
            await asyncio.gather(*calls)
        told = self._plain.info("memory")
        return (int(told["used_memory_dataset"]) + int(told["used_memory_overhead"]) - before) / int(
            self._plain.dbsize()
        )


async def measure(server: RedisServer, decisions: int, rounds: int) -> list[str]:
    bench = Bench(server)
    made: list[Callable[[str], Any]] = [Ours, RedisPy, RedisPyPipeline]
    contenders: list[Contender] = [make(server.url) for make in made]
    for contender in contenders:
        await contender.open()
    print(f"{decisions} decisions a round, {IN_FLIGHT} in flight, the median of {rounds} rounds")
    print(
        f"{'clients':>8}{'limits':>7}  {'engine':<18}{'decisions/s':>12}{'client CPU':>12}{'Redis CPU':>11}{'ratio':>7}"
    )
    worst_client = worst_redis = hot = 0.0
    for clients in CLIENTS:
        keys = [f"c{random.randrange(clients)}" for _ in range(decisions)]  # noqa: S311 which client calls next
        for count, limits in LIMITS.items():
            found = {contender.name: Measured() for contender in contenders}
            for number in range(rounds + 1):
                for contender in contenders:
                    share = keys if contender is contenders[0] else keys[: decisions // 4]
                    into = found[contender.name] if number else Measured()  # the first round warms up
                    await bench.run(contender, share, limits, into)
            ours_us = statistics.median(found["clientpolicy"].client_us)
            for name, measured in found.items():
                per_s, client_us, redis_us = map(
                    statistics.median, (measured.per_s, measured.client_us, measured.redis_us)
                )
                ratio = f"{client_us / ours_us:>6.1f}x"
                print(
                    f"{clients:>8}{count:>7}  {name:<18}{per_s:>12,.0f}{client_us:>9.1f} µs{redis_us:>8.1f} µs{ratio:>7}"
                )
            worst_client = max(worst_client, ours_us)
            worst_redis = max(worst_redis, statistics.median(found["clientpolicy"].redis_us))
            if clients == 1:
                hot = max(hot, statistics.median(found["clientpolicy"].per_s))
    memory = await bench.memory(contenders[0], 100_000)
    for contender in contenders:
        await contender.close()
    return [
        verdict("client CPU a decision, worst", worst_client, CLIENT_TARGET_US, "µs", at_most=True),
        verdict("Redis CPU a decision, worst", worst_redis, REDIS_TARGET_US, "µs", at_most=True),
        verdict("one hot client", hot, HOT_TARGET, "decisions/s", at_most=False),
        verdict("Redis memory a client, two limits", memory, MEMORY_TARGET, "bytes", at_most=True),
    ]


def verdict(what: str, found: float, target: float, unit: str, *, at_most: bool) -> str:
    met = found <= target if at_most else found >= target
    return f"{what}: {found:,.1f} {unit} (target: {'at most' if at_most else 'at least'} {target:,} {unit}: {'met' if met else 'missed'})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--decisions", type=int, default=40_000, help="decisions a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                verdicts = runner.run(measure(server, arguments.decisions, arguments.rounds))
        finally:
            server.stop()
    print("\n".join(verdicts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
