"""When a node of Redis is given up for a while: it failed too often, in a row or in a second."""

from __future__ import annotations

from typing import Final

IN_A_ROW: Final = 5
OF_AT_LEAST: Final = 20
WITHIN_S: Final = 1.0


class Breaker:
    """Pure: instants are arguments, in s of any clock that never goes back."""

    def __init__(self) -> None:
        self.reset(0.0)

    def reset(self, now_s: float) -> None:
        self._row = 0
        self._since_s = now_s
        self._calls = 0
        self._failures = 0

    def succeeded(self, now_s: float) -> None:
        self._count(now_s)
        self._row = 0

    def failed(self, now_s: float) -> bool:
        """Return whether that is too often: five times in a row, or half of at least 20 calls within a second."""
        self._count(now_s)
        self._row += 1
        self._failures += 1
        return self._row >= IN_A_ROW or (self._calls >= OF_AT_LEAST and 2 * self._failures >= self._calls)

    def _count(self, now_s: float) -> None:
        if now_s - self._since_s >= WITHIN_S:
            row = self._row
            self.reset(now_s)
            self._row = row
        self._calls += 1
