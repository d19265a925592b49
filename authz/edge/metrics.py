"""What an operator of the service watches; labels come only from enums and configuration, never from a caller."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from authz.core.decide import Allow, Shadowed, Verdict
from authz.model import Reason

_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2)
ABANDONED: Final = "abandoned"


class Decisions:
    """Counts verdicts by reason, and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        total = Counter(
            "clientpolicy_decisions",
            "Decisions by verdict and reason; shadow: would have been refused, but the client is in Shadow mode.",
            ("verdict", "reason"),
            registry=registry,
        )
        self._children = {
            (verdict, reason): total.labels(verdict, reason)
            for verdict, reason in (
                *(("deny", reason.value) for reason in Reason if reason is not Reason.ALLOWED),
                *(("shadow", reason.value) for reason in Reason if reason is not Reason.ALLOWED),
                ("allow", Reason.ALLOWED.value),
                (ABANDONED, ABANDONED),
            )
        }
        self._seconds = Histogram(
            "clientpolicy_decision_seconds", "Time of a decision.", buckets=_SECONDS, registry=registry
        )

    def count(self, verdict: Verdict | None, duration_us: int) -> None:
        """Count a verdict; None is a caller that went away before there was one."""
        if verdict is None:
            key = (ABANDONED, ABANDONED)
        elif isinstance(verdict, Allow):
            key = ("allow", Reason.ALLOWED.value)
        else:
            key = ("shadow" if isinstance(verdict, Shadowed) else "deny", verdict.refused.reason.value)
        self._children[key].inc()
        self._seconds.observe(duration_us / 1e6)


class Source(Protocol):
    """Where the numbers are that others keep: read when somebody asks for the metrics, not on each request."""

    def numbers(self) -> Iterable[tuple[str, str, str, dict[str, str], float]]:
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
