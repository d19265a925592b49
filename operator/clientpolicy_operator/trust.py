"""The built-in CA in the cluster: loaded or made once, rotated step by step, published with its CRL."""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, ApiError, Conflict, Forbidden, core_path
from clientpolicy_operator.authority import (
    BACKDATED,
    Authority,
    BadAuthority,
    Revoked,
    Root,
    Rotation,
    advance,
    crl,
    decode,
    encode,
    new_root,
)
from clientpolicy_operator.book import Book
from clientpolicy_operator.facts import Document, Entry, Signer
from clientpolicy_operator.issue import pem_of
from clientpolicy_operator.ledger import KEPT_AFTER_END
from clientpolicy_operator.roster import Known, Roster
from clientpolicy_operator.secret import data_of
from clientpolicy_operator.settings import CA_NAME, TRUST_NAME, Settings
from clientpolicy_operator.told import map_of

logger = logging.getLogger(__name__)

ANNOTATION: Final = "authz.healthtech.dev/"
ROTATE: Final = f"{ANNOTATION}rotate"  # set by a person who wants another root; taken away once it is under way
ORPHANED_AFTER: Final = timedelta(minutes=10)  # a signing that reached no status by then never will
SKEW_MAX_S: Final = 240.0  # certificates begin five minutes ago (authority.BACKDATED), less what an answer takes
LABELS: Final = {"app.kubernetes.io/managed-by": "clientpolicy"}


