"""Brakes: an invalid version may stop a client, and nothing in it, nor in a run of them, restarts what was stopped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import policy_document

from authz.core.brakes import REVOKED_MAX, braked
from authz.core.certificate import identify
from authz.core.roster import enlist
from authz.model import Client, Credential, Policies, Presented, Refused
from authz.policy import ClientPolicy, parse

PRINTS = [letter * 64 for letter in "abcd"]
YEARS = [f"{year}-01-01T00:00:00Z" for year in range(2024, 2030)]
YEARS_US = [1_704_067_200_000_000 + year * 31_557_600_000_000 for year in range(6)]  # to the day, these years
FIELDS = ("suspended", "revoked", "issued_before_us", "not_before_us", "not_after_us")


def client(**spec: Any) -> Client:
    policy = parse(policy_document(**spec))
    assert isinstance(policy, ClientPolicy), policy
    return enlist(policy, may_shadow=True).client


def invalid(**spec: Any) -> dict[str, Any]:
    return {"spec": {"scopes": ["bad"], **spec}}


def what(braked_client: Client) -> dict[str, Any]:
    return {name: getattr(braked_client, name) for name in FIELDS}


def revoking(*fingerprints: Any) -> dict[str, Any]:
    return {"fingerprints": [{"sha256": one} for one in fingerprints]}


STOPPED: dict[str, Any] = {
    "suspended": True,
    "revocation": {**revoking(PRINTS[0]), "issuedBefore": YEARS[2]},
    "validity": {"notBefore": YEARS[1], "notAfter": YEARS[4]},
}
NOTHING_NEW: dict[str, dict[str, Any]] = {
    "nothing said": {},
    "taken up again": {"suspended": False},
    "revocation emptied": {"revocation": {}},
    "fingerprints emptied": {"revocation": {"fingerprints": []}},
    "another revocation": {"revocation": revoking()},
    "no revocation at all": {"revocation": None},
    "an earlier issuedBefore": {"revocation": {"issuedBefore": YEARS[0]}},
    "validity emptied": {"validity": {}},
    "a later end": {"validity": {"notAfter": YEARS[5]}},
    "an earlier begin": {"validity": {"notBefore": YEARS[0]}},
    "all at once": {
        "suspended": False,
        "revocation": {"fingerprints": [], "issuedBefore": YEARS[0]},
        "validity": {"notBefore": YEARS[0], "notAfter": YEARS[5]},
    },
    "unreadable": {"revocation": 5, "validity": {"notAfter": 5, "notBefore": "tomorrow"}},
    "no spec": {"spec": 5},
}


@pytest.mark.parametrize("said", NOTHING_NEW.values(), ids=NOTHING_NEW.keys())
def test_invalid_version_restarts_nothing(said: dict[str, Any]) -> None:
    good = client(**STOPPED)
    assert what(braked(good, invalid(**said))) == what(good)


@pytest.mark.parametrize("document", [None, 5, [], {}, {"spec": None}, {"spec": []}, "text"])
def test_document_that_says_nothing_stops_nothing(document: object) -> None:
    good = client()
    assert what(braked(good, document)) == what(good)


APPLIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "suspended": ({"suspended": True}, {"suspended": True}),
    "suspended in another way": ({"suspended": "yes"}, {"suspended": True}),
    "one more revoked": ({"revocation": revoking(PRINTS[1].upper())}, {"revoked": frozenset(PRINTS[:2])}),
    "beside what cannot be read": (
        {"revocation": {"fingerprints": [5, {"sha256": PRINTS[1], "reason": "two words"}], "issuedBefore": 5}},
        {"revoked": frozenset(PRINTS[:2])},
    ),
    "a later issuedBefore": ({"revocation": {"fingerprints": 5, "issuedBefore": YEARS[3]}}, {"issued_before_us": 3}),
    "a later begin": ({"validity": {"notBefore": YEARS[2], "until": 5}}, {"not_before_us": 2}),
    "an earlier end": ({"validity": {"notAfter": YEARS[3], "notBefore": []}}, {"not_after_us": 3}),
    "a window that is none": (
        {"validity": {"notBefore": YEARS[3], "notAfter": YEARS[2]}},
        {"not_before_us": 3, "not_after_us": 2},
    ),
}


@pytest.mark.parametrize(("said", "changed"), APPLIES.values(), ids=APPLIES.keys())
def test_what_restricts_applies(said: dict[str, Any], changed: dict[str, Any]) -> None:
    good = client(**(STOPPED | {"suspended": False}))
    years = [client(validity={"notAfter": year}).not_after_us for year in YEARS]
    expected = {name: years[value] if name.endswith("_us") else value for name, value in changed.items()}
    assert what(braked(good, invalid(**said))) == what(good) | expected


def test_begin_and_end_apply_where_there_were_none() -> None:
    found = braked(client(), invalid(**STOPPED))
    assert what(found) == what(client(**STOPPED))


def test_what_one_invalid_version_stopped_the_next_does_not_restart() -> None:
    good = client()
    stopped = braked(good, invalid(**STOPPED))
    for said in NOTHING_NEW.values():
        stopped = braked(stopped, invalid(**said))
    assert what(stopped) == what(client(**STOPPED))


def test_run_of_versions_that_revokes_without_end_suspends_the_client() -> None:
    found = client()
    for number in range(REVOKED_MAX):
        found = braked(found, invalid(revocation=revoking(f"{number:064x}")))
    assert len(found.revoked) == REVOKED_MAX
    assert not found.suspended
    for more in (revoking("f" * 64), revoking(*(f"{number:064x}" for number in range(1_000)))):
        found = braked(found, invalid(revocation=more))
        assert len(found.revoked) == REVOKED_MAX
        assert found.suspended


INSTANTS: st.SearchStrategy[Any] = st.sampled_from(
    [*YEARS, None, 5, "tomorrow", {}, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]
)
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.just([]), st.just({}))
ENTRIES = st.one_of(
    ANYTHING, st.fixed_dictionaries({"sha256": st.sampled_from([*PRINTS, PRINTS[0].upper(), "short", 5])})
)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "suspended": st.one_of(st.booleans(), ANYTHING),
        "revocation": st.one_of(
            ANYTHING,
            st.fixed_dictionaries(
                {},
                optional={"fingerprints": st.one_of(ANYTHING, st.lists(ENTRIES, max_size=4)), "issuedBefore": INSTANTS},
            ),
        ),
        "validity": st.one_of(
            ANYTHING, st.fixed_dictionaries({}, optional={"notBefore": INSTANTS, "notAfter": INSTANTS, "x": ANYTHING})
        ),
        "clientId": ANYTHING,
        "mode": st.sampled_from(["Enforce", "Shadow"]),
        "scopes": st.just(["system/*.cruds"]),
    },
)
GOOD = st.sampled_from(
    [
        {},
        STOPPED,
        STOPPED | {"suspended": False},
        {"validity": {"notAfter": YEARS[3]}},
        {"revocation": revoking(PRINTS[2])},
    ]
)


def passes(one: Client) -> set[tuple[str, int | None, int]]:
    """Return with which certificate, of which age, the client may act when."""
    found = set()
    for fingerprint in PRINTS:
        for begin_us in (None, *YEARS_US):
            policies = Policies(by_fingerprint={fingerprint: Credential(one, begin_us)}, by_token={})
            for now_us in YEARS_US:
                try:
                    identify(Presented(fingerprint, None), policies, now_us)
                except Refused:
                    continue
                found.add((fingerprint, begin_us, now_us))
    return found


@given(GOOD, st.lists(SAID, min_size=1, max_size=3))
def test_whatever_an_invalid_version_says_less_passes_than_before(
    spec: dict[str, Any], said: list[dict[str, Any]]
) -> None:
    now = client(**spec)
    for version in said:
        before, now = now, braked(now, {"spec": version})
        assert passes(now) <= passes(before)
        assert (now.scopes, now.shadow, now.id, now.limits) == (before.scopes, before.shadow, before.id, before.limits)
