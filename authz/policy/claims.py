"""Who may have what only one can have: a client id, a SAN, a fingerprint. Of two that claim it, the oldest holds it.

The operator and authz judge by this same rule, each by itself. Who loses one claim takes nothing at all, so that what
it claims besides is free for others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from authz.policy.document import ClientPolicy, Source

_AUTHORITY: Final = re.compile(r"(?P<user>//(?:[^/?#]*@)?)(?P<host>[^/?#]*)")  # RFC 3986 section 3.2
Claim = tuple[str, str]  # what kind, and its value


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A ClientPolicy as far as it competes; `created` sorts as its instants do (RFC 3339 in UTC, whole seconds)."""

    name: str  # namespace/name
    created: str
    claims: frozenset[Claim]
    issued: frozenset[str] = frozenset()  # fingerprints of certificates that the operator made for it


def claims_of(policy: ClientPolicy) -> frozenset[Claim]:
    """Return what a policy claims for itself alone; a common name is none of it.

    Names are claimed as those who verify certificates compare them (RFC 5280 section 7), not as they are written.
    """
    spec = policy.spec
    claims = {("clientId", spec.client_id)}
    claims |= {("SAN", name) for _, name in sans_of(policy)}
    if spec.certificate.source is Source.EXTERNAL:
        claims |= {("fingerprint", sha256) for sha256 in spec.certificate.fingerprints}
    return frozenset(claims)


def sans_of(policy: ClientPolicy) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield the SANs that a policy claims, each with its place in `spec.identity`."""
    identity = policy.spec.identity
    if identity is None:
        return
    for field, names, compared in (
        ("uris", identity.uris, _uri),
        ("dnsNames", identity.dns_names, str.lower),
        ("emails", identity.emails, _email),
    ):
        for place, name in enumerate(names):
            yield (field, place), compared(name)


def _uri(uri: str) -> str:
    """Return a URI with scheme and host in lower case; user and path are told apart by case."""
    scheme, colon, rest = uri.partition(":")
    if (authority := _AUTHORITY.match(rest)) is not None:
        rest = authority["user"] + authority["host"].lower() + rest[authority.end() :]
    return scheme.lower() + colon + rest


def _email(email: str) -> str:
    mailbox, at, domain = email.rpartition("@")
    return mailbox + at + domain.lower()


def conflicts(claimants: Iterable[Claimant]) -> dict[str, tuple[str, Claim]]:
    """Return who loses, by name: to whom, and the claim that both make (the first one, sorted).

    A certificate that the operator made is its policy's, however old another is that lists its fingerprint as External:
    else whoever sees a partner's public certificate could lock it out with a policy made in time.
    """
    ordered = sorted(claimants, key=lambda one: (one.created, one.name))
    makers = {sha256: one.name for one in reversed(ordered) for sha256 in one.issued}
    holders: dict[Claim, str] = {}
    losers: dict[str, tuple[str, Claim]] = {}
    for one in ordered:
        for claim in sorted(one.claims):
            kind, value = claim
            holder = makers.get(value) if kind == "fingerprint" else None
            if holder in (None, one.name):
                holder = holders.get(claim)
            if holder is not None:
                losers[one.name] = (holder, claim)
                break
        else:
            holders |= dict.fromkeys(one.claims, one.name)
    return losers
