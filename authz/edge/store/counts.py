"""What the store's engine did, in plain integers that the metrics page reads when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from authz.edge.store.ask import Ask

BOUNDS_US: Final = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000)
KINDS_MAX: Final = 32  # kinds of failure that are told apart; Redis's codes are few, but it is Redis that sends them
OTHER: Final = "other"


class Counts:
    def __init__(self) -> None:
        self.decisions = 0  # callers that asked Redis
        self.keys = 0  # keys in script calls: callers less those merged with another
        self.calls = 0  # script calls
        self.connections = 0
        self.failures: Counter[str] = Counter()  # script calls without a usable answer, by kind
        self._buckets = [0] * (len(BOUNDS_US) + 1)
        self._sum_s = 0.0

    def sent(self, asks: Sequence[Ask]) -> None:
        self.calls += 1
        self.keys += len(asks)
        for ask in asks:
            self.decisions += len(ask.waiters)

    def answered(self, seconds: float) -> None:
        self._buckets[bisect_left(BOUNDS_US, seconds * 1e6)] += 1
        self._sum_s += seconds

    def failed(self, kind: str) -> None:
        self.failures[kind if kind in self.failures or len(self.failures) < KINDS_MAX else OTHER] += 1

    def histogram(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulated buckets of the time of a script call, and its sum, in s."""
        bounds = [*(str(bound / 1e6) for bound in BOUNDS_US), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._buckets)), strict=True)), self._sum_s
