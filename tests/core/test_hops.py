"""Whose certificate it is: XFCC hop by hop. A name proves nothing, so each proxy behind the client is proven."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import partner
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from partner import Certificate, certificate

from authz.core import hops
from authz.core.certificate import ISSUER_MAX_CHARACTERS, NAMED_MAX_CHARACTERS, PEM_MAX_CHARACTERS, epoch_us
from authz.core.hops import Proxies
from authz.model import Presented, Reason, Refused

MINE = partner.partner_certificate()
OTHER = partner.partner_certificate("other")
GATEWAY = "spiffe://example.org/gateway"
DAY = timedelta(days=1)
VERIFIED = Proxies(uris=frozenset({GATEWAY}), are_verified=True)


def present(
    header: str | None,
    peer: str | None = None,
    count: int = 1,
    proxies: Proxies = VERIFIED,
    now_us: int = partner.NOW_US,
) -> Presented | None:
    return hops.present(header, peer, now_us, trusted_hops=count, proxies=proxies, authorities=())


def reason_of_present(*arguments: Any, **more: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        present(*arguments, **more)
    return refused.value.reason


def test_no_certificate_is_none() -> None:
    assert present(None) is None


def test_hash_alone_presents_the_fingerprint() -> None:
    assert present(f"Hash={MINE.fingerprint.upper()}") == Presented(MINE.fingerprint, None)


def test_whole_certificate_presents_its_facts() -> None:
    presented = present(partner.xfcc())
    assert presented is not None
    assert presented.fingerprint == MINE.fingerprint
    assert presented.facts is not None
    assert presented.facts.not_after_us == epoch_us(MINE.parsed.not_valid_after_utc)
    assert presented.facts.issuer_windows == ()


def test_source_certificate_identifies_on_one_hop() -> None:
    presented = present(None, MINE.encoded)
    assert presented is not None
    assert presented.fingerprint == MINE.fingerprint


def test_source_certificate_is_the_proxys_on_more_hops() -> None:
    assert present(None, MINE.encoded, count=2) is None


def test_facts_of_source_certificate_complete_a_bare_hash() -> None:
    presented = present(f"Hash={MINE.fingerprint}", MINE.encoded)
    assert presented is not None
    assert presented.facts is not None


@pytest.mark.parametrize(
    "header",
    ['Subject="CN=a";URI=spiffe://x', f'Chain="{MINE.encoded}"', "By=spiffe://gw"],
    ids=["names", "chain", "by"],
)
def test_names_and_chain_present_nothing(header: str) -> None:
    assert present(header) is None


def altered(good: Certificate, before: bytes, after: bytes) -> Certificate:
    """Return a certificate with other bytes in it: what no library would write."""
    der = good.parsed.public_bytes(serialization.Encoding.DER)
    assert before in der
    assert len(before) == len(after)
    body = base64.encodebytes(der.replace(before, after)).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    return replace(good, pem=pem, fingerprint=hashlib.sha256(der.replace(before, after)).hexdigest())


def of_no_version(good: Certificate) -> str:
    return altered(good, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05").encoded


LATE = certificate("late", end=datetime(2060, 1, 1, tzinfo=UTC))
OF_NO_YEAR = altered(LATE, b"20600101000000Z", b"00000101000000Z")
TWO = [x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.{last}"), b"") for last in (4, 5)]


def twice_extended(**more: Any) -> Certificate:
    """Return a certificate with an extension that it has twice."""
    return altered(certificate("twice", more=TWO, **more), b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")


MALFORMED = {
    "Hash of another certificate": partner.xfcc().replace(MINE.fingerprint, OTHER.fingerprint),
    "Hash too short": "Hash=abcd",
    "Hash too long": f"Hash={MINE.fingerprint}0",
    "Hash empty": "Hash=",
    "not PEM": f'Hash={MINE.fingerprint};Cert="hello"',
    "Cert empty": f'Hash={MINE.fingerprint};Cert=""',
    "two PEM blocks": f'Hash={MINE.fingerprint};Cert="{MINE.encoded}{OTHER.encoded}"',
    "bad percent-encoding": f'Hash={MINE.fingerprint};Cert="{MINE.encoded}%2"',
    "plus for space": f'Hash={MINE.fingerprint};Cert="{MINE.encoded.replace("%20", "+")}"',
    "not DER": 'Cert="-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----%0A"',
    "huge": f'Cert="{"A" * 65_000}"',
    "of a version that there is not": f'Cert="{of_no_version(MINE)}"',
    "of a year that there is not": f'Cert="{OF_NO_YEAR.encoded}"',
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED.keys())
def test_unreadable_or_disagreeing_certificate_is_malformed(header: str) -> None:
    with pytest.raises(Refused) as refused:
        present(header)
    assert refused.value.reason is Reason.CERTIFICATE_MALFORMED
    assert refused.value.detail


@pytest.mark.parametrize("header", [partner.xfcc(OTHER), f"Hash={OTHER.fingerprint}", 'Subject="CN=a"'])
def test_source_certificate_must_agree_with_the_newest_element(header: str) -> None:
    assert reason_of_present(header, MINE.encoded) is Reason.CERTIFICATE_MALFORMED


def audited(name: x509.Name, serial: int = 0x5A01, names: int = 0) -> tuple[str, str]:
    """Return issuer and serial number as they are remembered of a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin, end = partner.NOW - DAY, partner.NOW + DAY
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, begin, end)
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:{number}") for number in range(names)])
    made = (builder.add_extension(san, critical=False) if names else builder).sign(key, hashes.SHA256())
    presented = present(None, quote(made.public_bytes(serialization.Encoding.PEM).decode(), safe=""))
    assert presented is not None
    assert presented.facts is not None
    return presented.facts.issuer, presented.facts.serial


