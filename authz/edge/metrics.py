"""What an operator of the service watches; labels come only from enums and configuration, never from a caller."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from authz.core.decide import Allow, Shadowed, Verdict
from authz.model import Reason

_BOUNDS_US: Final = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 200_000)
ABANDONED: Final = "abandoned"


class Decisions(Collector):
    """Counts verdicts by reason, and how long they took; plain integers, read when somebody asks."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(
            (
                *(
                    (verdict, reason)
                    for verdict in ("deny", "shadow")
                    for reason in Reason
                    if reason is not Reason.ALLOWED
                ),
                ("allow", Reason.ALLOWED),
                (ABANDONED, None),
            ),
            0,
        )
        self._buckets = [0] * (len(_BOUNDS_US) + 1)
        self._sum_us = 0

    def count(self, verdict: Verdict | None, duration_us: int) -> None:
        """Count a verdict; None is a caller that went away before there was one."""
        self._buckets[bisect_left(_BOUNDS_US, duration_us)] += 1
        self._sum_us += duration_us
        if isinstance(verdict, Allow):
            self._counts["allow", Reason.ALLOWED] += 1
        elif verdict is None:
            self._counts[ABANDONED, None] += 1
        else:
            self._counts["shadow" if isinstance(verdict, Shadowed) else "deny", verdict.refused.reason] += 1

    def collect(self) -> Iterable[Metric]:
        told = "Decisions by verdict and reason; shadow: refused, but the client is in Shadow mode."
        total = CounterMetricFamily("clientpolicy_decisions", told, labels=("verdict", "reason"))
        for (verdict, reason), count in self._counts.items():
            total.add_metric((verdict, reason.value if reason is not None else verdict), count)
        seconds = HistogramMetricFamily("clientpolicy_decision_seconds", "Time of a decision.")
        bounds = [*(str(bound / 1e6) for bound in _BOUNDS_US), "+Inf"]
        seconds.add_metric((), list(zip(bounds, accumulate(self._buckets), strict=True)), self._sum_us / 1e6)
        return total, seconds


class Histogram(Collector):
    """Times that others keep; `histogram` returns cumulated buckets and the sum, s."""

    def __init__(
        self, name: str, documentation: str, histogram: Callable[[], tuple[list[tuple[str, float]], float]]
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._histogram = histogram

    def collect(self) -> Iterable[Metric]:
        seconds = HistogramMetricFamily(self._name, self._documentation)
        seconds.add_metric((), *self._histogram())
        return (seconds,)


Number = tuple[str, str, str, dict[str, str], float]


class Cache(Protocol):
    """What a map of `core.cache` counts of itself."""

    hits: int
    misses: int
    bytes: int

    def __len__(self) -> int: ...


def numbers_of(name: str, cache: Cache) -> Iterable[Number]:
    labels = {"cache": name}
    yield "counter", "clientpolicy_cache_hits", "Cache hits.", labels, cache.hits
    yield "counter", "clientpolicy_cache_misses", "Cache misses.", labels, cache.misses
    yield "gauge", "clientpolicy_cache_entries", "Cache entries.", labels, len(cache)
    yield "gauge", "clientpolicy_cache_bytes", "What the cache's entries take in memory, at most.", labels, cache.bytes


class Source(Protocol):
    """Where the numbers are that others keep: read when somebody asks for the metrics, not on each request."""

    def numbers(self) -> Iterable[Number]:
        """Return (`counter` or `gauge`, name, help, labels, value)."""


class Readings(Collector):
    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for kind, name, documentation, labels, value in self._source.numbers():
            family = families.get(name)
            if family is None:
                make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
                family = families[name] = make(name, documentation, labels=tuple(labels))
            family.add_metric(tuple(labels.values()), value)
        return families.values()
