"""One ClientPolicy as the API has it → the little that is kept of it, because there may be tens of thousands.

Fingerprints come from the status alone, which only the operator's account may write. Whatever in a status is not as
the operator writes it counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from authz.core.brakes import braked
from authz.core.certificate import epoch_us
from authz.core.loose import list_of, map_of
from authz.core.roster import enlist, enlist_invalid
from authz.model import Client, Standing
from authz.policy import ClientPolicy, FieldError, Source, parse
from authz.policy.ceilings import Ceiling, within
from authz.policy.claims import Claim, claims_of

FINGERPRINTS_MAX: Final = 64  # in a status: four times what its schema admits
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_UNKNOWN: Final = -1
Document = dict[str, object]


class Meta(NamedTuple):
    """Which object, and which version of it."""

    name: str  # namespace/name
    uid: str
    generation: int  # counts edits of the spec
    version: str  # resourceVersion
    created: str  # RFC 3339 in UTC
    is_leaving: bool  # it is being deleted, and waits for somebody's finalizer


class Print(NamedTuple):
    """A certificate that identifies a client, as far as the status tells of it; instants in µs."""

    sha256: str
    not_before_us: int | None = None
    not_after_us: int | None = None


class Held(NamedTuple):
    """What is kept of one object; the client is that of its last good version, braked, or an invalid one's."""

    meta: Meta
    client: Client
    claims: frozenset[Claim]  # none of one that was never valid
    listed: frozenset[str]  # fingerprints in the spec of an External one
    made: frozenset[str]  # fingerprints of certificates that the operator made for it
    prints: tuple[Print, ...]
    errors: int = 0  # in the newest version


def meta_of(document: object) -> Meta | None:
    """Return what an object says of itself; None if it cannot be told which one it is."""
    metadata = map_of(map_of(document).get("metadata"))
    texts = [metadata.get(name) for name in ("namespace", "name", "uid", "resourceVersion", "creationTimestamp")]
    match texts:
        case [str(namespace), str(name), str(uid), str(version), str(created)] if namespace and name:
            generation = metadata.get("generation")
            return Meta(
                name=f"{namespace}/{name}",
                uid=uid,
                generation=generation if type(generation) is int else _UNKNOWN,
                version=version,
                created=created,
                is_leaving=metadata.get("deletionTimestamp") is not None,
            )
        case _:
            return None


def _ignore(_: ClientPolicy) -> None:
    """Take no notice of a policy."""


def read(
    document: Document,
    meta: Meta,
    before: Held | None,
    *,
    may_shadow: bool,
    ceilings: tuple[Ceiling, ...],
    judged: Callable[[ClientPolicy], None] = _ignore,
) -> tuple[Held, tuple[FieldError, ...]]:
    """Return what to keep of an object, and what is wrong with its spec if that has not been said before.

    `before` is what was kept of its name so far; of a namesake with another UID nothing carries over. `judged` is
    called with a policy whose spec is new and valid.
    """
    told = map_of(map_of(document.get("status")).get("certificate"))
    made = tuple(_made(told))
    if before is not None and before.meta.uid != meta.uid:
        before = None
    errors: tuple[FieldError, ...] = ()
    if before is not None and before.meta.generation == meta.generation != _UNKNOWN:  # only its status has changed
        client, claims, listed, count = before.client, before.claims, before.listed, before.errors
    else:
        policy, errors = _judged(document, ceilings)
        client, claims, listed = _kept(policy, document, meta, before, may_shadow=may_shadow)
        count = len(errors)
        if policy is not None:
            judged(policy)
    held = Held(
        meta=meta,
        client=client,
        claims=claims,
        listed=listed,
        made=frozenset(one.sha256 for one in made),
        prints=tuple(_identifying(client, listed, told, made)),
        errors=count,
    )
    return held, errors


def _judged(document: Document, ceilings: tuple[Ceiling, ...]) -> tuple[ClientPolicy | None, tuple[FieldError, ...]]:
    """Return the policy, or what is wrong with it."""
    metadata = map_of(document.get("metadata"))
    parsed = parse(
        {
            "apiVersion": document.get("apiVersion"),
            "kind": document.get("kind"),
            "metadata": {name: metadata.get(name) for name in ("name", "namespace")},
            "spec": document.get("spec"),
        }
    )
    return within(parsed, ceilings)


def _kept(
    policy: ClientPolicy | None, document: Document, meta: Meta, before: Held | None, *, may_shadow: bool
) -> tuple[Client, frozenset[Claim], frozenset[str]]:
    """Return the client, its claims and its listed fingerprints: of a valid policy, else of its last good version."""
    if policy is not None:
        client, fingerprints = enlist(policy, may_shadow=may_shadow)
        return _of_version(client, meta), claims_of(policy), frozenset(fingerprints)
    if before is not None and before.client.standing is not Standing.INVALID:
        return braked(before.client, document), before.claims, before.listed
    entry = enlist_invalid(document, meta.name)
    client = entry.client if entry is not None else Client(id="", policy=meta.name, standing=Standing.INVALID)
    return _of_version(client, meta), frozenset(), frozenset()


def _of_version(client: Client, meta: Meta) -> Client:
    return replace(client, generation=meta.generation) if meta.generation != _UNKNOWN else client


def _identifying(client: Client, listed: frozenset[str], told: Document, made: tuple[Print, ...]) -> Iterator[Print]:
    accepted = dict.fromkeys(filter(_is_fingerprint, list_of(told.get("fingerprints"))[:FINGERPRINTS_MAX]))
    if client.standing is Standing.INVALID:  # whom to tell so; it may do nothing
        yield from map(Print, (str(sha256) for sha256 in accepted))
        yield from (one for one in made if one.sha256 not in accepted)
    elif client.source is Source.EXTERNAL:  # the spec removes at once, the status alone adds
        yield from (Print(str(sha256)) for sha256 in accepted if sha256 in listed)
    elif client.source in (Source.ISSUED, Source.CSR):
        yield from made


def _made(told: Document) -> Iterator[Print]:
    """Yield the current certificate and earlier ones that still count, each once."""
    seen: set[object] = set()
    for place, row in enumerate((told, *map(map_of, list_of(told.get("previous"))[:FINGERPRINTS_MAX]))):
        sha256 = row.get("sha256")
        end_us = _instant_us(row.get("notAfter"))
        if not _is_fingerprint(sha256) or sha256 in seen or (place and end_us is None):
            continue  # an earlier one that has no end would never leave
        seen.add(sha256)
        yield Print(str(sha256), _instant_us(row.get("notBefore")), end_us)


def _instant_us(value: object) -> int | None:
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
        return epoch_us(instant) if instant is not None and instant.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and _FINGERPRINT.fullmatch(value) is not None