def test_issuer_and_serial_number_are_remembered_for_the_audit_and_bounded() -> None:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"Praxis Süd {number}") for number in range(100)]
    assert audited(x509.Name(parts[:1])) == ("O=Praxis Süd 0", "5a01")
    issuer, serial = audited(x509.Name(parts), 2**159 - 1)
    assert issuer.startswith("O=Praxis Süd 99,O=")
    assert (len(issuer), serial) == (ISSUER_MAX_CHARACTERS, f"{2**159 - 1:x}")
    assert audited(x509.Name(parts[:1]), names=2_000) == ("", "5a01")  # longer than any CA issues


def test_issuer_is_read_of_a_certificate_up_to_a_length() -> None:
    for length, shown in ((NAMED_MAX_CHARACTERS, f"CN={partner.CLIENT_ID}"), (NAMED_MAX_CHARACTERS + 1, "")):
        presented = present(None, MINE.encoded + "A" * (length - len(MINE.encoded)))
        assert presented is not None
        assert presented.facts is not None
        assert presented.facts.issuer == shown


def test_issuer_that_cannot_be_shown_refuses_nobody() -> None:
    broken = altered(certificate("broken name"), b"\x0c\x0bbroken name", b"\x0c\x0b\xff\xfe\xff\xfe\xff\xfename!")
    presented = present(f'Cert="{broken.encoded}"')
    assert presented is not None
    assert presented.facts is not None
    assert presented.facts.issuer == ""


