"""Events: one for each thing that changed, none for what stayed, and nothing waits for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, Refused
from clientpolicy_operator.conditions import Standing
from clientpolicy_operator.facts import Blocked, Document, Observed, Subject, Trouble
from clientpolicy_operator.status import report
from clientpolicy_operator.tell import WAITING_MAX, Events, transitions
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START, World, settle, subject

A, B, C = "a" * 64, "b" * 64, "c" * 64


def status(
    *conditions: tuple[str, str, str], sha256: str | None = None, previous: tuple[str, ...] = (), revision: int = 1
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "conditions": [
            {"type": name, "status": holds, "reason": reason, "message": f"{reason}."}
            for name, holds, reason in conditions
        ]
    }
    if sha256 is not None:
        earlier = [{"sha256": one} for one in previous]
        told["certificate"] = {"sha256": sha256, "revision": revision, "notAfter": "T", "previous": earlier}
    return told


GOOD = status(("Accepted", "True", "Accepted"), ("CertificateReady", "True", "Issued"), ("Ready", "True", "Ready"))
READY = ("Normal", "Ready", "Ready.")
SEEN: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, str, str]]]] = {
    "first visit that settles all": ({}, GOOD, [READY]),
    "nothing": (GOOD, GOOD, []),
    "another message": (
        status(("Ready", "True", "Ready")),
        {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "other"}]},
        [],
    ),
    "refused at first sight": (
        {},
        status(("Accepted", "False", "Invalid"), ("CertificateReady", "False", "NotAccepted"), ("Ready", "False", "Invalid")),
        [("Warning", "Invalid", "Invalid.")],
    ),
    "refused for another reason": (
        status(("Accepted", "False", "Invalid")),
        status(("Accepted", "False", "Conflicted")),
        [("Warning", "Conflicted", "Conflicted.")],
    ),
    "good for another reason": (
        status(("CertificateReady", "True", "Issued")), status(("CertificateReady", "True", "Provided")), [],
    ),
    "accepted with warnings at first sight": (
        {}, status(("Accepted", "True", "AcceptedWithWarnings")),
        [("Warning", "AcceptedWithWarnings", "AcceptedWithWarnings.")],
    ),
    "with warnings since an edit": (
        status(("Accepted", "True", "Accepted")), status(("Accepted", "True", "AcceptedWithWarnings")),
        [("Warning", "AcceptedWithWarnings", "AcceptedWithWarnings.")],
    ),
    "without warnings again": (
        status(("Accepted", "True", "AcceptedWithWarnings")), status(("Accepted", "True", "Accepted")), [],
    ),
    "still with warnings": (
        status(("Accepted", "True", "AcceptedWithWarnings")), status(("Accepted", "True", "AcceptedWithWarnings")), [],
    ),
    "suspended": (GOOD, status(("Accepted", "True", "Accepted"), ("CertificateReady", "True", "Issued"), ("Ready", "False", "Suspended")),
                  [("Warning", "Suspended", "Suspended.")]),
    "mended": (status(("Accepted", "False", "Conflicted")), status(("Accepted", "True", "Accepted")),
               [("Normal", "Accepted", "Accepted.")]),
    "first certificate": (GOOD, GOOD | status(sha256=A) | {"conditions": GOOD["conditions"]},
                          [("Normal", "Issued", "certificate 1, valid until T")]),
    "first certificate, after a while without one": (
        status(("Accepted", "True", "Accepted"), ("CertificateReady", "False", "CAUnavailable"), ("Ready", "False", "CAUnavailable")),
        status(("Accepted", "True", "Accepted"), ("CertificateReady", "True", "Issued"), ("Ready", "True", "Ready"), sha256=A),
        [("Normal", "Issued", "certificate 1, valid until T"), ("Normal", "Ready", "Ready.")],
    ),
    "the same certificate counts again": (
        status(("CertificateReady", "False", "Forbidden"), sha256=A), status(("CertificateReady", "True", "Issued"), sha256=A),
        [("Normal", "Issued", "Issued.")],
    ),
    "renewed": (status(sha256=A), status(sha256=B, previous=(A,), revision=2),
                [("Normal", "Issued", "certificate 2, valid until T")]),
    "of another issuer that counts anew": (status(sha256=A, revision=7), status(sha256=B, previous=(A,)),
                                           [("Normal", "Issued", "certificate 1, valid until T")]),
    "back to one of before": (status(sha256=A, previous=(B,), revision=2), status(sha256=B, previous=(A,)), []),
    "an earlier one ended": (status(sha256=A, previous=(B, C)), status(sha256=A, previous=(B,)), []),
    "another one is due and held back": (
        status(("CertificateReady", "True", "Issued"), ("Issuing", "False", "UpToDate")),
        status(("CertificateReady", "True", "Issued"), ("Issuing", "True", "RequestChanged")),
        [("Warning", "RequestChanged", "RequestChanged.")],
    ),
    "still held back": (
        status(("CertificateReady", "True", "Issued"), ("Issuing", "True", "RequestChanged")),
        status(("CertificateReady", "True", "Issued"), ("Issuing", "True", "RequestChanged")), [],
    ),
    "held back, and there is none that counts": (
        status(("CertificateReady", "False", "Overwritten")),
        status(("CertificateReady", "False", "Overwritten"), ("Issuing", "True", "DoesNotExist")), [],
    ),
    "another source": (status(sha256=A), {"certificate": {"fingerprints": [B]}}, []),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "events"), SEEN.values(), ids=SEEN)
def test_what_a_change_is_worth(before: Document, after: Document, events: list[tuple[str, str, str]]) -> None:
    assert list(transitions(before, after)) == events


def test_a_policys_first_certificate_is_two_events_and_then_silence() -> None:
    world = World(subject(certificate={"source": "Issued"}))
    settle(world)
    assert [reason for _, reason, _ in transitions({}, world.status)] == ["Issued", "Ready"]
    assert list(transitions(world.status, world.status)) == []


def test_failure_that_repeats_is_told_once() -> None:
    of, before, told = subject(certificate={"source": "Issued"}), dict[str, Any](), list[str]()
    failing = Standing(blocked=Blocked(trouble=Trouble.REFUSED, message="x"), is_failure=True)
    for _ in range(4):
        after = report(of, Observed(status=before), failing, START)
        told += [reason for _, reason, _ in transitions(before, after)]
        before = after
    assert told == ["Refused"]


Junk = st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda one: st.lists(one) | st.dictionaries(
    st.sampled_from(["conditions", "certificate", "type", "status", "reason", "sha256", "previous"]), one))  # fmt: skip


@given(before=Junk, after=Junk)
def test_mangled_statuses_raise_nothing(before: Any, after: Any) -> None:
    for one, other in ((before, after), ({"certificate": before}, {"conditions": [after]})):
        list(transitions(*({} if not isinstance(part, dict) else part for part in (one, other))))


class Posted(Api):
    """An API that keeps what is posted, and refuses what it is told to."""

    def __init__(self, refused: int = 0) -> None:
        self.posted: list[tuple[str, Document]] = []
        self.refused = refused

    async def create(self, path: str, body: Document) -> dict[str, Any]:
        if self.refused:
            self.refused -= 1
            raise Refused(path)
        self.posted.append((path, body))
        return {}


async def posted(api: Posted, events: Events) -> list[tuple[str, Document]]:
    task = asyncio.create_task(events.run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return api.posted


def named(name: str) -> Subject:
    return Subject(uid="uid-1", generation=1, namespace="partners", name=name, policy=None)


async def test_event_as_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: START)
    api = Posted()
    events = Events(api)
    events.post(named("app"), {}, status(("Ready", "True", "Ready")))
    assert await posted(api, events) == [(
        "/api/v1/namespaces/partners/events",
        {
            "metadata": {"generateName": "app.", "namespace": "partners"},
            "involvedObject": {"apiVersion": "authz.healthtech.dev/v1alpha1", "kind": "ClientPolicy", "name": "app",
                               "namespace": "partners", "uid": "uid-1"},
            "type": "Normal", "reason": "Ready", "message": "Ready.", "count": 1,
            "firstTimestamp": "2026-11-23T12:00:00Z", "lastTimestamp": "2026-11-23T12:00:00Z",
            "source": {"component": "clientpolicy-operator"},
            "reportingComponent": "authz.healthtech.dev/operator", "reportingInstance": "",
        },
    )]  # fmt: skip


async def test_event_of_a_long_name_and_message_is_one_that_kubernetes_takes() -> None:
    api = Posted()
    events = Events(api)
    events.post(named("a" * 198 + ".-" + "b" * 40), {}, status(("Ready", "False", "ü" * 2000)))
    ((_, event),) = await posted(api, events)
    metadata, message = event["metadata"], event["message"]
    assert isinstance(metadata, dict)
    assert metadata["generateName"] == "a" * 198 + "."
    assert message == "ü" * 500


async def test_what_cannot_be_posted_is_dropped_and_counted_and_the_next_is_posted() -> None:
    api = Posted(refused=1)
    events = Events(api)
    events.post(named("a"), {}, status(("Ready", "True", "Ready")))
    events.post(named("b"), {}, status(("Ready", "True", "Ready")))
    assert [path for path, _ in await posted(api, events)] == ["/api/v1/namespaces/partners/events"]
    assert events.dropped == 1


async def test_waiting_events_are_bounded() -> None:
    api = Posted()
    events = Events(api)
    for _ in range(WAITING_MAX + 7):
        events.post(named("a"), {}, status(("Ready", "True", "Ready")))
    assert events.dropped == 7
    assert len(await posted(api, events)) == WAITING_MAX
