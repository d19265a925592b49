"""JWT attacks (RFC 8725, past CVEs): each is refused with its reason, and what issuers really send passes."""

from __future__ import annotations

import dataclasses
import json
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import partner
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from partner import NOW_US, claims, ec_key, jwk, raw_token, rsa_key, token

from authz.core import bearer, thumbprint
from authz.core.jwks import read_keys
from authz.model import Claims, Client, Confirmation, Issuer, KeySet, KeysWanted, Reason, Refused, Trusted
from authz.policy import Binding

RS = {"alg": "RS256", "kid": "k1"}
LATER_US = NOW_US + 86_400_000_000
ISSUER = Issuer(
    name="health-auth",
    issuer=partner.ISSUER,
    audiences=frozenset({partner.AUDIENCE, "second"}),
    algorithms=frozenset({"RS256", "ES256"}),
    leeway_us=30_000_000,
    client_claim="client_id",
    patient_claim="patient",
    scope_claims=("scope", "scp"),
)
CLIENT = Client(id=partner.CLIENT_ID, policy="partners/app")


def trusted(*keys: dict[str, Any], issuer: Issuer = ISSUER, stale_at_us: int = LATER_US) -> dict[str, Trusted]:
    return {issuer.issuer: Trusted(issuer, read_keys(partner.jwks(*keys), stale_at_us)[0])}


def verify(token: str, *keys: dict[str, Any], allowed: frozenset[str] | None = None) -> Claims:
    return bearer.verify(token, trusted(*keys), allowed, NOW_US)


def reason(token: str, *keys: dict[str, Any], allowed: frozenset[str] | None = None) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(token, *keys, allowed=allowed)
    return refused.value.reason


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def test_good_token_gives_its_claims() -> None:
    verified = verify(token(nbf=1, cnf={"x5t#S256": partner.partner_certificate().thumbprint}))
    assert verified._replace(key_thumbprint="") == Claims(
        issuer=partner.ISSUER,
        key_thumbprint="",
        subject="user-1",
        client_id=partner.CLIENT_ID,
        scopes=("patient/Patient.read", "patient/Observation.read"),
        patient="123",
        expires_us=NOW_US + 600_000_000,
        not_before_us=1_000_000,
        confirmation=partner.partner_certificate().fingerprint,
    )


PASSES = {
    "typ absent": token(headers={"typ": None}),
    "typ JWT": token(headers={"typ": "jWt"}),
    "typ at+jwt": token(headers={"typ": "AT+jwt"}),
    "typ application": token(headers={"typ": "application/at+JWT"}),
    "audience list": token(aud=["else", partner.AUDIENCE]),
    "second audience": token(aud="second"),
    "no kid, one key": raw_token({"alg": "RS256"}, claims()),
    "embedded keys are ignored": token(
        headers={"jwk": jwk(rsa_key("evil"), "k1"), "jku": "http://evil", "x5u": "http://evil", "x5c": ["x"]}
    ),
    "exp a float": token(exp=NOW_US / 1e6 + 60.5),
    "no subject": token(sub=None),
    "explicit nulls": raw_token(RS, claims() | {"sub": None, "patient": None, "scope": None, "cnf": None}),
}


@pytest.mark.parametrize("good", PASSES.values(), ids=PASSES.keys())
def test_what_issuers_send_passes(good: str) -> None:
    assert verify(good).client_id == partner.CLIENT_ID


def test_elliptic_curve_key_verifies() -> None:
    assert verify(token(key=ec_key(), algorithm="ES256"), jwk(ec_key(), "k1"))


