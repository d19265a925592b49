"""One replica of a history: a process with the engine as the service uses it, that writes down what it decided.

Reads its task from standard input, a JSON line, and further lines that change it; ends when that ends. Writes a line for
each event: `P key instant` a call that was admitted, `E` one that was refused at the wait that an earlier refusal had
told, `A` the store answered and `U` it did not (the first of each in a row, and one in 100 ms). Instants are µs of the machine's monotonic
clock, the same for all processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from authz.core.quota import Exceeded, Unknown, Within
from authz.edge import clock
from authz.edge.store.limiter import Limiter
from authz.edge.store.node import TIMEOUT_S
from authz.edge.store.place import read_place
from authz.edge.store.redis import RedisStore
from authz.policy.limits import Calendar, Limit, OnStoreFailure, calendar_limit, rate_limit


def limits_of(told: list[dict[str, Any]]) -> tuple[Limit, ...]:
    limits: list[Limit] = []
    for one in told:
        fields = dict(one, on_store_failure=OnStoreFailure(one.get("on_store_failure", "Local")))
        if "calendar" in fields:
            limits.append(calendar_limit(**(fields | {"calendar": Calendar(fields["calendar"])})))
        else:
            limits.append(rate_limit(**fields))
    return tuple(limits)


class Replica:
    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._limits = limits_of(task["limits"])
        self._store = RedisStore(
            read_place(task["url"], password_file=Path(task["password_file"]) if "password_file" in task else None),
            prefix=task["prefix"],
            replicas=task["replicas"],
            timeout_s=task.get("timeout_s", TIMEOUT_S),
        )
        self._limiter = Limiter(self._store, replicas=task["replicas"], clock=clock.monotonic_us)
        self._heard = ""
        self._heard_us = 0

    def _write(self, what: str, key: str) -> None:
        sys.stdout.write(f"{what} {key} {clock.monotonic_us()}\n")

    def _hear(self, what: str, key: str) -> None:
        now_us = clock.monotonic_us()
        if what != self._heard or now_us - self._heard_us > 100_000:
            self._heard, self._heard_us = what, now_us
            self._write(what, key)

    async def _call(self, key: str, *, waited: bool) -> int:
        """Decide one call; return how long its caller waits before the next, µs."""
        now_us = clock.now_us()
        outcome: Within | Exceeded | Unknown | None = self._limiter.known(key, self._limits, now_us=now_us)
        if outcome is None:
            lacking = self._limiter.local + self._limiter.closed
            outcome = await self._limiter.spend(key, self._limits, now_us=now_us)
            self._hear("U" if self._limiter.local + self._limiter.closed > lacking else "A", key)
        if isinstance(outcome, Within):
            self._write("P", key)
        elif waited:
            self._write("E", key)
        if isinstance(outcome, Exceeded) and self._task.get("obeys"):
            return outcome.wait_us + 1_000
        return int(self._task.get("pause_us", 2_000))

    async def caller(self, key: str) -> None:
        waited = False
        while True:
            wait_us = await self._call(key, waited=waited)
            waited = bool(self._task.get("obeys")) and wait_us > int(self._task.get("pause_us", 2_000))
            limits = self._limits
            await asyncio.sleep(wait_us / 1e6)
            waited = waited and limits is self._limits

    async def run(self) -> None:
        await self._limiter.open()
        if self._task.get("waits", True):
            while not self._store.nodes or not all(node.is_up for node in self._store.nodes):
                await asyncio.sleep(0.01)
        self._write("R", "-")
        sys.stdout.flush()
        callers = [
            asyncio.create_task(self.caller(key)) for key in self._task["keys"] for _ in range(self._task["callers"])
        ]
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            self._task |= json.loads(line)
            self._limits = limits_of(self._task["limits"])
        for caller in callers:
            caller.cancel()
        ended = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended
        await self._limiter.close()


if __name__ == "__main__":
    asyncio.run(Replica(json.loads(sys.stdin.readline())).run())
