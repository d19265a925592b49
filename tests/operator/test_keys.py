"""Which key is certified: never one that was revoked for KeyCompromise, whatever is left of the Secret that held it."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from clientpolicy_operator.facts import Document, Entry
from clientpolicy_operator.issue import key_pem
from clientpolicy_operator.keys import csr_fault, key_for, key_sha256, stolen_keys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from one_policy import START, subject
from partner import Certificate, certificate, ec_key, rsa_key

from authz.policy import ClientPolicy

LEAF = certificate("app")
OTHER = certificate("another")
NEVER = {"source": "Issued", "privateKey": {"rotationPolicy": "Never"}}
ALWAYS = {"source": "Issued"}


def policy(certificate: dict[str, Any], *revoked: tuple[str, str]) -> ClientPolicy:
    listed = [{"sha256": sha256, "reason": reason} for sha256, reason in revoked]
    made = subject(certificate=certificate, revocation={"fingerprints": listed}).policy
    assert made is not None
    return made


def row(leaf: Certificate, *, key: str | None = None) -> Entry:
    public = leaf.key.public_key()
    return Entry(
        revision=1, sha256=leaf.fingerprint, serial="a1", not_before=START, not_after=START + timedelta(days=30),
        ca_sha256="c" * 64, recorded=START, key_sha256=key_sha256(public) if key is None else key,
    )  # fmt: skip


def secret(crt: str | None, key: ec.EllipticCurvePrivateKey | None = LEAF.key) -> Document:
    data = {} if crt is None else {"tls.crt": base64.b64encode(crt.encode()).decode()}
    return {"data": data | ({} if key is None else {"tls.key": base64.b64encode(key_pem(key)).decode()})}


COMPROMISED = (LEAF.fingerprint, "KeyCompromise")
LEFT: dict[str, Document] = {
    "tls.crt emptied": secret(""),
    "tls.crt gone": secret(None),
    "tls.crt mangled": secret(LEAF.pem[:200]),
    "tls.crt of another": secret(OTHER.pem),
    "all there": secret(LEAF.pem),
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_compromised_key_is_not_certified_whatever_is_left_of_its_secret(left: Document) -> None:
    of = policy(NEVER, COMPROMISED)
    stolen = stolen_keys(of, [row(LEAF)], left)
    assert key_sha256(LEAF.key.public_key()) in stolen
    public, private = key_for(of, left, stolen)
    assert public != LEAF.key.public_key()
    assert private is not None
    assert private.public_key() == public


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
@pytest.mark.parametrize("revoked", [(), ((LEAF.fingerprint, "Superseded"),), ((OTHER.fingerprint, "KeyCompromise"),)])
def test_key_that_nobody_stole_stays_where_the_policy_says_never(
    left: Document, revoked: tuple[tuple[str, str], ...]
) -> None:
    of = policy(NEVER, *revoked)
    public, private = key_for(of, left, stolen_keys(of, [row(LEAF)], left))
    assert public == LEAF.key.public_key()
    assert private is not None


def test_key_is_new_each_time_unless_the_policy_says_never() -> None:
    of = policy(ALWAYS)
    first, second = (key_for(of, secret(LEAF.pem), frozenset())[0] for _ in range(2))
    assert LEAF.key.public_key() not in (first, second)
    assert first != second


@pytest.mark.parametrize(
    ("rows", "left", "is_known"),
    [
        ([row(LEAF)], None, True),
        ([row(LEAF, key="")], None, False),
        ([], None, False),
        ([], secret(LEAF.pem), True),
        ([row(LEAF, key="")], secret(LEAF.pem), True),
        ([row(OTHER)], secret(OTHER.pem), False),
    ],
    ids=["ledger", "a row without its key", "nothing", "Secret", "Secret beside such a row", "others"],
)
def test_stolen_key_is_known_by_the_ledger_or_by_its_certificate(
    rows: list[Entry], left: Document | None, *, is_known: bool
) -> None:
    expected = {key_sha256(LEAF.key.public_key())} if is_known else set()
    assert stolen_keys(policy(NEVER, COMPROMISED), rows, left) == expected


def test_key_of_another_kind_or_size_is_made_anew() -> None:
    for wanted in ({"size": 384}, {"algorithm": "RSA", "size": 2048}):
        of = policy({"source": "Issued", "privateKey": {"rotationPolicy": "Never"} | wanted})
        public, _ = key_for(of, secret(LEAF.pem), frozenset())
        assert public.key_size == wanted["size"]
    of = policy({"source": "Issued", "privateKey": {"rotationPolicy": "Never", "algorithm": "RSA", "size": 2048}})
    kept: Document = {"data": {"tls.key": base64.b64encode(key_pem(rsa_key())).decode()}}
    assert key_for(of, kept, frozenset())[0] == rsa_key().public_key()


def csr(key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "any")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_csr_brings_its_key_and_no_private_half() -> None:
    of = policy({"source": "CSR", "csr": csr(ec_key())})
    assert key_for(of, None, frozenset()) == (ec_key().public_key(), None)
    assert csr_fault(of) is None


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_csr_of_a_compromised_key_is_refused_whatever_is_left_of_its_secret(left: Document) -> None:
    of = policy({"source": "CSR", "csr": csr(LEAF.key)}, COMPROMISED)
    told = csr_fault(of, stolen_keys(of, [row(LEAF)], left))
    assert told == "its key is that of a certificate that was revoked for KeyCompromise; send a csr of another key"


def test_fault_of_a_csr_is_told_and_who_has_none_has_no_fault() -> None:
    assert csr_fault(None) is None
    assert csr_fault(policy(ALWAYS)) is None
    told = csr_fault(policy({"source": "CSR", "csr": "-----BEGIN CERTIFICATE REQUEST-----"}))
    assert told == "csr is not a readable PKCS #10 request"