SIGNERS: dict[str, Any] = {
    "RS": rsa_key(),
    "PS": rsa_key(),
    "ES256": ec_key(),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
LIBRARY: dict[str, Any] = {"RS": RSAAlgorithm, "PS": RSAAlgorithm, "ES": ECAlgorithm}
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_verifies_what_its_key_signed(algorithm: str) -> None:
    key = SIGNERS.get(algorithm) or SIGNERS[algorithm[:2]]
    library = LIBRARY.get(algorithm[:2], OKPAlgorithm)
    published = json.loads(library.to_jwk(key.public_key()))
    published.pop("key_ops", None)
    issuer = dataclasses.replace(ISSUER, algorithms=frozenset({algorithm}))
    signed = jwt.encode(claims(), key, algorithm)
    assert bearer.verify(signed, trusted(published, issuer=issuer), None, NOW_US)
    head, body, signature = signed.split(".")
    changed = f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    with pytest.raises(KeysWanted) as wanted:
        bearer.verify(changed, trusted(published, issuer=issuer), None, NOW_US)
    assert wanted.value.reason is Reason.TOKEN_SIGNATURE


def test_algorithms_that_a_configuration_may_name_are_these() -> None:
    assert sorted(ALGORITHMS) == sorted(bearer.SUPPORTED_ALGORITHMS)


public_pem = partner.jwks()
H, P, S = token().split(".")
UNSIGNED = part(claims())
NO_KID = raw_token({"alg": "RS256"}, claims())
OURS = jwk(rsa_key(), "k1")
OURS_THUMBPRINT = thumbprint.of_jwk(OURS)
ATTACKS = {
    "alg none": (f"{part({'alg': 'none', 'kid': 'k1'})}.{UNSIGNED}.", Reason.TOKEN_ALGORITHM),
    "alg None": (f"{part({'alg': 'None', 'kid': 'k1'})}.{UNSIGNED}.", Reason.TOKEN_ALGORITHM),
    "alg NONE signed": (f"{part({'alg': 'NONE', 'kid': 'k1'})}.{UNSIGNED}.{S}", Reason.TOKEN_ALGORITHM),
    "HS256 with the public key": (
        jwt.encode(claims(), jwk(rsa_key(), "k1")["n"], "HS256", headers={"kid": "k1"}),
        Reason.TOKEN_ALGORITHM,
    ),
    "algorithm not allowed": (token(algorithm="RS512"), Reason.TOKEN_ALGORITHM),
    "alg of another family": (f"{part({'alg': 'ES256', 'kid': 'k1'})}.{P}.{S}", Reason.TOKEN_KEY_UNKNOWN),
    "alg missing": (f"{part({'kid': 'k1'})}.{P}.{S}", Reason.TOKEN_MALFORMED),
    "alg a list": (f"{part({'alg': ['RS256'], 'kid': 'k1'})}.{P}.{S}", Reason.TOKEN_MALFORMED),
    "alg lower case": (f"{part({'alg': 'rs256', 'kid': 'k1'})}.{P}.{S}", Reason.TOKEN_ALGORITHM),
    "empty signature": (f"{H}.{P}.", Reason.TOKEN_SIGNATURE),
    "signature of something else": (f"{H}.{UNSIGNED}.{S[:-4]}AAAA", Reason.TOKEN_SIGNATURE),
    "payload changed": (f"{H}.{part(claims(patient='999'))}.{S}", Reason.TOKEN_SIGNATURE),
    "header changed": (f"{part(RS | {'typ': 'JWT', 'x': 1})}.{P}.{S}", Reason.TOKEN_SIGNATURE),
    "other key, same kid": (token(key=rsa_key("evil")), Reason.TOKEN_SIGNATURE),
    "embedded key": (
        token(key=rsa_key("evil"), headers={"jwk": jwk(rsa_key("evil"), "k1")}),
        Reason.TOKEN_SIGNATURE,
    ),
    "kid unknown": (token(headers={"kid": "k2"}), Reason.TOKEN_KEY_UNKNOWN),
    "kid traversal": (token(headers={"kid": "../../dev/null"}), Reason.TOKEN_KEY_UNKNOWN),
    "kid SQL": (token(headers={"kid": "k1' OR '1'='1"}), Reason.TOKEN_KEY_UNKNOWN),
    "kid huge": (token(headers={"kid": "k" * 8000}), Reason.TOKEN_KEY_UNKNOWN),
    "kid a number": (raw_token({"alg": "RS256", "kid": 1}, claims()), Reason.TOKEN_MALFORMED),
    "crit": (token(headers={"crit": ["exp"], "exp": 1}), Reason.TOKEN_MALFORMED),
    "crit empty": (token(headers={"crit": []}), Reason.TOKEN_MALFORMED),
    "b64 false": (raw_token(RS | {"b64": False}, claims()), Reason.TOKEN_MALFORMED),
    "typ ID token proof": (token(headers={"typ": "dpop+jwt"}), Reason.TOKEN_TYPE),
    "typ logout": (token(headers={"typ": "logout+jwt"}), Reason.TOKEN_TYPE),
    "typ a number": (raw_token(RS | {"typ": 1}, claims()), Reason.TOKEN_MALFORMED),
    "duplicate header key": (raw_token(b'{"alg":"RS256","kid":"k2","kid":"k1"}', claims()), Reason.TOKEN_MALFORMED),
    "duplicate claim": (
        raw_token(RS, json.dumps(claims())[:-1].encode() + b',"patient":"999"}'),
        Reason.TOKEN_MALFORMED,
    ),
    "duplicate key deep": (
        raw_token(RS, json.dumps(claims())[:-1].encode() + b',"cnf":{"a":1,"a":2}}'),
        Reason.TOKEN_MALFORMED,
    ),
    "claims not an object": (raw_token(RS, b"[]"), Reason.TOKEN_MALFORMED),
    "claims not JSON": (raw_token(RS, b"{"), Reason.TOKEN_MALFORMED),
    "claims not UTF-8": (raw_token(RS, b'{"sub":"\xff"}'), Reason.TOKEN_MALFORMED),
    "claims with a byte order mark": (raw_token(RS, b"\xef\xbb\xbf{}"), Reason.TOKEN_MALFORMED),
    "deep JSON": (raw_token(RS, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), Reason.TOKEN_MALFORMED),
    "huge number": (raw_token(RS, b'{"exp":' + b"9" * 5000 + b"}"), Reason.TOKEN_MALFORMED),
    "NaN": (raw_token(RS, json.dumps(claims() | {"exp": float("nan")}).encode()), Reason.TOKEN_MALFORMED),
    "Infinity": (raw_token(RS, json.dumps(claims() | {"exp": float("inf")}).encode()), Reason.TOKEN_MALFORMED),
    "exp 1e400": (raw_token(RS, json.dumps(claims(exp=None))[:-1].encode() + b',"exp":1e400}'), Reason.TOKEN_MALFORMED),
    "exp of 400 digits": (raw_token(RS, claims(exp=10**400)), Reason.TOKEN_MALFORMED),
    "nbf of 400 digits": (raw_token(RS, claims(nbf=-(10**400))), Reason.TOKEN_MALFORMED),
    "exp missing": (token(exp=None), Reason.TOKEN_MALFORMED),
    "exp null": (raw_token(RS, claims() | {"exp": None}), Reason.TOKEN_MALFORMED),
    "exp a string": (raw_token(RS, claims(exp="9999999999")), Reason.TOKEN_MALFORMED),
    "exp true": (raw_token(RS, claims(exp=True)), Reason.TOKEN_MALFORMED),
    "exp out of range": (raw_token(RS, claims(exp=10**14)), Reason.TOKEN_MALFORMED),
    "nbf a string": (raw_token(RS, claims(nbf="0")), Reason.TOKEN_MALFORMED),
    "iat a string": (raw_token(RS, claims(iat="0")), Reason.TOKEN_MALFORMED),
    "issuer unknown": (token(iss="https://evil.example.org/"), Reason.TOKEN_ISSUER),
    "issuer without its slash": (token(iss=partner.ISSUER.rstrip("/")), Reason.TOKEN_ISSUER),
    "issuer as prefix": (token(iss=partner.ISSUER + "x"), Reason.TOKEN_ISSUER),
    "issuer missing": (token(iss=None), Reason.TOKEN_ISSUER),
    "issuer a list": (raw_token(RS, claims(iss=[partner.ISSUER])), Reason.TOKEN_ISSUER),
    "audience other": (token(aud="https://other.example.org"), Reason.TOKEN_AUDIENCE),
    "audience as prefix": (token(aud=partner.AUDIENCE + "/"), Reason.TOKEN_AUDIENCE),
    "audience in a substring": (token(aud=[partner.AUDIENCE + ".evil"]), Reason.TOKEN_AUDIENCE),
    "audience missing": (token(aud=None), Reason.TOKEN_AUDIENCE),
    "audience empty": (token(aud=[]), Reason.TOKEN_AUDIENCE),
    "audience a number": (raw_token(RS, claims(aud=1)), Reason.TOKEN_MALFORMED),
    "audience list of numbers": (raw_token(RS, claims(aud=[1, partner.AUDIENCE])), Reason.TOKEN_MALFORMED),
    "client missing": (token(client_id=None), Reason.TOKEN_CLIENT),
    "client a list": (raw_token(RS, claims(client_id=[partner.CLIENT_ID])), Reason.TOKEN_MALFORMED),
    "client with newline": (token(client_id="a\nx-admin: 1"), Reason.TOKEN_MALFORMED),
    "subject with newline": (token(sub="a\r\nx-admin: 1"), Reason.TOKEN_MALFORMED),
    "subject not ASCII": (token(sub="J\u00f6rg"), Reason.TOKEN_MALFORMED),
    "subject too long": (token(sub="a" * 1025), Reason.TOKEN_MALFORMED),
    "subject empty": (token(sub=""), Reason.TOKEN_MALFORMED),
    "patient with slash": (token(patient="123/../124"), Reason.TOKEN_MALFORMED),
    "patient dots": (token(patient=".."), Reason.TOKEN_MALFORMED),
    "patient other type": (token(patient="Practitioner/1"), Reason.TOKEN_MALFORMED),
    "patient too long": (token(patient="1" * 65), Reason.TOKEN_MALFORMED),
    "patient a list": (raw_token(RS, claims(patient=["123"])), Reason.TOKEN_MALFORMED),
    "scope a number": (raw_token(RS, claims(scope=1)), Reason.TOKEN_MALFORMED),
    "scope with a newline": (token(scope="a\nb"), Reason.TOKEN_MALFORMED),
    "scope list of numbers": (raw_token(RS, claims(scope=["a", 1])), Reason.TOKEN_MALFORMED),
    "scope list with spaces": (raw_token(RS, claims(scope=["a b"])), Reason.TOKEN_MALFORMED),
    "too many scopes": (raw_token(RS, claims(scope=" ".join(f"s{n}" for n in range(513)))), Reason.TOKEN_MALFORMED),
    "too long": (token(x="a" * bearer.TOKEN_MAX_CHARACTERS), Reason.TOKEN_MALFORMED),
    "two segments": (f"{H}.{P}", Reason.TOKEN_MALFORMED),
    "five segments (JWE)": ("a.b.c.d.e", Reason.TOKEN_MALFORMED),
    "nested": (part({"alg": "RS256"}) + "." + part(token()) + "." + S, Reason.TOKEN_MALFORMED),
    "JSON serialisation": (json.dumps({"payload": P, "protected": H, "signature": S}), Reason.TOKEN_MALFORMED),
    "padding": (f"{H}=.{P}.{S}", Reason.TOKEN_MALFORMED),
    "white space": (f"{H}.{P}. {S}", Reason.TOKEN_MALFORMED),
    "not URL alphabet": (f"{H}.{P}+/.{S}", Reason.TOKEN_MALFORMED),
    "impossible length": (f"{H}.{P}.A", Reason.TOKEN_MALFORMED),
    "opaque": ("deadbeef", Reason.TOKEN_MALFORMED),
    "empty": ("", Reason.TOKEN_MALFORMED),
}


@pytest.mark.parametrize(("attack", "expected"), ATTACKS.values(), ids=ATTACKS.keys())
def test_attack_is_refused(attack: str, expected: Reason) -> None:
    assert reason(attack) is expected


def test_issuer_must_be_one_of_the_clients() -> None:
    assert verify(token(), allowed=frozenset({"health-auth"}))
    assert reason(token(), allowed=frozenset({"other"})) is Reason.TOKEN_ISSUER


WANTING_KEYS = {
    "kid unknown": (token(headers={"kid": "new"}), Reason.TOKEN_KEY_UNKNOWN),
    "kid empty": (token(headers={"kid": ""}), Reason.TOKEN_KEY_UNKNOWN),
    "kid reused for a new key": (token(key=rsa_key("new")), Reason.TOKEN_SIGNATURE),
    "no kid, a new key": (raw_token({"alg": "RS256"}, claims(), key=rsa_key("new")), Reason.TOKEN_SIGNATURE),
    "no kid, no key of the algorithm": (
        jwt.encode(claims(), ec_key(), "ES256"),
        Reason.TOKEN_KEY_UNKNOWN,
    ),
}


@pytest.mark.parametrize(("token", "expected"), WANTING_KEYS.values(), ids=WANTING_KEYS.keys())
def test_signature_by_no_key_of_ours_asks_for_newer_ones(token: str, expected: Reason) -> None:
    with pytest.raises(KeysWanted) as wanted:
        verify(token)
    assert (wanted.value.reason, wanted.value.issuer) == (expected, "health-auth")


def others(count: int, kid: str | None = None) -> list[dict[str, Any]]:
    return [jwk(rsa_key(f"other {n}"), kid) for n in range(count)]


MANY_KEYS: dict[str, tuple[str, list[dict[str, Any]], Reason | None]] = {
    "no kid, one key": (NO_KID, [OURS], None),
    "no kid, a key without kid": (NO_KID, [jwk(rsa_key(), None)], None),
    "no kid, the first of four": (NO_KID, [OURS, *others(3)], None),
    "no kid, the last of four": (NO_KID, [*others(3), OURS], None),
    "no kid, none of four": (NO_KID, others(4), Reason.TOKEN_SIGNATURE),
    "no kid, the first of five": (NO_KID, [OURS, *others(4)], Reason.TOKEN_KEY_UNKNOWN),
    "no kid, the last of five": (NO_KID, [*others(4), OURS], Reason.TOKEN_KEY_UNKNOWN),
    "no kid, keys of other algorithms do not count": (NO_KID, [jwk(ec_key(), "e"), *[one | {"alg": "PS256"} for one in others(4)], OURS], None),
    "no kid, one key five times": (NO_KID, [OURS | {"kid": f"k{n}"} for n in range(5)], None),
    "kid, others have others": (token(), [*others(4, "k2"), OURS], None),
    "kid, others have none": (token(), [*others(4), OURS], None),
    "kid, the key has none": (token(), [jwk(rsa_key(), None)], Reason.TOKEN_KEY_UNKNOWN),
    "kid, the last of four": (token(), [*others(3, "k1"), OURS], None),
    "kid, none of four": (token(), others(4, "k1"), Reason.TOKEN_SIGNATURE),
    "kid, the first of five": (token(), [OURS, *others(4, "k1")], Reason.TOKEN_KEY_UNKNOWN),
    "kid, one key five times": (token(), [OURS] * 5, None),
}  # fmt: skip


@pytest.mark.parametrize(("bearer", "keys", "expected"), MANY_KEYS.values(), ids=MANY_KEYS.keys())
def test_at_most_four_keys_are_tried(bearer: str, keys: list[dict[str, Any]], expected: Reason | None) -> None:
    if expected is None:
        assert verify(bearer, *keys).key_thumbprint == OURS_THUMBPRINT
    else:
        assert reason(bearer, *keys) is expected


def test_too_many_keys_are_no_reason_to_fetch_them_again() -> None:
    with pytest.raises(Refused) as refused:
        verify(NO_KID, *others(5))
    assert not isinstance(refused.value, KeysWanted)


def test_set_without_keys_knows_none() -> None:
    withdrawn = {partner.ISSUER: Trusted(ISSUER, KeySet(keys=(), stale_at_us=LATER_US))}
    with pytest.raises(KeysWanted) as wanted:
        bearer.verify(token(), withdrawn, None, NOW_US)
    assert wanted.value.reason is Reason.TOKEN_KEY_UNKNOWN


def test_key_for_other_algorithms_does_not_verify() -> None:
    assert reason(token(), jwk(rsa_key(), "k1", alg="PS256")) is Reason.TOKEN_KEY_UNKNOWN


def test_no_keys_or_stale_ones_are_the_issuers_fault() -> None:
    for known in ({partner.ISSUER: Trusted(ISSUER, None)}, trusted(stale_at_us=NOW_US)):
        with pytest.raises(Refused) as refused:
            bearer.verify(token(), known, None, NOW_US)
        assert refused.value.reason is Reason.ISSUER_UNAVAILABLE


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scope": "a b  a"}, ("a", "b")),
        ({"scope": ["a", "b"]}, ("a", "b")),
        ({"scope": "a", "scp": ["b", "a"]}, ("a", "b")),
        ({"scope": None, "scp": "c"}, ("c",)),
        ({"scope": None}, ()),
        ({"scope": ""}, ()),
    ],
)
def test_scope_string_list_and_scp_are_united(given: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert verify(token(**given)).scopes == expected


@pytest.mark.parametrize("patient", ["123", "Patient/123"])
def test_patient_is_an_id_or_a_reference(patient: str) -> None:
    assert verify(token(patient=patient)).patient == "123"


THUMBPRINT = partner.partner_certificate().thumbprint


@pytest.mark.parametrize(
    "cnf",
    [
        {},
        {"jkt": "x"},
        {"x5t#S256": THUMBPRINT, "jkt": "x"},
        {"x5t": THUMBPRINT},
        {"x5t#S256": THUMBPRINT + "="},
        {"x5t#S256": 1},
        {"x5t#S256": THUMBPRINT[:-1]},
        "x",
        [THUMBPRINT],
    ],
)
def test_confirmation_that_is_not_a_thumbprint_alone_is_unsupported(cnf: Any) -> None:
    verified = verify(raw_token(RS, claims(cnf=cnf)))
    assert verified.confirmation is Confirmation.UNSUPPORTED
    with pytest.raises(Refused) as refused:
        bearer.admit(verified, ISSUER, CLIENT, partner.partner_certificate().fingerprint, NOW_US)
    assert refused.value.reason is Reason.TOKEN_BINDING


GOOD = Claims(
    issuer=partner.ISSUER,
    key_thumbprint="",
    subject=None,
    client_id=partner.CLIENT_ID,
    scopes=(),
    patient=None,
    expires_us=NOW_US,
    not_before_us=NOW_US,
    confirmation=Confirmation.NONE,
)
FINGERPRINT = "ab" * 32


def admit(
    claims: Claims,
    *,
    fingerprint: str | None = FINGERPRINT,
    now_us: int = NOW_US,
    binding: Binding = Binding.WHEN_PRESENT,
) -> None:
    client = Client(id=partner.CLIENT_ID, policy="p/c", binding=binding)
    bearer.admit(claims, ISSUER, client, fingerprint, now_us)


def reason_of_admit(claims: Claims, **more: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        admit(claims, **more)
    return refused.value.reason


def test_leeway_holds_to_the_microsecond() -> None:
    leeway_us = ISSUER.leeway_us
    admit(GOOD, now_us=NOW_US + leeway_us - 1)
    assert reason_of_admit(GOOD, now_us=NOW_US + leeway_us) is Reason.TOKEN_EXPIRED
    admit(GOOD, now_us=NOW_US - leeway_us)
    assert reason_of_admit(GOOD, now_us=NOW_US - leeway_us - 1) is Reason.TOKEN_NOT_YET_VALID


def test_token_of_another_client_is_refused() -> None:
    assert reason_of_admit(GOOD._replace(client_id="other")) is Reason.TOKEN_CLIENT


def test_bound_token_needs_its_certificate() -> None:
    bound = GOOD._replace(confirmation=FINGERPRINT)
    admit(bound)
    admit(bound, binding=Binding.REQUIRED)
    assert reason_of_admit(bound, fingerprint="cd" * 32) is Reason.TOKEN_BINDING
    assert reason_of_admit(bound, fingerprint=None) is Reason.TOKEN_BINDING


def test_unbound_token_passes_unless_binding_is_required() -> None:
    admit(GOOD, fingerprint=None)
    assert reason_of_admit(GOOD, binding=Binding.REQUIRED) is Reason.TOKEN_BINDING


CREDENTIALS = {
    "Bearer abc": "abc",
    "bearer abc": "abc",
    "BEARER   abc": "abc",
    " Bearer abc ": "abc",
    "Basic dXNlcjpwYXNz": None,
    "BearerX abc": None,
    "": None,
}


@pytest.mark.parametrize(("value", "expected"), CREDENTIALS.items())
def test_scheme_ignores_case_and_other_schemes_carry_no_token(value: str, expected: str | None) -> None:
    assert bearer.credentials(value) == expected
    assert bearer.credentials(None) is None


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "bearer\t", "Bearer a b", "Bearer\ta", "Bearer \ta"])
def test_scheme_without_token_is_malformed(value: str) -> None:
    with pytest.raises(Refused) as refused:
        bearer.credentials(value)
    assert refused.value.reason is Reason.TOKEN_MALFORMED


