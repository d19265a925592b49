"""What whoever runs the operator watches: read when somebody asks, not while it works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from clientpolicy_operator import clock

if TYPE_CHECKING:
    from clientpolicy_operator.app import Operator

Number = tuple[str, str, str, dict[str, str], float]  # `counter` or `gauge`, name, help, labels, value
DAYS_LEFT: Final = (0, 1, 3, 7, 14, 30, 90)


class Times:
    """A histogram of seconds."""

    BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

    def __init__(self) -> None:
        self._counts = [0] * (len(self.BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[sum(seconds > bound for bound in self.BOUNDS_S)] += 1
        self._sum_s += seconds

    def histogram(self) -> tuple[list[tuple[str, float]], float]:
        """Return cumulated buckets and the sum, s."""
        bounds = [*map(str, self.BOUNDS_S), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True)), self._sum_s


def numbers(operator: Operator) -> Iterator[Number]:
    """Return what the metrics page tells besides the times of visits."""
    yield from _policies(operator)
    if operator.is_leading:  # another replica knows nothing of the CA
        yield from _authority(operator)
    yield from _work(operator)


def _policies(operator: Operator) -> Iterator[Number]:
    now = clock.now()
    conditions: Counter[tuple[str, str]] = Counter()
    left: Counter[str] = Counter(dict.fromkeys((*map(_days, DAYS_LEFT), "more"), 0))
    for key, known in list(operator.roster):  # a copy: another thread may read it
        conditions.update(known.conditions)
        if known.not_after is None:
            continue
        left[_days_left(known.not_after, now)] += 1
        labels = {"namespace": key[0], "name": key[1]}
        told = "When the current certificate ends."
        yield "gauge", "clientpolicy_certificate_not_after_timestamp_seconds", told, labels, known.not_after.timestamp()
        if known.not_before is not None and known.not_before < known.not_after:
            told = "Share of its life that the current certificate has left; by default it is renewed at 0.33."
            ratio = max(0.0, (known.not_after - now) / (known.not_after - known.not_before))
            yield "gauge", "clientpolicy_certificate_life_left_ratio", told, labels, ratio
        if known.renewal is not None:
            told = "When the current certificate is to be renewed."
            stamp = known.renewal.timestamp()
            yield "gauge", "clientpolicy_certificate_renewal_timestamp_seconds", told, labels, stamp
    for (condition, status), count in sorted(conditions.items()):
        told = "ClientPolicies by condition and its status."
        yield "gauge", "clientpolicy_policy_conditions", told, {"condition": condition, "status": status}, count
    for days, count in left.items():
        told = "Current certificates by the days left to them, at most."
        yield "gauge", "clientpolicy_certificates", told, {"days_left": days}, count


def _days(days: int) -> str:
    return str(days) if days else "expired"


def _days_left(end: datetime, now: datetime) -> str:
    return next((_days(days) for days in DAYS_LEFT if end - now <= timedelta(days=days)), "more")


def _authority(operator: Operator) -> Iterator[Number]:
    trust, authority = operator.trust, operator.trust.authority
    told = "1 while the built-in CA can sign."
    yield "gauge", "clientpolicy_ca_available", told, {}, float(trust.signer is not None)
    if authority is not None:
        told = "When the root that signs now ends."
        stamp = authority.active.not_after.timestamp()
        yield "gauge", "clientpolicy_ca_not_after_timestamp_seconds", told, {}, stamp
        yield "gauge", "clientpolicy_ca_roots", "Roots that are published.", {}, len(authority.roots)
    if trust.lists.end is not None:
        told = "When the first of the published CRLs ends; past it a proxy that reads them refuses every client."
        yield "gauge", "clientpolicy_crl_next_update_timestamp_seconds", told, {}, trust.lists.end.timestamp()
    told = "Certificates that the CRLs had no room for; requests of theirs are refused all the same."
    yield "gauge", "clientpolicy_crl_left_out", told, {}, trust.lists.left_out
    told = "Namespaces that another operator serves; this one does nothing there."
    yield "gauge", "clientpolicy_namespaces_of_others", told, {}, len(operator.territory.others)
    told = "Namespaces that the trust bundle cannot be published in."
    yield "gauge", "clientpolicy_trust_publish_failures", told, {}, len(trust.publish_failures)
    yield "counter", "clientpolicy_ca_rotations", "Times that another root took over.", {}, trust.rotations
    told = "Certificates that are signed and in no Secret yet; their keys wait in memory."
    yield "gauge", "clientpolicy_certificates_unstored", told, {}, operator.reconciler.unstored
    for reason, count in sorted(operator.reconciler.signings.copy().items()):
        yield "counter", "clientpolicy_signings", "Certificates signed, by why.", {"reason": reason}, count


def _work(operator: Operator) -> Iterator[Number]:
    watch = operator.sight.watch
    silence_s = watch.silence_s
    yield "gauge", "clientpolicy_watching", "1 while ClientPolicies are watched.", {}, float(watch.is_open)
    if silence_s is not None:
        told = "How long the quietest watch has brought nothing."
        yield "gauge", "clientpolicy_watch_silence_seconds", told, {}, silence_s
    yield "counter", "clientpolicy_watch_restarts", "Times that watching began anew.", {}, watch.restarts
    yield "counter", "clientpolicy_watch_errors", "Requests of the watch that failed.", {}, watch.errors
    yield "gauge", "clientpolicy_leading", "1 while this replica acts.", {}, float(operator.is_leading)
    yield "gauge", "clientpolicy_agenda_overdue", "Policies that wait for a hand.", {}, operator.agenda.overdue
    for result, count in operator.visits.items():
        yield "counter", "clientpolicy_reconciles", "Visits of a policy, by result.", {"result": result}, count
    for kind, count in sorted(operator.api.errors.copy().items()):
        yield "counter", "clientpolicy_api_errors", "Failed requests to the API server.", {"kind": kind}, count
    yield "counter", "clientpolicy_api_writes", "Writes to the API server.", {}, operator.api.writes
    told = "How far the API server's clock is ahead of this one."
    yield "gauge", "clientpolicy_clock_skew_seconds", told, {}, operator.api.skew_s
    yield (
        "counter",
        "clientpolicy_events_dropped",
        "Kubernetes events that were not posted.",
        {},
        operator.events.dropped,
    )
