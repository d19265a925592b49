"""All policies as far as they concern each other: judged by and by as if judged at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from clientpolicy_operator.conditions import TYPES
from clientpolicy_operator.roster import News, Roster
from hypothesis import given, settings
from hypothesis import strategies as st
from partner import policy_document

from authz.policy import Source
from authz.policy.ceilings import Ceiling
from authz.policy.claims import conflicts

F1, F2 = "a" * 64, "b" * 64
EXTERNAL: dict[str, Any] = {"certificate": {"source": "External", "fingerprints": [F1]}}


def document(
    name: str = "a", *, version: str = "1", uid: str = "u", created: str = "2026-01-01T00:00:00Z", generation: int = 1,
    status: Any = None, **spec: Any,
) -> dict[str, Any]:  # fmt: skip
    made = policy_document(name, **({"certificate": {"source": "Issued"}} | spec))
    made["metadata"] |= {
        "uid": uid, "resourceVersion": version, "generation": generation, "creationTimestamp": created,
    }  # fmt: skip
    return made | {"status": status}


def told(*sha256: str, ca: str = "c1") -> dict[str, Any]:
    previous = [{"sha256": one, "notAfter": "2027-01-01T00:00:00Z"} for one in sha256[1:]]
    return {
        "observedGeneration": 1,
        "certificate": {
            "sha256": sha256[0], "caSha256": ca, "notAfter": "2027-01-01T00:00:00Z",
            "renewalTime": "2026-12-01T00:00:00Z", "previous": previous,
        },
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Issuing", "status": "False"}],
    }  # fmt: skip


A, B = ("partners", "a"), ("partners", "b")


def test_what_is_remembered_of_an_object() -> None:
    roster = Roster(())
    assert roster.note(document(status=told(F1, F2), clientId="x"))
    known = roster.get(A)
    assert known is not None
    assert (known.name, known.uid, known.generation, known.observed) == ("partners/a", "u", 1, 1)
    assert known.issued == {F1, F2}
    assert known.competing == {("clientId", "x"), ("fingerprint", F1), ("fingerprint", F2)}
    assert (known.not_after, known.renewal) == (datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
    assert (known.ca_sha256, known.is_ready, known.uses_ca) == ("c1", True, True)
    assert dict(known.conditions) == dict.fromkeys(TYPES, "Unknown") | {"Ready": "True", "Issuing": "False"}


@pytest.mark.parametrize(
    ("first", "second", "is_news"),
    [("1", "1", False), ("9", "10", True), ("10", "9", False), ("x", "x", False), ("x", "y", True)],
)
def test_news_is_what_is_newer(first: str, second: str, *, is_news: bool) -> None:
    roster = Roster(())
    assert roster.note(document(version=first))
    assert bool(roster.note(document(version=second, generation=2, clientId="other"))) is is_news
    known = roster.get(A)
    assert known is not None
    assert (known.generation == 2) is is_news


FOREIGN = {"type": "Audited", "status": "True"}  # a condition that somebody else keeps there
READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize(("change", "expected"), [
    ({}, News.NONE),
    ({"status": told(F1) | {"theirs": 1}}, News.NONE),
    ({"status": told(F1) | {"conditions": [*told(F1)["conditions"], FOREIGN]}}, News.NONE),
    ({"labels": {"team": "x"}, "managedFields": []}, News.NONE),
    ({"status": told(F2)}, News.CHANGED),
    ({"annotations": {"authz.healthtech.dev/renew": "now"}}, News.CHANGED),
    ({"annotations": {"example.com/renew": "now"}}, News.NONE),
    ({"status": None}, News.CHANGED),
    ({"status": told(F1) | {"observedGeneration": 0}}, News.CHANGED),
    ({"status": told(F1) | {"quotas": [{"name": "q"}]}}, News.CHANGED),
    ({"status": told(F1) | {"conditions": [READY | {"message": "theirs"}]}}, News.CHANGED),
    ({"generation": 2}, News.EDITED),
    ({"uid": "another"}, News.EDITED),
])  # fmt: skip
def test_only_another_spec_and_what_we_wrote_is_news(change: dict[str, Any], expected: News) -> None:
    roster = Roster(())
    assert roster.note(document(status=told(F1))) is News.EDITED
    changed = document(version="2", status=change.get("status", told(F1)))
    changed["metadata"] |= {name: value for name, value in change.items() if name != "status"}
    assert roster.note(changed) is expected


def test_namesake_that_is_gone_does_not_come_back_by_a_late_answer() -> None:
    roster = Roster(())
    roster.note(document(version="11", uid="new"))
    assert not roster.note(document(version="9", uid="old"))
    assert roster.uids == {"new"}


def test_recreated_namesake_takes_nothing_over() -> None:
    roster = Roster(())
    roster.note(document(version="9", uid="old", status=told(F1), revocation={"fingerprints": [{"sha256": F2}]}))
    roster.note(document(version="11", uid="new", spec_is="invalid"))
    known = roster.get(A)
    assert known is not None
    assert (known.uid, known.issued, known.wanted.revoked, known.wanted.source) == ("new", frozenset(), (), None)


REVOKED = {"fingerprints": [{"sha256": F1, "reason": "KeyCompromise"}], "issuedBefore": "2026-11-01T00:00:00Z"}
SINCE = datetime(2026, 11, 1, tzinfo=UTC)
INVALID: dict[str, dict[str, Any]] = {
    "another field is wrong": {"quotas": 7, "revocation": REVOKED},
    "the revocation is wrong": {"revocation": REVOKED | {"issuedBefore": "soon"}},
    "the revocation is no map": {"revocation": "all"},
    "the spec is none": {"spec": None},
}


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_policy_that_became_invalid_keeps_its_claims_and_revokes_what_it_revoked(change: dict[str, Any]) -> None:
    roster = Roster(())
    roster.note(document(revocation=REVOKED))
    before = roster.get(A)
    broken = document(version="2", generation=2, **{name: value for name, value in change.items() if name != "spec"})
    roster.note(broken | ({"spec": None} if "spec" in change else {}))
    known = roster.get(A)
    assert known is not None
    assert before is not None
    assert known.wanted.claims == before.wanted.claims != frozenset(), "authz goes on by its last good version"
    if "spec" not in change:  # where nothing is said at all, nothing is revoked
        assert (known.wanted.revoked, known.wanted.issued_before) == (((F1, "KeyCompromise", None),), SINCE)


def test_beyond_the_ceilings_nothing_is_claimed() -> None:
    roster = Roster((Ceiling.model_validate({"namespaces": ["other"]}),))
    roster.note(document())
    known = roster.get(A)
    assert known is not None
    assert (known.wanted.claims, known.wanted.source) == (frozenset(), Source.ISSUED)


def test_the_older_wins_and_both_are_told_when_it_goes() -> None:
    roster, fortunes = Roster(()), list[tuple[str, str]]()
    roster.on_fortune = fortunes.append
    roster.note(document("b", clientId="x", created="2026-01-02T00:00:00Z"))
    roster.settle()
    assert fortunes == []
    roster.note(document("a", clientId="x"))
    assert roster.conflict(A) is None
    assert roster.conflict(B) == ("partners/a", "clientId x")
    assert fortunes == [B], "b lost it"
    roster.settle()
    assert fortunes == [B], "told once"
    roster.forget(A)
    roster.settle()
    assert fortunes == [B, B]
    assert roster.conflict(B) is None


def test_fingerprint_that_moves_from_wish_to_status_is_judged_anew() -> None:
    """The same things compete before and after; who holds them differs."""
    roster = Roster(())
    roster.note(document("a", clientId="x", created="2026-01-02T00:00:00Z", **EXTERNAL))
    roster.note(document("b", clientId="y", **EXTERNAL))
    assert roster.conflict(A) == ("partners/b", f"fingerprint {F1}")
    roster.note(document("a", version="2", generation=2, clientId="x", created="2026-01-02T00:00:00Z", status=told(F1)))
    assert roster.conflict(A) is None
    assert roster.conflict(B) == ("partners/a", f"fingerprint {F1}")


Names = st.sampled_from("abcd")
Specs = st.fixed_dictionaries(
    {"clientId": st.sampled_from("xyz")},
    optional={
        "certificate": st.sampled_from(
            [{"source": "External", "fingerprints": [one]} for one in (F1, F2)] + [{"source": "Issued"}]
        ),
        "identity": st.just({"uris": ["spiffe://td/a"]}),
        "mode": st.sampled_from(["Enforce", "Broken"]),
    },
)
Statuses = st.sampled_from([None, told(F1), told(F2), told(F2, F1)])
Changes = st.lists(st.tuples(Names, st.none() | Specs, Statuses, st.integers(1, 3), st.booleans()), max_size=25)


@settings(max_examples=200)
@given(Changes)
def test_judged_by_and_by_as_if_judged_at_once(changes: list[tuple[str, Any, Any, int, bool]]) -> None:
    roster, fortunes = Roster(()), set[tuple[str, str]]()
    roster.on_fortune = fortunes.add
    before: dict[str, Any] = {}
    for number, (name, spec, status, day, is_settled) in enumerate(changes, start=1):
        if spec is None:
            roster.forget(("partners", name))
        else:
            roster.note(
                document(
                    name,
                    version=str(number),
                    generation=number,
                    uid=f"{name}{day}",
                    status=status,
                    created=f"2026-01-0{day}T00:00:00Z",
                    **spec,
                )
            )
        if not is_settled:
            continue
        fortunes.clear()
        roster.settle()
        after = conflicts(known.claimant for _, known in roster)
        for one in "abcd":
            lost = after.get(f"partners/{one}")
            meant = (lost[0], f"{lost[1][0]} {lost[1][1]}") if lost is not None else None
            assert roster.conflict(("partners", one)) == meant
        moved = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert {"/".join(key) for key in fortunes} == moved
        before = after


Junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    parts=st.fixed_dictionaries({}, optional=dict.fromkeys(("metadata", "spec", "status"), Junk)),
    certificate=Junk, conditions=Junk, previous=Junk,
)  # fmt: skip
def test_mangled_object_raises_nothing(parts: dict[str, Any], certificate: Any, conditions: Any, previous: Any) -> None:
    roster = Roster(())
    roster.note(document() | parts)
    inner = {"certificate": certificate, "conditions": conditions, "observedGeneration": certificate}
    roster.note(document(version="2", status=inner))
    times = {"sha256": previous, "caSha256": previous, "notAfter": conditions, "previous": previous}
    roster.note(document(version="3", status={"certificate": times}))
    roster.settle()
    assert all(type(known.generation) is int and type(known.observed) is int for _, known in roster)