PADDED = MINE.encoded + "%0A" * ((PEM_MAX_CHARACTERS - len(MINE.encoded)) // 3)


def test_certificate_is_read_up_to_its_bound_and_no_further() -> None:
    """`source.certificate` alone can be longer: of the header, all together is bounded before."""
    filled = PADDED + "A" * (PEM_MAX_CHARACTERS - len(PADDED))
    assert len(filled) == PEM_MAX_CHARACTERS
    assert present(None, filled) is not None
    assert reason_of_present(None, filled + "A") is Reason.CERTIFICATE_MALFORMED


ELEMENT, BY = f"Hash={MINE.fingerprint}", "By=spiffe://example.org/sidecar"
GATEWAYS = f"Hash={OTHER.fingerprint};URI={GATEWAY}"


@pytest.mark.parametrize(
    ("header", "count"),
    [(f"{ELEMENT},{GATEWAYS}", 1), (ELEMENT, 2), (f"{ELEMENT},{ELEMENT},{GATEWAYS}", 2)],
    ids=["prepended under append", "too few", "prepended before two"],
)
def test_number_of_elements_is_exactly_the_trusted_hops(header: str, count: int) -> None:
    assert reason_of_present(header, count=count) is Reason.REQUEST_MALFORMED


def test_client_is_the_first_element_behind_trusted_proxies() -> None:
    presented = present(f"{ELEMENT},{GATEWAYS}", count=2)
    assert presented is not None
    assert (presented.fingerprint, presented.facts) == (MINE.fingerprint, None)


NAMED = {
    "as Istio's sidecar writes it": f'{BY};Hash={OTHER.fingerprint};Subject="";URI={GATEWAY}',
    "with a subject": f'Hash={OTHER.fingerprint};Subject="CN=gateway,O=Health\\, Inc.";URI={GATEWAY}',
    "URI alone": f"Hash={OTHER.fingerprint};URI={GATEWAY}",
    "other spellings of the keys": f"hash={OTHER.fingerprint};uri={GATEWAY}",
}


@pytest.mark.parametrize("element", NAMED.values(), ids=NAMED.keys())
def test_proxy_of_a_listener_that_verifies_is_known_by_its_one_and_last_uri(element: str) -> None:
    assert present(f"{ELEMENT},{element}", count=2) is not None


FORGED = {
    "no URI": f"Hash={OTHER.fingerprint}",
    "an empty URI": f'Hash={OTHER.fingerprint};Subject="";URI=',
    "another URI": f"Hash={OTHER.fingerprint};URI={GATEWAY}2",
    "the name as DNS": f"Hash={OTHER.fingerprint};DNS={GATEWAY}",
    "the name in another case": f"Hash={OTHER.fingerprint};URI={GATEWAY.upper()}",
    "a URI added by a SAN": f"Hash={OTHER.fingerprint};URI=spiffe://evil/x;URI={GATEWAY}",
    "a URI added after it": f"Hash={OTHER.fingerprint};URI={GATEWAY};URI=spiffe://evil/x",
    "the URI twice": f"Hash={OTHER.fingerprint};URI={GATEWAY};URI={GATEWAY}",
    "a URI added by a DNS SAN": f"Hash={OTHER.fingerprint};DNS=a;URI=b;URI={GATEWAY}",
    "SAN `...;DNS=x`": f"Hash={OTHER.fingerprint};URI={GATEWAY};DNS=x",
    "SAN `...;By=x`": f"Hash={OTHER.fingerprint};URI={GATEWAY};By=x",
    "SAN `...;Subject=x`": f'Hash={OTHER.fingerprint};URI={GATEWAY};Subject="CN=x"',
    "SAN `...;Issuer=x`": f"Hash={OTHER.fingerprint};URI={GATEWAY};Issuer=x",
    "SAN `...;Chain=x`": f"Hash={OTHER.fingerprint};URI={GATEWAY};Chain=x",
    "a whole certificate of another": partner.xfcc(OTHER).replace("spiffe://example.org/client/x", GATEWAY),
}


@pytest.mark.parametrize("element", FORGED.values(), ids=FORGED.keys())
def test_a_san_cannot_forge_a_proxys_name(element: str) -> None:
    for proxies in (VERIFIED, Proxies(uris=frozenset({GATEWAY}), fingerprints=frozenset({OTHER.fingerprint}))):
        assert reason_of_present(f"{ELEMENT},{element}", count=2, proxies=proxies) is Reason.PROXY_UNTRUSTED


def test_a_whole_certificate_tells_its_own_uris() -> None:
    for forged in (certificate("evil", uris=(f"{GATEWAY};DNS=x",)), certificate("two", uris=(GATEWAY, "urn:x"))):
        header = f"{ELEMENT},Hash={forged.fingerprint};URI={GATEWAY};DNS=x"
        assert reason_of_present(header, forged.encoded, count=2) is Reason.PROXY_UNTRUSTED
    nameless = certificate("nameless")
    header = f"{ELEMENT},Hash={nameless.fingerprint};URI={GATEWAY}"
    assert reason_of_present(header, nameless.encoded, count=2) is Reason.PROXY_UNTRUSTED
    named = certificate("gateway", uris=(GATEWAY,), dns=("gateway.example.org",))  # Envoy writes DNS after URI
    header = f'{ELEMENT},{BY};Hash={named.fingerprint};Cert="{named.encoded}";URI={GATEWAY};DNS=gateway.example.org'
    assert present(header, count=2) is not None


SWALLOWED = f",{BY};Hash={OTHER.fingerprint};URI=x"


@pytest.mark.parametrize("key", ["Subject", "Issuer", "Chain", "Cert", "By", "URI", "DNS"])
def test_an_open_quote_cannot_swallow_what_a_proxy_writes(key: str) -> None:
    """The caller's header ends in an open quote, and its certificate's SAN closes it behind its own Hash."""
    pinned = certificate("gateway")
    lie = f'{ELEMENT},Hash={pinned.fingerprint};{key}="{SWALLOWED}";URI={GATEWAY}'
    proxies = Proxies(uris=frozenset({GATEWAY}), fingerprints=frozenset({pinned.fingerprint}))
    assert reason_of_present(lie, count=2, proxies=proxies) is Reason.REQUEST_MALFORMED


def test_source_certificate_is_compared_with_the_proxys_element_on_two_hops() -> None:
    gateway = certificate("gateway", uris=(GATEWAY,))
    header = f"{ELEMENT},Hash={gateway.fingerprint};URI={GATEWAY}"
    assert present(header, gateway.encoded, count=2) is not None
    assert reason_of_present(f"{ELEMENT},{GATEWAYS}", MINE.encoded, count=2) is Reason.CERTIFICATE_MALFORMED


# ---- what proves a proxy ----------------------------------------------------------------------------------------

CA = certificate("proxies", is_ca=True)
CLIENTS = certificate("clients", is_ca=True)
INTERMEDIATE = certificate("intermediate", issuer=CA, is_ca=True)
PROXY = certificate("gateway", issuer=CA, uris=(GATEWAY,))
FOR_CALLERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
FOR_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
FOR_ALL = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])


def usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def proven_by(*authorities: Certificate, fingerprints: tuple[str, ...] = ()) -> Proxies:
    parsed = tuple(one.parsed for one in authorities)
    return Proxies(uris=frozenset({GATEWAY}), fingerprints=frozenset(fingerprints), authorities=parsed)


def behind(*proxies: Certificate) -> str:
    """Return XFCC of the client and whole certificates of proxies, as Envoy writes it."""
    return ",".join([ELEMENT, *(f'{BY};Hash={one.fingerprint};Cert="{one.encoded}";URI={GATEWAY}' for one in proxies)])


PROVEN = {
    "issued by the CA": (PROXY, proven_by(CA)),
    "by the second of two": (PROXY, proven_by(CLIENTS, CA)),
    "by an intermediate that stands in the file": (
        certificate("gateway", issuer=INTERMEDIATE, uris=(GATEWAY,)),
        proven_by(CA, INTERMEDIATE),
    ),
    "for callers and servers": (certificate("g", issuer=CA, uris=(GATEWAY,), more=[FOR_CALLERS]), proven_by(CA)),
    "for any purpose": (certificate("g", issuer=CA, uris=(GATEWAY,), more=[FOR_ALL]), proven_by(CA)),
    "without basic constraints": (certificate("g", issuer=CA, uris=(GATEWAY,), is_ca=None), proven_by(CA)),
    "by its fingerprint": (PROXY, proven_by(fingerprints=(PROXY.fingerprint,))),
    "self-signed, by its fingerprint": (
        own := certificate("own", uris=(GATEWAY,), is_ca=True),
        proven_by(CA, fingerprints=(own.fingerprint,)),
    ),
}
SIGNS, SIGNS_NOT = (certificate("CA", is_ca=True, more=[usage(signs=signs)]) for signs in (True, False))
LEAF = certificate("leaf", issuer=CA)
PLAIN = certificate("plain", is_ca=None)
UNPROVEN = {
    "self-signed": (certificate("own", uris=(GATEWAY,)), proven_by(CA)),
    "issued by the clients' CA": (certificate("g", issuer=CLIENTS, uris=(GATEWAY,)), proven_by(CA)),
    "of a namesake of the CA": (
        certificate("g", issuer=certificate("proxies", is_ca=True), uris=(GATEWAY,)),
        proven_by(CA),
    ),
    "by an intermediate that is in no file": (certificate("g", issuer=INTERMEDIATE, uris=(GATEWAY,)), proven_by(CA)),
    "issued by a leaf in the file": (certificate("g", issuer=LEAF, uris=(GATEWAY,)), proven_by(CA, LEAF)),
    "issued by one without basic constraints": (certificate("g", issuer=PLAIN, uris=(GATEWAY,)), proven_by(PLAIN)),
    "issued by a key that may not sign": (certificate("g", issuer=SIGNS_NOT, uris=(GATEWAY,)), proven_by(SIGNS_NOT)),
    "a CA's own": (certificate("g", issuer=CA, uris=(GATEWAY,), is_ca=True), proven_by(CA)),
    "for servers alone": (certificate("g", issuer=CA, uris=(GATEWAY,), more=[FOR_SERVERS]), proven_by(CA)),
    "without any CA": (PROXY, proven_by()),
    "another fingerprint": (PROXY, proven_by(fingerprints=(OTHER.fingerprint,))),
    "another name": (certificate("g", issuer=CA, uris=("spiffe://example.org/other",)), proven_by(CA)),
    "another name, by its fingerprint": (OTHER, proven_by(fingerprints=(OTHER.fingerprint,))),
}


