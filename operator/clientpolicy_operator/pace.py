"""At most so many signings a second, so that a mass edit leaves the API server room for others."""

from __future__ import annotations

import asyncio

from clientpolicy_operator import clock


class Pace:
    """A virtual schedule: each one's turn is a fixed time after the one before."""

    def __init__(self, per_second: int) -> None:
        self._gap_s = 1 / per_second
        self._next_s = 0.0

    async def wait(self) -> None:
        now_s = clock.monotonic_s()
        turn_s = max(now_s, self._next_s)
        self._next_s = turn_s + self._gap_s
        if turn_s > now_s:
            await asyncio.sleep(turn_s - now_s)
