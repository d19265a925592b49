"""The status of a ClientPolicy: what is true of it, in the words of the Kubernetes API conventions. Pure.

authz trusts the fingerprints that stand here, so they are told only of certificates that this object may use.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from authz.policy import ClientPolicy, Source
from authz.policy.limits import CalendarLimit, Limit
from clientpolicy_operator.conditions import Standing, conditions_of, timed
from clientpolicy_operator.facts import Document, Held, Leaf, Observed, Subject, Trouble
from clientpolicy_operator.timing import BACKOFF_FIRST, reissue_time, renewal_time, retry_time
from clientpolicy_operator.told import (
    condition_of,
    int_of,
    is_revoked,
    map_of,
    previous_of,
    secret_name,
    stolen_with_their_key,
    text,
    when_of,
)

PREVIOUS_MAX: Final = 32
ATTEMPTS_MAX: Final = 2**31 - 1  # what the CRD's int32 holds
_ENDED_BY_EDITS: Final = (Trouble.CSR_INVALID, Trouble.TOO_MANY)  # or with a certificate, whose end is due anyway
LOOK_MAX: Final = timedelta(minutes=5)  # between two looks at what somebody else has to mend


def report(subject: Subject, observed: Observed, standing: Standing, now: datetime) -> dict[str, object]:
    """Return the whole status; equal to the one observed where nothing has changed."""
    old = observed.status
    certificate = _certificate(subject, observed, standing, now)
    quotas = _quotas(subject)
    conditions = dict(conditions_of(subject, standing, certificate, now))
    told: dict[str, object] = {**old, "observedGeneration": subject.generation}
    told["conditions"] = timed(conditions, old.get("conditions"), subject.generation, now)
    for name, value in (("certificate", certificate), ("quotas", quotas)):
        told.pop(name, None)
        if value:
            told[name] = value
    return told


def next_change(
    subject: Subject, observed: Observed, told: Document, standing: Standing, now: datetime
) -> datetime | None:
    """Return when something is due by itself; None where only an edit or another's hand changes anything."""
    if subject.policy is None or not subject.is_accepted:
        return None
    certificate = map_of(told.get("certificate"))
    due = [when for when in (when_of(certificate, name) for name in ("renewalTime", "notAfter")) if when is not None]
    due += [when for one in previous_of(told) if (when := when_of(one, "notAfter")) is not None]
    blocked = standing.blocked
    if blocked is not None and blocked.trouble not in _ENDED_BY_EDITS:
        due += [blocked.until or _again(told, standing, now)]
        due += [when for when in (subject.policy.spec.revocation.issued_before,) if when is not None]
    signer = observed.signer
    if signer is not None and certificate.get("caSha256") not in (None, signer.sha256):
        due.append(reissue_time(signer, subject.uid))
    ahead = [when for when in due if when > now]
    return min(ahead, default=None)


def _again(told: Document, standing: Standing, now: datetime) -> datetime:
    """Return when to try again: after failures by their number, else the more rarely the longer it has lasted."""
    if standing.is_failure:
        return retry_time(now, int_of(map_of(told.get("certificate")).get("failedIssuanceAttempts")))
    since = when_of(condition_of(told, "Issuing"), "lastTransitionTime") or now
    return now + min(max(now - since, BACKOFF_FIRST), LOOK_MAX)


def _certificate(subject: Subject, observed: Observed, standing: Standing, now: datetime) -> dict[str, object]:
    old = dict(map_of(observed.status.get("certificate")))
    policy = subject.policy
    if policy is None or not subject.is_accepted:
        return old
    source = policy.spec.certificate.source
    if source is Source.EXTERNAL:
        return {"fingerprints": list(policy.spec.certificate.fingerprints)}
    if source is Source.NONE:
        return {}
    old.pop("fingerprints", None)
    attempts = {"failedIssuanceAttempts": int_of(old.pop("failedIssuanceAttempts", 0)),
                "lastFailureTime": old.pop("lastFailureTime", None)}  # fmt: skip
    if standing.is_failure:
        attempts = {
            "failedIssuanceAttempts": min(int_of(attempts["failedIssuanceAttempts"]) + 1, ATTEMPTS_MAX),
            "lastFailureTime": text(now),
        }
    elif standing.blocked is None:
        attempts = {}
    leaf = _leaf(policy, observed)
    if leaf is not None and _is_current(policy, standing, leaf, old):
        old = _current(subject, policy, observed, leaf, old)
    if str(old.get("sha256", "")) in stolen_with_their_key(policy, observed.entries):
        old = {name: value for name, value in old.items() if name in ("secretName", "revision")}
    previous = earlier(policy, observed, str(old.get("sha256", "")), now)[:PREVIOUS_MAX]
    old.pop("previous", None)
    return {**old, **({"previous": previous} if previous else {}), **{k: v for k, v in attempts.items() if v}}


