"""All ClientPolicies as far as they concern each other: small, because there may be tens of thousands."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple, TypedDict

from authz.policy import ClientPolicy, Revocation, Source, parse
from authz.policy.ceilings import Ceiling, beyond
from authz.policy.claims import Claim, Claimant, claims_of, conflicts
from clientpolicy_operator import told
from clientpolicy_operator.conditions import TYPES
from clientpolicy_operator.facts import Document, Key
from clientpolicy_operator.ledger import is_serial
from clientpolicy_operator.told import condition_of, is_newer, map_of, when_of

HELD = (Source.ISSUED, Source.CSR)  # what is in a Secret


class News(IntEnum):
    """What a version of an object brings; false where nothing of it concerns us."""

    NONE = 0
    CHANGED = 1  # what we wrote is not as we wrote it, or a renewal is wished for
    EDITED = 2  # another spec, or another object


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is remembered of a spec."""

    claims: frozenset[Claim] = frozenset()  # none of a policy that is invalid or beyond the ceilings
    source: Source | None = None  # None: it is not valid
    secret: str = ""  # the name of its Secret, where it has one
    revoked: tuple[tuple[str, str, datetime | None], ...] = ()  # fingerprint, reason, since when
    issued_before: datetime | None = None


class Told(NamedTuple):
    """A certificate that a status tells of."""

    sha256: str
    serial: str
    revision: int
    not_before: datetime
    not_after: datetime
    ca_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is remembered of one ClientPolicy."""

    name: str  # namespace/name
    uid: str
    generation: int
    observed: int  # the generation that the status is about
    version: str
    created: str
    wanted: Wanted
    issued: frozenset[str]  # fingerprints of its certificates that the status tells of
    not_before: datetime | None  # of the current one
    not_after: datetime | None
    renewal: datetime | None
    conditions: tuple[tuple[str, str], ...]  # type and status, as conditions.TYPES has them
    ca_sha256: str | None
    told: tuple[Told, ...]  # current and previous ones of the built-in CA
    ours: bytes  # digest of what we write into the status

    @property
    def claimant(self) -> Claimant:
        return Claimant(name=self.name, created=self.created, claims=self.wanted.claims, issued=self.issued)

    @property
    def competing(self) -> frozenset[Claim]:
        return self.wanted.claims | {("fingerprint", sha256) for sha256 in self.issued}

    @property
    def is_ready(self) -> bool:
        return ("Ready", "True") in self.conditions

    @property
    def uses_ca(self) -> bool:
        return self.wanted.source in HELD


class Roster:
    """Tells whose claims collide; a change costs no more than what it collides with."""

    def __init__(self, ceilings: tuple[Ceiling, ...]) -> None:
        self._ceilings = ceilings
        self._known: dict[Key, Known] = {}
        self._claimed: defaultdict[Claim, set[Key]] = defaultdict(set)
        self._losers: dict[str, tuple[str, Claim]] = {}
        self._is_stale = False
        self._shared: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}  # few differ among thousands
        self.on_leave: Callable[[str], object] = lambda uid: None  # noqa: ARG005 told of each UID that goes
        self.on_fortune: Callable[[Key], object] = lambda key: None  # noqa: ARG005 set by whoever wants to know
        self.is_complete = False  # holds every object there is, at least once

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[Key, Known]]:
        return iter(self._known.items())

    def get(self, key: Key) -> Known | None:
        return self._known.get(key)

    @property
    def uids(self) -> set[str]:
        return {known.uid for known in self._known.values()}

    def note(self, document: Document) -> News:
        """Take in an object as it is now; return what of it is news."""
        metadata = map_of(document.get("metadata"))
        key = str(metadata.get("namespace")), str(metadata.get("name"))
        before = self._known.get(key)
        version = str(metadata.get("resourceVersion", ""))
        if before is not None and not is_newer(version, before.version):
            return News.NONE  # of a namesake that is gone, too
        known = self._read(document, metadata, before)
        self._known[key] = known
        if before is not None and before.uid != known.uid:
            self.on_leave(before.uid)
        self._claim(key, before, known)
        if before is None or (before.uid, before.generation) != (known.uid, known.generation):
            return News.EDITED
        return News.NONE if before.ours == known.ours else News.CHANGED

    def forget(self, key: Key) -> None:
        before = self._known.pop(key, None)
        if before is not None:
            self.on_leave(before.uid)
            self._claim(key, before, None)

    def conflict(self, key: Key) -> tuple[str, str] | None:
        """Return to whom this one loses, and what both claim."""
        self.settle()
        lost = self._losers.get("/".join(key))
        return (lost[0], f"{lost[1][0]} {lost[1][1]}") if lost is not None else None

    def settle(self) -> None:
        """Judge anew where claims collide, and tell whose fortune has changed."""
        if not self._is_stale:
            return
        self._is_stale = False
        contested = {key for keys in self._claimed.values() if len(keys) > 1 for key in keys}
        before, self._losers = self._losers, conflicts(self._known[key].claimant for key in contested)
        for name in before.keys() | self._losers.keys():
            if before.get(name) != self._losers.get(name):
                namespace, _, rest = name.partition("/")
                self.on_fortune((namespace, rest))

    def _read(self, document: Document, metadata: Document, before: Known | None) -> Known:
        uid, generation = str(metadata.get("uid")), told.int_of(metadata.get("generation"))
        status = map_of(document.get("status"))
        certificate = map_of(status.get("certificate"))
        conditions = tuple((name, str(condition_of(status, name).get("status", "Unknown"))) for name in TYPES)
        issued = {told.current_sha256(status), *(str(one.get("sha256", "")) for one in told.previous_of(status))}
        is_same = before is not None and (before.uid, before.generation) == (uid, generation)
        return Known(
            name=f"{metadata.get('namespace')}/{metadata.get('name')}",
            uid=uid,
            generation=generation,
            observed=told.int_of(status.get("observedGeneration")),
            version=str(metadata.get("resourceVersion", "")),
            created=str(metadata.get("creationTimestamp", "")),
            wanted=before.wanted if before is not None and is_same else self._wanted(document, before, uid),
            issued=frozenset(filter(None, issued)),
            not_before=when_of(certificate, "notBefore"),
            not_after=when_of(certificate, "notAfter"),
            renewal=when_of(certificate, "renewalTime"),
            conditions=self._shared.setdefault(conditions, conditions),
            ca_sha256=told.current_issuer(status),
            told=tuple(_told((certificate, *told.previous_of(status)))),
            ours=_digest(status, told.renew_of(metadata)),
        )

    def _wanted(self, document: Document, before: Known | None, uid: str) -> Wanted:
        # An invalid version keeps the claims of its last good one, as long as that is known: authz goes by it, too.
        was = before.wanted if before is not None and before.uid == uid else Wanted()
        policy = parse(document)
        if isinstance(policy, ClientPolicy):
            return Wanted(
                claims=was.claims if beyond(policy, self._ceilings) else claims_of(policy),
                source=policy.spec.certificate.source,
                secret=told.secret_name(policy.metadata.name, policy) if policy.spec.certificate.source in HELD else "",
                **_revoked(policy.spec.revocation),
            )
        try:  # what it revokes holds, whatever else is wrong
            raw = json.dumps(map_of(document.get("spec")).get("revocation", {}))
            return Wanted(claims=was.claims, **_revoked(Revocation.model_validate_json(raw)))
        except (TypeError, ValueError, RecursionError):
            return Wanted(claims=was.claims, revoked=was.revoked, issued_before=was.issued_before)

    def _claim(self, key: Key, before: Known | None, after: Known | None) -> None:
        """Keep the index of claims; only where one is shared does anything need judging."""
        if before is not None and after is not None and before.claimant == after.claimant:
            return
        old = before.competing if before is not None else frozenset()
        new = after.competing if after is not None else frozenset()
        for claim in old | new:
            self._is_stale |= bool(self._claimed.get(claim, set()) - {key})
        for claim in old - new:
            self._claimed[claim].discard(key)
            if not self._claimed[claim]:
                del self._claimed[claim]
        for claim in new:
            self._claimed[claim].add(key)


def _digest(status: Document, renew: str) -> bytes:
    """Return what changes with what we write into a status, or with a wish, and not with what others write there."""
    ours: list[object] = [renew]
    ours += [condition_of(status, name) for name in TYPES]
    ours += [{name: status.get(name)} for name in ("observedGeneration", "certificate", "quotas")]
    return hashlib.blake2b(json.dumps(ours, sort_keys=True).encode(), digest_size=8).digest()


def _told(rows: Iterable[Document]) -> Iterator[Told]:
    for row in rows:
        begin, end = when_of(row, "notBefore"), when_of(row, "notAfter")
        texts = [str(row.get(name, "")) for name in ("sha256", "serialNumber", "caSha256")]
        if begin is not None and end is not None and all(texts) and is_serial(texts[1]):
            yield Told(texts[0], texts[1], told.int_of(row.get("revision")), begin, end, texts[2])


class _Revoked(TypedDict):
    revoked: tuple[tuple[str, str, datetime | None], ...]
    issued_before: datetime | None


def _revoked(revocation: Revocation) -> _Revoked:
    listed = tuple((one.sha256, one.reason, one.time) for one in revocation.fingerprints)
    return {"revoked": listed, "issued_before": revocation.issued_before}
