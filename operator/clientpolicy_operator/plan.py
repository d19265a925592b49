"""What to do next for one policy: pure, so that every crash and every race can be tried out without a cluster.

The order of writes is ledger, Secret, status. Each is observed before the next is planned: applied again and again, a
plan comes to an end, wherever the one before broke off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from authz.policy import ClientPolicy, Source
from clientpolicy_operator import status, told
from clientpolicy_operator.conditions import Standing
from clientpolicy_operator.facts import Blocked, Delegated, Document, Entry, Held, Observed, Subject, Trouble
from clientpolicy_operator.issue import is_request, request_digest
from clientpolicy_operator.restraint import restraint
from clientpolicy_operator.timing import PATIENCE, reissue_time, renewal_time, retry_time, window


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Sign, and write it into the ledger as this revision."""

    revision: int
    reason: str
    window: tuple[datetime, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherit:
    """Take over the ledger's rows and the Secret of the UID that this policy had before it was restored."""

    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Write key and certificate of this revision into the Secret, in one write."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """Put labels, annotations and owner of the Secret right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """Ask cert-manager for the certificate."""

    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Delete the Secret of a revoked certificate, so that cert-manager makes another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Write the status."""

    status: Document


Action = Record | Inherit | Store | Dress | Delegate | Discard | Report


class Plan(NamedTuple):
    """Actions in order, and when to look again; None: at the next verification."""

    actions: tuple[Action, ...] = ()
    again: datetime | None = None


def plan(subject: Subject, observed: Observed, now: datetime) -> Plan:
    """Return what to do now for this policy."""
    policy = subject.policy
    if policy is None or not subject.is_accepted:
        return _report(subject, observed, Standing(), now)
    if policy.spec.certificate.source not in (Source.ISSUED, Source.CSR):
        return _report(subject, observed, Standing(), now)
    if observed.failure is not None:
        return _report(subject, observed, Standing(blocked=observed.failure, is_failure=True), now)
    if policy.spec.certificate.issuer_ref is not None:
        return _delegate(subject, policy, observed, now)
    if observed.inherits is not None:
        return Plan((Inherit(uid=observed.inherits),), now)
    return _issue(subject, policy, observed, now)


def _issue(subject: Subject, policy: ClientPolicy, observed: Observed, now: datetime) -> Plan:
    if isinstance(observed.secret, Blocked):
        return _report(subject, observed, Standing(blocked=observed.secret), now)
    reason = why_issue(subject, policy, observed, now)
    held = observed.secret
    if reason is None:
        if held is not None and not held.is_dressed:
            return Plan((Dress(),), now)
        return _report(subject, observed, Standing(), now)
    latest = max(observed.entries, key=lambda entry: entry.revision, default=None)
    mine = observed.signed
    if mine is not None and latest is not None and mine.revision == latest.revision:
        fits = why_issue(subject, policy, replace(observed, secret=mine), now) is None
        if fits:  # to write it failed the last time
            return Plan((Store(revision=mine.revision),), now)
    blocked = _hindrance(subject, policy, observed, now) or restraint(reason, policy, observed, now)
    if blocked is not None:
        return _report(subject, observed, Standing(reason=reason, blocked=blocked), now)
    if latest is not None and (until := _others_turn(latest, held, observed, now)) is not None:
        if told.int_of(observed.status.get("observedGeneration")) == subject.generation:
            return Plan((), until)
        waits = Blocked(trouble=Trouble.PENDING, message="another replica has just signed, and has to store it yet")
        return _report(subject, observed, Standing(reason=reason, blocked=waits), now)._replace(again=until)
    assert observed.signer is not None  # noqa: S101 else it were a hindrance
    span = window(policy, observed.signer, now)
    assert span is not None  # noqa: S101 likewise
    revision = 1 + max(_revisions(observed))
    return Plan((Record(revision=revision, reason=reason, window=span), Store(revision=revision)), now)


def why_issue(subject: Subject, policy: ClientPolicy, observed: Observed, now: datetime) -> str | None:
    """Return why another certificate is due (cert-manager's words where it has them), None if none is."""
    held = observed.secret
    if not isinstance(held, Held):
        return "DoesNotExist"
    if held.flaw is not None or held.leaf is None:
        return held.flaw.value if held.flaw is not None else "MissingData"
    leaf = held.leaf
    entry = next((one for one in observed.entries if one.sha256 == leaf.sha256), None)
    is_told = told.current_sha256(observed.status) == leaf.sha256
    if entry is None and not is_told:
        return "IncorrectCertificate"  # we never signed it for this object
    issuer = entry.ca_sha256 if entry is not None else told.current_issuer(observed.status)
    is_stolen = leaf.sha256 in told.stolen_with_their_key(policy, observed.entries)
    if is_stolen or told.is_revoked(policy, leaf.sha256, leaf.not_before):
        return "Revoked"
    if leaf.not_after <= now:
        return "Expired"
    if not is_request(held.request, policy):
        return "RequestChanged"
    if (fault := _fault_of_issuer(issuer, subject, observed, now)) is not None:
        return fault
    renewal = renewal_time(policy, leaf, subject.uid, observed.signer)
    is_wished = subject.renew not in ("", held.renewed)
    is_due = renewal is not None and renewal <= now
    return "Renewing" if is_due else "RenewalRequested" if is_wished else None


def _fault_of_issuer(issuer: str | None, subject: Subject, observed: Observed, now: datetime) -> str | None:
    if issuer is None:
        return "IncorrectIssuer"  # cert-manager's, from when there was an issuerRef
    if observed.trusted is not None and issuer not in observed.trusted:
        return "UntrustedIssuer"  # another operator's, or of a root that was lost: it is refused already
    signer = observed.signer
    is_of_before = signer is not None and issuer != signer.sha256 and reissue_time(signer, subject.uid) <= now
    return "IncorrectIssuer" if is_of_before else None


def _hindrance(subject: Subject, policy: ClientPolicy, observed: Observed, now: datetime) -> Blocked | None:
    if subject.csr_fault is not None:
        return Blocked(trouble=Trouble.CSR_INVALID, message=subject.csr_fault)
    if observed.signer is None:
        return Blocked(trouble=Trouble.CA_UNAVAILABLE, message=observed.signer_trouble)
    if window(policy, observed.signer, now) is None:
        return _outside_validity()
    return None


def _outside_validity() -> Blocked:
    message = "a certificate signed now would be refused: see revocation.issuedBefore, validity and the CA's end"
    return Blocked(trouble=Trouble.OUTSIDE_VALIDITY, message=message)


def _others_turn(latest: Entry, held: Held | None, observed: Observed, now: datetime) -> datetime | None:
    """Return until when to leave it to another replica that has just signed; None where none has, or it is stored."""
    if observed.is_alone or latest.sha256 in observed.recorded:
        return None
    kept = held.leaf.sha256 if held is not None and held.leaf is not None else None
    stored = latest.sha256 in (kept, told.current_sha256(observed.status))
    recent = now - PATIENCE < latest.recorded < now + PATIENCE
    return max(latest.recorded, now) + PATIENCE if recent and not stored else None


def _revisions(observed: Observed) -> list[int]:
    held = observed.secret.revision if isinstance(observed.secret, Held) else 0
    return [held, told.current_revision(observed.status), *(entry.revision for entry in observed.entries)]


def _delegate(subject: Subject, policy: ClientPolicy, observed: Observed, now: datetime) -> Plan:
    made, secret = observed.delegated, observed.secret
    is_unseen = isinstance(secret, Blocked) and secret.trouble is Trouble.FORBIDDEN
    blocked = secret if isinstance(secret, Blocked) and is_unseen else made.blocked
    if blocked is not None:
        return _report(subject, observed, Standing(blocked=blocked), now)
    if made.asked is None or not is_request(made.asked, policy):
        return Plan((Delegate(request=request_digest(policy)),), now)
    if made.is_misfit:
        return Plan((Discard(),), retry_time(now, 1))
    if made.leaf is not None and told.is_revoked(policy, made.leaf.sha256, made.leaf.not_before):
        issued_before = policy.spec.revocation.issued_before
        if issued_before is None or issued_before <= now:
            return Plan((Discard(),), retry_time(now, 1))
        return _report(subject, observed, Standing(reason="Revoked", blocked=_outside_validity()), now)
    if made.leaf is not None and not made.is_dressed:
        return Plan((Dress(),), now)
    return _report(subject, observed, _delegated(made, now), now)


def _delegated(made: Delegated, now: datetime) -> Standing:
    """Return how issuing stands, in cert-manager's words."""
    waits = Blocked(trouble=Trouble.ISSUER_NOT_READY, message=made.message)
    if made.leaf is None:
        return Standing(reason="DoesNotExist", blocked=waits)
    if made.leaf.not_after <= now:
        return Standing(reason="Expired", blocked=waits)
    if made.trouble:
        return Standing(reason="Renewing", blocked=replace(waits, message=made.trouble))
    return Standing()


def _report(subject: Subject, observed: Observed, standing: Standing, now: datetime) -> Plan:
    wanted = status.report(subject, observed, standing, now)
    again = status.next_change(subject, observed, wanted, standing, now)
    return Plan((Report(status=wanted),) if wanted != dict(observed.status) else (), again)
