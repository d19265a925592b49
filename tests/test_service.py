"""The decision as a whole: its order, whose quota pays, what Shadow lets pass, and that nothing else allows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import partner
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import NOW_US, check_request, policy_document, token, xfcc

from authz.core.certificate import epoch_us
from authz.core.decide import Allow, Deny, Public, Shadowed, Verdict
from authz.core.hops import Proxies
from authz.core.jwks import read_keys
from authz.core.public import PublicRoutes
from authz.core.quota import Exceeded, Unknown, Within
from authz.core.reasons import ANSWERS, Answer
from authz.core.roster import Entry, enlist, enlist_invalid, index
from authz.edge.store.limiter import Limiter
from authz.edge.store.memory import MemoryStore
from authz.model import Client, Compartment, Credential, Fhir, Issuer, KeySet, Policies, Reason, Refused, Trusted
from authz.policy import ClientPolicy, Source, parse
from authz.policy.limits import Limit, rate_limit
from authz.service import Facts, Rules, Service
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from authz.wire.ratelimit import Form
from authz.wire.request import FORM_MAX_BYTES, ClientAddress, read, read_message
from authz.wire.response import Style, answer

SECOND = 1_000_000
ISSUER = Issuer(
    name="health-auth",
    issuer=partner.ISSUER,
    audiences=frozenset({partner.AUDIENCE}),
    algorithms=frozenset({"RS256"}),
    leeway_us=30 * SECOND,
    client_claim="client_id",
    patient_claim="patient",
    scope_claims=("scope",),
)
RULES = Rules(
    trusted_hops=1,
    proxies=Proxies(),
    authorities=(),
    fhir=Fhir("/fhir", Compartment.DENY),
    public=PublicRoutes(exact=frozenset({("GET", "/health")}), below=(("GET", "/docs/"),)),
    anonymous=(rate_limit(name="anonymous", requests=10, per_us=SECOND, burst=20),),
)
NONE: dict[str, Any] = {"certificate": {"source": "None"}}


class Spy:
    """A limiter that remembers who spent; `outcome` replaces its answer."""

    def __init__(self) -> None:
        self._limiter = Limiter(MemoryStore())
        self.spent: list[str] = []
        self.outcome: Within | Exceeded | Unknown | None = None

    def known(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Exceeded | None:
        return self._limiter.known(key, limits, now_us=now_us)

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Within | Exceeded | Unknown:
        self.spent.append(key)
        return self.outcome or await self._limiter.spend(key, limits, now_us=now_us)


class Bench:
    """A service with the policies of a test, and what it asked of others."""

    def __init__(self, *documents: dict[str, Any], rules: Rules = RULES, keys: bytes | None = None) -> None:
        self.limiter = Spy()
        self.wanted: list[str] = []
        self.service = Service(rules, self.limiter, self.wanted.append)
        entries = [_entry(document) for document in documents or (policy_document(),)]
        self.facts = Facts(policies=index(entries, 1), trusted=trusted(keys or partner.jwks()))

    async def judge(self, *arguments: Any, now_us: int = NOW_US, **more: Any) -> Verdict:
        request = read_message(check_request(*arguments, **more), ClientAddress())
        return await self.service.judge(request, self.facts, now_us)

    async def reason(self, *arguments: Any, now_us: int = NOW_US, **more: Any) -> Reason:
        verdict = await self.judge(*arguments, now_us=now_us, **more)
        assert isinstance(verdict, Deny), verdict
        return verdict.refused.reason


def _entry(document: dict[str, Any]) -> Entry:
    policy = parse(document)
    entry = (
        enlist(policy, may_shadow=True) if isinstance(policy, ClientPolicy) else enlist_invalid(document, "p/invalid")
    )
    assert entry is not None
    return entry


def trusted(keys: bytes, days: int = 1) -> dict[str, Trusted]:
    return {partner.ISSUER: Trusted(ISSUER, read_keys(keys, NOW_US + days * 86_400 * SECOND)[0])}


CLIENT_KEY, ADDRESS_KEY = f"client:{partner.CLIENT_ID}", "address:192.0.2.7"


async def test_partner_with_certificate_and_token_is_allowed() -> None:
    bench = Bench()
    verdict = await bench.judge(bearer=token())
    assert isinstance(verdict, Allow)
    assert verdict.client is not None
    assert verdict.client.policy == "partners/trusted-partner-app"
    assert verdict.claims is not None
    assert bench.limiter.spent == [CLIENT_KEY]


ORDER: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "path": ({"target": "/fhir/../x", "forwarded": None}, Reason.PATH_AMBIGUOUS, ADDRESS_KEY),
    "path before public": ({"target": "/health/..", "forwarded": None}, Reason.PATH_AMBIGUOUS, ADDRESS_KEY),
    "FHIR base in another case": (
        {"target": "/FHIR/Patient/124", "bearer": token()},
        Reason.PATH_AMBIGUOUS,
        ADDRESS_KEY,
    ),
    "FHIR base with a dot": ({"target": "/fhir./Patient/124", "bearer": token()}, Reason.PATH_AMBIGUOUS, ADDRESS_KEY),
    "FHIR base, full width": (
        {"target": "/%EF%BD%86hir/Patient/124", "bearer": token()},
        Reason.PATH_AMBIGUOUS,
        ADDRESS_KEY,
    ),
    "no path (CONNECT)": ({"target": "", "method": "CONNECT"}, Reason.PATH_AMBIGUOUS, ADDRESS_KEY),
    "no method": ({"method": ""}, Reason.REQUEST_MALFORMED, ADDRESS_KEY),
    "method with a space": ({"method": "GET /"}, Reason.REQUEST_MALFORMED, ADDRESS_KEY),
    "two Authorization values": (
        {"headers": {"authorization": "Bearer a,Bearer b"}},
        Reason.REQUEST_MALFORMED,
        ADDRESS_KEY,
    ),
    "method override": ({"headers": {"x-http-method-override": "DELETE"}}, Reason.REQUEST_MALFORMED, ADDRESS_KEY),
    "method override in CGI spelling": (
        {"headers": {"x_method_override": "PUT"}},
        Reason.REQUEST_MALFORMED,
        ADDRESS_KEY,
    ),
    "XFCC grammar": ({"forwarded": "Hash=1,"}, Reason.REQUEST_MALFORMED, ADDRESS_KEY),
    "XFCC grammar on a public route": (
        {"target": "/health", "forwarded": "x"},
        Reason.REQUEST_MALFORMED,
        ADDRESS_KEY,
    ),
    "two XFCC elements": ({"forwarded": f"{xfcc()},{xfcc()}"}, Reason.REQUEST_MALFORMED, ADDRESS_KEY),
    "no certificate": ({"forwarded": None}, Reason.CERTIFICATE_MISSING, ADDRESS_KEY),
    "no certificate, good token": ({"forwarded": None, "bearer": token()}, Reason.CERTIFICATE_MISSING, ADDRESS_KEY),
    "unknown certificate, good token": (
        {"forwarded": xfcc(partner.partner_certificate("other")), "bearer": token()},
        Reason.CERTIFICATE_UNKNOWN,
        ADDRESS_KEY,
    ),
    "certificate and Hash disagree": (
        {"forwarded": xfcc().replace(partner.partner_certificate().fingerprint, "ab" * 32)},
        Reason.CERTIFICATE_MALFORMED,
        ADDRESS_KEY,
    ),
    "peer and XFCC disagree": (
        {"peer": partner.partner_certificate("other").encoded},
        Reason.CERTIFICATE_MALFORMED,
        ADDRESS_KEY,
    ),
    "no token": ({}, Reason.TOKEN_MISSING, CLIENT_KEY),
    "basic credentials": ({"headers": {"authorization": "Basic abc"}}, Reason.TOKEN_MISSING, CLIENT_KEY),
    "token in header and query": (
        {"target": "/fhir/Patient/123?access_token=x", "bearer": token()},
        Reason.REQUEST_MALFORMED,
        ADDRESS_KEY,
    ),
    "token in header and query, its name encoded": (
        {"target": "/fhir/Patient/123?access%5Ftoken=x", "bearer": token()},
        Reason.REQUEST_MALFORMED,
        ADDRESS_KEY,
    ),
    "method in the query": (
        {"target": "/fhir/Patient/123?_method=DELETE", "method": "POST", "bearer": token()},
        Reason.REQUEST_MALFORMED,
        ADDRESS_KEY,
    ),
    "method in the query of a public route": (
        {"target": "/health?_m%65thod=DELETE", "forwarded": None},
        Reason.REQUEST_MALFORMED,
        ADDRESS_KEY,
    ),
    "token in the query only": ({"target": "/fhir/Patient/123?access_token=x"}, Reason.TOKEN_MISSING, CLIENT_KEY),
    "bad token": ({"bearer": "x"}, Reason.TOKEN_MALFORMED, CLIENT_KEY),
    "expired token": ({"bearer": token(exp=1)}, Reason.TOKEN_EXPIRED, CLIENT_KEY),
    "another client's token": ({"bearer": token(client_id="other")}, Reason.TOKEN_CLIENT, CLIENT_KEY),
    "bound elsewhere": (
        {"bearer": token(cnf={"x5t#S256": partner.partner_certificate("other").thumbprint})},
        Reason.TOKEN_BINDING,
        CLIENT_KEY,
    ),
    "another patient": ({"target": "/fhir/Patient/124", "bearer": token()}, Reason.PATIENT_MISMATCH, CLIENT_KEY),
    "another path": ({"target": "/other", "bearer": token()}, Reason.ROUTE_NOT_ALLOWED, CLIENT_KEY),
    "another method on a public path": ({"target": "/health", "method": "POST"}, Reason.TOKEN_MISSING, CLIENT_KEY),
    "a public path's neighbour": ({"target": "/healthz", "bearer": token()}, Reason.ROUTE_NOT_ALLOWED, CLIENT_KEY),
    "the folder of public paths": ({"target": "/docs/", "bearer": token()}, Reason.ROUTE_NOT_ALLOWED, CLIENT_KEY),
}


@pytest.mark.parametrize(("asked", "reason", "payer"), ORDER.values(), ids=ORDER.keys())
async def test_refusal_has_its_reason_and_its_payer(asked: dict[str, Any], reason: Reason, payer: str) -> None:
    bench = Bench()
    assert await bench.reason(**asked) is reason
    assert bench.limiter.spent == [payer]


async def test_refusal_stands_also_over_the_quota() -> None:
    bench = Bench()
    bench.limiter.outcome = Exceeded("a", 1, ())
    assert await bench.reason(bearer="x") is Reason.TOKEN_MALFORMED
    assert await bench.reason(forwarded=None) is Reason.CERTIFICATE_MISSING


@pytest.mark.parametrize(("target", "payer"), [("/health?x=1", CLIENT_KEY), ("/docs/a/b", CLIENT_KEY)])
async def test_public_route_charges_the_client_that_a_certificate_names(target: str, payer: str) -> None:
    bench = Bench()
    verdict = await bench.judge(target)
    assert isinstance(verdict, Allow)
    assert isinstance(verdict.right, Public)
    assert bench.limiter.spent == [payer]


@pytest.mark.parametrize(
    "asked",
    [
        {"forwarded": None},
        {"forwarded": xfcc(partner.partner_certificate("other"))},
        {"forwarded": xfcc().replace("Hash=", "Hash=00")},
        {"now_us": epoch_us(partner.partner_certificate().parsed.not_valid_after_utc) + 1},
    ],
    ids=["no certificate", "unknown", "malformed", "expired"],
)
async def test_public_route_charges_the_address_of_everyone_else(asked: dict[str, Any]) -> None:
    bench = Bench()
    verdict = await bench.judge("/health", **asked)
    assert isinstance(verdict, Allow)
    assert verdict.client is None
    assert bench.limiter.spent == [ADDRESS_KEY]


@pytest.mark.parametrize("target", ["/FHIR/Patient/1", "/fhir%20/Patient/1", "/Fhir", "/fhir.json"])
async def test_public_route_opens_nothing_that_looks_like_the_fhir_base(target: str) -> None:
    bench = Bench(rules=replace(RULES, public=PublicRoutes(below=(("GET", "/"),))))
    assert isinstance(await bench.judge("/other/FHIR", forwarded=None), Allow)
    assert await bench.reason(target, forwarded=None) is Reason.PATH_AMBIGUOUS


async def test_public_route_has_a_quota_too() -> None:
    bench = Bench()
    for _ in range(21):
        assert isinstance(await bench.judge("/health", forwarded=None), Allow)
    assert await bench.reason("/health", forwarded=None) is Reason.QUOTA_EXCEEDED
    assert isinstance(await bench.judge("/health", forwarded=None, address="192.0.2.8"), Allow)


async def test_flood_is_refused_before_any_cryptography() -> None:
    bench = Bench(policy_document(quotas=[{"name": "q", "requests": 1, "per": "1s"}]))
    assert isinstance(await bench.judge(bearer=token()), Allow)
    assert await bench.reason(bearer=token(key=partner.rsa_key("evil"))) is Reason.QUOTA_EXCEEDED
    assert bench.limiter.spent == [CLIENT_KEY]
    assert isinstance(await bench.judge(bearer=token(), now_us=NOW_US + SECOND), Allow)


async def test_refusal_spends_the_clients_quota() -> None:
    bench = Bench(policy_document(quotas=[{"name": "q", "requests": 2, "per": "1s"}]))
    assert await bench.reason() is Reason.TOKEN_MISSING
    assert await bench.reason("/fhir/Patient/124", bearer=token()) is Reason.PATIENT_MISMATCH
    assert await bench.reason(bearer=token()) is Reason.QUOTA_EXCEEDED


async def test_store_that_does_not_answer_is_the_policys_to_judge() -> None:
    bench = Bench()
    bench.limiter.outcome = Unknown("gone")
    assert await bench.reason(bearer=token()) is Reason.STORE_UNAVAILABLE


async def test_certificate_alone_suffices_where_the_policy_says_so() -> None:
    bench = Bench(policy_document(token={"required": False}, scopes=["system/Patient.rs", "patient/*.rs"]))
    assert isinstance(await bench.judge("/fhir/Patient/9"), Allow)
    assert await bench.reason("/fhir/Observation/9") is Reason.SCOPE_MISSING
    assert await bench.reason("/fhir/Patient/9", bearer="x") is Reason.TOKEN_MALFORMED
    assert await bench.reason("/fhir/Patient/9", headers={"authorization": "DPoP x"}) is Reason.TOKEN_MISSING
    assert await bench.reason("/fhir/Patient/9?access%5Ftoken=x") is Reason.TOKEN_MISSING
    assert await bench.reason("/fhir/Patient/9", headers={"authorization": "Bearer\tx"}) is Reason.TOKEN_MALFORMED
    assert await bench.reason("/fhir/Patient/9", bearer=token(scope="patient/*.rs")) is Reason.PATIENT_MISMATCH


# ---- clients without a certificate ----------------------------------------------------------------------------


async def test_verified_token_identifies_a_client_without_certificate() -> None:
    bench = Bench(policy_document(**NONE))
    verdict = await bench.judge(forwarded=None, bearer=token())
    assert isinstance(verdict, Allow)
    assert bench.limiter.spent == [CLIENT_KEY]


NOBODYS: dict[str, tuple[dict[str, Any], Reason]] = {
    "another client's token": ({"bearer": token(client_id="other")}, Reason.CERTIFICATE_MISSING),
    "unknown certificate besides": ({"bearer": token(), "forwarded": xfcc()}, Reason.CERTIFICATE_UNKNOWN),
}


@pytest.mark.parametrize(("asked", "reason"), NOBODYS.values(), ids=NOBODYS.keys())
async def test_who_is_not_identified_asks_as_its_address(asked: dict[str, Any], reason: Reason) -> None:
    bench = Bench(policy_document(**NONE))
    assert await bench.reason(**({"forwarded": None} | asked)) is reason
    assert bench.limiter.spent == [ADDRESS_KEY]


# Every way in which a token is not admitted, but that of a policy (below): what is sent, and the reason.
UNADMITTED: dict[str, tuple[dict[str, Any], Reason]] = {
    "none": ({}, Reason.TOKEN_MISSING),
    "of another scheme": ({"headers": {"authorization": "Basic abc"}}, Reason.TOKEN_MISSING),
    "malformed": ({"bearer": "x"}, Reason.TOKEN_MALFORMED),
    "algorithm": ({"bearer": token(key=partner.ec_key(), algorithm="ES256")}, Reason.TOKEN_ALGORITHM),
    "key unknown": ({"bearer": token(headers={"kid": "k9"})}, Reason.TOKEN_KEY_UNKNOWN),
    "signature": ({"bearer": token(key=partner.rsa_key("evil"))}, Reason.TOKEN_SIGNATURE),
    "expired": ({"bearer": token(exp=1)}, Reason.TOKEN_EXPIRED),
    "not yet valid": ({"bearer": token(nbf=NOW_US // SECOND + 60)}, Reason.TOKEN_NOT_YET_VALID),
    "issuer": ({"bearer": token(iss="https://evil.example/")}, Reason.TOKEN_ISSUER),
    "audience": ({"bearer": token(aud="https://elsewhere.example")}, Reason.TOKEN_AUDIENCE),
    "type": ({"bearer": token(headers={"typ": "dpop+jwt"})}, Reason.TOKEN_TYPE),
    "no client": ({"bearer": token(client_id=None)}, Reason.TOKEN_CLIENT),
    "bound elsewhere": ({"bearer": token(cnf={"x5t#S256": "A" * 43})}, Reason.TOKEN_BINDING),
    "bound by another method": ({"bearer": token(cnf={"jkt": "A" * 43})}, Reason.TOKEN_BINDING),
}
UNADMITTED_BY_POLICY: dict[str, tuple[dict[str, Any], Reason]] = {
    "issuer not its own": ({"token": {"issuers": ["other"]}}, Reason.TOKEN_ISSUER),
    "suspended": ({"suspended": True}, Reason.CLIENT_SUSPENDED),
    "not in force": ({"validity": {"notAfter": "2026-01-01T00:00:00Z"}}, Reason.CLIENT_NOT_VALID),
}
STRANGER: dict[str, Any] = {"forwarded": None, "address": "198.51.100.9"}
TWICE_AN_HOUR: dict[str, Any] = {"quotas": [{"name": "q", "requests": 2, "per": "1h"}]}


def test_table_of_unadmitted_tokens_has_every_reason() -> None:
    tried = {reason for _, reason in UNADMITTED.values()}
    missing = {reason for reason in Reason if reason.value.startswith("token_")} - tried
    assert missing == {Reason.TOKEN_INACTIVE}  # of introspection, which does not exist yet


@pytest.mark.parametrize("mode", ["Enforce", "Shadow"])
@pytest.mark.parametrize(
    ("spec", "asked", "reason"),
    [
        *(pytest.param({}, asked, reason, id=name) for name, (asked, reason) in UNADMITTED.items()),
        *(
            pytest.param(spec, {"bearer": token()}, reason, id=name)
            for name, (spec, reason) in UNADMITTED_BY_POLICY.items()
        ),
    ],
)
async def test_until_a_token_is_admitted_it_names_nobody_and_its_address_pays(
    spec: dict[str, Any], asked: dict[str, Any], reason: Reason, mode: str
) -> None:
    bench = Bench(policy_document(mode=mode, **TWICE_AN_HOUR, **NONE, **spec))
    for _ in range(3):
        verdict = await bench.judge(**(STRANGER | asked))
        assert isinstance(verdict, Deny)
        assert (verdict.refused.reason, verdict.client, verdict.claims) == (reason, None, None)
    assert bench.limiter.spent == ["address:198.51.100.9"] * 3
    if not spec:
        assert isinstance(await bench.judge(forwarded=None, bearer=token()), Allow)


async def test_client_over_its_quota_is_told_only_to_those_who_hold_an_admitted_token() -> None:
    bench = Bench(policy_document(**TWICE_AN_HOUR, **NONE))
    for _ in range(2):
        assert isinstance(await bench.judge(forwarded=None, bearer=token()), Allow)
    assert await bench.reason(forwarded=None, bearer=token()) is Reason.QUOTA_EXCEEDED
    assert await bench.reason(**STRANGER, bearer=token(exp=1)) is Reason.TOKEN_EXPIRED
    assert bench.limiter.spent[2:] == ["address:198.51.100.9"]


@pytest.mark.parametrize("mode", ["Enforce", "Shadow"])
@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        *UNADMITTED.values(),
        ({"bearer": token(client_id="other")}, Reason.TOKEN_CLIENT),
        ({"target": "/fhir/Observation/1?x=1", "bearer": token(exp=1, scope="patient/*.rs")}, Reason.TOKEN_EXPIRED),
    ],
    ids=[*UNADMITTED, "another client's", "expired, with more scopes"],
)
async def test_unadmitted_token_beside_a_certificate_sets_no_header(
    asked: dict[str, Any], reason: Reason, mode: str
) -> None:
    """The certificate names the client, so it pays; what a token says counts from its admission on."""
    bench = Bench(policy_document(mode=mode))
    verdict = await bench.judge(**asked)
    assert isinstance(verdict, Shadowed if mode == "Shadow" else Deny)
    assert (verdict.refused.reason, verdict.claims) == (reason, None)
    assert bench.limiter.spent == [CLIENT_KEY]
    style = Style(fhir=RULES.fhir, form=Form.IETF)
    upstream = answer(verdict, "d" * 32, "/fhir/Patient/123", style).upstream
    known = {"x-client-id", "x-client-policy", "x-decision-id"}
    assert set(upstream) == (known if mode == "Shadow" else set())


async def test_token_of_a_certificates_client_does_not_pass_without_it() -> None:
    other = policy_document("other")
    bench = Bench(policy_document(**NONE), other)
    assert await bench.reason(forwarded=None, bearer=token(client_id="other")) is Reason.CERTIFICATE_MISSING


async def test_address_over_its_quota_gets_no_cryptography() -> None:
    bench = Bench(policy_document(**NONE))
    for _ in range(21):
        assert await bench.reason(forwarded=None, bearer="x") is Reason.TOKEN_MALFORMED
    assert await bench.reason(forwarded=None, bearer=token()) is Reason.QUOTA_EXCEEDED


async def test_client_without_certificate_has_its_own_quota() -> None:
    bench = Bench(policy_document(**NONE, quotas=[{"name": "q", "requests": 1, "per": "1s"}]))
    assert isinstance(await bench.judge(forwarded=None, bearer=token()), Allow)
    assert await bench.reason(forwarded=None, bearer=token()) is Reason.QUOTA_EXCEEDED
    assert (
        await bench.reason(forwarded=None, bearer=token(), now_us=NOW_US + SECOND, target="/x")
        is Reason.ROUTE_NOT_ALLOWED
    )


# ---- tokens are remembered, rules are not -----------------------------------------------------------------------


async def test_remembered_token_is_judged_anew_on_every_request() -> None:
    bench = Bench()
    bearer = token()
    assert isinstance(await bench.judge(bearer=bearer), Allow)
    assert isinstance(await bench.judge(bearer=bearer), Allow)
    assert bench.service.tokens.hits == 1
    assert await bench.reason(bearer=bearer, now_us=NOW_US + 631 * SECOND) is Reason.TOKEN_EXPIRED
    assert await bench.reason("/fhir/Patient/124", bearer=bearer) is Reason.PATIENT_MISMATCH
    bench.facts = Facts(
        policies=index([_entry(policy_document(token={"issuers": ["x"]}))], 2), trusted=bench.facts.trusted
    )
    assert await bench.reason(bearer=bearer) is Reason.TOKEN_ISSUER


async def test_remembered_token_falls_with_its_key() -> None:
    bench = Bench()
    bearer = token()
    assert isinstance(await bench.judge(bearer=bearer), Allow)
    rotated = partner.jwks(partner.jwk(partner.rsa_key("next"), "k2"))
    bench.facts = Facts(policies=bench.facts.policies, trusted=trusted(rotated))
    assert await bench.reason(bearer=bearer) is Reason.TOKEN_KEY_UNKNOWN
    assert bench.wanted == ["health-auth"]
    withdrawn = Trusted(ISSUER, KeySet(keys=(), stale_at_us=NOW_US + SECOND))
    bench.facts = Facts(policies=bench.facts.policies, trusted=trusted(partner.jwks()))
    assert isinstance(await bench.judge(bearer=bearer), Allow)
    bench.facts = Facts(policies=bench.facts.policies, trusted={partner.ISSUER: withdrawn})
    assert await bench.reason(bearer=bearer) is Reason.TOKEN_KEY_UNKNOWN
    bench.facts = Facts(policies=bench.facts.policies, trusted={partner.ISSUER: Trusted(ISSUER, None)})
    assert await bench.reason(bearer=bearer) is Reason.ISSUER_UNAVAILABLE
    bench.facts = Facts(policies=bench.facts.policies, trusted={})
    assert await bench.reason(bearer=bearer) is Reason.TOKEN_ISSUER


async def test_signature_under_a_known_kid_asks_for_newer_keys_and_passes_once_they_are_there() -> None:
    bench = Bench()
    bearer = token(key=partner.rsa_key("next"))
    assert await bench.reason(bearer=bearer) is Reason.TOKEN_SIGNATURE
    assert bench.wanted == ["health-auth"]
    reused = partner.jwks(partner.jwk(partner.rsa_key("next"), "k1"))
    bench.facts = Facts(policies=bench.facts.policies, trusted=trusted(reused))
    assert isinstance(await bench.judge(bearer=bearer), Allow)
    assert bench.wanted == ["health-auth"]


async def test_remembered_token_falls_when_keys_are_stale() -> None:
    bench = Bench()
    bearer = token(exp=NOW_US // SECOND + 10 * 86_400)
    assert isinstance(await bench.judge(bearer=bearer), Allow)
    assert await bench.reason(bearer=bearer, now_us=NOW_US + 86_400 * SECOND) is Reason.ISSUER_UNAVAILABLE


async def test_remembered_certificate_is_judged_anew() -> None:
    bench = Bench()
    assert isinstance(await bench.judge(bearer=token()), Allow)
    suspended = _entry(policy_document(suspended=True))
    bench.facts = Facts(policies=index([suspended], 2), trusted=bench.facts.trusted)
    assert await bench.reason(bearer=token()) is Reason.CLIENT_SUSPENDED
    assert bench.service.certificates.hits == 1
    assert await bench.reason(bearer=token(), forwarded=f"{xfcc()};Hash=x") is Reason.REQUEST_MALFORMED


async def test_certificates_of_strangers_push_out_none_that_a_policy_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.service.STRANGERS_MAX", 8)
    monkeypatch.setattr("authz.service.CERTIFICATES_MAX", 2)
    bench = Bench()
    assert isinstance(await bench.judge(bearer=token()), Allow)
    for number in range(100):
        asked = f"Hash={number % 50:064x}"
        assert await bench.reason(forwarded=asked) is Reason.CERTIFICATE_UNKNOWN
        assert await bench.reason(forwarded=asked) is Reason.CERTIFICATE_UNKNOWN
    assert (len(bench.service.certificates), len(bench.service.strangers)) == (1, 8)
    assert bench.service.strangers.hits == 100  # the second of each two
    assert isinstance(await bench.judge(bearer=token()), Allow)
    assert bench.service.certificates.hits == 1


async def test_stranger_that_becomes_listed_is_judged_anew() -> None:
    bench = Bench(policy_document("other"))
    assert await bench.reason(bearer=token()) is Reason.CERTIFICATE_UNKNOWN
    bench.facts = Facts(policies=index([_entry(policy_document())], 2), trusted=bench.facts.trusted)
    assert isinstance(await bench.judge(bearer=token()), Allow)
    bench.service.trust(())
    assert len(bench.service.strangers) == 0


async def test_what_is_remembered_of_a_certificate_does_not_grow_with_it() -> None:
    uris = tuple(f"spiffe://example.org/{number:06}" for number in range(1_200))
    small, large = partner.certificate("small"), partner.certificate("large", uris=uris)
    bench = Bench()
    weights = []
    for one in (small, large):
        assert await bench.reason(forwarded=f'Cert="{one.encoded}"') is Reason.CERTIFICATE_UNKNOWN
        weights.append(bench.service.strangers.bytes)
    assert len(large.encoded) > 40_000
    assert weights[1] <= 2 * weights[0] < 4_000


async def test_remembered_tokens_weigh_what_they_say() -> None:
    bench = Bench()
    for number in range(3):
        assert isinstance(await bench.judge(bearer=token(scope=f"patient/Patient.read x{number} {'y' * 8_000}")), Allow)
    assert 24_000 < bench.service.tokens.bytes < 30_000


SHOWN: dict[str, tuple[dict[str, Any], bool]] = {
    "allowed": ({"bearer": token()}, True),
    "no token": ({}, True),
    "unknown": ({"forwarded": xfcc(partner.partner_certificate("other"))}, True),
    "unknown, on a public route": ({"target": "/health", "forwarded": f"Hash={'ab' * 32}"}, True),
    "a client's, on a public route": ({"target": "/health"}, True),
    "none": ({"forwarded": None}, False),
    "malformed": ({"forwarded": "Hash=ab"}, False),
    "none, on a public route": ({"target": "/health", "forwarded": None}, False),
}


@pytest.mark.parametrize(("asked", "shown"), SHOWN.values(), ids=SHOWN.keys())
async def test_verdict_carries_the_certificate_that_was_shown(asked: dict[str, Any], *, shown: bool) -> None:
    verdict = await Bench().judge(**asked)
    assert (verdict.presented is not None) is shown


async def test_flood_and_shadow_carry_the_certificate_too() -> None:
    bench = Bench(policy_document(quotas=[{"name": "q", "requests": 1, "per": "1h"}]))
    verdicts = [await bench.judge(bearer=token()) for _ in range(3)]
    assert isinstance(verdicts[2], Deny)
    shadowed = await Bench(policy_document(mode="Shadow")).judge()
    assert isinstance(shadowed, Shadowed)
    fingerprint = partner.partner_certificate().fingerprint
    assert {one.presented and one.presented.fingerprint for one in (*verdicts, shadowed)} == {fingerprint}


EDGE = "spiffe://example.org/edge"
ISSUED_CA, NEXT_CA = (partner.certificate(name, is_ca=True) for name in ("clients", "next clients"))
ISSUED = partner.certificate("issued", issuer=ISSUED_CA)


def issued() -> Policies:
    """Return a policy whose certificate must chain to `identity.clientCa`."""
    client = Client(id=partner.CLIENT_ID, policy="p/c", source=Source.ISSUED)
    return Policies(by_fingerprint={ISSUED.fingerprint: Credential(client)}, by_token={})


async def test_what_a_client_ca_vouched_for_falls_with_it() -> None:
    bench = Bench(rules=replace(RULES, authorities=(ISSUED_CA.parsed,)))
    bench.facts = replace(bench.facts, policies=issued())
    asked: dict[str, Any] = {"forwarded": xfcc(ISSUED), "bearer": token(scope="patient/Patient.read")}
    assert await bench.reason(**asked) is Reason.SCOPE_MISSING  # past its certificate
    bench.service.trust((NEXT_CA.parsed,))
    assert await bench.reason(**asked) is Reason.CERTIFICATE_UNKNOWN
    bench.service.trust((NEXT_CA.parsed, ISSUED_CA.parsed))
    assert await bench.reason(**asked) is Reason.SCOPE_MISSING


def behind(proxy: partner.Certificate) -> dict[str, Any]:
    edge = f'Hash={proxy.fingerprint};Cert="{proxy.encoded}";URI={EDGE}'
    return {"forwarded": f"{xfcc()},{edge}", "bearer": token(exp=NOW_US // SECOND + 90 * 86_400)}


def two_hops(*authorities: partner.Certificate) -> Bench:
    proxies = Proxies(uris=frozenset({EDGE}), authorities=tuple(one.parsed for one in authorities))
    keys = trusted(partner.jwks(), days=90)
    bench = Bench(rules=replace(RULES, trusted_hops=2, proxies=proxies))
    bench.facts = replace(bench.facts, trusted=keys)
    return bench


async def test_proxy_falls_with_its_ca() -> None:
    asked = behind(partner.certificate("edge", issuer=ISSUED_CA, uris=(EDGE,)))
    bench = two_hops(ISSUED_CA)
    assert isinstance(await bench.judge(**asked), Allow)
    bench.service.trust_proxies((NEXT_CA.parsed,))
    assert await bench.reason(**asked) is Reason.PROXY_UNTRUSTED
    bench.service.trust_proxies((NEXT_CA.parsed, ISSUED_CA.parsed))
    assert isinstance(await bench.judge(**asked), Allow)


async def test_remembered_proxy_is_one_no_longer_than_its_certificate() -> None:
    edge = partner.certificate("edge", issuer=ISSUED_CA, uris=(EDGE,), end=partner.NOW + timedelta(days=2))
    bench, asked = two_hops(ISSUED_CA), behind(edge)
    end_us = epoch_us(edge.parsed.not_valid_after_utc)
    assert isinstance(await bench.judge(**asked), Allow)
    assert isinstance(await bench.judge(**asked, now_us=end_us), Allow)
    assert bench.service.certificates.hits == 1
    assert await bench.reason(**asked, now_us=end_us + 1) is Reason.PROXY_UNTRUSTED


async def test_untrusted_proxy_opens_a_public_route_as_nobody() -> None:
    asked = behind(partner.certificate("edge", uris=(EDGE,)))
    verdict = await two_hops(ISSUED_CA).judge("/health", **asked)
    assert isinstance(verdict, Allow)
    assert verdict.client is None


async def test_absent_header_is_not_a_header_that_says_none() -> None:
    bench = Bench()
    peer = partner.partner_certificate().encoded
    assert isinstance(await bench.judge(forwarded=None, peer=peer, bearer=token()), Allow)
    assert await bench.reason(forwarded="None", peer=peer, bearer=token()) is Reason.REQUEST_MALFORMED


# ---- shadow -----------------------------------------------------------------------------------------------------

SHADOW = policy_document(mode="Shadow", quotas=[{"name": "q", "requests": 1, "per": "1s"}])
PASSES: dict[str, tuple[dict[str, Any], Reason]] = {
    "token missing": ({}, Reason.TOKEN_MISSING),
    "token bad": ({"bearer": "x"}, Reason.TOKEN_MALFORMED),
    "token expired": ({"bearer": token(exp=1)}, Reason.TOKEN_EXPIRED),
    "token of another": ({"bearer": token(client_id="o")}, Reason.TOKEN_CLIENT),
    "scope": ({"bearer": token(scope="openid")}, Reason.SCOPE_MISSING),
    "patient": ({"target": "/fhir/Patient/124", "bearer": token()}, Reason.PATIENT_MISMATCH),
    "no patient": ({"bearer": token(patient=None)}, Reason.PATIENT_UNKNOWN),
    "compartment": ({"target": "/fhir/Observation", "bearer": token()}, Reason.COMPARTMENT_UNDECIDABLE),
    "interaction": ({"target": "/fhir/Patient/$match", "bearer": token()}, Reason.INTERACTION_UNSUPPORTED),
    "route": ({"target": "/other", "bearer": token()}, Reason.ROUTE_NOT_ALLOWED),
}


@pytest.mark.parametrize(("asked", "reason"), PASSES.values(), ids=PASSES.keys())
async def test_shadow_lets_pass_and_tells_what_it_would_have_done(asked: dict[str, Any], reason: Reason) -> None:
    verdict = await Bench(SHADOW).judge(**asked)
    assert isinstance(verdict, Shadowed)
    assert verdict.refused.reason is reason


async def test_shadow_lets_pass_a_flood_and_a_silent_store() -> None:
    bench = Bench(SHADOW)
    assert isinstance(await bench.judge(bearer=token()), Allow)
    over = await bench.judge(bearer=token())
    assert isinstance(over, Shadowed)
    assert over.refused.reason is Reason.QUOTA_EXCEEDED
    bench.limiter.outcome = Unknown("gone")
    silent = await bench.judge(bearer=token())
    assert isinstance(silent, Shadowed)
    assert silent.refused.reason is Reason.STORE_UNAVAILABLE


ROUTES = [
    {"name": "strict", "match": {"path": "/jobs"}, "scopes": {"allOf": ["a"]}},
    {"name": "loose", "match": {"pathPrefix": "/"}, "scopes": {"allOf": ["b"]}},
]
NEVER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "path": ({}, {"target": "/fhir/.."}),
    "FHIR base in another case": ({}, {"target": "/FHIR/Patient/124"}),
    "lookalike of a stricter route": ({"routes": ROUTES, "otherScopes": ["a", "b"]}, {"target": "/jobs/"}),
    "malformed": ({}, {"headers": {"authorization": "Bearer a,Bearer b"}}),
    "certificate missing": ({}, {"forwarded": None}),
    "certificate unknown": ({}, {"forwarded": xfcc(partner.partner_certificate("other"))}),
    "revoked": ({"revocation": {"fingerprints": [{"sha256": partner.partner_certificate().fingerprint}]}}, {}),
    "suspended": ({"suspended": True}, {}),
    "not in force": ({"validity": {"notAfter": "2026-01-01T00:00:00Z"}}, {}),
}


@pytest.mark.parametrize(("spec", "asked"), NEVER.values(), ids=NEVER.keys())
async def test_shadow_never_covers_who_calls(spec: dict[str, Any], asked: dict[str, Any]) -> None:
    bench = Bench(policy_document(mode="Shadow", **spec))
    assert not ANSWERS[await bench.reason(**({"bearer": token()} | asked))].may_shadow


async def test_shadow_never_covers_a_conflict_or_an_invalid_policy() -> None:
    conflict = Bench(SHADOW, SHADOW | {"metadata": {"name": "twin"}})
    assert await conflict.reason(bearer=token()) is Reason.POLICY_CONFLICT
    invalid = Bench(policy_document(mode="Shadow", scopes=["bad"]))
    assert await invalid.reason(bearer=token()) is Reason.POLICY_INVALID


# What design §3 lists; and that the store or an issuer cannot be asked now is a quota's and a token's reason.
SHADOWED = {"token", "scope", "patient", "compartment", "interaction", "route", "condition", "quota", "store", "issuer"}


@pytest.mark.parametrize("reason", Reason)
def test_shadow_lets_pass_the_families_that_are_listed_and_nothing_else(reason: Reason) -> None:
    assert ANSWERS[reason].may_shadow is (reason.value.split("_")[0] in SHADOWED)
    assert not (ANSWERS[reason].may_shadow and ANSWERS[reason].status in (200, 400))


def test_reason_that_is_added_has_to_say_whether_it_is_shadowed() -> None:
    assert "may_shadow" not in Answer._field_defaults


# ---- nothing else allows ----------------------------------------------------------------------------------------


@given(st.binary())
async def test_no_byte_string_raises_or_allows(data: bytes) -> None:
    bench = Bench()
    try:
        request = read(data, ClientAddress())
    except Refused as refused:
        assert refused.reason is Reason.REQUEST_MALFORMED
        return
    verdict: Verdict = await bench.service.judge(request, bench.facts, NOW_US)
    assert isinstance(verdict, Deny)


PIECES = st.sampled_from(
    ["", "/", "fhir", "Patient", "123", "124", "..", "%2e", "?", "patient=124", "health", ";", "*"]
)


@given(
    st.lists(PIECES, max_size=8).map("".join),
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "", "get"]),
    st.sampled_from([None, "", xfcc(partner.partner_certificate("other")), "Hash=" + "ab" * 32, "x"]),
    st.sampled_from([None, token(), token(patient="124", scope="system/*.*"), "x"]),
)
async def test_without_a_listed_certificate_only_public_routes_open(
    target: str, method: str, forwarded: str | None, bearer: str | None
) -> None:
    bench = Bench()
    forwarded = "x" if forwarded == "" else forwarded
    verdict = await bench.judge(target, method, forwarded=forwarded, bearer=bearer)
    assert isinstance(verdict, Deny) or isinstance(verdict.right, Public)  # type: ignore[union-attr] # no Shadow here


TWO_READINGS = "/fhir/Observation?patient=123&patient[]=124"


@pytest.mark.parametrize("scope", ["patient/*.rs", "user/*.cruds", "system/*.cruds"])
async def test_parameter_with_two_readings_is_refused_before_anybody_is_asked_for(scope: str) -> None:
    bench = Bench(policy_document(scopes=[scope]))
    assert await bench.reason(TWO_READINGS, bearer=token(scope=scope)) is Reason.REQUEST_MALFORMED
    assert await bench.reason(TWO_READINGS, forwarded=None) is Reason.REQUEST_MALFORMED
    assert bench.limiter.spent == [ADDRESS_KEY, ADDRESS_KEY]


async def test_parameter_with_two_readings_is_refused_on_a_public_route_below_the_base_alone() -> None:
    public = PublicRoutes(exact=frozenset({("GET", "/fhir/metadata"), ("GET", "/health")}), below=())
    bench = Bench(rules=replace(RULES, public=public))
    assert await bench.reason("/fhir/metadata?mode[]=full") is Reason.REQUEST_MALFORMED
    assert isinstance(await bench.judge("/fhir/metadata?mode=full"), Allow)
    assert isinstance(await bench.judge("/health?mode[]=full"), Allow)


def form(body: bytes) -> CheckRequest:
    headers = {"content-type": "application/x-www-form-urlencoded", "x-envoy-auth-partial-body": "false"}
    message = check_request("/fhir/Observation/_search", "POST", headers=headers, bearer=token())
    message.attributes.request.http.raw_body = body
    return message


async def test_form_is_read_once_its_caller_is_known() -> None:
    bench, stranger = Bench(), Bench(policy_document("somebody-else"))
    for body, expected in (
        (b"patient=123&code=8480-6", None),
        (b"patient=123&_include%00=Observation:performer", Reason.REQUEST_MALFORMED),
        (b"patient=124", Reason.PATIENT_MISMATCH),
        (b"a" * (FORM_MAX_BYTES + 1), Reason.COMPARTMENT_UNDECIDABLE),
    ):
        request = read_message(form(body), ClientAddress())
        verdict = await bench.service.judge(request, bench.facts, NOW_US)
        assert (verdict.refused.reason if isinstance(verdict, Deny) else None) is expected
        unknown = await stranger.service.judge(request, stranger.facts, NOW_US)
        assert isinstance(unknown, Deny)
        assert unknown.refused.reason is Reason.CERTIFICATE_UNKNOWN
    assert set(bench.limiter.spent) == {CLIENT_KEY}


FORMS: dict[str, tuple[bytes, dict[str, Any], Reason]] = {
    "another method": (b"a=1&%5Fmethod=DELETE", {"bearer": token()}, Reason.REQUEST_MALFORMED),
    "two tokens": (b"access%5Ftoken=x", {"bearer": token()}, Reason.REQUEST_MALFORMED),
    "a token where a certificate suffices": (b"access_token=x", {}, Reason.TOKEN_MISSING),
}


@pytest.mark.parametrize("target", ["/fhir/Patient/_search", "/jobs"])
@pytest.mark.parametrize(("body", "asked", "reason"), FORMS.values(), ids=FORMS.keys())
async def test_form_that_the_upstream_may_act_by_is_refused_everywhere(
    target: str, body: bytes, asked: dict[str, Any], reason: Reason
) -> None:
    bench = Bench(policy_document(token={"required": False}, routes=ROUTES, otherScopes=["a", "b"]))
    request = read_message(check_request(target, "POST", **asked), ClientAddress())._replace(form=body)
    verdict = await bench.service.judge(request, bench.facts, NOW_US)
    assert isinstance(verdict, Deny)
    assert verdict.refused.reason is reason
    assert bench.limiter.spent == [CLIENT_KEY]


@pytest.mark.parametrize(("body", "is_refused"), [(b"_method=DELETE", True), (b"a=1&method=2", False), (None, False)])
async def test_form_of_a_public_route_asks_for_no_other_method(body: bytes | None, *, is_refused: bool) -> None:
    bench = Bench(rules=replace(RULES, public=PublicRoutes(exact=frozenset({("POST", "/report")}))))
    request = read_message(check_request("/report", "POST", forwarded=None), ClientAddress())._replace(form=body)
    verdict = await bench.service.judge(request, bench.facts, NOW_US)
    assert isinstance(verdict, Deny) is is_refused
    if isinstance(verdict, Deny):
        assert verdict.refused.reason is Reason.REQUEST_MALFORMED
    assert bench.limiter.spent == [ADDRESS_KEY]


FLOODS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "public route": (("/health",), {"forwarded": None}),
    "public route with a certificate": (("/health",), {}),
    "no certificate": (("/fhir/Patient/123",), {"forwarded": None}),
    "unknown certificate": (("/fhir/Patient/123",), {"forwarded": xfcc(partner.certificate("stranger"))}),
    "malformed certificate": (("/fhir/Patient/123",), {"forwarded": "Hash=00"}),
    "ambiguous path": (("/fhir//Patient/123",), {}),
    "malformed parameter": (("/fhir/Patient?a[]=1",), {}),
    "another method asked for": (("/fhir/Patient/123",), {"headers": {"x-http-method": "PUT"}}),
    "client over its quota": (("/fhir/Patient/124",), {"bearer": token()}),
}


@pytest.mark.parametrize(("arguments", "more"), FLOODS.values(), ids=FLOODS.keys())
async def test_flood_of_refused_requests_asks_no_store(arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    """Of a thousand calls those ask it that the quota admits, and one that is told no; not one besides."""
    bench = Bench(policy_document(quotas=[{"name": "q", "requests": 1, "per": "1h", "burst": 20}]))
    for _ in range(1000):
        await bench.judge(*arguments, **more)
    assert len(bench.limiter.spent) <= 22


EVERYWHERE: dict[str, Any] = {"name": "all", "match": {"pathPrefix": "/"}, "scopes": {"anyOf": ["user/*.rs"]}}
READ_TWICE = {
    "method in a form": ("/export/jobs", b"_method=DELETE", {}),
    "form with a control byte": ("/fhir/Observation/_search", b"a%00=b", {}),
    "name with two readings": ("/fhir/Observation/_search", b"patient[]=1", {}),
    "form on a create": ("/fhir/Observation", b"a=b", {}),
    "condition on another type": ("/fhir/Observation", b"", {"if-none-exist": "Patient?_id=5"}),
}


@pytest.mark.parametrize(("target", "body", "headers"), READ_TWICE.values(), ids=READ_TWICE.keys())
@pytest.mark.parametrize("bearer", [None, "not.a.token"])
async def test_shadow_lets_no_second_reading_pass_whatever_the_token(
    target: str, body: bytes, headers: dict[str, str], bearer: str | None
) -> None:
    bench = Bench(policy_document(mode="Shadow", routes=[EVERYWHERE]))
    kind = {"content-type": "application/x-www-form-urlencoded"} if body else {"content-type": "application/fhir+json"}
    message = check_request(
        target, "POST", headers={"x-envoy-auth-partial-body": "false"} | kind | headers, bearer=bearer
    )
    message.attributes.request.http.raw_body = body
    verdict = await bench.service.judge(read_message(message, ClientAddress()), bench.facts, NOW_US)
    assert isinstance(verdict, Deny), verdict
    assert verdict.refused.reason is Reason.REQUEST_MALFORMED
