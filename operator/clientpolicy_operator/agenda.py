"""What to look at next: a queue of due times in which every object stands once, and no two hands hold the same one."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from clientpolicy_operator.facts import Key

LOOK_S: Final = 5.0  # the wall clock may jump: due times are compared to it again at least that often
SLACK: Final = 1024  # entries of the heap that were overtaken, beyond those that count


class Agenda:
    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._latest = now()
        self._heap: list[tuple[datetime, Key]] = []
        self._due: dict[Key, datetime] = {}
        self._rests: dict[Key, datetime] = {}
        self._held: set[Key] = set()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    @property
    def overdue(self) -> int:
        """How many wait for a hand."""
        now = self._now()
        return sum(when <= now for when in list(self._due.values()))

    def at(self, key: Key, when: datetime) -> None:
        """Have it looked at then, or earlier if that was agreed before, but not while it rests."""
        when = max(when, self._rests.get(key, when))
        if key in self._due and self._due[key] <= when:
            return
        self._due[key] = when
        heapq.heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._rebuild()
        self._news.set()

    def _rebuild(self) -> None:
        """Leave out what was overtaken: an object that is edited again and again leaves one behind each time."""
        self._heap = [(when, key) for key, when in self._due.items()]
        heapq.heapify(self._heap)

    def soon(self, key: Key) -> None:
        self.at(key, self._now())

    def rest(self, key: Key, until: datetime) -> None:
        """Have it looked at no earlier than then, whoever asks for it."""
        self._rests[key] = until
        if key in self._due and self._due.pop(key) < until:
            self.at(key, until)

    def shorten(self, key: Key, until: datetime) -> None:
        """Have it rest no longer than until then."""
        if key in self._rests:
            self._rests[key] = min(self._rests[key], until)

    def drop(self, key: Key) -> None:
        self._due.pop(key, None)
        self._rests.pop(key, None)

    async def take(self) -> Key:
        """Return the next object that is due; until `done`, nobody else gets it."""
        while True:
            key, wait_s = self._next()
            if key is not None:
                self._held.add(key)
                return key
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    def _read(self) -> datetime:
        """Return the time; where the clock was set back, what is due moves with it, or it would wait as much longer."""
        now = self._now()
        back = self._latest - now
        self._latest = now
        if back > timedelta(seconds=LOOK_S):
            self._due = {key: when - back for key, when in self._due.items()}
            self._rests = {key: when - back for key, when in self._rests.items()}
            self._rebuild()
        return now

    def _next(self) -> tuple[Key | None, float]:
        now, postponed = self._read(), []
        key: Key | None = None
        wait_s = LOOK_S
        while self._heap:
            when, candidate = self._heap[0]
            if self._due.get(candidate) != when:  # dropped, or due at another time
                heapq.heappop(self._heap)
            elif when > now:
                wait_s = min(LOOK_S, (when - now).total_seconds())
                break
            elif candidate in self._held:  # `done` wakes us
                postponed.append(heapq.heappop(self._heap))
            else:
                heapq.heappop(self._heap)
                del self._due[candidate]
                self._rests.pop(candidate, None)
                key = candidate
                break
        for entry in postponed:
            heapq.heappush(self._heap, entry)
        return key, wait_s

    def done(self, key: Key, again: datetime | None) -> None:
        """Give it back, to be looked at again then."""
        self._held.discard(key)
        if again is not None:
            self.at(key, again)
        self._news.set()
