"""The built-in CA: what its roots and CRLs say, what its Secret holds, and that a rotation breaks nothing and ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import pytest
from clientpolicy_operator.authority import (
    BACKDATED,
    CRL_LIFE,
    Authority,
    BadAuthority,
    Revoked,
    Root,
    Rotation,
    advance,
    crl,
    decode,
    encode,
    new_root,
    number_of,
    sign,
)
from clientpolicy_operator.issue import build, key_pem, leaf_of, pem_of
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from one_policy import START, subject
from partner import certificate

YEAR = timedelta(days=365)
PACE = Rotation(renew_before=YEAR, propagation=timedelta(minutes=10), spread=timedelta(hours=24))


@lru_cache
def root(number: int = 1, begin: datetime = START, life: timedelta = 10 * YEAR) -> Root:
    return new_root(now=begin, life=life, serial=number)


def check_signed(by: Root, signature: bytes, signed: bytes) -> None:
    key = by.key.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))


def test_root_is_a_ca_for_leaves_alone_and_names_itself() -> None:
    made = root()
    certificate, name = made.certificate, "CN=ClientPolicy client CA 1,O=ClientPolicy"
    assert (certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()) == (name, name)
    assert certificate.not_valid_before_utc == START - BACKDATED
    assert certificate.not_valid_after_utc == made.not_after == START + 10 * YEAR
    assert [(one.critical, one.value) for one in certificate.extensions] == [
        (True, x509.BasicConstraints(ca=True, path_length=0)),
        (
            True,
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ),
        ),
        (False, x509.SubjectKeyIdentifier.from_public_key(made.key.public_key())),
    ]  # fmt: skip
    assert isinstance(made.key, ec.EllipticCurvePrivateKey)
    assert isinstance(made.key.curve, ec.SECP256R1)
    check_signed(made, certificate.signature, certificate.tbs_certificate_bytes)


def test_two_roots_have_neither_name_nor_key_in_common() -> None:
    assert root(1).certificate.subject != root(2).certificate.subject
    assert root(1).key.public_key() != root(2).key.public_key()


def test_leaf_is_signed_by_its_root_and_says_by_which_key() -> None:
    policy = subject(certificate={"source": "Issued"}).policy
    assert policy is not None
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = sign(root(), build(policy, key.public_key(), serial=7, window=(START, START + timedelta(days=1))))
    assert leaf.issuer == root().certificate.subject
    check_signed(root(), leaf.signature, leaf.tbs_certificate_bytes)
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = root().certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert issuer.key_identifier == own.digest


def rows(found: x509.CertificateRevocationList) -> list[tuple[int, datetime, x509.ReasonFlags | None]]:
    def reason(one: x509.RevokedCertificate) -> x509.ReasonFlags | None:
        listed = [extension.value for extension in one.extensions]
        return listed[0].reason if listed else None

    return [(one.serial_number, one.revocation_date_utc, reason(one)) for one in found]


def test_crl_lists_serial_numbers_since_when_and_why() -> None:
    revoked = [
        Revoked("a1", START - timedelta(days=2), "KeyCompromise"),
        Revoked("ff" * 19, START, "SomethingElse"),
        Revoked("1", START),
    ]
    made = crl(root(), revoked, now=START)
    assert rows(made) == [
        (0xA1, START - timedelta(days=2), x509.ReasonFlags.key_compromise),
        (int("ff" * 19, 16), START, None),
        (1, START, None),
    ]
    assert made.issuer == root().certificate.subject
    assert (made.last_update_utc, made.next_update_utc) == (START - BACKDATED, START + CRL_LIFE)
    check_signed(root(), made.signature, made.tbs_certlist_bytes)


@pytest.mark.parametrize(
    ("since", "told"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), datetime(1950, 1, 1, tzinfo=UTC)),
        (datetime.fromisoformat("0001-01-01T00:00:00+23:59"), datetime(1950, 1, 1, tzinfo=UTC)),
        (datetime.fromisoformat("9999-12-31T23:59:59-23:59"), START),
    ],
    ids=["before X.509's years", "before all years", "after all years"],
)
def test_whatever_instant_a_policy_says_the_crl_is_made(since: datetime, told: datetime) -> None:
    assert rows(crl(root(), [Revoked("1", since)], now=START)) == [(1, told, None)]


@pytest.mark.parametrize("past", [timedelta(0), timedelta(days=40)])
def test_root_that_has_ended_still_has_a_crl(past: timedelta) -> None:
    old = root(3, START, timedelta(hours=2))
    made = crl(old, [], now=old.not_after + past)
    assert made.next_update_utc == old.not_after + past + CRL_LIFE


@given(jumps=st.lists(st.integers(-100_000, 100_000), max_size=6))
def test_number_of_a_crl_rises_whatever_the_clock_does(jumps: list[int]) -> None:
    now, before = START, crl(root(), [], now=START)
    for seconds in jumps:
        now += timedelta(seconds=seconds)
        after = crl(root(), [], now=now, before=before)
        assert number_of(after) > number_of(before)
        before = after


def test_number_of_no_crl_is_below_all() -> None:
    assert number_of(None) == -1


STATES = {
    "one root": Authority(active=root()),
    "another is published": Authority(active=root(), upcoming=root(2), published=START),
    "not yet published": Authority(active=root(), upcoming=root(2)),
    "taken over": Authority(active=root(), retired=root(2), switched=START + timedelta(microseconds=5)),
}


@pytest.mark.parametrize("authority", STATES.values(), ids=STATES)
def test_decoded_is_what_was_encoded(authority: Authority) -> None:
    read = decode(*encode(authority))
    assert encode(read) == encode(authority)
    assert [one.sha256 for one in read.roots] == [one.sha256 for one in authority.roots]
    assert (read.published, read.switched) == (authority.published, authority.switched)


def two_bad() -> dict[str, bytes]:
    return encode(STATES["another is published"])[0]


def stranger() -> bytes:
    return key_pem(ec.generate_private_key(ec.SECP256R1()))


def encrypted() -> bytes:
    secret = serialization.BestAvailableEncryption(b"secret")
    return root().key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)


def ed25519_pem() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


BAD: dict[str, tuple[dict[str, bytes | None], dict[str, str], list[str]]] = {
    "nothing": (
        {"tls.crt": None, "tls.key": None, "next.crt": None, "next.key": None},
        {},
        ["tls.crt: expected one PEM certificate of a CA"],
    ),
    "key is missing": ({"tls.key": None}, {}, ["tls.key: expected the unencrypted PEM private key of tls.crt"]),
    "key of another": ({"tls.key": stranger()}, {}, ["tls.key: expected the unencrypted"]),
    "key is encrypted": ({"tls.key": encrypted()}, {}, ["tls.key: expected the unencrypted"]),
    "key of a kind that is not ours": ({"tls.key": ed25519_pem()}, {}, ["tls.key: expected the unencrypted"]),
    "key without end": ({"tls.key": b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 900_000}, {}, ["tls.key: expected"]),
    "certificate is garbage": ({"tls.crt": b"\xff\x00"}, {}, ["tls.crt: expected one PEM certificate of a CA"]),
    "no CA": ({"tls.crt": certificate().pem.encode()}, {}, ["tls.crt: not a CA (basicConstraints)", "tls.key: "]),
    "next one's key is missing": ({"next.key": None}, {}, ["next.key: expected the unencrypted"]),
    "all of it": ({"tls.crt": b"", "next.crt": b""}, {"published": "soon"}, ["tls.crt: ", "next.crt: ", "published: "]),
    "instant without zone": ({}, {"published": "2026-11-23T12:00:00"}, ["annotation published: expected an instant"]),
    "instant out of range": ({}, {"switched": "0001-01-01T00:00:00+23:00"}, ["annotation switched: expected"]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "notes", "faults"), BAD.values(), ids=BAD)
def test_secret_that_cannot_be_used_says_everything_that_is_wrong(
    change: dict[str, bytes | None], notes: dict[str, str], faults: list[str]
) -> None:
    data = {name: value for name, value in (two_bad() | change).items() if value is not None}
    with pytest.raises(BadAuthority) as told:
        decode(data, notes)
    for fault in faults:
        assert fault in str(told.value)
    assert "PRIVATE KEY-----" not in str(told.value)


def test_certificate_with_an_extension_twice_is_told_and_no_error() -> None:
    der = root().certificate.public_bytes(serialization.Encoding.DER)
    key_usage, constraints = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d13")
    assert der.count(key_usage) == 1
    twice = der.replace(key_usage, constraints)
    mangled = x509.load_der_x509_certificate(twice).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(BadAuthority):
        decode({"tls.crt": mangled, "tls.key": key_pem(root().key)}, {})


@given(
    place=st.sampled_from(["tls.crt", "tls.key", "next.crt", "next.key"]),
    cut=st.integers(0, 2000),
    junk=st.binary(max_size=40),
    published=st.text(max_size=30),
)
def test_mangled_secret_raises_nothing_but_that_it_is_bad(place: str, cut: int, junk: bytes, published: str) -> None:
    data = two_bad()
    data[place] = data[place][:cut] + junk + data[place][cut + len(junk) :]
    try:
        decode(data, {"published": published})
    except BadAuthority as bad:
        assert str(bad)


def step(authority: Authority, now: datetime, *, wanted: bool = False, leaf: datetime | None = None) -> Authority:
    spare = root(99, now)
    return advance(authority, now=now, rotation=PACE, wanted=wanted, last_retired_leaf=leaf, spare=spare)


def test_rotation_from_wish_to_end() -> None:
    first, leaf = Authority(active=root()), START + timedelta(days=30)
    assert step(first, START) is first
    second = step(first, START, wanted=True)
    assert second == Authority(active=root(), upcoming=root(99, START))
    later = START + timedelta(days=2)
    assert step(second, later, wanted=True) is second, "not published yet"
    published = replace(second, published=START)
    assert step(published, START + PACE.propagation - timedelta(seconds=1)) is published
    now = START + PACE.propagation
    third = step(published, now)
    assert third == Authority(active=root(99, START), retired=root(), switched=now)
    assert step(third, leaf, leaf=leaf, wanted=True) is third, "a leaf is valid at its last instant"
    assert step(third, now + timedelta(hours=23)) is third, (
        "a signing just before the switch may be recorded just after"
    )
    assert step(third, leaf + timedelta(seconds=1), leaf=leaf) == replace(third, retired=None)


def test_root_is_replaced_before_its_end() -> None:
    almost, due = START + 9 * YEAR - timedelta(seconds=1), START + 9 * YEAR
    authority = Authority(active=root())
    assert step(authority, almost) is authority
    assert step(authority, due).upcoming == root(99, due)


def test_three_roots_at_once_lose_the_retired_one_before_another_takes_over() -> None:
    authority = Authority(
        active=root(), upcoming=root(2), retired=root(3), published=START - YEAR, switched=START - YEAR
    )
    assert step(authority, START, leaf=START + timedelta(days=1)) is authority
    assert step(authority, START, leaf=START - timedelta(days=1)) == replace(authority, retired=None)


MANGLED: dict[str, tuple[Authority, Authority]] = {
    "since when it signs is lost": (
        Authority(active=root(), retired=root(2)),
        Authority(active=root(), retired=root(2), switched=START),
    ),
    "it signs since tomorrow": (
        Authority(active=root(), switched=START + timedelta(days=1)),
        Authority(active=root(), switched=START),
    ),
    "published tomorrow": (
        Authority(active=root(), upcoming=root(2), published=START + timedelta(days=1)),
        Authority(active=root(), upcoming=root(2)),
    ),
    "next one has ended": (
        Authority(active=root(), upcoming=root(4, START - 9 * YEAR, YEAR), published=START - 9 * YEAR),
        Authority(active=root(), upcoming=root(99, START)),
    ),
    "next one is of the future": (
        Authority(active=root(), upcoming=root(5, START + YEAR), published=START - YEAR),
        Authority(active=root(), upcoming=root(99, START)),
    ),
}


@pytest.mark.parametrize(("before", "after"), MANGLED.values(), ids=MANGLED)
def test_state_that_could_not_go_on_is_put_right(before: Authority, after: Authority) -> None:
    assert step(before, START) == after


Instants = st.none() | st.integers(-400, 400).map(lambda days: START + timedelta(days=days))
Roots = st.builds(
    root,
    st.integers(1, 3),
    st.sampled_from([START - 9 * YEAR, START, START + YEAR]),
    st.sampled_from([YEAR, 10 * YEAR]),
)


@settings(max_examples=60)
@given(
    active=Roots, upcoming=st.none() | Roots, retired=st.none() | Roots, published=Instants, switched=Instants,
    leaf_days=st.integers(-10, 300), steps=st.lists(st.tuples(st.integers(-2000, 20_000), st.booleans()), max_size=30),
)  # fmt: skip
def test_rotation_from_any_state_breaks_nothing_and_ends(  # noqa: PLR0917 a state's parts
    active: Root, upcoming: Root | None, retired: Root | None, published: datetime | None,
    switched: datetime | None, leaf_days: int, steps: list[tuple[int, bool]],
) -> None:  # fmt: skip
    """Whatever the clock does: no root goes while a leaf of it is valid, and none signs that is not trusted yet."""
    now, leaf = START, START + timedelta(days=leaf_days)
    authority = Authority(active=active, upcoming=upcoming, retired=retired, published=published, switched=switched)
    forward = [(40_000, False)] * 40
    for minutes, wanted in (*steps, *forward):
        now += timedelta(minutes=minutes)
        before, authority = authority, step(authority, now, wanted=wanted, leaf=leaf)
        kept = {one.sha256 for one in authority.roots}
        if before.retired is not None and before.retired.sha256 not in kept:
            assert min(leaf, before.retired.not_after) < now
        if authority.active is not before.active:
            assert authority.active is before.upcoming
            assert before.published is not None
            assert before.published + PACE.propagation <= now
            assert authority.retired is before.active
            assert authority.active.not_after > now
            leaf = min(now + timedelta(days=30), before.active.not_after)
        assert before.active.sha256 in kept
        if authority.upcoming is not None and authority.published is None:
            authority = replace(authority, published=now)
    assert (authority.upcoming, authority.retired) == (None, None) or authority.active.not_after - YEAR <= now + YEAR
    assert authority.active.not_after > now


def test_leaf_of_a_root_is_told_by_its_bytes() -> None:
    read = x509.load_pem_x509_certificate(pem_of(root().certificate))
    assert leaf_of(read) == leaf_of(root().certificate)
    assert leaf_of(read).serial == "1"