@pytest.mark.parametrize(("proxy", "proxies"), PROVEN.values(), ids=PROVEN.keys())
def test_proxy_is_proven_by_its_ca_or_its_fingerprint(proxy: Certificate, proxies: Proxies) -> None:
    assert present(behind(proxy), count=2, proxies=proxies) is not None


@pytest.mark.parametrize(("proxy", "proxies"), UNPROVEN.values(), ids=UNPROVEN.keys())
def test_proxy_that_nothing_proves_is_untrusted_whatever_its_name(proxy: Certificate, proxies: Proxies) -> None:
    assert reason_of_present(behind(proxy), count=2, proxies=proxies) is Reason.PROXY_UNTRUSTED


def test_proxy_whose_extensions_cannot_be_read_is_malformed_and_a_ca_is_none() -> None:
    twice = twice_extended(uris=(GATEWAY,))
    assert reason_of_present(behind(twice), count=2, proxies=proven_by(CA)) is Reason.CERTIFICATE_MALFORMED
    issuer = x509.load_pem_x509_certificate(twice_extended(is_ca=True).pem.encode())
    assert not hops.is_authority(issuer)
    assert hops.is_authority(CA.parsed)


def test_client_is_known_by_its_fingerprint_whatever_its_extensions() -> None:
    assert present(f'Cert="{twice_extended().encoded}"') is not None


def test_key_that_may_sign_makes_a_ca() -> None:
    proxy = certificate("g", issuer=SIGNS, uris=(GATEWAY,))
    assert present(behind(proxy), count=2, proxies=proven_by(SIGNS)) is not None


def test_hash_alone_proves_by_fingerprint_and_not_by_ca() -> None:
    bare = f"{ELEMENT},Hash={PROXY.fingerprint};URI={GATEWAY}"
    assert present(bare, count=2, proxies=proven_by(fingerprints=(PROXY.fingerprint,))) is not None
    assert reason_of_present(bare, count=2, proxies=proven_by(CA)) is Reason.PROXY_UNTRUSTED
    assert present(bare, PROXY.encoded, count=2, proxies=proven_by(CA)) is not None  # `source.certificate` is whole


def test_every_proxy_is_proven_each_for_itself() -> None:
    second = certificate("second", issuer=CA, uris=(GATEWAY,))
    assert present(behind(PROXY, second), count=3, proxies=proven_by(CA)) is not None
    stranger = certificate("stranger", uris=(GATEWAY,))
    for pair in ((PROXY, stranger), (stranger, PROXY)):
        assert reason_of_present(behind(*pair), count=3, proxies=proven_by(CA)) is Reason.PROXY_UNTRUSTED


