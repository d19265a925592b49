"""A client's certificate: every extension, names from the policy alone, and CSRs that would like others."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from clientpolicy_operator.authority import new_root, sign
from clientpolicy_operator.facts import Flaw, Leaf
from clientpolicy_operator.issue import (
    BadCsr,
    PublicKey,
    build,
    generate_key,
    is_request,
    key_pem,
    leaf_of,
    pem_of,
    public_key_of,
    read_key,
    read_secret,
    request_digest,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START, subject
from partner import ec_key, rsa_key
from pydantic import TypeAdapter, ValidationError

from authz.policy import ClientPolicy, Source
from authz.policy.fields import SanUri

ROOT = new_root(now=START, life=timedelta(days=3650), serial=1)
WINDOW = (START - timedelta(minutes=5), START + timedelta(days=30))
SHA256 = hashes.SHA256()
SPIFFE = "spiffe://healthtech.dev/client/app"
SAN_URI = r"\A[a-z][a-z0-9+.-]*:[\x21\x24-\x26\x28-\x2B\x2D-\x3A\x3C-\x5B\x5D-\x7E]+\Z"
EMAIL = r"\A[A-Za-z0-9.!#$%&*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+\Z"
NAMES: dict[str, Any] = {
    "commonName": "app",
    "organizations": ["Partner Ltd", "Zweite GmbH"],
    "uris": [SPIFFE, "urn:app"],
    "dnsNames": ["app.example", "*.app.example"],
    "emails": ["ops@partner.example"],
}


def policy_of(certificate: dict[str, Any] | None = None, **spec: Any) -> ClientPolicy:
    policy = subject(certificate={"source": "Issued"} | (certificate or {}), **spec).policy
    assert policy is not None
    return policy


def issued(policy: ClientPolicy, key: PublicKey | None = None) -> x509.Certificate:
    builder = build(policy, key or ec_key().public_key(), serial=0xA1, window=WINDOW)
    return x509.load_pem_x509_certificate(pem_of(sign(ROOT, builder)))


def usage(*, encipherment: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=encipherment, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
KINDS: dict[str, tuple[dict[str, Any], PublicKey, bool, list[x509.ObjectIdentifier]]] = {
    "ECDSA": ({"identity": NAMES}, ec_key().public_key(), False, [CLIENT]),
    "RSA": ({"identity": NAMES}, rsa_key().public_key(), True, [CLIENT]),
    "Spiffe": (
        {"identity": {"uris": [SPIFFE]}, "certificate": {"profile": "Spiffe"}},
        ec_key().public_key(),
        False,
        [CLIENT, SERVER],
    ),
}


@pytest.mark.parametrize(("spec", "key", "encipherment", "purposes"), KINDS.values(), ids=KINDS)
def test_extensions_are_these_and_no_others(
    spec: dict[str, Any], key: PublicKey, *, encipherment: bool, purposes: list[x509.ObjectIdentifier]
) -> None:
    made = issued(policy_of(**spec), key)
    names = spec["identity"]
    sans = [
        *map(x509.UniformResourceIdentifier, names.get("uris", [])),
        *map(x509.DNSName, names.get("dnsNames", [])),
        *map(x509.RFC822Name, names.get("emails", [])),
    ]
    assert [(one.critical, one.value) for one in made.extensions] == [
        (True, x509.BasicConstraints(ca=False, path_length=None)),
        (True, usage(encipherment=encipherment)),
        (False, x509.ExtendedKeyUsage(purposes)),
        (False, x509.SubjectKeyIdentifier.from_public_key(key)),
        ("commonName" not in names, x509.SubjectAlternativeName(sans)),
        (False, x509.AuthorityKeyIdentifier.from_issuer_public_key(ROOT.key.public_key())),
    ]
    assert made.version is x509.Version.v3
    assert (made.not_valid_before_utc, made.not_valid_after_utc, made.serial_number) == (*WINDOW, 0xA1)
    assert made.public_key() == key


Pairs = list[tuple[x509.ObjectIdentifier, str]]
SUBJECTS: dict[str, tuple[dict[str, Any], Pairs]] = {
    "all of it": (
        {"identity": NAMES},
        [
            (NameOID.ORGANIZATION_NAME, "Partner Ltd"),
            (NameOID.ORGANIZATION_NAME, "Zweite GmbH"),
            (NameOID.COMMON_NAME, "app"),
        ],
    ),
    "client id where nothing is said": ({}, [(NameOID.COMMON_NAME, "trusted-partner-app")]),
    "SAN alone": ({"identity": {"uris": [SPIFFE]}}, []),
    "64 characters, not bytes": ({"identity": {"commonName": "é" * 64}}, [(NameOID.COMMON_NAME, "é" * 64)]),
    "what would be syntax in a string": (
        {"identity": {"commonName": "a,O=Other+CN=\\x/="}},
        [(NameOID.COMMON_NAME, "a,O=Other+CN=\\x/=")],
    ),
}


@pytest.mark.filterwarnings("ignore:Attribute's length")  # the library counts bytes
@pytest.mark.parametrize(("spec", "names"), SUBJECTS.values(), ids=SUBJECTS)
def test_subject_is_what_the_policy_says(spec: dict[str, Any], names: Pairs) -> None:
    assert [(one.oid, one.value) for one in issued(policy_of(**spec)).subject] == names


def test_without_a_san_there_is_no_such_extension() -> None:
    with pytest.raises(x509.ExtensionNotFound):
        issued(policy_of()).extensions.get_extension_for_class(x509.SubjectAlternativeName)


def is_san_uri(uri: str) -> bool:
    try:
        TypeAdapter(SanUri).validate_python(uri)
    except ValidationError:
        return False
    return True


@given(
    uri=st.from_regex(SAN_URI).filter(is_san_uri),
    email=st.from_regex(EMAIL).filter(lambda email: len(email) <= 254),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co"]), min_size=1, max_size=64),
)
@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_every_name_that_a_policy_may_hold_can_be_certified(uri: str, email: str, name: str) -> None:
    made = issued(policy_of(identity={"commonName": name, "uris": [uri], "emails": [email]}))
    sans = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [one.value for one in sans] == [uri, email]
    assert [one.value for one in made.subject] == [name]


def request(key: Any = None, algorithm: Any = SHA256) -> x509.CertificateSigningRequest:
    """A request that asks for the names of somebody else, for a CA, and for whatever else there is."""
    names = [
        x509.NameAttribute(NameOID.COMMON_NAME, "victim"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Victim Ltd"),
    ]
    sans = [x509.UniformResourceIdentifier("spiffe://healthtech.dev/client/victim"), x509.DNSName("victim.example")]
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(names))
        .add_extension(x509.SubjectAlternativeName(sans), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([SERVER, ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"let me in")
        .sign(key or ec_key("partner"), algorithm)
    )


def pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def test_of_a_csr_nothing_but_the_key_is_certified() -> None:
    csr = pem(request())
    hostile = policy_of({"source": "CSR", "csr": csr}, identity=NAMES)
    key = public_key_of(csr)
    assert key == ec_key("partner").public_key()
    plain = build(policy_of(identity=NAMES), key, serial=0xA1, window=WINDOW)
    made, same = issued(hostile, key), sign(ROOT, plain)
    assert (made.subject, list(made.extensions)) == (same.subject, list(same.extensions))
    assert b"victim" not in made.public_bytes(serialization.Encoding.DER).lower()


GOOD_KEYS: dict[str, Any] = {
    "RSA 2048": rsa_key(),
    "P-256": ec_key(),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
}


@pytest.mark.parametrize("key", GOOD_KEYS.values(), ids=GOOD_KEYS)
@pytest.mark.parametrize("around", ["{}", "\n\n  {}\n\t", "{}trailing text"], ids=["bare", "space", "text after it"])
def test_key_of_a_good_csr_is_read(key: Any, around: str) -> None:
    assert public_key_of(around.format(pem(request(key)))) == key.public_key()
    older = pem(request(key)).replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")  # RFC 7468 section 7
    assert public_key_of(around.format(older)) == key.public_key()


def other_signature() -> str:
    der = bytearray(request().public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return pem(x509.load_der_x509_csr(bytes(der)))


def other_name_signed() -> str:
    der = request().public_bytes(serialization.Encoding.DER).replace(b"Victim Ltd", b"Wictim Ltd")
    return pem(x509.load_der_x509_csr(der))


BAD_CSRS: dict[str, tuple[str, str]] = {
    "nothing": ("", "not a readable"),
    "garbage": ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "not a readable"),
    "not ASCII": ("-----BEGIN CERTIFICATE REQUEST-----\nÄÖ\n-----END CERTIFICATE REQUEST-----", "not a readable"),
    "a certificate": (pem_of(ROOT.certificate).decode(), "not a readable"),
    "cut off": (pem(request())[:300], "not a readable"),
    "huge": ("-----BEGIN CERTIFICATE REQUEST-----\n" + "A" * 16_000, "not a readable"),
    "wrong signature": (other_signature(), "signature is not its key's"),
    "name changed after signing": (other_name_signed(), "signature is not its key's"),
    "RSA 1024": (pem(request(rsa.generate_private_key(65537, 1024))), "none of RSA"),  # noqa: S505 it is refused
    "Ed25519": (pem(request(ed25519.Ed25519PrivateKey.generate(), None)), "none of RSA"),
    "P-521": (pem(request(ec.generate_private_key(ec.SECP521R1()))), "none of RSA"),
    "secp256k1": (pem(request(ec.generate_private_key(ec.SECP256K1()))), "none of RSA"),
    "DSA": (pem(request(dsa.generate_private_key(2048))), "none of RSA"),
}


@pytest.mark.parametrize(("csr", "why"), BAD_CSRS.values(), ids=BAD_CSRS)
def test_bad_csr_is_refused_with_its_fault(csr: str, why: str) -> None:
    with pytest.raises(BadCsr, match=why):
        public_key_of(csr)


@given(place=st.integers(0, 700), bit=st.integers(0, 7))
def test_mangled_csr_is_refused_and_raises_nothing_else(place: int, bit: int) -> None:
    der = bytearray(request().public_bytes(serialization.Encoding.DER))
    der[place % len(der)] ^= 1 << bit
    body = base64.encodebytes(bytes(der)).decode()
    with pytest.raises(BadCsr):
        public_key_of(f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n")


@given(place=st.integers(0, 700), bit=st.integers(0, 7))
def test_mangled_certificate_in_a_secret_raises_nothing(place: int, bit: int) -> None:
    root = new_root(now=START, life=timedelta(days=1), serial=7)
    der = bytearray(root.certificate.public_bytes(serialization.Encoding.DER))
    der[place % len(der)] ^= 1 << bit
    body = base64.encodebytes(bytes(der)).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n".encode()
    assert isinstance(read_secret({"tls.crt": pem, "tls.key": key_pem(root.key)}, Source.ISSUED), Flaw | Leaf)


@pytest.mark.parametrize(
    ("wanted", "kind", "bits"),
    [
        ({}, ec.EllipticCurvePrivateKey, 256),
        ({"size": 384}, ec.EllipticCurvePrivateKey, 384),
        ({"algorithm": "RSA", "size": 3072}, rsa.RSAPrivateKey, 3072),
    ],
)
def test_key_is_made_as_asked(wanted: dict[str, Any], kind: type, bits: int) -> None:
    made = generate_key(policy_of({"privateKey": wanted}))
    assert isinstance(made, kind)
    assert made.key_size == bits
    assert read_key(key_pem(made)) is not None


BASE: dict[str, Any] = {"certificate": {"source": "Issued"}, "identity": NAMES}
ASKS_FOR_ANOTHER: dict[str, dict[str, Any]] = {
    "names": {"identity": NAMES | {"emails": []}},
    "organizations": {"identity": NAMES | {"organizations": []}},
    "a name of another kind": {"identity": NAMES | {"uris": ["urn:app"], "dnsNames": ["app.example"]}},
    "duration": {"certificate": {"source": "Issued", "duration": "48h"}},
    "key": {"certificate": {"source": "Issued", "privateKey": {"size": 384}}},
    "profile": {
        "certificate": {"source": "Issued", "profile": "Spiffe"},
        "identity": NAMES | {"uris": [SPIFFE]},
    },
    "issuer": {"certificate": {"source": "Issued", "issuerRef": {"name": "x"}}},
    "CSR": {"certificate": {"source": "CSR", "csr": pem(request())}},
    "another CSR": {"certificate": {"source": "CSR", "csr": pem(request(rsa_key()))}},
    "end of the contract": {"validity": {"notAfter": "2027-01-01T00:00:00Z"}},
    "begin of the contract": {"validity": {"notBefore": "2026-01-01T00:00:00Z"}},
}


def test_each_change_of_what_is_certified_asks_for_another_certificate() -> None:
    digests = [
        request_digest(policy)
        for change in ({}, *ASKS_FOR_ANOTHER.values())
        if (policy := subject(**(BASE | change)).policy) is not None
    ]
    assert len(set(digests)) == 1 + len(ASKS_FOR_ANOTHER)


WRITTEN = "88cb5972df37cc545462120ce0718850"


@pytest.mark.parametrize(
    ("noted", "is_asked"),
    [
        ("1:{}", True),
        ("{}", True),
        ("2:{}", False),
        ("1:1:{}", False),
        ("1:", False),
        ("", False),
        ("1:{}0", False),
    ],
)
def test_note_of_this_version_and_of_the_one_before_versions_is_known(noted: str, *, is_asked: bool) -> None:
    policy = subject(**BASE).policy
    assert policy is not None
    assert is_request(noted.format(WRITTEN), policy) is is_asked


def test_digest_of_this_version_is_for_good() -> None:
    """Where it must take in something else, it gets another version, and Secrets that hold this one are still known."""
    policy = subject(
        identity=NAMES,
        certificate={"source": "Issued", "duration": "48h", "profile": "ClientAuth", "privateKey": {"size": 384},
                     "issuerRef": {"name": "x"}},
        validity={"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z"},
    ).policy  # fmt: skip
    assert policy is not None
    assert request_digest(policy) == "1:bc474268953f660c6e9c608b35a4394c"


ASKS_FOR_NONE: dict[str, dict[str, Any]] = {
    "renewal": {"certificate": {"source": "Issued", "renewBefore": "24h"}},
    "rotation": {"certificate": {"source": "Issued", "privateKey": {"rotationPolicy": "Never"}}},
    "labels": {"certificate": {"source": "Issued", "secretTemplate": {"labels": {"a": "b"}}}},
    "deletion": {"certificate": {"source": "Issued", "secretDeletionPolicy": "Retain"}},
    "rights": {"scopes": [], "suspended": True, "mode": "Shadow", "quotas": []},
    "revocation": {"revocation": {"issuedBefore": "2026-11-01T00:00:00Z"}},
}


@pytest.mark.parametrize("change", ASKS_FOR_NONE.values(), ids=ASKS_FOR_NONE)
def test_what_is_not_certified_asks_for_no_other(change: dict[str, Any]) -> None:
    before, after = subject(**BASE).policy, subject(**(BASE | change)).policy
    assert before is not None
    assert after is not None
    assert request_digest(before) == request_digest(after)


MADE = issued(policy_of())
FILES = {"tls.crt": pem_of(MADE), "tls.key": key_pem(ec_key())}
LEAF = Leaf(
    sha256=MADE.fingerprint(hashes.SHA256()).hex(), serial="a1", not_before=WINDOW[0], not_after=WINDOW[1]
)  # fmt: skip
RSA_MADE = pem_of(issued(policy_of(), rsa_key().public_key()))


def other_exponent() -> bytes:
    """An RSA key whose public half is right and whose private one is not."""
    numbers = rsa_key().private_numbers()
    der = key_pem(rsa_key())
    raw = serialization.load_pem_private_key(der, None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    d = numbers.d.to_bytes(256, "big")
    assert raw.count(d) == 1
    wrong = raw.replace(d, bytes([d[0]]) + bytes([d[1] ^ 1]) + d[2:])
    loaded = serialization.load_der_private_key(wrong, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    return key_pem(loaded)


SECRETS: dict[str, tuple[dict[str, bytes], Source, Leaf | Flaw]] = {
    "good": (FILES, Source.ISSUED, LEAF),
    "good, with its chain": (FILES | {"tls.crt": FILES["tls.crt"] + pem_of(ROOT.certificate)}, Source.ISSUED, LEAF),
    "CSR needs no key": ({"tls.crt": FILES["tls.crt"]}, Source.CSR, LEAF),
    "empty": ({}, Source.ISSUED, Flaw.MISSING_DATA),
    "certificate empty": (FILES | {"tls.crt": b""}, Source.CSR, Flaw.MISSING_DATA),
    "key missing": ({"tls.crt": FILES["tls.crt"]}, Source.ISSUED, Flaw.MISSING_DATA),
    "certificate garbage": (FILES | {"tls.crt": b"\x00"}, Source.ISSUED, Flaw.INVALID_CERTIFICATE),
    "certificate huge": (FILES | {"tls.crt": FILES["tls.crt"] * 1000}, Source.ISSUED, Flaw.INVALID_CERTIFICATE),
    "key garbage": (FILES | {"tls.key": b"\x00"}, Source.ISSUED, Flaw.INVALID_KEY_PAIR),
    "key of another": (FILES | {"tls.key": key_pem(ec_key("other"))}, Source.ISSUED, Flaw.INVALID_KEY_PAIR),
    "key of another kind": (FILES | {"tls.key": key_pem(rsa_key())}, Source.ISSUED, Flaw.INVALID_KEY_PAIR),
    "key huge": (FILES | {"tls.key": FILES["tls.key"] + b"\n" * 20_000}, Source.ISSUED, Flaw.INVALID_KEY_PAIR),
    "RSA": (
        {"tls.crt": RSA_MADE, "tls.key": key_pem(rsa_key())},
        Source.ISSUED,
        leaf_of(x509.load_pem_x509_certificate(RSA_MADE)),
    ),
    "RSA, another private exponent": (
        {"tls.crt": RSA_MADE, "tls.key": other_exponent()},
        Source.ISSUED,
        Flaw.INVALID_KEY_PAIR,
    ),
}


@pytest.mark.parametrize(("data", "source", "found"), SECRETS.values(), ids=SECRETS)
def test_what_a_secret_holds(data: dict[str, bytes], source: Source, found: Leaf | Flaw) -> None:
    assert read_secret(data, source) == found


@given(name=st.sampled_from(["tls.crt", "tls.key"]), place=st.integers(0, 3000), junk=st.binary(max_size=30))
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # a serial number below 1
def test_mangled_secret_is_a_flaw_or_another_certificate_and_never_an_error(name: str, place: int, junk: bytes) -> None:
    whole = {"tls.crt": RSA_MADE, "tls.key": key_pem(rsa_key())}
    whole[name] = whole[name][:place] + junk + whole[name][place + len(junk) :]
    good = leaf_of(x509.load_pem_x509_certificate(RSA_MADE))
    found = read_secret(whole, Source.ISSUED)
    assert found in {good, *Flaw} or (name == "tls.crt" and isinstance(found, Leaf) and found.sha256 != good.sha256)


def test_leaf_of_a_secret_is_its_first_certificate() -> None:
    other = pem_of(issued(policy_of(identity=NAMES)))
    first = read_secret({"tls.crt": FILES["tls.crt"] + other}, Source.CSR)
    assert first == LEAF
