"""Who calls: fingerprints identify, names never do, and everything that disagrees is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import partner
import pytest

from authz.core import certificate, hops
from authz.core.certificate import epoch_us
from authz.core.hops import Proxies
from authz.model import Client, Credential, Policies, Presented, Reason, Refused, Standing
from authz.policy import Source

MINE = partner.partner_certificate()
CA = partner.certificate("CA", is_ca=True)
OTHER_CA = partner.certificate("other CA", is_ca=True)
ISSUED = partner.certificate("issued", issuer=CA)


def present(header: str) -> Presented | None:
    now_us = partner.NOW_US
    return hops.present(header, None, now_us, trusted_hops=1, proxies=Proxies(), authorities=(CA.parsed,))


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
    facts = certificate.facts_of(forged.parsed, (CA.parsed, OTHER_CA.parsed))
    assert facts.issuer_windows == ()
    assert len(certificate.facts_of(ISSUED.parsed, (OTHER_CA.parsed, CA.parsed)).issuer_windows) == 1


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