class Trust:
    """`signer` is None where there is no usable CA, and `trouble` says why."""

    def __init__(self, api: Api, settings: Settings, book: Book, roster: Roster) -> None:
        self._api = api
        self._namespace = settings.namespace
        self._published_in = (settings.namespace, *settings.trust.namespaces)
        self._watched = frozenset(settings.watch.namespaces)  # none: all
        self._times = settings.authority
        self._book = book
        self._roster = roster
        self._secret: Document | None = None
        self._authority: Authority | None = None
        self._lists: dict[str, tuple[x509.CertificateRevocationList, frozenset[str]]] = {}  # by root
        self._trouble = "not looked at yet"
        self._is_recalled = False
        self.on_change: Callable[[Signer | None, Signer | None], None] = lambda before, after: None  # noqa: ARG005
        self.rotations = 0
        self.publish_failures: dict[str, str] = {}

    @property
    def authority(self) -> Authority | None:
        return self._authority

    @property
    def _is_skewed(self) -> bool:
        """A CRL of the future refuses every client, and so does a root."""
        return abs(self._api.skew_s) > SKEW_MAX_S

    @property
    def trouble(self) -> str:
        """Why nothing can be signed; "" where it can."""
        if self._trouble or not self._is_skewed:
            return self._trouble
        side = "behind" if self._api.skew_s > 0 else "ahead of"
        told = f"{abs(self._api.skew_s) / 60:.0f} min {side} the API server's"
        return f"this operator's clock is {told}: a certificate signed now would begin or end at a wrong time"

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

    @property
    def crl_end(self) -> datetime | None:
        """When the first CRL ends that is published."""
        ends = [found.next_update_utc for found, _ in self._lists.values()]
        return min((end for end in ends if end is not None), default=None)

    async def tick(self) -> None:
        """Do what is due now: load, take the next step of a rotation, publish."""
        before = self.signer
        try:
            await self._load()
            if self._authority is not None and not self._is_skewed:
                await self._advance(self._authority)
        except Conflict:
            await self._load()  # another replica took the step
        after = self.signer
        if before != after:
            logger.info("CA", extra={"sha256": after.sha256 if after else None, "trouble": self.trouble})
            self.on_change(before, after)
        if self._authority is not None and not self._is_skewed:
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
        has_ended = authority.active.not_after <= clock.now()  # another root is on its way then
        self._trouble = f"Secret {self._namespace}/{CA_NAME}: the CA has expired" if has_ended else ""
        self._secret, self._authority = found, authority

    def _lose(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.error("no CA; certificates that are out stay valid", extra={"error": trouble})
        self._secret, self._authority, self._trouble = None, None, trouble

    async def _make(self) -> Document | None:
        """Make the CA, unless there ever was one: it is never silently replaced."""
        evidence = await self._evidence()
        if evidence is not None:
            where = f"Secret {self._namespace}/{CA_NAME}"
            self._lose(f"{where} is gone, but {evidence}: restore it from its backup (docs/operations.md)")
            return None
        if self._is_skewed:
            return None
        root = new_root(now=clock.now(), life=self._times.life, serial=_serial())
        body = _secret_body(Authority(active=root), None)
        try:
            made = await self._api.create(core_path(self._namespace, "secrets"), body)
        except Conflict:  # another replica made it first
            return await self._api.get(core_path(self._namespace, "secrets", CA_NAME))
        logger.info("CA made", extra={"sha256": root.sha256, "notAfter": root.not_after.isoformat()})
        return made

    async def _evidence(self) -> str | None:
        published = await self._api.get(core_path(self._namespace, "configmaps", TRUST_NAME))
        if published is not None and map_of(published.get("data")).get("ca.crt"):
            return f"ConfigMap {TRUST_NAME} holds its certificate"
        await self._book.open()
        if not self._book.is_empty:
            return "the ledger tells of certificates that it signed"
        if any(known.ca_sha256 for _, known in self._roster):
            return "the status of policies tells of certificates that it signed"
        return None

    async def _advance(self, authority: Authority) -> None:
        secret = self._secret
        assert secret is not None  # noqa: S101 the authority came from it
        wanted = ROTATE in map_of(map_of(secret.get("metadata")).get("annotations"))
        retired = authority.retired.sha256 if authority.retired is not None else None
        now = clock.now()
        ends = [entry.not_after for _, entry in self._book if entry.ca_sha256 == retired]
        ends += [known.not_after for _, known in self._roster if known.ca_sha256 == retired and known.not_after]
        if retired is not None and (self._book.is_damaged or not self._roster.is_complete):
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
        self.rotations += stepped.active is not authority.active
        logger.info("CA rotation: a step", extra=_shape(stepped))

    async def _keep(self, authority: Authority) -> None:
        secret = self._secret
        assert secret is not None  # noqa: S101 there is one to replace
        path = core_path(self._namespace, "secrets", CA_NAME)
        self._secret = await self._api.replace(path, _secret_body(authority, secret))
        self._authority = authority

    async def _publish(self, authority: Authority) -> None:
        bundle = "".join(pem_of(root.certificate).decode() for root in authority.roots)
        lists = "".join(self._list(root).decode() for root in authority.roots)
        everywhere = True
        for namespace in self._published_in:
            try:
                for kind in ("configmaps", "secrets"):
                    await self._put(namespace, kind, {"ca.crt": bundle, "ca.crl": lists})
                self.publish_failures.pop(namespace, None)
            except ApiError as failed:
                everywhere = False
                if self.publish_failures.get(namespace) != str(failed):
                    logger.warning("not published", extra={"namespace": namespace, "error": str(failed)})
                self.publish_failures[namespace] = str(failed)
        if everywhere and authority.upcoming is not None and authority.published is None:
            await self._keep(replace(authority, published=clock.now()))

    async def _put(self, namespace: str, kind: str, texts: dict[str, str]) -> None:
        """Write the bundle where it differs; a CRL that is as good as this one stays."""
        path = core_path(namespace, kind, TRUST_NAME)
        found = await self._api.get(path)
        data = texts if kind == "configmaps" else {name: _base64(text.encode()) for name, text in texts.items()}
        if found is None:
            body = {"metadata": {"name": TRUST_NAME, "labels": LABELS}, "data": data}
            await self._api.create(core_path(namespace, kind), body)
            return
        if not LABELS.items() <= map_of(map_of(found.get("metadata")).get("labels")).items():
            raise Conflict(f"{kind} {namespace}/{TRUST_NAME} is not ours; it is never adopted")
        if map_of(found.get("data")) != data:
            await self._api.replace(path, {**found, "data": data})

    def _list(self, root: Root) -> bytes:
        """Return the root's CRL, a new one where what is revoked differs or the last one is an hour old."""
        revoked = self._revoked(root.sha256)
        serials = frozenset(one.serial for one in revoked)
        kept = self._lists.get(root.sha256)
        now = clock.now()
        if kept is None or kept[1] != serials or kept[0].last_update_utc + BACKDATED + self._times.crl_refresh < now:
            kept = crl(root, revoked, now=now, before=kept[0] if kept is not None else None), serials
            self._lists[root.sha256] = kept
        return kept[0].public_bytes(serialization.Encoding.PEM)

    async def _recall(self, authority: Authority) -> None:
        """Take up the CRLs that are published, so that a restart writes nothing where nothing has changed."""
        if self._is_recalled:
            return
        found = await self._api.get(core_path(self._namespace, "configmaps", TRUST_NAME))
        self._is_recalled = True
        text = str(map_of(map_of(found or {}).get("data")).get("ca.crl", ""))
        end = "-----END X509 CRL-----\n"
        for pem in [part + end for part in text.split(end) if part.strip()]:
            try:
                read = x509.load_pem_x509_crl(pem.encode())
                for root in authority.roots:
                    key = root.key.public_key()
                    if read.issuer == root.certificate.subject and read.is_signature_valid(key):
                        self._lists[root.sha256] = read, frozenset(f"{one.serial_number:x}" for one in read)
            except (
                ValueError,
                TypeError,
                UnsupportedAlgorithm,
                x509.InvalidVersion,
            ):  # somebody edited it: it is written anew
                continue

    def _revoked(self, ca_sha256: str) -> list[Revoked]:
        """Return what a root's CRL lists; nothing while it is not known which policies there are."""
        if not self._roster.is_complete:
            kept = self._lists.get(ca_sha256)
            return [Revoked(f"{one.serial_number:x}", one.revocation_date_utc) for one in kept[0]] if kept else []
        now = clock.now()
        known = {one.uid: one for _, one in self._roster}
        listed: dict[str, Revoked] = {}
        for uid, entry in self._book:
            if entry.ca_sha256 != ca_sha256 or entry.not_after + KEPT_AFTER_END <= now:
                continue
            if uid not in known and self._watched and entry.namespace not in self._watched:
                continue  # not ours to watch any more, and not known to be gone
            why = _why_revoked(known.get(uid), entry, now)
            if why is not None:
                since = min(why[0] or entry.recorded, now)
                listed[entry.serial] = Revoked(entry.serial, since, why[1])
        return sorted(listed.values())


def _why_revoked(known: Known | None, entry: Entry, now: datetime) -> tuple[datetime | None, str] | None:
    """Return since when and why a certificate is to be refused, None if it is not."""
    if known is None:
        return None, "CessationOfOperation"
    for revoked, reason, since in known.wanted.revoked:
        if revoked == entry.sha256:
            return since, reason
    if known.wanted.issued_before is not None and entry.not_before < known.wanted.issued_before:
        return known.wanted.issued_before, "Superseded"
    if entry.sha256 not in known.issued and entry.recorded + ORPHANED_AFTER < now:
        return None, "Superseded"
    return None


def _secret_body(authority: Authority, old: Document | None) -> Document:
    data, notes = encode(authority)
    metadata: dict[str, Any] = dict(map_of(old.get("metadata"))) if old is not None else {"name": CA_NAME}
    kept = {
        name: value
        for name, value in map_of(metadata.get("annotations")).items()
        if not name.startswith(ANNOTATION) or (name == ROTATE and authority.upcoming is None)
    }
    metadata["labels"] = {**map_of(metadata.get("labels")), **LABELS}
    metadata["annotations"] = kept | {f"{ANNOTATION}{name}": value for name, value in notes.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque" if old is None else old.get("type", "Opaque"),
        "metadata": metadata,
        "data": {name: _base64(value) for name, value in data.items()},
    }


def _shape(authority: Authority) -> dict[str, object]:
    return {
        "active": authority.active.sha256,
        "upcoming": authority.upcoming.sha256 if authority.upcoming else None,
        "retired": authority.retired.sha256 if authority.retired else None,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _serial() -> int:
    return int.from_bytes(secrets.token_bytes(16)) | 1 << 120  # RFC 5280: positive, at most 20 octets
