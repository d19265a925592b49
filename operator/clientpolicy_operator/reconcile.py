"""One ClientPolicy, brought to where it should be: look, plan, write, and look again until nothing is left to do."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from authz.policy import ClientPolicy, Source, parse
from authz.policy.ceilings import beyond
from clientpolicy_operator import clock, told
from clientpolicy_operator.agenda import Key
from clientpolicy_operator.api import Api, ApiError, Conflict, Forbidden, NotFound, Refused, core_path, policies_path
from clientpolicy_operator.authority import sign
from clientpolicy_operator.book import Book
from clientpolicy_operator.certmanager import certificate_body, certificate_path, delegated
from clientpolicy_operator.facts import Blocked, Delegated, Document, Entry, Held, Observed, Subject, Trouble
from clientpolicy_operator.issue import (
    BadCsr,
    PrivateKey,
    PublicKey,
    build,
    generate_key,
    key_pem,
    leaf_of,
    pem_of,
    public_key_of,
    read_key,
    request_digest,
)
from clientpolicy_operator.pace import Pace
from clientpolicy_operator.plan import Action, Delegate, Discard, Dress, Plan, Record, Report, Store, plan
from clientpolicy_operator.roster import Roster
from clientpolicy_operator.secret import body, data_of, dress, held
from clientpolicy_operator.settings import Settings
from clientpolicy_operator.tell import Events
from clientpolicy_operator.trust import Trust

ROUNDS_MAX: Final = 12
LATER: Final = timedelta(seconds=5)


@dataclass(slots=True)
class _View:
    """What has been read in this visit; None where it is to be read again."""

    subject: Subject
    status: Document
    version: str
    secret: Document | None = None
    certificate: Document | None = None
    signed: dict[int, dict[str, bytes]] = field(default_factory=dict)  # files of a revision, not yet stored


class Reconciler:
    def __init__(
        self, api: Api, *, book: Book, trust: Trust, roster: Roster, events: Events, settings: Settings
    ) -> None:
        self._api = api
        self._book = book
        self._trust = trust
        self._roster = roster
        self._events = events
        self._ceilings = settings.ceilings
        self._poll = settings.certificates.poll
        self._pace = Pace(settings.certificates.signings_per_second)
        self.signings: dict[str, int] = {}  # by why

    async def visit(self, key: Key) -> datetime | None:
        """Return when to look again, None where only an edit changes anything.

        Raises:
            ApiError: the API server is away, or nothing of this object may be read or written.
        """
        failure: Blocked | None = None
        for _ in range(ROUNDS_MAX):
            view = await self._look(key)
            if view is None:
                self._roster.forget(key)
                return None
            try:
                planned, observed = await self._plan(view, failure)
                if not planned.actions:
                    return self._again(view.subject, planned)
                await self._act(view, observed, planned.actions)
            except Conflict:
                failure = None  # somebody else wrote first
                continue
            except (Forbidden, Refused) as fault:
                if failure is not None:
                    raise  # even to report it failed
                trouble = Trouble.FORBIDDEN if isinstance(fault, Forbidden) else Trouble.REFUSED
                failure = Blocked(trouble=trouble, message=str(fault))
                continue
            if failure is not None:  # reported
                return planned.again
        return clock.now() + LATER

    def _again(self, subject: Subject, planned: Plan) -> datetime | None:
        """cert-manager may make another certificate whenever it likes, and nobody tells us."""
        policy = subject.policy
        if policy is None or not subject.is_accepted or policy.spec.certificate.issuer_ref is None:
            return planned.again
        poll = clock.now() + self._poll
        return min(poll, planned.again) if planned.again is not None else poll

    async def _look(self, key: Key) -> _View | None:
        found = await self._api.get(policies_path(key[0], key[1]))
        if found is None or map_metadata(found).get("deletionTimestamp"):
            return None
        self._roster.note(found)
        return self._view(key, found)

    def _view(self, key: Key, found: Document) -> _View:
        metadata = map_metadata(found)
        read = parse(found)
        policy = read if isinstance(read, ClientPolicy) else None
        subject = Subject(
            uid=str(metadata.get("uid")),
            generation=told.int_of(metadata.get("generation")),
            namespace=key[0],
            name=key[1],
            policy=policy,
            errors=read if not isinstance(read, ClientPolicy) else (),
            beyond=beyond(policy, self._ceilings) if policy is not None else (),
            conflict=self._roster.conflict(key),
            csr_fault=_csr_fault(policy),
        )
        return _View(subject, told.map_of(found.get("status")), str(metadata.get("resourceVersion", "")))

    async def _plan(self, view: _View, failure: Blocked | None) -> tuple[Plan, Observed]:
        subject, policy = view.subject, view.subject.policy
        secret: Held | Blocked | None = None
        made = Delegated()
        if policy is not None and subject.is_accepted and failure is None:
            wanted = policy.spec.certificate
            if wanted.source in (Source.ISSUED, Source.CSR):
                try:
                    view.secret = await self._api.get(self._secret_path(subject, policy))
                except Forbidden as forbidden:
                    secret = Blocked(trouble=Trouble.FORBIDDEN, message=str(forbidden))
                else:
                    secret = held(view.secret, subject, policy)
            if wanted.issuer_ref is not None:
                path = certificate_path(subject.namespace, told.secret_name(subject.name, policy))
                view.certificate = await self._api.get(path)
                made = delegated(view.certificate, view.secret, subject, policy)
        observed = Observed(
            status=view.status,
            secret=secret,
            entries=self._book.entries(subject.uid),
            signer=self._trust.signer,
            signer_trouble=self._trust.trouble,
            delegated=made,
            failure=failure,
        )
        return plan(subject, observed, clock.now()), observed

    async def _act(self, view: _View, observed: Observed, actions: tuple[Action, ...]) -> None:
        subject, policy = view.subject, view.subject.policy
        for action in actions:
            match action:
                case Report():
                    await self._report(view, action.status)
                    continue
                case _ if policy is None:
                    raise AssertionError(action)
                case Record():
                    await self._record(view, policy, observed, action)
                case Store():
                    await self._store(view, policy, action)
                case Dress():
                    metadata = map_metadata(view.secret or {})
                    await self._api.patch(
                        self._secret_path(subject, policy),
                        {"metadata": {**dress(metadata, subject, policy),
                                      "resourceVersion": metadata.get("resourceVersion")}},
                    )  # fmt: skip
                case Delegate():
                    await self._delegate(view, policy, action)
                case Discard():
                    uid = str(map_metadata(view.secret or {}).get("uid"))
                    await self._api.delete(self._secret_path(subject, policy), uid=uid)

    async def _report(self, view: _View, status: Document) -> None:
        subject = view.subject
        path = policies_path(subject.namespace, subject.name, "status")
        changes = merge_patch(view.status, status)
        try:
            found = await self._api.patch(
                path, {"metadata": {"resourceVersion": view.version, "uid": subject.uid}, "status": changes}
            )
        except NotFound:  # deleted just now
            raise Conflict(path) from None
        self._roster.note(found)
        self._events.post(subject, view.status, status)

    async def _record(self, view: _View, policy: ClientPolicy, observed: Observed, action: Record) -> None:
        authority, signer = self._trust.authority, observed.signer
        if authority is None or signer is None or authority.active.sha256 != signer.sha256:
            raise Conflict("the CA has changed")
        await self._pace.wait()
        root = authority.active
        key, private = await asyncio.to_thread(_key_for, policy, view.secret)
        serial = int.from_bytes(secrets.token_bytes(16)) >> 1  # RFC 5280 section 4.1.2.2; CA/Browser: 64 bits and more
        certificate = sign(root, build(policy, key, serial=serial, window=action.window))
        leaf = leaf_of(certificate)
        entry = Entry(
            revision=action.revision,
            sha256=leaf.sha256,
            serial=leaf.serial,
            not_before=leaf.not_before,
            not_after=leaf.not_after,
            ca_sha256=root.sha256,
            recorded=clock.now().replace(microsecond=0),
        )
        await self._book.record(view.subject.uid, entry)
        files = {"tls.crt": pem_of(certificate), "ca.crt": pem_of(root.certificate)}
        view.signed[action.revision] = files | ({"tls.key": key_pem(private)} if private is not None else {})
        self.signings[action.reason] = self.signings.get(action.reason, 0) + 1

    async def _store(self, view: _View, policy: ClientPolicy, action: Store) -> None:
        """Swap key and certificate in one write; the Secret is the one that was seen, or was not there."""
        subject, old = view.subject, view.secret
        if told.current_sha256(view.status) is not None and told.current_issuer(view.status) is None:
            await self._dismiss_cert_manager(subject, policy)
        wanted = body(
            old, subject, policy,
            files=view.signed[action.revision], request=request_digest(policy), revision=action.revision,
        )  # fmt: skip
        if old is not None and old.get("type") != wanted["type"]:  # a Secret's type is for good
            await self._api.delete(self._secret_path(subject, policy), uid=str(map_metadata(old).get("uid")))
            for name in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
                wanted["metadata"].pop(name, None)
            old = None
        if old is None:
            await self._api.create(core_path(subject.namespace, "secrets"), wanted)
            return
        try:
            await self._api.replace(self._secret_path(subject, policy), wanted)
        except NotFound:  # deleted just now
            raise Conflict("the Secret is gone") from None

    async def _delegate(self, view: _View, policy: ClientPolicy, action: Delegate) -> None:
        subject = view.subject
        wanted = certificate_body(subject, policy, action.request)
        name = wanted["metadata"]["name"]
        try:
            if view.certificate is None:
                await self._api.create(certificate_path(subject.namespace), wanted)
            else:
                version = map_metadata(view.certificate).get("resourceVersion")
                wanted["metadata"]["resourceVersion"] = version
                await self._api.replace(certificate_path(subject.namespace, name), wanted)
        except NotFound:
            raise Refused(
                "cert-manager is not installed: the cluster has no Certificate of cert-manager.io/v1"
            ) from None

    async def _dismiss_cert_manager(self, subject: Subject, policy: ClientPolicy) -> None:
        """Delete the Certificate of a policy that used to be cert-manager's, or it would write over ours."""
        path = certificate_path(subject.namespace, told.secret_name(subject.name, policy))
        try:
            found = await self._api.get(path)
        except ApiError:
            return
        if found is not None and delegated(found, None, subject, policy).blocked is None:
            await self._api.delete(path, uid=str(map_metadata(found).get("uid")))

    def _secret_path(self, subject: Subject, policy: ClientPolicy) -> str:
        return core_path(subject.namespace, "secrets", told.secret_name(subject.name, policy))


