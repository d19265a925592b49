"""The built-in CA in the cluster: loaded or made once, rotated step by step, published with its CRL."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from cryptography import x509

from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, ApiError, Conflict, Forbidden, core_path
from clientpolicy_operator.authority import (
    Authority,
    BadAuthority,
    Rotation,
    advance,
    decode,
    new_root,
)
from clientpolicy_operator.book import Book
from clientpolicy_operator.bundle import read_roots
from clientpolicy_operator.ca_secret import ANNOTATION, LABELS, ROTATE, base64_of, secret_body
from clientpolicy_operator.crls import ORPHANED_AFTER, RevocationLists
from clientpolicy_operator.facts import Document, Entry, Signer
from clientpolicy_operator.issue import pem_of
from clientpolicy_operator.roster import Known, Roster, Told
from clientpolicy_operator.secret import data_of
from clientpolicy_operator.settings import CA_NAME, TRUST_NAME, Settings
from clientpolicy_operator.territory import Territory
from clientpolicy_operator.told import map_of

logger = logging.getLogger(__name__)


class Trust:
    """`signer` is None where there is no usable CA, and `trouble` says why."""

    def __init__(self, api: Api, settings: Settings, book: Book, roster: Roster, territory: Territory) -> None:
        self._api = api
        self._namespace = settings.namespace
        self._published_in = (settings.namespace, *settings.trust.namespaces)
        self._times = settings.authority
        self._book = book
        self._roster = roster
        self._territory = territory
        self._secret: Document | None = None
        self._authority: Authority | None = None
        self._watched = frozenset(settings.watch.namespaces)  # none: all
        self._lost_roots = frozenset(settings.authority.lost_roots)
        self._missing: frozenset[str] = frozenset()  # roots that living leaves of ours need and the Secret lacks
        self._kept: dict[str, x509.Certificate] | None = None  # those of them that stay published; None: not known yet
        self.lists = RevocationLists(settings, book, roster)
        self._trouble = "not looked at yet"
        self.on_change: Callable[[Signer | None, Signer | None], None] = lambda before, after: None  # noqa: ARG005
        self.rotations = 0
        self.publish_failures: dict[str, str] = {}

    @property
    def authority(self) -> Authority | None:
        return self._authority

    @property
    def trouble(self) -> str:
        """Why nothing can be signed; "" where it can."""
        if self._trouble or not self._api.is_skewed:
            return self._trouble
        side = "behind" if self._api.skew_s > 0 else "ahead of"
        told = f"{abs(self._api.skew_s) / 60:.0f} min {side} the API server's"
        return f"this operator's clock is {told}: a certificate signed now would begin or end at a wrong time"

    @property
    def trusted(self) -> frozenset[str] | None:
        """The roots whose leaves pass, because they are published; None where that is not known."""
        if self._authority is None or self._kept is None:
            return None
        return frozenset(root.sha256 for root in self._authority.roots) | self._kept.keys()

    @property
    def signer(self) -> Signer | None:
        if self._authority is None or self._authority.active.not_after <= clock.now() or self.trouble:
            return None
        root = self._authority.active
        return Signer(
            sha256=root.sha256,
            not_before=root.certificate.not_valid_before_utc,
            not_after=root.not_after,
            switched=self._authority.switched or root.certificate.not_valid_before_utc,
            spread_s=self._times.spread.total_seconds(),
        )

    async def tick(self) -> None:
        """Do what is due now: load, take the next step of a rotation, publish."""
        before = self.signer
        try:
            await self._load()
            if self._authority is not None and not self._missing and not self._api.is_skewed:
                await self._advance(self._authority)
        except Conflict:
            await self._load()  # another replica took the step
        after = self.signer
        if before != after:
            logger.info("CA", extra={"sha256": after.sha256 if after else None, "trouble": self.trouble})
            self.on_change(before, after)
        if self._authority is not None and not self._api.is_skewed:
            await self._book.note_gone()
            await self._repair(self._authority)
            await self._recall(self._authority)
            await self._publish(self._authority)

    async def _load(self) -> None:
        path = core_path(self._namespace, "secrets", CA_NAME)
        try:
            found = await self._api.get(path)
        except Forbidden as forbidden:
            self._lose(str(forbidden))
            return
        if found is None:
            found = await self._make()
        if found is None:
            return
        notes = {
            name.removeprefix(ANNOTATION): str(value)
            for name, value in map_of(map_of(found.get("metadata")).get("annotations")).items()
            if name.startswith(ANNOTATION)
        }
        try:
            authority = decode(data_of(found), notes)
        except BadAuthority as bad:
            self._lose(f"Secret {self._namespace}/{CA_NAME}: {bad}")
            return
        self._secret, self._authority, self._missing = found, authority, self._missing_roots(authority)
        self._say(self._trouble_of(authority))

    def _trouble_of(self, authority: Authority) -> str:
        """Return why it cannot sign; to publish what there is, is another question."""
        where = f"Secret {self._namespace}/{CA_NAME}"
        if self._missing:
            told = ", ".join(sorted(self._missing))
            return (
                f"{where}: certificates that are valid were signed by a root that it lacks ({told}): "
                "restore a newer backup, or give that root up by authority.lostRoots"
            )
        has_ended = authority.active.not_after <= clock.now()  # another root is on its way then
        return f"{where}: the CA has expired" if has_ended else ""

    def _lose(self, trouble: str) -> None:
        self._secret, self._authority, self._missing = None, None, frozenset()
        self._say(trouble)

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            logger.error("nothing is signed; certificates that are out stay valid", extra={"error": trouble})
        self._trouble = trouble

    def _missing_roots(self, authority: Authority) -> frozenset[str]:
        return self._needed() - {root.sha256 for root in authority.roots} - self._lost_roots

    def _needed(self) -> frozenset[str]:
        """Return the roots of living leaves, as far as the ledger knows them: others' never were ours to keep."""
        now = clock.now()
        living = {ca_sha256 for ca_sha256, end in self._living(now) if end > now}
        return frozenset(living & {entry.ca_sha256 for _, entry in self._book})

    def _living(self, now: datetime) -> Iterator[tuple[str, datetime]]:
        """Yield by which root and until when: certificates that statuses tell of, or that may be on their way there."""
        for _, known in self._roster:
            for one in known.told:
                yield one.ca_sha256, one.not_after
        live = self._roster.uids
        for uid, entry in self._book:
            is_elsewhere = bool(self._watched) and entry.namespace not in self._watched
            if is_elsewhere or (uid in live and entry.recorded + ORPHANED_AFTER > now):
                yield entry.ca_sha256, entry.not_after

    async def _repair(self, authority: Authority) -> None:
        """Write back what statuses tell of and the ledger lost, so that a later revocation reaches the CRL."""
        roots = {root.sha256 for root in authority.roots}
        now = clock.now()
        lost = [
            (known, one)
            for _, known in self._roster
            for one in known.told
            if one.ca_sha256 in roots and one.not_after > now
            and all(entry.sha256 != one.sha256 for entry in self._book.entries(known.uid))
        ]  # fmt: skip
        results = await asyncio.gather(*(self._book.record(*_row(*pair, now)) for pair in lost), return_exceptions=True)
        if restored := sum(result is None for result in results):  # the others stood there, written by another replica
            logger.warning("the ledger had lost rows; they are written again", extra={"rows": restored})

    async def _make(self) -> Document | None:
        """Make the CA, unless there ever was one: it is never silently replaced."""
        await self._territory.survey(self._territory.others)  # they may have been handed over
        if self._territory.is_shut_out:
            self._lose("another operator serves each of this one's namespaces")
            return None
        evidence = await self._evidence()
        if evidence is not None:
            where = f"Secret {self._namespace}/{CA_NAME}"
            mend = "restore it from its backup, or give it up by authority.lostRoots"
            self._lose(f"{where} is gone, but {evidence}: {mend} (docs/operations.md)")
            return None
        if self._api.is_skewed:
            return None
        root = new_root(now=clock.now(), life=self._times.life, serial=_serial())
        body = secret_body(Authority(active=root), None)
        try:
            made = await self._api.create(core_path(self._namespace, "secrets"), body)
        except Conflict:  # another replica made it first
            return await self._api.get(core_path(self._namespace, "secrets", CA_NAME))
        logger.info("CA made", extra={"sha256": root.sha256, "notAfter": root.not_after.isoformat()})
        return made

    async def _evidence(self) -> str | None:
        """Return what tells that there was a CA before; roots that were given up tell nothing."""
        published = await self._api.get(core_path(self._namespace, "configmaps", TRUST_NAME))
        text = str(map_of(map_of(published or {}).get("data")).get("ca.crt", ""))
        roots = read_roots(text)
        if text and not roots:
            return f"ConfigMap {TRUST_NAME} holds a certificate that cannot be read"
        await self._book.open()
        if self._book.has_unreadable:
            return "the ledger holds rows that cannot be read"
        others = self._territory.others
        statuses = {known.ca_sha256 for key, known in self._roster if known.ca_sha256 and key[0] not in others}
        for told, found in (
            (f"ConfigMap {TRUST_NAME} holds its certificate", set(roots)),
            ("the ledger tells of certificates that it signed", {entry.ca_sha256 for _, entry in self._book}),
            ("the status of policies tells of certificates that it signed", statuses),
        ):
            if left := sorted(found - self._lost_roots):
                return f"{told} ({', '.join(left)})"
        return None

    async def _advance(self, authority: Authority) -> None:
        secret = self._secret
        assert secret is not None  # noqa: S101 the authority came from it
        wanted = ROTATE in map_of(map_of(secret.get("metadata")).get("annotations"))
        retired = authority.retired.sha256 if authority.retired is not None else None
        now = clock.now()
        ends = [end for ca_sha256, end in self._living(now) if ca_sha256 == retired]
        if retired is not None and not self._roster.is_complete:
            ends.append(now)  # there may be leaves that nobody can tell of just now
        times = self._times
        stepped = advance(
            authority,
            now=now,
            rotation=Rotation(renew_before=times.renew_before, propagation=times.propagation, spread=times.spread),
            wanted=wanted,
            last_retired_leaf=max(ends, default=None),
            spare=new_root(now=now, life=times.life, serial=_serial()),
        )
        if stepped is authority:
            return
        await self._keep(stepped)
        if stepped.active is not authority.active:
            self.rotations += 1
            logger.warning("another root signs: back up the CA again", extra={"secret": f"{self._namespace}/{CA_NAME}"})
        logger.info("CA rotation: a step", extra=_shape(stepped))

    async def _keep(self, authority: Authority) -> None:
        secret = self._secret
        assert secret is not None  # noqa: S101 there is one to replace
        path = core_path(self._namespace, "secrets", CA_NAME)
        self._secret = await self._api.replace(path, secret_body(authority, secret))
        self._authority = authority

    async def _recall(self, authority: Authority) -> None:
        """Read what is published: it may hold a root that living leaves need and the Secret lacks."""
        found = await self._api.get(core_path(self._namespace, "configmaps", TRUST_NAME))
        data = map_of(map_of(found or {}).get("data"))
        held = {root.sha256: root.certificate for root in authority.roots}
        needed = self._needed()
        published = read_roots(str(data.get("ca.crt", ""))).items()
        self._kept = {sha256: root for sha256, root in published if sha256 in needed and sha256 not in held}
        self.lists.recall(str(data.get("ca.crl", "")), held | self._kept)

    async def _publish(self, authority: Authority) -> None:
        kept = self._kept or {}
        if self._missing - kept.keys():  # to publish without it would refuse leaves that are valid
            return
        await self.lists.refresh(authority)
        roots = (*(root.certificate for root in authority.roots), *kept.values())
        bundle = "".join(pem_of(root).decode() for root in roots)
        lists = "".join(self.lists.pem(root).decode() for root in authority.roots)
        lists += "".join(self.lists.kept_pem(sha256).decode() for sha256 in kept)
        everywhere = True
        for namespace in self._published_in:
            try:
                for kind in ("configmaps", "secrets"):
                    await self._put(namespace, kind, {"ca.crt": bundle, "ca.crl": lists})
                self.publish_failures.pop(namespace, None)
                if namespace == self._namespace:
                    self.lists.published()
            except ApiError as failed:
                everywhere = False
                if self.publish_failures.get(namespace) != str(failed):
                    logger.warning("not published", extra={"namespace": namespace, "error": str(failed)})
                self.publish_failures[namespace] = str(failed)
        if everywhere and not self._missing and authority.upcoming is not None and authority.published is None:
            await self._keep(replace(authority, published=clock.now()))

    async def _put(self, namespace: str, kind: str, texts: dict[str, str]) -> None:
        """Write the bundle where it differs; a CRL that is as good as this one stays."""
        path = core_path(namespace, kind, TRUST_NAME)
        found = await self._api.get(path)
        data = texts if kind == "configmaps" else {name: base64_of(text.encode()) for name, text in texts.items()}
        if found is None:
            body = {"metadata": {"name": TRUST_NAME, "labels": LABELS}, "data": data}
            await self._api.create(core_path(namespace, kind), body)
            return
        if not LABELS.items() <= map_of(map_of(found.get("metadata")).get("labels")).items():
            raise Conflict(f"{kind} {namespace}/{TRUST_NAME} is not ours; it is never adopted")
        if map_of(found.get("data")) != data:
            await self._api.replace(path, {**found, "data": data})


def _row(known: Known, one: Told, now: datetime) -> tuple[str, Entry]:
    entry = Entry(
        revision=one.revision, sha256=one.sha256, serial=one.serial, not_before=one.not_before, not_after=one.not_after,
        ca_sha256=one.ca_sha256, recorded=now.replace(microsecond=0), namespace=known.name.partition("/")[0],
    )  # fmt: skip
    return known.uid, entry


def _shape(authority: Authority) -> dict[str, object]:
    return {
        "active": authority.active.sha256,
        "upcoming": authority.upcoming.sha256 if authority.upcoming else None,
        "retired": authority.retired.sha256 if authority.retired else None,
    }


def _serial() -> int:
    return int.from_bytes(secrets.token_bytes(16)) | 1 << 120  # RFC 5280: positive, at most 20 octets
