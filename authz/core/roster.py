"""Policies → the index that a decision looks clients up in, conflicts resolved.

Of files none is older than another, so of two that claim the same client id or fingerprint neither holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

from authz.core.certificate import epoch_us
from authz.core.loose import list_of, map_of
from authz.model import Client, Credential, Policies, Standing
from authz.policy import ClientPolicy, Mode, Source
from authz.policy.document import Quota
from authz.policy.limits import Limit

_FINGERPRINT: Final = re.compile(r"[0-9A-Fa-f]{64}")
SHARED_MAX: Final = 16_384  # some 10 MB; ten thousand policies of one platform say much the same
Shared = TypeVar("Shared")
_shared: dict[object, object] = {}


class Entry(NamedTuple):
    """A client, and the fingerprints that its policy lists."""

    client: Client
    fingerprints: tuple[str, ...]


def enlist(policy: ClientPolicy, *, may_shadow: bool) -> Entry:
    """Return the client of a valid policy, and the fingerprints that it lists as External.

    Where nobody `may_shadow`, no quota of a policy does either.
    """
    spec, name = policy.spec, policy.metadata
    revoked, validity = spec.revocation, spec.validity
    client = Client(
        id=spec.client_id,
        policy=f"{name.namespace}/{name.name}",
        shadow=may_shadow and spec.mode is Mode.SHADOW,
        suspended=spec.suspended,
        source=spec.certificate.source,
        revoked=frozenset(entry.sha256 for entry in revoked.fingerprints),
        issued_before_us=epoch_us(revoked.issued_before) if revoked.issued_before else None,
        not_before_us=epoch_us(validity.not_before) if validity.not_before else None,
        not_after_us=epoch_us(validity.not_after) if validity.not_after else None,
        token_required=spec.token.required,
        issuers=_once(frozenset(spec.token.issuers)) if spec.token.issuers is not None else None,
        binding=spec.token.binding,
        scopes=_once(tuple(map(_once, spec.scopes))),
        other_scopes=_once(frozenset(spec.other_scopes)),
        routes=_once(tuple(map(_once, spec.routes))),
        limits=_once(tuple(_once(_limit(quota, may_shadow=may_shadow)) for quota in spec.quotas)),
    )
    return Entry(client, spec.certificate.fingerprints)


def _limit(quota: Quota, *, may_shadow: bool) -> Limit:
    limit = quota.limit()
    return limit if may_shadow or limit.enforced else replace(limit, enforced=True)


def _once(value: Shared) -> Shared:
    """Return an equal value that is kept once for all policies that say it."""
    if len(_shared) >= SHARED_MAX:
        _shared.clear()
    kept = _shared.setdefault(value, value)
    return kept if isinstance(kept, type(value)) else value


def enlist_invalid(document: object, policy: str) -> Entry | None:
    """Return whom a document that was never valid speaks of, so that they are told so; None if nobody."""
    spec = map_of(map_of(document).get("spec"))
    client_id = spec.get("clientId")
    certificate = map_of(spec.get("certificate"))
    fingerprints = tuple(
        one.lower()
        for one in list_of(certificate.get("fingerprints"))
        if isinstance(one, str) and _FINGERPRINT.fullmatch(one)
    )
    source = Source.NONE if certificate.get("source") == Source.NONE.value else Source.EXTERNAL
    if not isinstance(client_id, str):
        return None
    return Entry(Client(id=client_id, policy=policy, standing=Standing.INVALID, source=source), fingerprints)


def index(entries: Iterable[Entry], generation: int) -> Policies:
    """Return the index of all clients; an invalid policy takes nothing from a valid one."""
    valid: list[Entry] = []
    invalid: list[Entry] = []
    for entry in entries:
        (invalid if entry.client.standing is Standing.INVALID else valid).append(entry)
    ids = Counter(entry.client.id for entry in valid)
    claims = Counter(fingerprint for entry in valid for fingerprint in entry.fingerprints)
    by_fingerprint: dict[str, Credential] = {}
    by_token: dict[str, Client] = {}
    for entry in (*valid, *invalid):
        client = entry.client
        contested = ids[client.id] > 1 or any(claims[fingerprint] > 1 for fingerprint in entry.fingerprints)
        if contested and client.standing is Standing.ACTIVE:
            client = replace(client, standing=Standing.CONFLICT)
        for fingerprint in entry.fingerprints:
            by_fingerprint.setdefault(fingerprint, Credential(client))
        if client.source is Source.NONE:
            by_token.setdefault(client.id, client)
    return Policies(by_fingerprint=by_fingerprint, by_token=by_token, generation=generation)