def _key_for(policy: ClientPolicy, old: Document | None) -> tuple[PublicKey, PrivateKey | None]:
    """Return the key to certify, and its private half where it is ours."""
    certificate = policy.spec.certificate
    if certificate.csr is not None:
        return public_key_of(certificate.csr), None
    kept = (
        read_key(data_of(old or {}).get("tls.key", b"")) if certificate.private_key.rotation_policy == "Never" else None
    )
    if kept is not None and _fits(kept, policy):
        return kept.public_key(), kept
    made = generate_key(policy)
    return made.public_key(), made


def _fits(key: PrivateKey, policy: ClientPolicy) -> bool:
    wanted = policy.spec.certificate.private_key
    is_rsa = wanted.algorithm == "RSA"
    return hasattr(key, "curve") is not is_rsa and key.key_size == wanted.size


def _csr_fault(policy: ClientPolicy | None) -> str | None:
    if policy is None or policy.spec.certificate.csr is None:
        return None
    try:
        public_key_of(policy.spec.certificate.csr)
    except BadCsr as bad:
        return str(bad)
    return None


def map_metadata(found: Document) -> dict[str, Any]:
    return dict(told.map_of(found.get("metadata")))


def merge_patch(old: Document, new: Document) -> dict[str, Any]:
    """Return what makes the new one of the old one (RFC 7396): changed values, and null for what is gone."""
    changes: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                changes[name] = inner
        elif value != before:
            changes[name] = value
    return changes
