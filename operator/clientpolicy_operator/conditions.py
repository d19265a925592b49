"""The conditions of a ClientPolicy, in the words of the Kubernetes API conventions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from authz.policy import ClientPolicy, FieldError, Source
from authz.policy.cautions import R4, cautions
from clientpolicy_operator.facts import Blocked, Document, Subject
from clientpolicy_operator.told import is_revoked, text, when_of

ERRORS_SHOWN: Final = 10
MESSAGE_MAX: Final = 4000
TYPES: Final = ("Accepted", "CertificateReady", "Issuing", "QuotaReady", "Programmed", "Ready")
_STILL_GOOD: Final = (
    "Renewing",
    "RenewalRequested",
    "RequestChanged",
    "IncorrectIssuer",
)  # what is there holds until its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How issuing stands: why a certificate is due, and what keeps it from being made."""

    reason: str | None = None
    blocked: Blocked | None = None
    is_failure: bool = False  # counted, so that attempts grow rarer


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition without its times."""

    holds: bool
    reason: str
    message: str


def _yes(reason: str, message: str) -> Condition:
    return Condition(holds=True, reason=reason, message=message[:MESSAGE_MAX])


def _no(reason: str, message: str) -> Condition:
    return Condition(holds=False, reason=reason, message=message[:MESSAGE_MAX])


def conditions_of(
    subject: Subject, standing: Standing, certificate: Document, now: datetime
) -> Iterator[tuple[str, Condition]]:
    accepted = _accepted(subject)
    yield "Accepted", accepted
    if subject.policy is None or not accepted.holds:
        later = _no("NotAccepted", "see Accepted")
        yield from ((name, later) for name in TYPES[1:] if name != "Ready")
        yield "Ready", _no(accepted.reason, accepted.message)
        return
    ready = _certificate_ready(subject.policy, standing, certificate, now)
    yield "CertificateReady", ready
    yield "Issuing", _issuing(standing)
    count = len(subject.policy.spec.quotas)
    yield (
        "QuotaReady",
        _yes("Compiled", f"{count} compiled, exact") if count else _yes("NoQuota", "this client is not limited"),
    )
    if ready.holds:
        yield "Programmed", _yes("Programmed", "fingerprints and quotas stand in this status")
    else:
        yield "Programmed", _no("Pending", "no valid certificate identifies this client")
    yield "Ready", _ready(subject.policy, ready)


def _accepted(subject: Subject) -> Condition:
    if subject.policy is None:
        return _no("Invalid", _told(subject.errors))
    if subject.beyond:
        return _no("BeyondCeiling", _told(subject.beyond))
    if subject.conflict is not None:
        winner, claim = subject.conflict
        # A certificate that was made for a policy is that policy's, however young.
        who = winner if claim.startswith("fingerprint ") else f"{winner}, which is older,"
        return _no("Conflicted", f"{who} claims {claim}")
    doubtful = tuple(cautions(subject.policy, R4))
    if doubtful:
        return _yes("AcceptedWithWarnings", f"valid, and within what the platform allows; but {_told(doubtful)}")
    return _yes("Accepted", "valid, and within what the platform allows")


def _told(errors: tuple[FieldError, ...]) -> str:
    more = len(errors) - ERRORS_SHOWN
    return "; ".join(map(str, errors[:ERRORS_SHOWN])) + (f"; and {more} more" if more > 0 else "")


def _certificate_ready(policy: ClientPolicy, standing: Standing, certificate: Document, now: datetime) -> Condition:
    source = policy.spec.certificate.source
    if source is Source.NONE:
        return _yes("NotNeeded", "the verified token identifies this client")
    if source is Source.EXTERNAL:
        count = len(policy.spec.certificate.fingerprints)
        return _yes("Provided", f"listed: {count} of the partner's own certificates")
    if standing.blocked is not None and not standing.is_failure and standing.reason not in _STILL_GOOD:
        return _no(standing.blocked.trouble.value, standing.blocked.message)
    end, begin = when_of(certificate, "notAfter"), when_of(certificate, "notBefore")
    sha256 = str(certificate.get("sha256", ""))
    if end is not None and end > now and not is_revoked(policy, sha256, begin):
        return _yes("Issued", f"valid until {text(end)}")
    if standing.blocked is not None:
        return _no(standing.blocked.trouble.value, standing.blocked.message)
    if end is not None:
        return _no("Expired" if end <= now else "Revoked", "the certificate no longer counts")
    return _no("Pending", "no certificate yet")


def _issuing(standing: Standing) -> Condition:
    if standing.blocked is None:
        return _no("UpToDate", "no other certificate is due")
    if standing.reason is None:
        return _yes(standing.blocked.trouble.value, standing.blocked.message)
    told = f"{standing.blocked.trouble.value}: {standing.blocked.message}"
    return _yes(standing.reason, told)


def _ready(policy: ClientPolicy, certificate: Condition) -> Condition:
    if policy.spec.suspended:
        return _no("Suspended", "spec.suspended: every request is refused")
    if not certificate.holds:
        return _no(certificate.reason, certificate.message)
    return _yes("Ready", f"{certificate.message}; mode {policy.spec.mode.value}")


def timed(conditions: Mapping[str, Condition], old: object, generation: int, now: datetime) -> list[dict[str, object]]:
    """Return the conditions as Kubernetes lists them; a time moves only when a status flips, others' are kept."""
    listed = [one for one in (old if isinstance(old, list) else ()) if isinstance(one, dict)]
    before = {kind: one for one in listed if isinstance(kind := one.get("type"), str)}
    told: list[dict[str, object]] = []
    for name, condition in conditions.items():
        holds = str(condition.holds)
        was = before.pop(name, {})
        since = was.get("lastTransitionTime") if was.get("status") == holds else None
        told.append({
            "type": name, "status": holds, "reason": condition.reason, "message": condition.message,
            "observedGeneration": generation, "lastTransitionTime": since or text(now),
        })  # fmt: skip
    return [*told, *before.values()]
