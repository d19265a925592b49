"""Histories of quotas: replicas as processes, every admitted call with its instant, and what exceeds the stated bound."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from authz.core.debts import GRACE_US
from authz.policy.limits import RateLimit

PROGRAM = Path(__file__).parent / "history_replica.py"
REPLY_US = (
    60_000  # what a decision may wait for, on a busy machine: an admission is seen that much later than it was made
)

RECENT_US = 2_000_000


@dataclass
class History:
    """What the replicas of a fleet wrote down, by key; instants in µs."""

    passed: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    early: int = 0  # calls that were refused at the wait that they had been told
    silent_us: list[int] = field(default_factory=list)  # of each replica: without an answer, beyond GRACE
    answered: bool = True  # each replica heard of its store in the last seconds

    def read(self, lines: list[str]) -> None:
        heard: list[tuple[str, int]] = []
        last_us = {"A": 0}
        for line in lines:
            what, key, instant = line.split()
            if what == "P":
                self.passed[key].append(int(instant))
            elif what == "E":
                self.early += 1
            elif what in "AU":
                last_us[what] = int(instant)
                if not heard or heard[-1][0] != what:
                    heard.append((what, int(instant)))
        spans = [until - since for (what, since), (_, until) in pairwise([*heard, ("end", _end(lines))]) if what == "U"]
        self.silent_us.append(sum(max(0, span - GRACE_US) for span in spans))
        self.answered = self.answered and last_us["A"] > _end(lines) - RECENT_US

    @property
    def unconfirmed_us(self) -> int:
        """The d of the bound: the replicas' mean, GRACE at least."""
        return GRACE_US + sum(self.silent_us) // len(self.silent_us)

    def pause_us(self, key: str = "k") -> int:
        """Return the longest time between two calls of a key that were admitted."""
        instants = sorted(self.passed[key])
        return max(later - earlier for earlier, later in pairwise(instants))

    def excess(self, limit: RateLimit, *, capacities: int = 2) -> float:
        """Return by how many calls the worst window of any key exceeds `capacities`·C + r·(t + d)."""
        worst = -float("inf")
        for instants in self.passed.values():
            worst = max(worst, _most_beyond(sorted(instants), limit))
        beside = Fraction((self.unconfirmed_us + REPLY_US) * limit.count, limit.period_us)
        return worst - capacities * limit.capacity - float(beside) - len(self.silent_us)  # each rounds one call up


def _end(lines: list[str]) -> int:
    return int(lines[-1].split()[2])


def _most_beyond(instants: list[int], limit: RateLimit) -> float:
    """Return the most, of all windows, of its calls less what the rate makes good in it."""
    rate = limit.count / limit.period_us
    first = instants[0] if instants else 0
    lowest, worst = float("inf"), 0.0
    for number, instant in enumerate(instants):
        made_good = rate * (instant - first)
        lowest = min(lowest, number - made_good)
        worst = max(worst, number + 1 - made_good - lowest)
    return worst


class Fleet:
    """Replicas of one installation, each with callers that ask as fast as they may."""

    def __init__(self, urls: list[str], limits: list[dict[str, Any]], **task: Any) -> None:
        self.prefix = f"{uuid4()}:"
        shared = {"limits": limits, "prefix": self.prefix, "replicas": len(urls), "keys": ["k"], "callers": 3}
        self._tasks = [shared | task | {"url": url} for url in urls]
        self._processes: list[subprocess.Popen[str]] = []
        self._lines: list[list[str]] = [[] for _ in urls]
        self._readers: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        for task in self._tasks:
            self._start(task)
        loop = asyncio.get_running_loop()
        for number, process in enumerate(self._processes):
            assert process.stdout is not None
            line = await asyncio.wait_for(loop.run_in_executor(None, process.stdout.readline), 60)
            assert line.startswith("R"), "a replica did not start"
            self._readers.append(loop.run_in_executor(None, self._read, number))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        await asyncio.gather(*self._readers)
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            process.wait()

    def _start(self, task: dict[str, Any]) -> None:
        words = [sys.executable, str(PROGRAM)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        self._tell(process, task)

    def _read(self, number: int) -> None:
        pipe = self._processes[number].stdout
        assert pipe is not None
        self._lines[number] += list(pipe)

    @staticmethod
    def _tell(process: subprocess.Popen[str], change: dict[str, Any]) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(change) + "\n")
        process.stdin.flush()

    def change(self, **change: Any) -> None:
        """Have all replicas do something else: other limits, other pauses."""
        for process in self._processes:
            self._tell(process, change)

    async def history(self) -> History:
        """End the replicas and return what they wrote."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            assert await asyncio.to_thread(process.wait, 30) == 0
        await asyncio.gather(*self._readers)
        history = History()
        for lines in self._lines:
            history.read(lines)
        return history
