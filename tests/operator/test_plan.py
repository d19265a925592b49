"""The plan, without a cluster: it ends, wherever it was broken off and whoever else is at work."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from clientpolicy_operator.facts import Blocked, Held, Observed, Trouble
from clientpolicy_operator.plan import Dress, Plan, Record, Report, Store, plan, why_issue
from clientpolicy_operator.timing import PATIENCE
from clientpolicy_operator.told import condition_of
from hypothesis import given, settings
from hypothesis import strategies as st
from one_policy import START, World, operator, settle, signer, subject

ISSUED: dict[str, Any] = {"certificate": {"source": "Issued"}}


def settled(**spec: Any) -> World:
    world = World(subject(**(ISSUED | spec)))
    settle(world)
    return world


def certificate(world: World) -> dict[str, Any]:
    found = world.status["certificate"]
    assert isinstance(found, dict)
    return found


def check_one_certificate(world: World) -> None:
    """One certificate counts: the one that is in the Secret, in the ledger and in the status."""
    assert world.secret is not None
    assert world.secret.leaf is not None
    assert certificate(world)["sha256"] == world.secret.leaf.sha256
    assert certificate(world)["revision"] == world.secret.revision
    assert len({entry.revision for entry in world.entries}) == len(world.entries), "two signings for one revision"
    previous = [one["sha256"] for one in certificate(world).get("previous", [])]
    assert set(previous) <= set(world.stored), "a certificate that nobody was given counts"
    assert condition_of(world.status, "Ready")["status"] == "True"


def test_first_visit_issues_and_tells_all() -> None:
    world = settled()
    check_one_certificate(world)
    conditions = world.status["conditions"]
    assert isinstance(conditions, list)
    assert [one["type"] for one in conditions] == [
        "Accepted",
        "CertificateReady",
        "Issuing",
        "QuotaReady",
        "Programmed",
        "Ready",
    ]
    assert all(one["observedGeneration"] == 1 and one["reason"] for one in conditions)
    assert world.writes == 3, "ledger, Secret, status"


def test_order_of_writes_is_ledger_secret_status() -> None:
    world = World(subject(**ISSUED))
    running = operator(world)
    seen = [type(action) for action in (next(running) for _ in range(4)) if action is not None]
    assert seen == [Record, Store, Report]


def test_settled_plans_nothing() -> None:
    world = settled()
    for minutes in (0, 1, 60, 600):
        assert plan(world.subject, world.observe(), START + timedelta(minutes=minutes)).actions == ()


def signed_and_not_stored(**spec: Any) -> World:
    """Another certificate is due and has just been put into the ledger; whoever did it has not stored it."""
    world = settled()
    world.subject = subject(**({"certificate": {"source": "Issued", "duration": "48h"}} | spec), generation=2)
    running = operator(world)
    assert [type(next(running)) for _ in range(2)] == [Record, Store], "it ends before it stores"
    running.close()
    return world


def test_another_replica_that_has_just_signed_is_waited_for_and_told_of() -> None:
    world = signed_and_not_stored()
    first = plan(world.subject, world.observe(), world.now)
    (report,) = first.actions
    assert isinstance(report, Report)
    assert report.status["observedGeneration"] == 2
    message = condition_of(report.status, "Issuing")["message"]
    assert message == "Pending: another replica has just signed, and has to store it yet"
    assert first.again == world.now + PATIENCE
    told_of = replace(world.observe(), status=report.status)
    assert plan(world.subject, told_of, world.now) == Plan((), world.now + PATIENCE), "once is enough"


def test_where_nobody_else_signs_nobody_is_waited_for() -> None:
    world = signed_and_not_stored()
    latest = max(world.entries, key=lambda entry: entry.revision)
    alone = replace(world.observe(), is_alone=True, signed=None)
    own = replace(world.observe(), recorded=frozenset({latest.sha256}), signed=None)
    for observed in (alone, own):
        assert [type(action) for action in plan(world.subject, observed, world.now).actions] == [Record, Store]


@pytest.mark.parametrize(("wish", "granted", "reason"), [
    ("", "", None), ("now", "", "RenewalRequested"), ("now", "now", None), ("again", "now", "RenewalRequested"), ("", "now", None),
])  # fmt: skip
def test_wish_for_another_certificate_is_granted_once(wish: str, granted: str, reason: str | None) -> None:
    world = settled()
    assert world.secret is not None
    world.secret = replace(world.secret, renewed=granted)
    wished = replace(world.subject, renew=wish)
    assert wished.policy is not None
    assert why_issue(wished, wished.policy, world.observe(), world.now) == reason


Turns = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40)), max_size=40)


@given(crash_after=st.integers(0, 12), again_after=st.integers(0, 12), pause_s=st.integers(0, 90))
def test_crash_after_any_prefix_ends_the_same(crash_after: int, again_after: int, pause_s: int) -> None:
    world = World(subject(**ISSUED))
    for steps in (crash_after, again_after):
        running = operator(world)
        for _ in range(steps):
            next(running)
        running.close()
        world.now += timedelta(seconds=pause_s)
    settle(world)
    check_one_certificate(world)
    assert plan(world.subject, world.observe(), world.now).actions == ()


@settings(max_examples=300)
@given(turns=Turns, deaths=st.lists(st.integers(0, 39), max_size=4))
def test_two_operators_never_leave_two_signings_for_one_revision(
    turns: list[tuple[int, int]], deaths: list[int]
) -> None:
    world = World(subject(**ISSUED))
    running = [operator(world), operator(world)]
    for number, (who, seconds) in enumerate(turns):
        next(running[who])
        world.now += timedelta(seconds=seconds)
        if number in deaths:
            running[who] = operator(world)
    settle(world)
    check_one_certificate(world)


EDITS = st.sampled_from([
    {"suspended": True}, {"identity": {"commonName": "other"}}, {"certificate": {"source": "Issued", "duration": "48h"}},
    {"quotas": []}, {"revocation": {"issuedBefore": "2026-11-23T12:00:30Z"}}, {"certificate": {"source": "None"}},
    {"certificate": {"source": "External", "fingerprints": ["a" * 64]}}, {},
])  # fmt: skip


@settings(max_examples=200)
@given(edits=st.lists(st.tuples(EDITS, st.integers(0, 8), st.integers(0, 900_000)), max_size=6))
def test_edits_at_any_time_end_settled(edits: list[tuple[dict[str, Any], int, int]]) -> None:
    world = World(subject(**ISSUED))
    for generation, (edit, steps, seconds) in enumerate(edits, start=2):
        running = operator(world)
        for _ in range(steps):
            next(running)
        world.now += timedelta(seconds=seconds)
        world.subject = subject(generation=generation, **(ISSUED | edit))
    settle(world)
    assert plan(world.subject, world.observe(), world.now).actions == ()
    assert world.status["observedGeneration"] == len(edits) + 1
    assert len({entry.revision for entry in world.entries}) == len(world.entries)


def test_crash_after_the_secret_adopts_it() -> None:
    world = World(subject(**ISSUED))
    running = operator(world)
    for _ in range(3):
        next(running)
    assert world.secret is not None
    assert not world.status
    settle(world)
    assert len(world.entries) == 1, "signed once"
    check_one_certificate(world)


def test_crash_before_the_secret_signs_anew_and_waits_for_another_replica_first() -> None:
    world = World(subject(**ISSUED))
    running = operator(world)
    for _ in range(2):
        next(running)
    assert len(world.entries) == 1
    assert world.secret is None
    waiting = plan(world.subject, world.observe(), world.now)
    assert [type(action) for action in waiting.actions] == [Report]
    assert waiting.again == world.now + timedelta(seconds=30)
    settle(world)
    assert [entry.revision for entry in world.entries] == [1, 2]
    check_one_certificate(world)


def test_renewal_keeps_the_previous_until_it_expires() -> None:
    world = settled()
    first = certificate(world)
    world.now += timedelta(hours=500)
    settle(world)
    assert certificate(world)["revision"] == 2
    assert [one["sha256"] for one in certificate(world)["previous"]] == [first["sha256"]]
    check_one_certificate(world)
    world.now += timedelta(hours=221)
    settle(world)
    assert "previous" not in certificate(world)


def test_renewal_is_at_the_share_of_life_that_is_left_with_spread() -> None:
    times = []
    for number in range(50):
        world = World(subject(uid=f"uid-{number}", **ISSUED))
        settle(world)
        times.append(certificate(world)["renewalTime"])
    assert len(set(times)) > 40
    assert min(times) >= "2026-12-12"
    assert max(times) <= "2026-12-13T18"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: None, "DoesNotExist"),
        (lambda held: replace(held, request="x"), "RequestChanged"),
        (lambda held: replace(held, leaf=replace(held.leaf, sha256="f" * 64)), "IncorrectCertificate"),
        (lambda held: replace(held, leaf=None), "MissingData"),
    ],
)
def test_what_happens_to_the_secret_is_put_right(change: Any, reason: str) -> None:
    world = settled()
    world.secret = change(world.secret)
    action = plan(world.subject, world.observe(), world.now).actions[0]
    assert isinstance(action, Record)
    assert action.reason == reason
    settle(world)
    check_one_certificate(world)


def test_undressed_secret_is_dressed_and_not_reissued() -> None:
    world = settled()
    assert isinstance(world.secret, Held)
    world.secret = replace(world.secret, is_dressed=False)
    assert plan(world.subject, world.observe(), world.now).actions == (Dress(),)
    settle(world)
    assert len(world.entries) == 1


def test_revoked_certificate_is_replaced_and_counts_no_more() -> None:
    world = settled()
    first = certificate(world)["sha256"]
    world.subject = subject(generation=2, **ISSUED, revocation={"fingerprints": [{"sha256": first}]})
    settle(world)
    assert certificate(world)["revision"] == 2
    assert "previous" not in certificate(world)


def test_issued_before_replaces_and_its_successor_is_not_refused() -> None:
    world = settled()
    world.now += timedelta(minutes=10)
    world.subject = subject(generation=2, **ISSUED, revocation={"issuedBefore": world.now.isoformat()})
    settle(world)
    assert certificate(world)["revision"] == 2
    assert certificate(world)["notBefore"] >= world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert plan(world.subject, world.observe(), world.now).actions == ()


def test_contract_bounds_the_certificate_and_an_end_is_not_renewed_into() -> None:
    world = settled(validity={"notAfter": "2026-11-30T00:00:00Z"})
    assert certificate(world)["notAfter"] == "2026-11-30T00:00:00Z"
    assert "renewalTime" not in certificate(world)
    world.now += timedelta(days=8)
    running = operator(world)
    while next(running) is not None:
        pass
    assert condition_of(world.status, "CertificateReady")["status"] == "False"
    assert len(world.entries) == 1


def test_missing_ca_keeps_what_there_is_and_signs_nothing() -> None:
    world = settled()
    world.signer = None
    assert plan(world.subject, world.observe(), world.now).actions == ()
    world.secret = None
    (action,) = plan(world.subject, world.observe(), world.now).actions
    assert isinstance(action, Report)
    assert condition_of(action.status, "CertificateReady")["reason"] == "CAUnavailable"
    assert action.status["certificate"] == world.status["certificate"], "authz goes on letting it in"


def test_leaves_of_the_ca_before_are_reissued_over_the_spread() -> None:
    world = settled()
    world.signer = signer("ca-2", switched=world.now)
    settle(world)
    assert certificate(world)["revision"] == 1 or world.now > START
    world.now = START + timedelta(hours=2)
    settle(world)
    assert certificate(world)["caSha256"] == "ca-2"
    assert len(certificate(world)["previous"]) == 1


def test_foreign_secret_is_never_taken_over() -> None:
    world = World(subject(**ISSUED))
    seen = Observed(secret=Blocked(trouble=Trouble.SECRET_CONFLICT, message="not ours"), signer=world.signer)
    planned = plan(world.subject, seen, START)
    (action,) = planned.actions
    assert isinstance(action, Report)
    assert {**condition_of(action.status, "CertificateReady"), "lastTransitionTime": ""} == {
        "type": "CertificateReady", "status": "False", "reason": "SecretConflict", "message": "not ours",
        "observedGeneration": 1, "lastTransitionTime": "",
    }  # fmt: skip
    assert planned.again is not None


def test_conflict_is_told_and_issues_nothing() -> None:
    world = World(replace(subject(**ISSUED), conflict=("other/older", "clientId partner-app")))
    settle(world)
    assert world.entries == ()
    ready = condition_of(world.status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Conflicted")
    assert "other/older, which is older, claims clientId partner-app" in str(ready["message"])


def test_store_follows_record_of_the_same_revision() -> None:
    world = World(subject(**ISSUED))
    record, store = plan(world.subject, world.observe(), START).actions
    assert isinstance(record, Record)
    assert store == Store(revision=record.revision)
