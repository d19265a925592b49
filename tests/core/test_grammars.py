"""Which characters each grammar of the decision takes in each place, and how many: nothing is off by one."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from string import ascii_lowercase
from typing import Any

import partner
import pytest
from alphabet import ALNUM, HEX, VISIBLE, taken, without
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from partner import NOW_US, claims

from authz.core import bearer, forwarded, search
from authz.core.jwks import read_keys
from authz.core.path import TARGET_MAX_CHARACTERS, split_target
from authz.core.plain import require_plain
from authz.model import Confirmation, Issuer, Refused, Request, Trusted

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
JWK = json.loads(OKPAlgorithm.to_jwk(KEY.public_key())) | {"kid": "k"}
ISSUER = Issuer(
    name="a",
    issuer=partner.ISSUER,
    audiences=frozenset({partner.AUDIENCE}),
    algorithms=frozenset({"EdDSA"}),
    leeway_us=0,
    client_claim="client_id",
    patient_claim="patient",
    scope_claims=("scope",),
)
TRUSTED = {partner.ISSUER: Trusted(ISSUER, read_keys(partner.jwks(JWK), NOW_US * 2)[0])}
THUMBPRINT = partner.partner_certificate().thumbprint


def part(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def verify(**changes: Any) -> Any:
    header, payload = json.dumps({"alg": "EdDSA"}), json.dumps(claims(**changes))
    signed = f"{part(header.encode())}.{part(payload.encode())}"
    return bearer.verify(f"{signed}.{part(KEY.sign(signed.encode()))}", TRUSTED, None, NOW_US)


def holds(check: Callable[[], object]) -> bool:
    try:
        check()
    except Refused:
        return False
    return True


def is_bound(text: str) -> bool:
    return verify(cnf={"x5t#S256": text}).confirmation is not Confirmation.UNSUPPORTED


def form(text: str) -> object:
    return search.parse_form(text.encode())


def method(text: str) -> None:
    asked = Request(
        method=text, target="/", host="", request_id="", address="", authorization=None, forwarded=None,
        certificate=None, is_overridden=False,
    )  # fmt: skip
    require_plain(asked, "")


# What is read, by which function, in which place, and the characters that it takes there.
QUERY = without(VISIBLE, "#")
TARGET = without(QUERY, ";\\")
PLACES: list[tuple[str, Callable[[str], object], str, str]] = [
    ("first of a path", split_target, "{}", "/"),
    ("path", split_target, "/{}", without(TARGET, "/.%")),
    ("within a path", split_target, "/a{}a", without(TARGET, "%")),
    ("query", split_target, "/?{}", without(QUERY, "%")),
    ("first digit in a path", split_target, "/%{}e", "34567"),
    ("first digit in a query", split_target, "/?%{}a", "234567"),
    ("second digit in a path", split_target, "/%4{}", HEX),
    ("second digit in a query", split_target, "/?%2{}", HEX),
    ("end of a query's digits", split_target, "/?%7{}", without(HEX, "fF")),
    ("encoded separator", split_target, "/a%2{}", without(HEX, "EeFf35")),
    ("encoded backslash", split_target, "/%5{}", without(HEX, "Cc")),
    ("encoded semicolon", split_target, "/%3{}", without(HEX, "BbFf")),
    ("method", method, "{}", "!#$%&'*+.^_`|~-" + without(ALNUM, ascii_lowercase)),
    ("within a method", method, "A{}A", "!#$%&'*+.^_`|~-" + without(ALNUM, ascii_lowercase)),
    ("subject", lambda text: verify(sub=text), "{}", VISIBLE),
    ("within a subject", lambda text: verify(sub=text), "a{}a", VISIBLE + " "),
    ("end of a subject", lambda text: verify(sub=text), "a{}", VISIBLE),
    ("scope", lambda text: verify(scope=[text]), "{}", without(VISIBLE, '"\\')),
    ("within a scope", lambda text: verify(scope=[text]), "a{}a", without(VISIBLE, '"\\')),
    ("patient", lambda text: verify(patient=text), "{}", ALNUM + "-"),
    ("within a patient", lambda text: verify(patient=text), "a{}a", ALNUM + ".-"),
    ("patient of a reference", lambda text: verify(patient=text), "Patient/{}", ALNUM + "-"),
    ("form", form, "a={}", without(VISIBLE, "%")),
    ("first digit in a form", form, "a=%{}e", "234567"),
    ("second digit in a form", form, "a=%2{}", HEX),
    (
        "end of a form's digits",
        form,
        "a=%7{}",
        without(HEX, "fF"),
    ),
    ("name of a parameter", search.parse, "{}=a", ALNUM + "_-"),
    ("within a name", search.parse, "a{}a=b", ALNUM + "_-:.&="),
    ("name of XFCC", forwarded.parse, "{}y=a", "bB"),
    ("bare value of XFCC", forwarded.parse, "By={}", without(VISIBLE, '",;\\') + " "),
    ("quoted value of XFCC", forwarded.parse, 'By="{}"', without(VISIBLE, '";\\') + " "),
    ("escaped in XFCC", forwarded.parse, 'By="\\{}"', VISIBLE + " "),
]


@pytest.mark.parametrize(("read", "frame", "expected"), [row[1:] for row in PLACES], ids=[row[0] for row in PLACES])
def test_characters_in_each_place(read: Callable[[str], object], frame: str, expected: str) -> None:
    assert taken(frame, lambda text: holds(lambda: read(text))) == set(expected)


def test_thumbprint_of_a_certificate_is_base64url() -> None:
    assert taken("{}" + THUMBPRINT[1:], is_bound) == set(ALNUM + "-_")
    assert taken(THUMBPRINT[:20] + "{}" + THUMBPRINT[21:], is_bound) == set(ALNUM + "-_")
    assert not is_bound(THUMBPRINT + "A")
    assert not is_bound(THUMBPRINT[:-1])


LENGTHS: list[tuple[str, Callable[[str], object], str, int, int]] = [
    ("target", split_target, "/{}", 0, TARGET_MAX_CHARACTERS - 1),
    ("target with a query", split_target, "/?{}", 0, TARGET_MAX_CHARACTERS - 2),
    ("method", lambda text: method(text.upper()), "{}", 1, 32),
    ("subject", lambda text: verify(sub=text), "{}", 1, bearer.CLAIM_MAX_CHARACTERS),
    ("patient", lambda text: verify(patient=text), "{}", 1, 64),
    ("reference to a patient", lambda text: verify(patient=text), "Patient/{}", 1, 64),
    ("XFCC", forwarded.parse, "By={}", 0, forwarded.HEADER_MAX_CHARACTERS - 3),
]


@pytest.mark.parametrize(
    ("read", "frame", "least", "most"), [row[1:] for row in LENGTHS], ids=[row[0] for row in LENGTHS]
)
def test_lengths_end_where_they_say(read: Callable[[str], object], frame: str, least: int, most: int) -> None:
    def fits(length: int) -> bool:
        return holds(lambda: read(frame.replace("{}", "a" * length)))

    assert [fits(least), fits(most), fits(most + 1)] == [True, True, False]
    assert least == 0 or not fits(least - 1)
