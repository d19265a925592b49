"""A real Redis for tests: on a free port of this machine, with nothing of anybody else's in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = "redis-server"


class RedisServer:
    """`options` are redis-server's own; `config` is a file for the few things that have no option."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        config: Path | None = None,
        program: str = PROGRAM,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._program = program
        self._folder = folder
        self._options = options
        self._config = () if config is None else (str(config),)
        self._environment = environment
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> Path:
        return self._folder / "redis.sock"

    def option(self, name: str) -> str:
        return self._options[self._options.index(name) + 1]

    def start(self) -> None:
        """Start on a free port; another program may take it first, so try again."""
        for _ in range(5):
            self.port = self.port or free_port()
            self.process = subprocess.Popen(
                [self._program, *self._config, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket),
                 "--save", "", "--appendonly", "no", "--dir", str(self._folder),
                 "--enable-debug-command", "local", *self._options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=None if self._environment is None else os.environ | self._environment,
            )  # fmt: skip
            if self._answers():
                return
            self.stop()
            self.port = 0
        raise RuntimeError(f"{self._program} does not start")

    def _answers(self) -> bool:
        for _ in range(500):
            if self.process is None or self.process.poll() is not None:
                return False
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                        return True
            except OSError:
                time.sleep(0.02)
        return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Clock:
    """The wall clock of a Redis, which a test sets while it runs."""

    def __init__(self, folder: Path) -> None:
        require("gcc")
        self._file, self._library = folder / "clock", folder / "stepped_clock.so"
        self.set(0)
        source = Path(__file__).parent / "stepped_clock.c"
        words = ["gcc", "-shared", "-fPIC", "-nostdlib", "-o", str(self._library), str(source)]
        subprocess.run(words, check=True)

    def set(self, ahead_s: int) -> None:
        self._file.write_bytes((ahead_s * 1_000_000).to_bytes(8, sys.byteorder, signed=True))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "STEPPED_CLOCK": str(self._file)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def require(program: str) -> None:
    """Skip a test whose program is missing; in CI nothing may be missing."""
    if shutil.which(program) is not None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{program} is not installed, and CI skips nothing")
    pytest.skip(f"{program} is not installed")