@given(st.text() | st.tuples(st.binary(), st.binary(), st.binary()).map(lambda parts: ".".join(map(part, parts))))
def test_any_text_is_refused_and_nothing_else_is_raised(text: str) -> None:
    with pytest.raises(Refused):
        verify(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_optional_instant_that_is_null_is_absent(name: str) -> None:
    assert verify(raw_token(RS, claims() | {name: None})).not_before_us is None


def test_expiry_that_is_null_is_malformed() -> None:
    with pytest.raises(Refused) as refused:
        verify(raw_token(RS, claims() | {"exp": None}))
    assert refused.value.reason is Reason.TOKEN_MALFORMED


@given(st.sampled_from(sorted(claims() | {"nbf": 0, "cnf": 0, "scp": 0})), JSON)
def test_any_value_of_any_claim_is_verified_or_refused(name: str, value: Any) -> None:
    try:
        verified = verify(raw_token(RS, claims() | {name: value}))
    except Refused:
        return
    assert isinstance(verified, Claims)


def test_refusals_hold_no_part_of_the_token() -> None:
    for attack, _ in ATTACKS.values():
        with pytest.raises(Refused) as refused:
            verify(attack)
        told = " ".join(map(str, refused.value.args))
        assert not any(len(segment) > 8 and segment in told for segment in attack.split("."))
