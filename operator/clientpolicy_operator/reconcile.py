"""One ClientPolicy, brought to where it should be: look, plan, write, and look again until nothing is left to do."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from authz.policy import ClientPolicy, Source, parse
from authz.policy.ceilings import beyond
from clientpolicy_operator import clock, delegation, told
from clientpolicy_operator.api import Api, Conflict, Forbidden, NotFound, Refused, core_path, merge_patch, policies_path
from clientpolicy_operator.authority import sign
from clientpolicy_operator.book import Book
from clientpolicy_operator.certmanager import certificate_path, delegated
from clientpolicy_operator.facts import Blocked, Delegated, Document, Entry, Held, Key, Observed, Subject, Trouble
from clientpolicy_operator.inheritance import estate, owner_before
from clientpolicy_operator.issue import (
    build,
    key_pem,
    leaf_of,
    pem_of,
    request_digest,
)
from clientpolicy_operator.keys import csr_fault, key_for, key_sha256, stolen_keys
from clientpolicy_operator.pace import Pace
from clientpolicy_operator.plan import Action, Delegate, Discard, Dress, Inherit, Plan, Record, Report, Store, plan
from clientpolicy_operator.reporter import Reporter
from clientpolicy_operator.roster import Roster
from clientpolicy_operator.secret import body, dress, held
from clientpolicy_operator.settings import Settings
from clientpolicy_operator.tell import Events
from clientpolicy_operator.territory import Territory
from clientpolicy_operator.timing import PATIENCE
from clientpolicy_operator.trust import Trust
from clientpolicy_operator.visit import Signed, View, Visit, Visited

logger = logging.getLogger(__name__)

ROUNDS_MAX: Final = 12
OTHERS_LOOK: Final = timedelta(minutes=1)  # until it is asked again whether a namespace is another operator's
_NAMES: Final[dict[type[Action], str]] = {
    **dict.fromkeys((Record, Inherit, Store, Dress, Discard), "the Secret"), Delegate: "the Certificate",
}  # fmt: skip


class Reconciler:
    def __init__(
        self,
        api: Api,
        *,
        book: Book,
        trust: Trust,
        roster: Roster,
        territory: Territory,
        events: Events,
        settings: Settings,
    ) -> None:
        self._api = api
        self._territory = territory
        self._book = book
        self._trust = trust
        self._roster = roster
        self._reporter = Reporter(api, roster, events)
        self._ceilings = settings.ceilings
        self._poll = settings.certificates.poll
        self._resync = settings.certificates.resync
        self._pace = Pace(settings.certificates.signings_per_second)
        self._signed: dict[Key, Signed] = {}
        self.seen: dict[Key, str] = {}  # resourceVersions of Secrets as they were last looked at; "": there was none
        self._recorded: dict[str, datetime] = {}  # fingerprints that this process signed just now
        self.is_alone = False  # nobody else signs: we hold the Lease
        self.signings: dict[str, int] = {}  # by why

    @property
    def unstored(self) -> int:
        """How many certificates are signed, and wait with their keys in memory until a Secret can be written."""
        return len(self._signed)

    def forget(self, key: Key) -> None:
        """Let go of the key of a policy that is gone."""
        self._signed.pop(key, None)
        self.seen.pop(key, None)

    async def visit(self, key: Key) -> Visited:
        """Bring it to where it should be.

        Raises:
            ApiError: the API server is away, or nothing of this object may be read or written.
        """
        try:
            return await self._visit(key)
        finally:
            if self._roster.get(key) is None:  # it went meanwhile, and nobody will come back to it
                self.forget(key)

    async def _visit(self, key: Key) -> Visited:
        if await self._territory.other(key[0]) is not None:
            return Visited(clock.now() + min(self._resync, OTHERS_LOOK) * (0.75 + clock.share() / 4))
        visit = Visit()
        for _ in range(ROUNDS_MAX):
            try:
                done = await self._round(key, visit)
            except Conflict:
                visit.failure = None  # somebody else wrote first
                visit.done.clear()
                continue
            except (Forbidden, Refused) as fault:
                if visit.failure is not None:
                    raise  # even to report it failed
                trouble = Trouble.FORBIDDEN if isinstance(fault, Forbidden) else Trouble.REFUSED
                visit.failure = Blocked(trouble=trouble, message=str(fault))
                continue
            if done is not None:
                return Visited(done.again, visit.reported)
        raise Conflict(f"{'/'.join(key)}: others write as often as we do")

    async def _round(self, key: Key, visit: Visit) -> Plan | None:
        """Look, plan, act; return what it came to, None where it is to be looked at again."""
        before = self._roster.get(key)
        view = await self._look(key)
        if view is None:
            if self._roster.get(key) is before:  # else a namesake has come meanwhile
                self._roster.forget(key)
            return Plan()
        planned, observed = await self._plan(view, visit.failure)
        if not planned.actions:
            self._signed.pop(key, None)
            return Plan((), self._again(view.subject, planned))
        again = visit.done.intersection(map(type, planned.actions)) - {Report}
        if again:
            raise Refused(f"{_NAMES[again.pop()]} does not stay as it was written: something changes it back")
        await self._act(view, observed, planned.actions)
        visit.done.update(map(type, planned.actions))
        if not isinstance(planned.actions[-1], Report):
            return None
        visit.reported = view.subject.generation
        if visit.failure is not None:  # what was signed may be stored yet
            return planned
        self._signed.pop(key, None)  # the last write: what it told is how things are
        return Plan((), self._again(view.subject, planned))

    def _again(self, subject: Subject, planned: Plan) -> datetime | None:
        """cert-manager may make another certificate whenever it likes, and nobody tells us."""
        policy = subject.policy
        if policy is None or not subject.is_accepted or policy.spec.certificate.issuer_ref is None:
            return planned.again
        poll = clock.now() + self._poll
        return min(poll, planned.again) if planned.again is not None else poll

    async def _look(self, key: Key) -> View | None:
        found = await self._api.get(policies_path(key[0], key[1]))
        if found is None or map_metadata(found).get("deletionTimestamp"):
            return None
        self._roster.note(found)
        return self._view(key, found)

    def _view(self, key: Key, found: Document) -> View:
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
            csr_fault=csr_fault(policy),
            renew=told.renew_of(metadata),
        )
        return View(subject, told.map_of(found.get("status")), str(metadata.get("resourceVersion", "")))

    async def _plan(self, view: View, failure: Blocked | None) -> tuple[Plan, Observed]:
        subject, policy = view.subject, view.subject.policy
        secret: Held | Blocked | None = None
        made = Delegated()
        inherits: str | None = None
        if failure is None:
            self.seen.pop((subject.namespace, subject.name), None)
        if policy is not None and subject.is_accepted and failure is None:
            wanted = policy.spec.certificate
            if wanted.source in (Source.ISSUED, Source.CSR):
                try:
                    view.secret = await self._api.get(self._secret_path(subject, policy))
                except Forbidden as forbidden:
                    secret = Blocked(trouble=Trouble.FORBIDDEN, message=str(forbidden))
                else:
                    version = str(map_metadata(view.secret or {}).get("resourceVersion", ""))
                    self.seen[subject.namespace, subject.name] = version
                    secret = held(view.secret, subject, policy)
                    inherits = self._inherits(view.secret, subject, policy)
                    stolen = stolen_keys(policy, self._book.entries(subject.uid), view.secret)
                    subject = view.subject = replace(subject, csr_fault=csr_fault(policy, stolen))
            if wanted.issuer_ref is not None:
                path = certificate_path(subject.namespace, told.secret_name(subject.name, policy))
                view.certificate = await self._api.get(path)
                made = delegated(view.certificate, view.secret, subject, policy)
        mine = self._signed.get((subject.namespace, subject.name))
        observed = Observed(
            status=view.status,
            secret=secret,
            entries=self._book.entries(subject.uid),
            signer=self._trust.signer,
            signer_trouble=self._trust.trouble,
            trusted=self._trust.trusted,
            inherits=inherits,
            delegated=made,
            signed=mine.held if mine is not None and mine.uid == subject.uid else None,
            failure=failure,
            is_alone=self.is_alone,
            recorded=frozenset(self._recorded),
        )
        return plan(subject, observed, self._api.now()), observed

    async def _act(self, view: View, observed: Observed, actions: tuple[Action, ...]) -> None:
        subject, policy = view.subject, view.subject.policy
        for action in actions:
            match action:
                case Report():
                    await self._reporter.report(view.subject, view.status, view.version, action.status)
                    continue
                case _ if policy is None:
                    raise AssertionError(action)
                case Record():
                    await self._record(view, policy, observed, action)
                case Store():
                    await self._store(view, policy, action)
                case Inherit():
                    await self._inherit(view, policy, action.uid)
                case Dress():
                    await self._dress(view, policy)
                case Delegate():
                    await delegation.ask(self._api, subject, policy, action.request, view.certificate)
                case Discard():
                    uid = str(map_metadata(view.secret or {}).get("uid"))
                    await self._api.delete(self._secret_path(subject, policy), uid=uid)

    def _inherits(self, found: Document | None, subject: Subject, policy: ClientPolicy) -> str | None:
        """Return the UID whose Secret this policy may keep: its own, before it was restored from a backup."""
        uid = owner_before(found, subject, policy)
        if found is None or uid is None or uid in self._roster.uids or self._book.is_gone(uid):
            return None
        left, own = self._book.entries(uid), self._book.entries(subject.uid)
        return uid if estate(found, subject, policy, left=left, own=own) else None

    async def _inherit(self, view: View, policy: ClientPolicy, uid: str) -> None:
        """Copy what of it is valid in the ledger, then make the Secret this policy's."""
        mine, now = view.subject.uid, clock.now()
        for entry in self._book.entries(uid):
            is_there = any(one.sha256 == entry.sha256 for one in self._book.entries(mine))
            if entry.not_after > now and not is_there:
                await self._book.record(mine, entry)
        await self._dress(view, policy)
        told = {"policy": f"{view.subject.namespace}/{view.subject.name}", "before": uid, "uid": mine}
        logger.warning("a policy that was restored under another UID keeps its certificate", extra=told)

    async def _dress(self, view: View, policy: ClientPolicy) -> None:
        metadata = map_metadata(view.secret or {})
        wanted = dress(metadata, view.subject, policy)
        changes = merge_patch({part: metadata.get(part) for part in wanted}, wanted)
        changes["resourceVersion"] = metadata.get("resourceVersion")
        await self._api.patch(self._secret_path(view.subject, policy), {"metadata": changes})

    async def _record(self, view: View, policy: ClientPolicy, observed: Observed, action: Record) -> None:
        authority, signer = self._trust.authority, observed.signer
        if authority is None or signer is None or authority.active.sha256 != signer.sha256:
            raise Conflict("the CA has changed")
        await self._pace.wait()
        root = authority.active
        kept = view.secret if action.reason != "Revoked" else None  # whatever it was revoked for, a new key is safe
        stolen = stolen_keys(policy, observed.entries, view.secret)
        key, private = await asyncio.to_thread(key_for, policy, kept, stolen)
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
            namespace=view.subject.namespace,
            key_sha256=key_sha256(key),
        )
        self._recorded = {sha256: when for sha256, when in self._recorded.items() if entry.recorded - when < PATIENCE}
        self._recorded[leaf.sha256] = entry.recorded
        await self._book.record(view.subject.uid, entry)
        files = {"tls.crt": pem_of(certificate), "ca.crt": pem_of(root.certificate)}
        files |= {"tls.key": key_pem(private)} if private is not None else {}
        held = Held(leaf=leaf, request=request_digest(policy), revision=action.revision, renewed=view.subject.renew)
        self._signed[view.subject.namespace, view.subject.name] = Signed(view.subject.uid, held, files)
        self.signings[action.reason] = self.signings.get(action.reason, 0) + 1
        logger.info("signed", extra={
            "policy": f"{view.subject.namespace}/{view.subject.name}",
            "revision": action.revision, "why": action.reason,
            "serial": leaf.serial, "sha256": leaf.sha256, "not_after": told.text(leaf.not_after),
        })  # fmt: skip

    async def _store(self, view: View, policy: ClientPolicy, action: Store) -> None:
        """Swap key and certificate in one write; the Secret is the one that was seen, or was not there."""
        subject, old = view.subject, view.secret
        mine = self._signed.get((subject.namespace, subject.name))
        if mine is None or mine.uid != subject.uid:
            raise Conflict("the policy went while its certificate was signed")
        await delegation.dismiss(self._api, subject, policy)
        wanted = body(
            old, subject, policy,
            files=mine.files, request=request_digest(policy), revision=action.revision, renewed=mine.held.renewed,
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

    def _secret_path(self, subject: Subject, policy: ClientPolicy) -> str:
        return core_path(subject.namespace, "secrets", told.secret_name(subject.name, policy))


def map_metadata(found: Document) -> dict[str, Any]:
    return dict(told.map_of(found.get("metadata")))
