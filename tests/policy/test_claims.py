"""Who holds what only one can have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import policy_document

from authz.policy import ClientPolicy, parse
from authz.policy.claims import Claim, Claimant, claims_of, conflicts

ID: Claim = ("clientId", "a")
SAN: Claim = ("SAN", "spiffe://td/a")
PRINT = "ab" * 32
FINGERPRINT: Claim = ("fingerprint", PRINT)


def claimant(name: str, created: str, *claims: Claim, issued: tuple[str, ...] = ()) -> Claimant:
    return Claimant(name=name, created=created, claims=frozenset(claims), issued=frozenset(issued))


def policy(**spec: Any) -> ClientPolicy:
    read = parse(policy_document(**spec))
    assert isinstance(read, ClientPolicy), read
    return read


def test_the_oldest_holds_it() -> None:
    old, new = claimant("z/old", "2026-01-01T00:00:00Z", ID), claimant("a/new", "2026-01-02T00:00:00Z", ID)
    assert conflicts([new, old]) == {"a/new": ("z/old", ID)}


def test_of_the_same_second_the_name_decides() -> None:
    one, two = claimant("a/x", "2026-01-01T00:00:00Z", ID), claimant("a/y", "2026-01-01T00:00:00Z", ID)
    assert conflicts([two, one]) == {"a/y": ("a/x", ID)}


def test_who_loses_takes_nothing() -> None:
    first = claimant("n/1", "1", ID)
    second = claimant("n/2", "2", ID, SAN)
    third = claimant("n/3", "3", SAN)
    assert conflicts([first, second, third]) == {"n/2": ("n/1", ID)}


def test_a_made_certificate_cannot_be_claimed_from_outside() -> None:
    squatter = claimant("evil/squatter", "1", ("clientId", "b"), FINGERPRINT)
    partner = claimant("n/partner", "2", ID, issued=(PRINT,))
    assert conflicts([squatter, partner]) == {"evil/squatter": ("n/partner", FINGERPRINT)}


def test_external_fingerprint_listed_twice_is_the_oldest_ones() -> None:
    one, two = claimant("n/1", "1", FINGERPRINT), claimant("n/2", "2", FINGERPRINT)
    assert conflicts([one, two]) == {"n/2": ("n/1", FINGERPRINT)}


def test_what_a_policy_claims() -> None:
    identity = {"commonName": "x", "uris": ["spiffe://td/a"], "dnsNames": ["a.example"], "emails": ["a@example.org"]}
    certificate = {"source": "External", "fingerprints": [PRINT]}
    claims = claims_of(policy(clientId="a", identity=identity, certificate=certificate))
    assert claims == {ID, SAN, ("SAN", "a.example"), ("SAN", "a@example.org"), FINGERPRINT}


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("uris", "https://Partner.EXAMPLE/App", "https://partner.example/App"),
        ("uris", "https://A.example", "https://a.example"),
        ("uris", "https://A.example?Q", "https://a.example?Q"),
        ("uris", "https://User@A.example:8443/p", "https://User@a.example:8443/p"),
        ("emails", "Ops@Partner.example", "Ops@partner.EXAMPLE"),
    ],
)
def test_names_that_mean_the_same_are_one_claim(field: str, one: str, other: str) -> None:
    read = policy(clientId="a", identity={field: [one]})
    assert claims_of(read) == claims_of(policy(clientId="a", identity={field: [other]}))
    assert read.spec.identity is not None
    assert getattr(read.spec.identity, field.replace("N", "_n")) == (one,), "the certificate says it as it is written"


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("uris", "https://a.example/App", "https://a.example/app"),
        ("uris", "https://a.example?Q", "https://a.example?q"),
        ("uris", "https://User@a.example", "https://user@a.example"),
        ("uris", "urn:oid:A", "urn:oid:a"),
        ("uris", "spiffe://td/A", "spiffe://td/a"),
        ("emails", "Ops@partner.example", "ops@partner.example"),
    ],
)
def test_names_that_mean_something_else_are_two_claims(field: str, one: str, other: str) -> None:
    two = (policy(clientId="a", identity={field: [name]}) for name in (one, other))
    assert len({claims_of(read) for read in two}) == 2


@given(
    st.lists(
        st.tuples(st.sampled_from("123"), st.frozensets(st.sampled_from([ID, SAN, FINGERPRINT, ("clientId", "b")]))),
        max_size=6,
    )
)
def test_no_claim_is_held_twice_and_none_is_lost_for_nothing(rows: list[tuple[str, frozenset[Claim]]]) -> None:
    claimants = [claimant(f"n/{place}", created, *claims) for place, (created, claims) in enumerate(rows)]
    losers = conflicts(claimants)
    held = [claim for one in claimants if one.name not in losers for claim in one.claims]
    assert len(held) == len(set(held))
    for name, (winner, claim) in losers.items():
        assert winner not in losers
        loser = next(one for one in claimants if one.name == name)
        assert claim in loser.claims