def test_one_certificate_cannot_make_two_proxies() -> None:
    """A SAN `P,Hash=...;URI=P` makes two elements of one, and `Cert` may be anybody's: a proxy's is no secret."""
    forged = certificate("forged", uris=(f'{GATEWAY},Hash={PROXY.fingerprint};Cert="{PROXY.encoded}";URI={GATEWAY}',))
    for own in ("", f'Cert="{forged.encoded}";'):
        written = f"{BY};Hash={forged.fingerprint};{own}URI={GATEWAY},Hash={PROXY.fingerprint};URI={GATEWAY}"
        for proxies in (proven_by(CA), proven_by(fingerprints=(PROXY.fingerprint,))):
            assert reason_of_present(f"{ELEMENT},{written}", count=3, proxies=proxies) is Reason.PROXY_UNTRUSTED


EXPIRED = certificate("g", issuer=CA, uris=(GATEWAY,), start=partner.NOW - 9 * DAY, end=partner.NOW - DAY)
AHEAD = certificate("g", issuer=CA, uris=(GATEWAY,), start=partner.NOW + DAY)
SHORT_CA = certificate("short", is_ca=True, end=partner.NOW - DAY)
OF_SHORT_CA = certificate("g", issuer=SHORT_CA, uris=(GATEWAY,))


@pytest.mark.parametrize("proxy", [EXPIRED, AHEAD, OF_SHORT_CA], ids=["expired", "not yet valid", "its CA expired"])
def test_proxy_is_one_only_while_its_certificate_and_its_ca_are_valid(proxy: Certificate) -> None:
    proxies = proven_by(CA, SHORT_CA)
    assert reason_of_present(behind(proxy), count=2, proxies=proxies) is Reason.PROXY_UNTRUSTED
    assert reason_of_present(f"{behind(proxy).replace(ELEMENT, 'Subject=x')}", count=2, proxies=proxies) is (
        Reason.PROXY_UNTRUSTED
    ), "also where the client showed nothing"
    pinned = proven_by(fingerprints=(proxy.fingerprint,))
    if proxy is not OF_SHORT_CA:
        assert reason_of_present(behind(proxy), count=2, proxies=pinned) is Reason.PROXY_UNTRUSTED


def test_proof_that_is_kept_ends_with_the_certificate() -> None:
    presented = present(behind(PROXY), count=2, proxies=proven_by(CA))
    assert presented is not None
    start_us, end_us = epoch_us(PROXY.parsed.not_valid_before_utc), epoch_us(PROXY.parsed.not_valid_after_utc)
    for inside_us in (start_us, end_us):
        hops.require_proven(presented.proofs, inside_us)
    for outside_us in (start_us - 1, end_us + 1):
        with pytest.raises(Refused) as refused:
            hops.require_proven(presented.proofs, outside_us)
        assert refused.value.reason is Reason.PROXY_UNTRUSTED
    whole = present(behind(PROXY).replace(ELEMENT, partner.xfcc()), count=2, proxies=proven_by(CA))
    assert whole is not None
    assert whole.facts is not None
    assert whole.proofs == presented.proofs


def test_ca_that_was_renewed_with_its_key_proves_by_whichever_is_valid() -> None:
    over = replace(CA, parsed=partner.renewed(CA, end=partner.NOW - DAY))
    for authorities in ((over, CA), (CA, over)):
        assert present(behind(PROXY), count=2, proxies=proven_by(*authorities)) is not None
    assert reason_of_present(behind(PROXY), count=2, proxies=proven_by(over)) is Reason.PROXY_UNTRUSTED


def test_verified_proxy_outlives_its_certificate_as_its_connection_does() -> None:
    assert present(behind(EXPIRED), count=2) is not None


def test_refusal_tells_the_proxys_fingerprint_and_nothing_more_of_it() -> None:
    for element, told in ((behind(PROXY), PROXY.fingerprint), (f"{ELEMENT},URI={GATEWAY}", "not told")):
        with pytest.raises(Refused) as refused:
            present(element, count=2, proxies=proven_by())
        assert told in refused.value.detail
        assert PROXY.encoded[40:80] not in refused.value.detail
