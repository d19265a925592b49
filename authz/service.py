"""The decision, top to bottom: who calls, with what right, how often.

`Service.judge` is the whole of it, stage by stage. What it needs to know is in one immutable set of facts; its single
await is the quota.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography import x509

from authz.core import address, bearer, certificate, grant, hops
from authz.core.cache import ENTRY_BYTES, Bounded, weight_of
from authz.core.decide import Deny, Public, Verdict, conclude
from authz.core.hops import Proxies
from authz.core.plain import carries_token, require_plain, require_plain_form
from authz.core.public import PublicRoutes
from authz.core.quota import Exceeded, Unknown, Within
from authz.model import (
    Claims,
    Client,
    Fhir,
    Grant,
    KeysWanted,
    Policies,
    Presented,
    Reason,
    Refused,
    Request,
    Target,
    Trusted,
)
from authz.policy.limits import Limit

CERTIFICATES_MAX: Final = 10_000  # about 1 kB each; a miss costs a parse of some 50 µs
CERTIFICATES_MAX_BYTES: Final = 8 * 2**20
STRANGERS_MAX: Final = 500  # that no policy lists, so that anybody can show them: they push out none that one lists
TOKENS_MAX: Final = 20_000  # a miss costs a signature check of 100 to 700 µs
TOKENS_MAX_BYTES: Final = 12 * 2**20  # 9,000 ordinary ones
_WINDOW_BYTES: Final = 160  # a pair of instants


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the configuration fixes for every decision."""

    trusted_hops: int
    proxies: Proxies  # at the start; `Service.trust_proxies` replaces their CAs
    authorities: tuple[x509.Certificate, ...]  # at the start; `Service.trust` replaces them
    fhir: Fhir
    public: PublicRoutes
    anonymous: tuple[Limit, ...]  # the quota of an address whose caller is not identified


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known at one instant; swapped whole, never changed."""

    policies: Policies
    trusted: Mapping[str, Trusted]  # by `iss`


class Limiter(Protocol):
    """The quota: a look that costs nothing, and a spend that is the decision's single await."""

    def known(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Exceeded | None: ...

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Within | Exceeded | Unknown: ...


class Service:
    """Judges requests; `want_keys` is told the name of an issuer whose newer keys may verify what ours do not."""

    def __init__(self, rules: Rules, limiter: Limiter, want_keys: Callable[[str], None]) -> None:
        self._rules = rules
        self._authorities = rules.authorities
        self._proxies = rules.proxies
        self._limiter = limiter
        self._want_keys = want_keys
        self.certificates: Bounded[bytes, Presented] = Bounded(CERTIFICATES_MAX, CERTIFICATES_MAX_BYTES)
        self.strangers: Bounded[bytes, Presented] = Bounded(STRANGERS_MAX, CERTIFICATES_MAX_BYTES)
        self.tokens: Bounded[bytes, Claims] = Bounded(TOKENS_MAX, TOKENS_MAX_BYTES)

    def trust(self, authorities: tuple[x509.Certificate, ...]) -> None:
        """Check issued certificates against these CAs from now on; what was found by others is forgotten.

        A decision reads a certificate and looks it up before its single await, so none mixes the two.
        """
        self._authorities = authorities
        self._forget()

    def trust_proxies(self, authorities: tuple[x509.Certificate, ...]) -> None:
        """Prove proxies by these CAs from now on; who was proven by others is forgotten."""
        self._proxies = self._proxies._replace(authorities=authorities)
        self._forget()

    def _forget(self) -> None:
        self.certificates.clear()
        self.strangers.clear()

    async def judge(self, request: Request, facts: Facts, now_us: int) -> Verdict:
        """Return the verdict on one request (design: a decision, in order)."""
        presented: Presented | Refused | None = None
        try:
            target = grant.read_target(request.target, self._rules.fhir)  # 1. one reading only
            require_plain(request, target.query)
            presented = self._presented(request, facts, now_us)
            rule = self._rules.public.match(request.method, target.path)
            if rule is not None:  # 2. needs no token
                require_plain_form(request)
                return await self._public(rule, presented, request, facts, now_us)
            if isinstance(presented, Refused):
                raise presented
            if presented is None:  # 3. who calls
                return await self._by_token_alone(request, target, facts, now_us)
            client = certificate.identify(presented, facts.policies, now_us)
        except Refused as refused:
            return await self._refuse_anonymously(refused, request, presented, now_us)
        known = self._known(client, presented, now_us)  # 4. before any cryptography
        if known is not None:
            return known
        claims: Claims | None = None
        right: Grant | Refused
        try:
            target = grant.complete(request, target, client, self._rules.fhir)  # no mode lets two readings pass
            claims = self._token(
                request, target.query, client, presented.fingerprint, facts=facts, now_us=now_us
            )  # 5. with what right
            right = grant.decide(request, target, client, claims, self._rules.fhir)  # 6. and is it enough
        except Refused as refused:
            right = refused
        return await self._spend(right, client, claims, presented, now_us)  # 7. how often

    def _presented(self, request: Request, facts: Facts, now_us: int) -> Presented | Refused | None:
        """Return the client certificate, None without one, or why it counts for nothing.

        Raises:
            Refused: REQUEST_MALFORMED; that is not for a public route to overlook either.
        """
        header, peer = request.forwarded, request.certificate
        if header is None and peer is None:
            return None
        digest = hashlib.sha256(f"{header is None}\0{header}\0{peer}".encode()).digest()
        presented = self.certificates.get(digest) or self.strangers.get(digest)
        try:
            if presented is not None:
                if presented.proofs:
                    hops.require_proven(presented.proofs, now_us)
                return presented
            presented = hops.present(
                header,
                peer,
                now_us,
                trusted_hops=self._rules.trusted_hops,
                proxies=self._proxies,
                authorities=self._authorities,
            )
        except Refused as refused:
            if refused.reason is Reason.REQUEST_MALFORMED:
                raise
            return refused
        if presented is not None:
            is_listed = presented.fingerprint in facts.policies.by_fingerprint
            (self.certificates if is_listed else self.strangers).put(digest, presented, _weight(presented))
        return presented

    async def _public(
        self, rule: str, presented: Presented | Refused | None, request: Request, facts: Facts, now_us: int
    ) -> Verdict:
        client: Client | None = None
        shown = _shown(presented)
        if shown is not None:
            try:
                client = certificate.identify(shown, facts.policies, now_us)
            except Refused:
                client = None  # the route is open to everyone, so to this caller too, at its address's cost
        if client is not None:
            known = self._known(client, shown, now_us)
            return known if known is not None else await self._spend(Public(rule), client, None, shown, now_us)
        quota = await self._charge_address(request, now_us)
        return conclude(Public(rule), quota, None, None, shown)

    async def _by_token_alone(self, request: Request, target: Target, facts: Facts, now_us: int) -> Verdict:
        """Judge a request without a certificate: a client of `certificate.source: None`, or nobody.

        Until the token is admitted it names nobody, so it is its address that asks and spends, and no policy's Shadow
        mode covers it.
        """
        if not facts.policies.by_token:
            raise Refused(Reason.CERTIFICATE_MISSING, "no client certificate")
        key = address.quota_key(request.address)
        exceeded = self._limiter.known(key, self._rules.anonymous, now_us=now_us)
        if exceeded is not None:
            return Deny(Refused(Reason.QUOTA_EXCEEDED, "no request left for this address"), exceeded)
        client, claims = self._admitted(request, facts, now_us)
        known = self._known(client, None, now_us)
        if known is not None:
            return known
        right: Grant | Refused
        try:
            target = grant.complete(request, target, client, self._rules.fhir)
            right = grant.decide(request, target, client, claims, self._rules.fhir)
        except Refused as refused:
            right = refused
        return await self._spend(right, client, claims, None, now_us)

    def _admitted(self, request: Request, facts: Facts, now_us: int) -> tuple[Client, Claims]:
        """Return the client of `certificate.source: None` that an admitted token identifies, and its claims.

        Raises:
            Refused: TOKEN_MISSING, every other reason of a token, CERTIFICATE_MISSING, CLIENT_SUSPENDED,
                CLIENT_NOT_VALID, POLICY_CONFLICT, POLICY_INVALID.
        """
        token = bearer.credentials(request.authorization)
        if token is None:
            raise Refused(Reason.TOKEN_MISSING, "neither a certificate nor a token")
        claims = self._verified(token, None, facts, now_us)
        client = facts.policies.by_token.get(claims.client_id)
        if client is None:
            raise Refused(Reason.CERTIFICATE_MISSING, "the token's client needs a certificate, or there is none such")
        trusted = bearer.require_issuer(claims.issuer, facts.trusted, client.issuers)
        bearer.admit(claims, trusted.issuer, client, None, now_us)
        certificate.require_standing(client, now_us)
        return client, claims

    def _known(self, client: Client, presented: Presented | None, now_us: int) -> Deny | None:
        """Return the refusal of a client that is certainly over its quota; Shadow mode has yet to see what else."""
        exceeded = None if client.shadow else self._limiter.known(client.key, client.limits, now_us=now_us)
        if exceeded is None:
            return None
        return Deny(Refused(Reason.QUOTA_EXCEEDED, "no request left"), exceeded, client, None, presented)

    def _token(
        self, request: Request, query: str, client: Client, fingerprint: str, *, facts: Facts, now_us: int
    ) -> Claims | None:
        """Return the verified claims; None where none were sent and the policy lets a certificate suffice."""
        token = bearer.credentials(request.authorization)
        if token is None:
            # Credentials of another kind are not no credentials, nor is a token elsewhere: the upstream may act by it.
            if client.token_required or request.authorization or carries_token(request, query):
                raise Refused(Reason.TOKEN_MISSING, "no bearer token in the Authorization header")
            return None
        claims = self._verified(token, client.issuers, facts, now_us)
        bearer.admit(claims, facts.trusted[claims.issuer].issuer, client, fingerprint, now_us)
        return claims

    def _verified(self, token: str, allowed: frozenset[str] | None, facts: Facts, now_us: int) -> Claims:
        """Return claims whose signature holds by a key that is in its issuer's set now."""
        digest = hashlib.sha256(token.encode()).digest()
        claims = self.tokens.get(digest)
        if claims is not None:
            keys = bearer.require_issuer(claims.issuer, facts.trusted, allowed).keys
            if keys is not None and keys.holds(claims.key_thumbprint) and not keys.is_stale(now_us):
                return claims
        try:
            claims = bearer.verify(token, facts.trusted, allowed, now_us)
        except KeysWanted as wanted:
            self._want_keys(wanted.issuer)
            raise
        self.tokens.put(digest, claims, ENTRY_BYTES + weight_of(claims.scopes) + weight_of(_texts(claims)))
        return claims

    async def _refuse_anonymously(
        self, refused: Refused, request: Request, presented: Presented | Refused | None, now_us: int
    ) -> Deny:
        """Return the refusal of a caller that nobody vouches for; it spends its address's quota, and stands."""
        quota = await self._charge_address(request, now_us)
        return Deny(refused, quota, None, None, _shown(presented))

    async def _charge_address(self, request: Request, now_us: int) -> Within | Exceeded | Unknown:
        """Spend the quota of the source address; while that is certainly used up, no store is asked."""
        key = address.quota_key(request.address)
        known = self._limiter.known(key, self._rules.anonymous, now_us=now_us)
        return known if known is not None else await self._limiter.spend(key, self._rules.anonymous, now_us=now_us)

    async def _spend(
        self,
        right: Grant | Public | Refused,
        client: Client,
        claims: Claims | None,
        presented: Presented | None,
        now_us: int,
    ) -> Verdict:
        quota = await self._limiter.spend(client.key, client.limits, now_us=now_us)
        return conclude(right, quota, client, claims, presented)


def _shown(presented: Presented | Refused | None) -> Presented | None:
    return presented if isinstance(presented, Presented) else None


def _weight(presented: Presented) -> int:
    """Return what a remembered certificate takes in memory, in bytes."""
    facts = presented.facts
    texts = (presented.fingerprint,) if facts is None else (presented.fingerprint, facts.issuer, facts.serial)
    windows = [*presented.proofs, *(() if facts is None else (facts.issuer_windows,))]
    return ENTRY_BYTES + weight_of(texts) + sum(_WINDOW_BYTES * (1 + len(each)) for each in windows)


def _texts(claims: Claims) -> Iterator[str]:
    return (claim for claim in claims if isinstance(claim, str))
