"""What is read back of what was published: each root and its own CRL, whatever else stands there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from clientpolicy_operator.authority import Root, crl, new_root
from clientpolicy_operator.bundle import read_lists, read_roots
from clientpolicy_operator.issue import pem_of
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START

FIRST, SECOND = (new_root(now=START, life=timedelta(days=30), serial=number) for number in (1, 2))
MANGLED = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
MANGLED_CRL = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"


def pem(root: Root) -> str:
    return pem_of(root.certificate).decode()


def listed(root: Root) -> str:
    return crl(root, [], now=START).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("no PEM at all", []),
        (pem(FIRST), [FIRST]),
        (pem(FIRST) + pem(SECOND), [FIRST, SECOND]),
        (pem(FIRST) + MANGLED + pem(SECOND), [FIRST, SECOND]),
        (pem(FIRST).replace("BEGIN", "BEGUN"), []),
        (pem(FIRST) * 2, [FIRST]),
    ],
)
def test_roots_are_read_and_what_is_mangled_is_left_out(text: str, found: list[Root]) -> None:
    assert read_roots(text) == {root.sha256: root.certificate for root in found}


@pytest.mark.parametrize(
    ("text", "known", "found"),
    [
        ("", [FIRST], []),
        (listed(FIRST), [], []),
        (listed(FIRST), [FIRST], [FIRST]),
        (listed(FIRST) + listed(SECOND), [SECOND], [SECOND]),
        (listed(FIRST) + MANGLED_CRL + listed(SECOND), [FIRST, SECOND], [FIRST, SECOND]),
        (listed(FIRST), [SECOND], []),
    ],
)
def test_a_crl_is_of_the_root_that_signed_it(text: str, known: list[Root], found: list[Root]) -> None:
    roots = {root.sha256: root.certificate for root in known}
    read = read_lists(text, roots)
    assert read.keys() == {root.sha256 for root in found}
    assert all(read[root.sha256].is_signature_valid(root.key.public_key()) for root in found)


def test_crl_of_the_same_name_and_another_key_is_of_no_root() -> None:
    namesake = new_root(now=START, life=timedelta(days=30), serial=1)
    assert namesake.certificate.subject == FIRST.certificate.subject
    assert read_lists(listed(namesake), {FIRST.sha256: FIRST.certificate}) == {}


@given(st.text(max_size=200))
def test_whatever_stands_there_nothing_is_raised(text: str) -> None:
    for around in (text, MANGLED + text, pem(FIRST)[:40] + text + pem(FIRST)[40:]):
        read_roots(around)
        read_lists(around.replace("CERTIFICATE", "X509 CRL"), {FIRST.sha256: FIRST.certificate})