def _is_current(policy: ClientPolicy, standing: Standing, leaf: Leaf, old: Mapping[str, object]) -> bool:
    """Tell whether the status is to speak of this certificate: it is good, or already spoken of and nothing is due."""
    if policy.spec.certificate.issuer_ref is not None:  # whatever cert-manager does next, this is what it made
        return not is_revoked(policy, leaf.sha256, leaf.not_before)
    return standing.reason is None and (standing.blocked is None or old.get("sha256") == leaf.sha256)


def _leaf(policy: ClientPolicy, observed: Observed) -> Leaf | None:
    if policy.spec.certificate.issuer_ref is not None:
        return observed.delegated.leaf
    return observed.secret.leaf if isinstance(observed.secret, Held) else None


def _current(
    subject: Subject, policy: ClientPolicy, observed: Observed, leaf: Leaf, old: Mapping[str, object]
) -> dict[str, object]:
    wanted = policy.spec.certificate
    entry = next((one for one in observed.entries if one.sha256 == leaf.sha256), None)
    issuer = (
        entry.ca_sha256 if entry is not None else (old.get("caSha256") if old.get("sha256") == leaf.sha256 else None)
    )
    if wanted.issuer_ref is not None:
        revision, issuer, renewal = observed.delegated.revision, None, observed.delegated.renewal
    else:
        revision = observed.secret.revision if isinstance(observed.secret, Held) else 0
        renewal = renewal_time(policy, leaf, subject.uid, observed.signer)
        if observed.signer is None and old.get("sha256") == leaf.sha256:
            renewal = when_of(old, "renewalTime")  # the CA's end is not known just now
    told = {
        "secretName": secret_name(subject.name, policy),
        "serialNumber": leaf.serial,
        "sha256": leaf.sha256,
        "notBefore": text(leaf.not_before),
        "notAfter": text(leaf.not_after),
        "renewalTime": text(renewal) if renewal is not None else None,
        "revision": revision,
        "caSha256": issuer,
    }
    return {name: value for name, value in told.items() if value is not None}


def earlier(policy: ClientPolicy, observed: Observed, current: str, now: datetime) -> list[dict[str, object]]:
    """Return earlier certificates that still count, the youngest first: what was current joins once another one is."""
    old, stolen = observed.status, stolen_with_their_key(policy, observed.entries)
    was = map_of(old.get("certificate"))
    fields = ("sha256", "serialNumber", "notBefore", "notAfter", "revision", "caSha256")
    rows = [{name: was[name] for name in fields if name in was}, *(dict(one) for one in previous_of(old))]
    kept: dict[str, dict[str, object]] = {}
    for row in rows:
        sha256, begin, end = str(row.get("sha256", "")), when_of(row, "notBefore"), when_of(row, "notAfter")
        if sha256 in ("", current, *stolen) or end is None or end <= now or is_revoked(policy, sha256, begin):
            continue
        kept.setdefault(sha256, row)
    return list(kept.values())


def with_fewer_earlier(told: Document, most: int) -> Document:
    """Return the status with that many earlier certificates at most, the youngest."""
    listed = previous_of(told)
    if len(listed) <= most:
        return told
    return {**told, "certificate": {**map_of(told.get("certificate")), "previous": listed[:most]}}


def _quotas(subject: Subject) -> list[dict[str, object]]:
    if subject.policy is None or not subject.is_accepted:
        return []
    return [_compiled(quota.limit()) for quota in subject.policy.spec.quotas]


def _compiled(limit: Limit) -> dict[str, object]:
    told: dict[str, object] = {
        "name": limit.name,
        "mode": "Enforce" if limit.enforced else "Shadow",
        "onStoreFailure": limit.on_store_failure.value,
    }
    if isinstance(limit, CalendarLimit):
        return told | {"calendar": limit.calendar.value, "requests": limit.requests}
    return told | {
        "capacity": limit.capacity,
        "periodMicroseconds": limit.period_us,
        "count": limit.count,
        "maxOvershoot": limit.max_overshoot,
    }
