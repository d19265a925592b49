"""What the published CRLs list: certificates that policies revoke, whose policy is gone, or that nobody was given."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from clientpolicy_operator import clock
from clientpolicy_operator.authority import BACKDATED, Authority, Revoked, Root, crl
from clientpolicy_operator.book import Book
from clientpolicy_operator.bundle import read_lists
from clientpolicy_operator.facts import Entry
from clientpolicy_operator.ledger import KEPT_AFTER_END
from clientpolicy_operator.roster import Known, Roster
from clientpolicy_operator.settings import Settings
from clientpolicy_operator.told import when_of

logger = logging.getLogger(__name__)

ORPHANED_AFTER: Final = timedelta(minutes=10)  # a signing that reached no status by then never will
LISTED_MAX: Final = 4_000  # of a root, some 66 bytes each: the CRLs of three fit into one object of 1 MiB


class RevocationLists:
    """A CRL a root, as it was last signed: another one is signed where it would tell something else, or is old."""

    def __init__(self, settings: Settings, book: Book, roster: Roster) -> None:
        self._watched = frozenset(settings.watch.namespaces)  # none: all
        self._refresh = settings.authority.crl_refresh
        self._book = book
        self._roster = roster
        self._lists: dict[str, tuple[x509.CertificateRevocationList, frozenset[str]]] = {}  # by root
        self.end: datetime | None = None  # when the first of those ends that are published
        self.left_out = 0  # for want of room

    def pem(self, root: Root) -> bytes:
        """Return the root's CRL, a new one where what is revoked differs or the last one is an hour old."""
        revoked = self._revoked(root.sha256)
        serials = frozenset(one.serial for one in revoked)
        kept = self._lists.get(root.sha256)
        now = clock.now()
        if kept is None or kept[1] != serials or kept[0].last_update_utc + BACKDATED + self._refresh < now:
            kept = crl(root, revoked, now=now, before=kept[0] if kept is not None else None), serials
            self._lists[root.sha256] = kept
            logger.info("CRL", extra={"ca": root.sha256, "revoked": len(revoked)})
        return kept[0].public_bytes(serialization.Encoding.PEM)

    def published(self) -> None:
        """Note that what `pem` returned last is where proxies read it."""
        ends = [found.next_update_utc for found, _ in self._lists.values()]
        self.end = min((end for end in ends if end is not None), default=None)

    async def refresh(self, authority: Authority) -> None:
        """Read the ledger anew before a CRL is signed: another replica may have written there what we do not know."""
        for root in authority.roots:
            kept = self._lists.get(root.sha256)
            if kept is not None and kept[1] != {one.serial for one in self._revoked(root.sha256)}:
                await self._book.open()
                return

    def recall(self, text: str, roots: Mapping[str, x509.Certificate]) -> None:
        """Take up the CRLs that are published: a restart, or another replica, writes nothing where nothing changed."""
        self._lists = {
            sha256: (found, frozenset(f"{one.serial_number:x}" for one in found))
            for sha256, found in read_lists(text, roots).items()
        }

    def kept_pem(self, sha256: str) -> bytes:
        """Return the published CRL of a root whose key is not there, b"" where there is none."""
        kept = self._lists.get(sha256)
        return kept[0].public_bytes(serialization.Encoding.PEM) if kept is not None else b""

    def _revoked(self, ca_sha256: str) -> list[Revoked]:
        """Return what a root's CRL lists; nothing while it is not known which policies there are."""
        if not self._roster.is_complete:
            kept = self._lists.get(ca_sha256)
            return [Revoked(f"{one.serial_number:x}", one.revocation_date_utc) for one in kept[0]] if kept else []
        now = clock.now()
        known = {one.uid: one for _, one in self._roster}
        passed_on = {entry.sha256 for uid, entry in self._book if uid in known}
        fresh = self._fresh(now)
        listed: dict[str, tuple[int, Revoked]] = {}  # with its rank: what people revoke goes first
        for uid, entry in self._book:
            if entry.ca_sha256 != ca_sha256 or entry.not_after + KEPT_AFTER_END <= now:
                continue
            if uid not in known and self._watched and entry.namespace not in self._watched:
                continue  # not ours to watch any more, and not known to be gone
            if uid not in known and (
                entry.sha256 in passed_on or (entry.namespace in fresh and not self._book.is_gone(uid))
            ):
                continue  # of a policy that was restored under another UID, or may be
            why = _why_revoked(known.get(uid), entry, now)
            if why is not None:
                since = min(why[0] or entry.recorded, now)
                rank = 0 if uid in known and entry.sha256 in {one[0] for one in known[uid].wanted.revoked} else 1
                listed[entry.serial] = rank, Revoked(entry.serial, since, why[1])
        chosen = sorted(listed.values(), key=lambda one: (one[0], -one[1].since.timestamp(), one[1]))
        self.left_out = max(0, len(chosen) - LISTED_MAX)
        return sorted(one for _, one in chosen[:LISTED_MAX])

    def _fresh(self, now: datetime) -> set[str]:
        """Return the namespaces of policies that are new, and may take over what one of before had."""
        return {
            key[0]
            for key, one in self._roster
            if one.uses_ca
            and (created := when_of({"created": one.created}, "created")) is not None
            and created + ORPHANED_AFTER > now
            and not self._book.entries(one.uid)
        }


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
