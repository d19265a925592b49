"""Who calls: fingerprints identify, names never do, and everything that disagrees is refused."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import partner
import pytest
from cryptography.hazmat.primitives import serialization

from authz.core import certificate
from authz.core.certificate import epoch_us
from authz.model import Client, Credential, Policies, Presented, Reason, Refused, Standing
from authz.policy import Source

MINE = partner.partner_certificate()
OTHER = partner.partner_certificate("other")
CA = partner.certificate("CA", is_ca=True)
OTHER_CA = partner.certificate("other CA", is_ca=True)
ISSUED = partner.certificate("issued", issuer=CA)
GATEWAY = "spiffe://example.org/gateway"


def present(
    header: str | None, peer: str | None = None, hops: int = 1, proxies: tuple[str, ...] = ()
) -> Presented | None:
    return certificate.present(
        header, peer, trusted_hops=hops, trusted_proxies=frozenset(proxies), authorities=(CA.parsed,)
    )


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
    assert present(None, MINE.encoded, hops=2, proxies=(GATEWAY,)) is None


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


def of_no_version(good: partner.Certificate) -> str:
    """Return the certificate with another version in it, as Envoy would forward it."""
    der = good.parsed.public_bytes(serialization.Encoding.DER).replace(
        b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1
    )
    body = base64.encodebytes(der).decode()
    return quote(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n", safe="")


MALFORMED = {
    "Hash of another certificate": partner.xfcc().replace(MINE.fingerprint, OTHER.fingerprint),
    "Hash too short": "Hash=abcd",
    "Hash empty": "Hash=",
    "not PEM": f'Hash={MINE.fingerprint};Cert="hello"',
    "Cert empty": f'Hash={MINE.fingerprint};Cert=""',
    "two PEM blocks": f'Hash={MINE.fingerprint};Cert="{MINE.encoded}{OTHER.encoded}"',
    "bad percent-encoding": f'Hash={MINE.fingerprint};Cert="{MINE.encoded}%2"',
    "plus for space": f'Hash={MINE.fingerprint};Cert="{MINE.encoded.replace("%20", "+")}"',
    "not DER": 'Cert="-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----%0A"',
    "huge": f'Cert="{"A" * 65_000}"',
    "of a version that there is not": f'Cert="{of_no_version(MINE)}"',
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED.keys())
def test_unreadable_or_disagreeing_certificate_is_malformed(header: str) -> None:
    assert reason_of_present(header) is Reason.CERTIFICATE_MALFORMED


@pytest.mark.parametrize("header", [partner.xfcc(OTHER), f"Hash={OTHER.fingerprint}", 'Subject="CN=a"'])
def test_source_certificate_must_agree_with_the_newest_element(header: str) -> None:
    assert reason_of_present(header, MINE.encoded) is Reason.CERTIFICATE_MALFORMED


ELEMENT, GATEWAYS = f"Hash={MINE.fingerprint}", f"Hash={OTHER.fingerprint};URI={GATEWAY}"


@pytest.mark.parametrize(
    ("header", "hops"),
    [(f"{ELEMENT},{GATEWAYS}", 1), (ELEMENT, 2), (f"{ELEMENT},{ELEMENT},{GATEWAYS}", 2)],
    ids=["prepended under append", "too few", "prepended before two"],
)
def test_number_of_elements_is_exactly_the_trusted_hops(header: str, hops: int) -> None:
    assert reason_of_present(header, hops=hops, proxies=(GATEWAY,)) is Reason.REQUEST_MALFORMED


def test_client_is_the_first_element_behind_trusted_proxies() -> None:
    assert present(f"{ELEMENT},{GATEWAYS}", hops=2, proxies=(GATEWAY,)) == Presented(MINE.fingerprint, None)


def test_source_certificate_is_compared_with_the_proxys_element_on_two_hops() -> None:
    gateway = partner.certificate("gateway", uris=(GATEWAY,))
    header = f"{ELEMENT},Hash={gateway.fingerprint};URI={GATEWAY}"
    presented = present(header, gateway.encoded, hops=2, proxies=(GATEWAY,))
    assert presented == Presented(MINE.fingerprint, None)
    assert (
        reason_of_present(f"{ELEMENT},{GATEWAYS}", MINE.encoded, hops=2, proxies=(GATEWAY,))
        is Reason.CERTIFICATE_MALFORMED
    )


@pytest.mark.parametrize("uri", ["", ";URI=spiffe://example.org/gateway2", ";DNS=spiffe://example.org/gateway"])
def test_every_later_element_must_be_a_trusted_proxy(uri: str) -> None:
    header = f"{ELEMENT},Hash={OTHER.fingerprint}{uri}"
    assert reason_of_present(header, hops=2, proxies=(GATEWAY,)) is Reason.PROXY_UNTRUSTED


FORGED = {
    "a URI added by a SAN": f"Hash={OTHER.fingerprint};URI=spiffe://evil/x;URI={GATEWAY}",
    "a URI added by a DNS SAN": f"Hash={OTHER.fingerprint};DNS=a;URI={GATEWAY}",
    "no URI": f"Hash={OTHER.fingerprint}",
    "a whole certificate of another": f"{partner.xfcc(OTHER)}".replace("spiffe://example.org/client/x", GATEWAY),
}


@pytest.mark.parametrize("element", FORGED.values(), ids=FORGED.keys())
def test_a_san_cannot_forge_a_trusted_proxy(element: str) -> None:
    assert reason_of_present(f"{ELEMENT},{element}", hops=2, proxies=(GATEWAY,)) is Reason.PROXY_UNTRUSTED


def test_a_whole_certificate_tells_its_own_uris() -> None:
    forged = partner.certificate("evil", uris=(f"{GATEWAY};DNS=x",))
    header = f"{ELEMENT},Hash={forged.fingerprint};URI={GATEWAY};DNS=x"
    assert reason_of_present(header, forged.encoded, hops=2, proxies=(GATEWAY,)) is Reason.PROXY_UNTRUSTED
    nameless = partner.certificate("nameless")
    header = f"{ELEMENT},Hash={nameless.fingerprint};URI={GATEWAY}"
    assert reason_of_present(header, nameless.encoded, hops=2, proxies=(GATEWAY,)) is Reason.PROXY_UNTRUSTED


def client(**changes: Any) -> Client:
    return Client(**({"id": "c", "policy": "p/c"} | changes))


def policies(client: Client, **facts: int) -> Policies:
    credentials = {one.fingerprint: Credential(client, **facts) for one in (MINE, ISSUED)}
    return Policies(by_fingerprint=credentials, by_token={})


def identify(client: Client, header: str = "", now_us: int = partner.NOW_US, **facts: int) -> Client:
    presented = present(header or partner.xfcc())
    assert presented is not None
    return certificate.identify(presented, policies(client, **facts), now_us)


def reason_of_identify(client: Client, header: str = "", now_us: int = partner.NOW_US, **facts: int) -> Reason:
    with pytest.raises(Refused) as refused:
        identify(client, header, now_us, **facts)
    return refused.value.reason


def test_listed_fingerprint_identifies() -> None:
    known = client()
    assert identify(known) is known


def test_unlisted_fingerprint_does_not_whatever_the_names() -> None:
    stolen = partner.certificate("c", uris=(f"spiffe://example.org/client/{partner.CLIENT_ID}",))
    assert reason_of_identify(client(), partner.xfcc(stolen)) is Reason.CERTIFICATE_UNKNOWN


START, END = epoch_us(MINE.parsed.not_valid_before_utc), epoch_us(MINE.parsed.not_valid_after_utc)


@pytest.mark.parametrize(
    ("now_us", "reason"),
    [(START - 1, Reason.CERTIFICATE_NOT_YET_VALID), (END + 1, Reason.CERTIFICATE_EXPIRED)],
)
def test_validity_of_the_whole_certificate_counts(now_us: int, reason: Reason) -> None:
    assert reason_of_identify(client(), now_us=now_us) is reason


@pytest.mark.parametrize("now_us", [START, END])
def test_validity_includes_both_ends(now_us: int) -> None:
    assert identify(client(), now_us=now_us)


def test_validity_of_a_bare_hash_is_what_the_policy_knows() -> None:
    bare = partner.xfcc(whole=False)
    now_us = partner.NOW_US
    assert identify(client(), bare)
    assert reason_of_identify(client(), bare, not_after_us=now_us - 1) is Reason.CERTIFICATE_EXPIRED
    assert reason_of_identify(client(), bare, not_before_us=now_us + 1) is Reason.CERTIFICATE_NOT_YET_VALID


@pytest.mark.parametrize("source", [Source.ISSUED, Source.CSR])
def test_our_own_certificates_must_chain_to_the_client_ca(source: Source) -> None:
    assert identify(client(source=source), partner.xfcc(ISSUED))
    assert identify(client(source=source), partner.xfcc(ISSUED, whole=False))
    assert reason_of_identify(client(source=source)) is Reason.CERTIFICATE_UNKNOWN
    after_ca = epoch_us(CA.parsed.not_valid_after_utc + timedelta(seconds=1))
    late = partner.certificate("late", issuer=CA, end=partner.NOW + timedelta(days=300))
    presented = present(partner.xfcc(late))
    assert presented is not None
    known = Policies(by_fingerprint={late.fingerprint: Credential(client(source=source))}, by_token={})
    with pytest.raises(Refused, match="clientCa"):
        certificate.identify(presented, known, after_ca)


def test_certificate_of_a_namesake_ca_does_not_chain() -> None:
    namesake = partner.certificate("CA", is_ca=True)
    forged = partner.certificate("issued", issuer=namesake)
    facts = certificate.read(forged.encoded, (CA.parsed, OTHER_CA.parsed))
    assert facts.issuer_windows == ()
    assert len(certificate.read(ISSUED.encoded, (OTHER_CA.parsed, CA.parsed)).issuer_windows) == 1


REFUSED = {
    "revoked": (client(revoked=frozenset({MINE.fingerprint})), Reason.CERTIFICATE_REVOKED),
    "issued before": (client(issued_before_us=START + 1), Reason.CERTIFICATE_REVOKED),
    "suspended": (client(suspended=True), Reason.CLIENT_SUSPENDED),
    "not yet in force": (client(not_before_us=partner.NOW_US + 1), Reason.CLIENT_NOT_VALID),
    "no longer in force": (client(not_after_us=partner.NOW_US), Reason.CLIENT_NOT_VALID),
    "conflict": (client(standing=Standing.CONFLICT), Reason.POLICY_CONFLICT),
    "invalid": (client(standing=Standing.INVALID), Reason.POLICY_INVALID),
}


@pytest.mark.parametrize(("client", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_client_that_may_not_act_is_refused(client: Client, reason: Reason) -> None:
    assert reason_of_identify(client) is reason


def test_client_in_force_passes_at_the_edges() -> None:
    assert identify(client(not_before_us=partner.NOW_US, not_after_us=partner.NOW_US + 1, issued_before_us=START))


def test_revocation_goes_before_everything_else() -> None:
    revoked, _ = REFUSED["revoked"]
    assert reason_of_identify(replace(revoked, suspended=True), now_us=END + 1) is Reason.CERTIFICATE_REVOKED


def test_unknown_age_is_older_than_issued_before() -> None:
    bare = partner.xfcc(whole=False)
    limited = client(issued_before_us=START)
    assert reason_of_identify(limited, bare) is Reason.CERTIFICATE_REVOKED
    assert identify(limited, bare, not_before_us=START)


def test_microseconds_survive() -> None:
    assert epoch_us(partner.NOW.replace(microsecond=999_999)) == partner.NOW_US + 999_999
