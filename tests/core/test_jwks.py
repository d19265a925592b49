"""Key sets: only keys that may verify an access token are kept, and each left out says why."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import partner
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from partner import ec_key, jwk, rsa_key

from authz.core import jwks
from authz.core.jwks import read_keys

GOOD = jwk(rsa_key(), "k1")
ED = json.loads(OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key())) | {"kid": "ed"}
P384 = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key())) | {"kid": "p384"}
K256 = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key()))


def read(*keys: Any) -> tuple[Any, tuple[str, ...]]:
    keyset, warnings = read_keys(json.dumps({"keys": [GOOD, *keys]}).encode(), 1)
    return keyset.keys[1:], warnings


def test_usable_keys_get_the_algorithms_of_their_type() -> None:
    keyset, warnings = read_keys(json.dumps({"keys": [GOOD, jwk(ec_key(), "e"), P384, ED]}).encode(), 7)
    assert [(key.kid, key.algorithms) for key in keyset.keys] == [
        ("k1", frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})),
        ("e", frozenset({"ES256"})),
        ("p384", frozenset({"ES384"})),
        ("ed", frozenset({"EdDSA"})),
    ]
    assert warnings == ()
    assert keyset.stale_at_us == 7
    assert not keyset.is_stale(6)
    assert keyset.is_stale(7)
    assert keyset.holds(keyset.keys[0].thumbprint)
    assert not keyset.holds("other")


def test_declared_algorithm_narrows() -> None:
    (key,), _ = read(jwk(rsa_key("b"), "b", alg="RS256"))
    assert key.algorithms == frozenset({"RS256"})


def test_thumbprint_is_that_of_rfc_7638() -> None:
    example = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n"
        "3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
        "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJz"
        "KnqDKgw",
        "e": "AQAB",
        "kid": "2011-04-29",
    }
    (key,), _ = read(example)
    assert key.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_key_without_kid_is_kept_and_found_by_algorithm_alone() -> None:
    keyset, warnings = read_keys(json.dumps({"keys": [jwk(rsa_key(), None)]}).encode(), 1)
    assert warnings == ()
    assert [key.kid for key in keyset.keys] == [None]
    assert len(keyset.fitting(None, "RS256")) == 1
    assert keyset.fitting("k1", "RS256") == keyset.fitting("None", "RS256") == keyset.fitting("", "RS256") == ()


def spelled(key: dict[str, Any], member: str) -> dict[str, Any]:
    """The same number with a zero byte in front, as some issuers write it."""
    number = urlsafe_b64decode(key[member] + "=" * (-len(key[member]) % 4))
    return key | {member: urlsafe_b64encode(b"\0" + number).rstrip(b"=").decode()}


TWICE = {
    "the same": (GOOD, "k1", 1),
    "without kid": (jwk(rsa_key(), None), None, 1),
    "under another kid": (GOOD | {"kid": "k2"}, None, 1),
    "with an algorithm": (GOOD | {"alg": "RS256"}, "k1", 1),
    "with a use": (GOOD | {"use": "sig"}, "k1", 1),
    "with a zero byte before the modulus": (spelled(GOOD, "n"), "k1", 1),
    "with a zero byte before the exponent": (spelled(GOOD, "e"), "k1", 1),
    "with padding": (GOOD | {"e": "AQAB===="}, "k1", 1),
    "another key": (jwk(rsa_key("second"), "k1"), "k1", 2),
}


@pytest.mark.parametrize(("key", "kid", "expected"), TWICE.values(), ids=TWICE.keys())
def test_one_key_listed_twice_is_one(key: Any, kid: str | None, expected: int) -> None:
    keyset, warnings = read_keys(json.dumps({"keys": [GOOD, key]}).encode(), 1)
    assert warnings == ()
    assert len(keyset.fitting(kid, "RS256")) == len(keyset.thumbprints) == expected


@pytest.mark.parametrize("member", ["use", "key_ops", "alg", "kid"])
def test_member_that_is_null_is_absent(member: str) -> None:
    keyset, warnings = read_keys(json.dumps({"keys": [GOOD | {member: None}]}).encode(), 1)
    assert [key.algorithms >= {"RS256", "PS256"} for key in keyset.keys] == [True]
    assert warnings == ()


LEFT_OUT = {
    "encryption": jwk(rsa_key(), "x", use="enc"),
    "key_ops": jwk(rsa_key(), "x", key_ops=["sign"]),
    "key_ops a string": jwk(rsa_key(), "x", key_ops="verify"),
    "short RSA": jwk(partner.rsa_key("short", 1024), "x"),
    "symmetric": {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
    "unknown type": {"kty": "XYZ"},
    "type a list": {"kty": ["RSA"]},
    "private": json.loads(RSAAlgorithm.to_jwk(rsa_key())) | {"kid": "x"},
    "algorithm of another type": jwk(rsa_key(), "x", alg="ES256"),
    "algorithm a number": jwk(rsa_key(), "x", alg=1),
    "HMAC algorithm": jwk(rsa_key(), "x", alg="HS256"),
    "curve": K256 | {"kid": "x"},
    "kid a number": jwk(rsa_key(), None) | {"kid": 1},
    "kid huge": jwk(rsa_key(), "k" * 513),
    "modulus missing": {"kty": "RSA", "e": "AQAB"},
    "modulus a number": {"kty": "RSA", "e": "AQAB", "n": 5},
    "modulus not base64": {"kty": "RSA", "e": "AQAB", "n": "!!!"},
    "point not on the curve": jwk(ec_key(), "x") | {"y": jwk(ec_key("second"), "x")["y"]},
    "coordinates cut": jwk(ec_key(), "x") | {"x": "AA"},
    "OKP without x": {"kty": "OKP", "crv": "Ed25519"},
    "curve without a JWT algorithm of ours": json.loads(
        OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key())
    ),
    "not an object": "key",
}


@pytest.mark.parametrize("key", LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_key_that_we_may_not_use_is_left_out_with_a_warning(key: Any) -> None:
    keys, warnings = read(key)
    assert keys == ()
    assert len(warnings) == 1
    assert warnings[0].startswith("keys[1] left out: ")


@pytest.mark.parametrize("member", ["kty", "crv", "x", "use", "alg", "kid", "key_ops"])
def test_warning_quotes_nothing_of_the_document(member: str) -> None:
    for key in (jwk(ec_key(), "x"), ED, GOOD):
        for value in ("<evil>" * 1000, ["<evil>"], {"<evil>": "<evil>"}):
            _, warnings = read(key | {member: value})
            assert "evil" not in "".join(warnings)
            assert len("".join(warnings)) < 100


UNREADABLE = {
    "empty": b"",
    "HTML": b"<html></html>",
    "cut": json.dumps({"keys": [GOOD]}).encode()[:-2],
    "a list": json.dumps([GOOD]).encode(),
    "without keys": b"{}",
    "an error": b'{"error":"temporarily_unavailable"}',
    "keys null": b'{"keys":null}',
    "keys an object": b'{"keys":{}}',
    "keys twice": b'{"keys":[],"keys":[]}',
    "too many keys": json.dumps({"keys": [GOOD] * 65}).encode(),
    "too long": json.dumps({"keys": [GOOD]}).encode().ljust(262_145),
    "not UTF-8": b'{"keys":["\xff"]}',
}


@pytest.mark.parametrize("document", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_document_that_is_no_key_set_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_keys(document, 1)


def test_most_keys_and_the_longest_document_are_read() -> None:
    assert read_keys(json.dumps({"keys": [GOOD] * 64}).encode(), 1)[0].keys
    assert read_keys(json.dumps({"keys": [GOOD]}).encode().ljust(262_144), 1)[0].keys


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([], "no usable key: the set is empty"),
        ([LEFT_OUT["symmetric"]], "no usable key: keys[0] left out: key type is not one of RSA, EC, OKP"),
        ([LEFT_OUT["encryption"], 5], "no usable key: keys[0] left out: `use` is not `sig`; keys[1] left out: not an object"),
    ],
)  # fmt: skip
def test_set_without_a_usable_key_is_read_and_tells_why(keys: list[Any], told: str) -> None:
    keyset, warnings = read_keys(json.dumps({"keys": keys}).encode(), 1)
    assert keyset.keys == ()
    assert jwks.without_usable_key(warnings) == told
