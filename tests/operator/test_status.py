"""The status: what the CRD holds and nothing else, the same again where nothing changed, and no certificate too many."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from clientpolicy_operator.conditions import TYPES, Standing
from clientpolicy_operator.facts import (
    Blocked,
    Delegated,
    Document,
    Entry,
    Held,
    Leaf,
    Observed,
    Signer,
    Subject,
    Trouble,
)
from clientpolicy_operator.plan import Report, plan, why_issue
from clientpolicy_operator.status import PREVIOUS_MAX, next_change, report
from clientpolicy_operator.told import condition_of
from hypothesis import given, settings
from hypothesis import strategies as st
from one_policy import START, World, operator, settle, signer, subject

from authz.edge.manifests import read_documents
from authz.policy import FieldError
from authz.policy.crd import crd

(DEFINITION,) = read_documents(crd())
ROOT: Any = DEFINITION.value
SCHEMA = ROOT["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
KINDS: dict[str, type] = {"object": dict, "array": list, "string": str, "integer": int}
HIGHEST = {"int32": 2**31 - 1, "int64": 2**63 - 1}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def faults(value: Any, schema: dict[str, Any], place: str = "status") -> Iterator[str]:
    """Yield what an API server would refuse, or prune, which is worse: it would be written again and again."""
    kind = schema["type"]
    if not is_a(value, kind):
        yield f"{place}: {value!r} is no {kind}"
    elif kind == "object":
        yield from faults_of_map(value, schema, place)
    elif kind == "array":
        yield from faults_of_list(value, schema, place)
    elif not is_held(value, schema):
        yield f"{place}: {value!r} is out of bounds"


def is_a(value: Any, kind: str) -> bool:
    return type(value) is KINDS[kind]


def faults_of_map(value: dict[str, Any], schema: dict[str, Any], place: str) -> Iterator[str]:
    known = schema["properties"]
    yield from (f"{place}.{name} is missing" for name in set(schema.get("required", ())) - value.keys())
    yield from (f"{place}.{name} is unknown" for name in value.keys() - known.keys())
    for name in value.keys() & known.keys():
        yield from faults(value[name], known[name], f"{place}.{name}")


def faults_of_list(value: list[Any], schema: dict[str, Any], place: str) -> Iterator[str]:
    if len(value) > schema["maxItems"]:
        yield f"{place}: {len(value)} items"
    keys = schema.get("x-kubernetes-list-map-keys")
    told = [json.dumps([one[key] for key in keys] if keys else one) for one in value]
    if len(told) != len(set(told)):
        yield f"{place}: something twice"
    for number, one in enumerate(value):
        yield from faults(one, schema["items"], f"{place}[{number}]")


def is_held(value: Any, schema: dict[str, Any]) -> bool:
    if schema["type"] == "integer":
        return bool(0 <= value <= HIGHEST[schema["format"]])
    if schema.get("format") == "date-time":
        return INSTANT.fullmatch(value) is not None
    return value in schema.get("enum", (value,)) and (
        schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 5)  # of an enum's words
    )


QUOTAS = [
    {"name": "steady", "requests": 10, "per": "1s", "burst": 20, "maxOvershoot": 5},
    {"name": "daily", "requests": 10_000, "calendar": "Day", "mode": "Shadow", "onStoreFailure": "Closed"},
]
SPECS: list[dict[str, Any]] = [
    {"certificate": {"source": "Issued"}, "quotas": QUOTAS},
    {"certificate": {"source": "Issued", "secretName": "a" * 63 + ".b"}, "suspended": True},
    {"certificate": {"source": "CSR", "csr": "-----BEGIN CERTIFICATE REQUEST-----"}},
    {"certificate": {"source": "Issued", "issuerRef": {"name": "partners-ca"}}, "mode": "Shadow"},
    {"certificate": {"source": "External", "fingerprints": ["a" * 64, "B" * 64]}},
    {"certificate": {"source": "None"}},
    {"certificate": {"source": "Issued"}, "revocation": {"fingerprints": [{"sha256": f"{1:064x}"}]}},
    {"certificate": {"source": "Issued"}, "revocation": {"issuedBefore": START.isoformat()}},
    {"certificate": {"source": "Issued"}, "validity": {"notAfter": (START + 50 * DAY).isoformat()}},
]
ERRORS = tuple(FieldError(path=("spec", "x", number), message="wrong " * 200) for number in range(30))


def leaf(number: int, begin: datetime = START, end: datetime = START + 30 * DAY) -> Leaf:
    return Leaf(sha256=f"{number:064x}", serial=f"{number:x}" * 20, not_before=begin, not_after=end)


Numbers = st.integers(1, 9)
Times = st.integers(-40, 60).map(lambda days: START + days * DAY)
Leaves = st.builds(lambda number, end: leaf(number, end - 30 * DAY, end), Numbers, Times)
Blocks = st.builds(Blocked, trouble=st.sampled_from(Trouble), message=st.text(max_size=5) | st.just("long " * 2000))
Subjects = st.builds(
    lambda spec, generation, change: replace(subject(generation, **spec), **change),
    st.sampled_from(SPECS),
    st.integers(1, 5),
    st.sampled_from([
        {}, {}, {}, {"conflict": ("n/older", "clientId x")}, {"conflict": ("n/younger", f"fingerprint {'a' * 64}")},
        {"beyond": ERRORS[:1]}, {"policy": None, "errors": ERRORS}, {"csr_fault": "csr is not readable"},
    ]),
)  # fmt: skip
Standings = st.builds(
    Standing,
    reason=st.none() | st.sampled_from(["DoesNotExist", "Renewing", "RequestChanged", "Expired", "Revoked"]),
    blocked=st.none() | Blocks,
)
Entries = st.lists(
    st.builds(
        lambda one, ca: Entry(
            revision=1, sha256=one.sha256, serial=one.serial, not_before=one.not_before, not_after=one.not_after,
            ca_sha256=ca, recorded=START,
        ),
        Leaves,
        st.sampled_from(["c" * 64, "d" * 64]),
    ),
    max_size=4,
).map(tuple)  # fmt: skip
Signers = st.none() | st.builds(signer, st.sampled_from(["c" * 64, "d" * 64]))
Seen = st.builds(
    Observed,
    secret=st.none() | Blocks | st.builds(Held, leaf=st.none() | Leaves, revision=st.integers(0, 10**9)),
    entries=Entries,
    signer=Signers,
    delegated=st.builds(
        Delegated, leaf=st.none() | Leaves, revision=st.integers(0, 2**31 - 2), renewal=st.none() | Times
    ),
)
Visits = st.lists(st.tuples(Subjects, Seen, Standings, st.booleans(), Times), min_size=1, max_size=6)


@settings(max_examples=400)
@given(Visits)
def test_status_is_what_the_crd_holds_and_the_same_again(
    visits: list[tuple[Subject, Observed, Standing, bool, datetime]],
) -> None:
    status: dict[str, Any] = {}
    for of, seen, standing, is_failure, now in visits:
        failing = replace(standing, is_failure=is_failure and standing.blocked is not None)
        status = json.loads(json.dumps(report(of, replace(seen, status=status), failing, now)))
        assert list(faults(status, SCHEMA)) == []
        assert [one["type"] for one in status["conditions"]] == list(TYPES), "all of them, from the first visit"
        assert {one["observedGeneration"] for one in status["conditions"]} == {of.generation}
        later = now + timedelta(microseconds=999_999)
        if not failing.is_failure:  # the next failure is news
            assert report(of, replace(seen, status=status), failing, later) == status
        again = next_change(of, replace(seen, status=status), status, failing, now)
        assert again is None or again > now


Junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["2026-11-23T12:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", "a" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "status", "reason", "sha256", "notAfter", "notBefore", "lastTransitionTime", "x"]),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip
Parts = ("sha256", "caSha256", "previous", "revision", "notBefore", "notAfter", "renewalTime", "failedIssuanceAttempts",
         "lastFailureTime", "fingerprints", "secretName")  # fmt: skip
Mangled = st.fixed_dictionaries(
    {},
    optional={
        "certificate": Junk | st.fixed_dictionaries({}, optional=dict.fromkeys(Parts, Junk)),
        "conditions": Junk | st.lists(st.fixed_dictionaries({"type": st.sampled_from(TYPES), "status": Junk})),
        "quotas": Junk,
        "observedGeneration": Junk,
    },
)


@settings(max_examples=400)
@given(of=Subjects, seen=Seen, standing=Standings, status=Mangled, now=Times)
def test_mangled_status_raises_nothing_and_settles(
    of: Subject, seen: Observed, standing: Standing, status: Any, now: datetime
) -> None:
    plan(of, replace(seen, status=status), now)
    once = report(of, replace(seen, status=status), standing, now)
    assert report(of, replace(seen, status=once), standing, now) == once
    next_change(of, replace(seen, status=once), once, standing, now)


def world_of(**spec: Any) -> World:
    world = World(subject(**({"certificate": {"source": "Issued"}} | spec)))
    settle(world)
    return world


def edit(world: World, **spec: Any) -> None:
    world.subject = subject(world.subject.generation + 1, **({"certificate": {"source": "Issued"}} | spec))
    world.now += timedelta(minutes=1)
    settle(world)


def certificate(world: World) -> dict[str, Any]:
    found = world.status.get("certificate", {})
    assert isinstance(found, dict)
    return found


def fingerprints(world: World) -> set[str]:
    """All that authz would let in by this status."""
    told = certificate(world)
    listed = {told.get("sha256"), *(one["sha256"] for one in told.get("previous", [])), *told.get("fingerprints", [])}
    return listed - {None}


EXTERNAL = {"certificate": {"source": "External", "fingerprints": ["a" * 64]}}


def test_first_status_whole() -> None:
    world = world_of(quotas=QUOTAS)
    assert {**world.status, "conditions": ()} == {
        "observedGeneration": 1,
        "conditions": (),
        "certificate": {
            "secretName": "partner-tls", "serialNumber": "0", "sha256": "0" * 64, "notBefore": "2026-11-23T11:55:00Z",
            "notAfter": "2026-12-23T12:00:00Z", "renewalTime": certificate(world)["renewalTime"], "revision": 1,
            "caSha256": "ca-1",
        },
        "quotas": [
            {"name": "steady", "mode": "Enforce", "onStoreFailure": "Local", "capacity": 21,
             "periodMicroseconds": 100_000, "count": 1, "maxOvershoot": 5},
            {"name": "daily", "mode": "Shadow", "onStoreFailure": "Closed", "calendar": "Day", "requests": 10_000},
        ],
    }  # fmt: skip


def test_issued_to_external_and_back_lets_in_only_what_the_source_says() -> None:
    world = world_of()
    issued = fingerprints(world)
    edit(world, **EXTERNAL)
    assert certificate(world) == {"fingerprints": ["a" * 64]}
    edit(world)
    assert fingerprints(world) == issued, "what is in the Secret is as good as before"
    assert certificate(world)["revision"] == 1


def test_to_none_lets_no_certificate_in() -> None:
    world = world_of()
    edit(world, certificate={"source": "None"})
    assert "certificate" not in world.status
    assert condition_of(world.status, "CertificateReady")["reason"] == "NotNeeded"


def test_edits_lock_nobody_out_and_stop_where_the_status_is_full() -> None:
    world = world_of()
    for number in range(PREVIOUS_MAX + 3):
        edit(world, identity={"commonName": f"name-{number}"})
    assert fingerprints(world) == set(world.stored)
    assert len(world.stored) == PREVIOUS_MAX + 1 == 33
    assert list(faults(world.status, SCHEMA)) == []
    issuing = condition_of(world.status, "Issuing")
    assert (issuing["status"], issuing["reason"]) == ("True", "RequestChanged")
    assert str(issuing["message"]).startswith("TooManyCertificates: 33 certificates of this policy are valid")
    assert condition_of(world.status, "CertificateReady")["status"] == "True"


def full() -> World:
    world = world_of()
    for number in range(PREVIOUS_MAX):
        edit(world, identity={"commonName": f"name-{number}"})
    assert len(world.stored) == PREVIOUS_MAX + 1
    return world


def test_full_status_is_no_hindrance_to_a_renewal_and_the_oldest_goes() -> None:
    world = full()
    world.now += 25 * DAY
    settle(world)
    assert len(world.stored) == PREVIOUS_MAX + 2
    assert [one["sha256"] for one in certificate(world)["previous"]] == world.stored[-2 : -2 - PREVIOUS_MAX : -1]


def test_full_status_is_no_hindrance_to_a_revocation_which_makes_room() -> None:
    world = full()
    current = certificate(world)["sha256"]
    last = {"identity": {"commonName": f"name-{PREVIOUS_MAX - 1}"}}
    edit(world, **last, revocation={"fingerprints": [{"sha256": current}]})
    assert certificate(world)["sha256"] == world.stored[-1] != current
    assert fingerprints(world) == set(world.stored) - {current}


def test_full_status_goes_on_once_one_has_ended() -> None:
    world = full()
    edit(world, identity={"commonName": "wanted"})
    signed = len(world.stored)
    world.now += 31 * DAY
    settle(world)
    assert len(world.stored) > signed
    assert condition_of(world.status, "Issuing")["reason"] == "UpToDate"


def test_overwriting_again_and_again_meets_growing_pauses() -> None:
    """Whoever deletes the Secret every two seconds gets a dozen certificates in an hour, and nobody is locked out."""
    world = world_of()
    settle(world)
    signed: list[float] = []
    for second in range(0, 3600, 2):
        world.now = START + timedelta(seconds=second)
        world.secret = None
        before = len(world.stored)
        running = operator(world)
        while next(running) is not None:
            pass
        signed += [second] if len(world.stored) > before else []
    gaps = [late - early for early, late in itertools.pairwise(signed)]
    assert gaps == [2, 2, 6, 10, 20, 40, 80, 160, 320, 640, 1280]
    assert fingerprints(world) == set(world.stored)
    ready = condition_of(world.status, "CertificateReady")
    assert (ready["status"], ready["reason"]) == ("False", "Overwritten")
    until = str(ready["message"]).rpartition(" ")[2]
    again = plan(world.subject, world.observe(), world.now).again
    assert again is not None
    assert f"{again:%Y-%m-%dT%H:%M:%SZ}" <= until
    world.now += 2 * HOUR
    settle(world)
    assert condition_of(world.status, "Ready")["status"] == "True"


def emptied_four_times() -> World:
    world = world_of()
    for _ in range(4):
        world.secret = None
        running = operator(world)
        while next(running) is not None:
            pass
    return world


def test_pause_ends_by_itself_at_the_instant_that_it_tells() -> None:
    world = emptied_four_times()
    planned = plan(world.subject, world.observe(), world.now)
    assert planned.again == world.now + timedelta(seconds=5)
    world.now = planned.again
    settle(world)
    assert world.secret is not None


def test_clock_that_is_set_back_makes_no_pause_longer() -> None:
    world = emptied_four_times()
    world.now -= timedelta(minutes=30)
    again = plan(world.subject, world.observe(), world.now).again
    assert again is not None
    assert again <= world.now + timedelta(minutes=5)


def test_edits_of_what_is_asked_for_meet_no_pause() -> None:
    world = world_of()
    for number in range(12):
        world.subject = subject(number + 2, certificate={"source": "Issued"}, identity={"commonName": f"name-{number}"})
        settle(world)
    assert len(world.stored) == 13
    assert world.now == START


def test_earlier_one_that_is_revoked_counts_no_more_and_needs_no_other() -> None:
    world = world_of()
    first = certificate(world)["sha256"]
    edit(world, identity={"commonName": "x"})
    assert first in fingerprints(world)
    edit(world, identity={"commonName": "x"}, revocation={"fingerprints": [{"sha256": first.upper()}]})
    assert fingerprints(world) == {certificate(world)["sha256"]}
    assert certificate(world)["revision"] == 2
    edit(world, identity={"commonName": "x"})
    assert first not in fingerprints(world), "what was revoked does not come back with the edit that takes it away"


LOSERS: dict[str, dict[str, Any]] = {
    "in conflict": {"conflict": ("n/older", "clientId x")},
    "beyond a ceiling": {"beyond": ERRORS[:1]},
    "invalid": {"policy": None, "errors": ERRORS},
}


@pytest.mark.parametrize("change", LOSERS.values(), ids=LOSERS)
def test_who_is_not_accepted_keeps_its_certificate_in_status_and_gets_no_other(change: dict[str, Any]) -> None:
    """Conflicts and ceilings are judged by authz itself; once it may again, clients go on with what they have."""
    world = world_of()
    before = certificate(world)
    world.subject = replace(world.subject, generation=2, **change)
    world.now += 60 * DAY
    planned = plan(world.subject, world.observe(), world.now)
    assert planned.again is None
    (action,) = planned.actions
    assert isinstance(action, Report)
    assert action.status["certificate"] == before
    assert "quotas" not in action.status
    assert condition_of(action.status, "Ready")["status"] == "False"


def test_certificate_of_cert_manager_is_not_taken_for_ours_once_the_issuer_is_gone() -> None:
    """Its Secret still says what it was asked for before; that is the same as now."""
    world = world_of()
    assert world.secret is not None
    world.secret = replace(world.secret, leaf=leaf(99))
    world.status = {**world.status, "certificate": {**certificate(world), "sha256": leaf(99).sha256}}
    policy = world.subject.policy
    assert policy is not None
    assert why_issue(world.subject, policy, world.observe(), world.now) is None, "the ledger was lost; the status tells"
    told = {name: value for name, value in certificate(world).items() if name != "caSha256"}
    world.status = {**world.status, "certificate": told}
    assert why_issue(world.subject, policy, world.observe(), world.now) == "IncorrectIssuer"
    settle(world)
    assert certificate(world)["caSha256"] == "ca-1"


def blocked(trouble: Trouble, *, is_failure: bool = False) -> Standing:
    return Standing(reason="DoesNotExist", blocked=Blocked(trouble=trouble, message="x"), is_failure=is_failure)


def looks(standing: Standing, count: int) -> list[float]:
    """Return after how many seconds it is looked at again, each time."""
    of, now, found = subject(certificate={"source": "Issued"}), START, list[float]()
    status: Document = {}
    for _ in range(count):
        seen = Observed(status=status)
        status = report(of, seen, standing, now)
        again = next_change(of, seen, status, standing, now)
        assert again is not None
        found.append((again - now).total_seconds())
        now = again
    return found


def test_what_others_have_to_mend_is_looked_at_more_and_more_rarely() -> None:
    assert looks(blocked(Trouble.SECRET_CONFLICT), 10) == [5, 5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_failures_are_repeated_more_and_more_rarely() -> None:
    failing = blocked(Trouble.FORBIDDEN, is_failure=True)
    assert looks(failing, 12) == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


def test_clock_that_is_set_back_does_not_stop_looking() -> None:
    of, standing = subject(certificate={"source": "Issued"}), blocked(Trouble.CA_UNAVAILABLE)
    status = report(of, Observed(), standing, START)
    assert next_change(of, Observed(status=status), status, standing, START - DAY) == START - DAY + timedelta(seconds=5)


def test_bad_csr_waits_for_an_edit_and_for_the_end_of_what_there_is() -> None:
    world = world_of()
    standing = replace(blocked(Trouble.CSR_INVALID), reason="RequestChanged")
    status = report(world.subject, world.observe(), standing, world.now)
    renewal = datetime.fromisoformat(certificate(world)["renewalTime"])
    assert next_change(world.subject, world.observe(), status, standing, world.now) == renewal
    assert next_change(world.subject, world.observe(), status, standing, renewal) == START + 30 * DAY
    assert next_change(world.subject, Observed(), {}, standing, START) is None


def test_failures_are_counted_and_forgotten_when_it_works() -> None:
    of, failing = subject(certificate={"source": "Issued"}), blocked(Trouble.REFUSED, is_failure=True)
    status = report(of, Observed(), failing, START)
    status = report(of, Observed(status=status), failing, START + HOUR)
    assert status["certificate"] == {"failedIssuanceAttempts": 2, "lastFailureTime": "2026-11-23T13:00:00Z"}
    waiting = report(of, Observed(status=status), blocked(Trouble.CA_UNAVAILABLE), START + 2 * HOUR)
    assert waiting["certificate"] == status["certificate"]
    assert "certificate" not in report(of, Observed(status=status), Standing(), START + 2 * HOUR)


def test_time_of_a_condition_moves_only_when_it_flips_and_strangers_stay() -> None:
    world = world_of()
    theirs = {"type": "Theirs", "status": "True", "reason": "X", "message": "", "lastTransitionTime": "x"}
    world.status = {**world.status, "conditions": [*world.status["conditions"], theirs]}  # type: ignore[misc]
    edit(world, suspended=True)
    times = {name: condition_of(world.status, name)["lastTransitionTime"] for name in (*TYPES, "Theirs")}
    assert times == dict.fromkeys(TYPES, "2026-11-23T12:00:00Z") | {"Ready": "2026-11-23T12:01:00Z", "Theirs": "x"}
    assert condition_of(world.status, "Theirs") == theirs


def test_unknown_signer_leaves_the_renewal_time_as_it_was() -> None:
    world = world_of()
    world.signer = None
    assert report(world.subject, world.observe(), Standing(), world.now) == world.status


def test_another_ca_moves_the_renewal_time_and_is_the_next_thing_due() -> None:
    world = world_of()
    world.signer = Signer(
        sha256="ca-2", not_before=START, not_after=START + 3650 * DAY, switched=START + HOUR, spread_s=3600.0
    )
    again = plan(world.subject, world.observe(), world.now).again
    assert again is not None
    assert START + HOUR <= again < START + 2 * HOUR


def test_errors_are_told_up_to_ten_and_their_number() -> None:
    errors = tuple(FieldError(path=("spec", "x"), message=str(number)) for number in range(13))
    of = replace(subject(), policy=None, errors=errors)
    accepted = condition_of(report(of, Observed(), Standing(), START), "Accepted")
    told = "; ".join(f"spec.x: {number}" for number in range(10)) + "; and 3 more"
    assert (accepted["status"], accepted["reason"], accepted["message"]) == ("False", "Invalid", told)


VALID = "valid, and within what the platform allows"


@pytest.mark.parametrize(
    ("scopes", "reason", "told"),
    [
        (["patient/Patient.read"], "Accepted", VALID),
        (
            ["patient/Patient.read", "patient/Pateint.read"],
            "AcceptedWithWarnings",
            f"{VALID}; but spec.scopes[1]: FHIR R4 has no resource type `Pateint`: this grants nothing",
        ),
    ],
)
def test_scope_that_grants_nothing_is_told_and_stops_nobody(scopes: list[str], reason: str, told: str) -> None:
    found = report(subject(scopes=scopes, certificate={"source": "None"}), Observed(), Standing(), START)
    accepted, ready = condition_of(found, "Accepted"), condition_of(found, "Ready")
    assert (accepted["status"], accepted["reason"], accepted["message"]) == ("True", reason, told)
    assert ready["status"] == "True"


def test_certificate_made_for_the_winner_is_not_called_older() -> None:
    made = replace(subject(), conflict=("n/young", f"fingerprint {'a' * 64}"))
    accepted = condition_of(report(made, Observed(), Standing(), START), "Accepted")
    assert accepted["message"] == f"n/young claims fingerprint {'a' * 64}"
