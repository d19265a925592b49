from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from authz.demo.ask import Answer
from authz.demo.failure import DemoFailed
from authz.demo.flood import Flood
from authz.demo.walk import Got, Refusal, Step, allowed, refused, saw, walk

EXPIRED = Refusal(status=401, reason="token_expired", error="invalid_token")
BARE = Refusal(status=401, reason="token_missing")
LACKING = Refusal(status=403, reason="scope_missing", error="insufficient_scope", scope="patient/Observation.read")
MISMATCH = Refusal(status=403, reason="patient_mismatch")
CHALLENGE = 'Bearer realm="clientpolicy"'


def problem(status: int, reason: str, challenge: str | None = None) -> Answer:
    headers = {} if challenge is None else {"www-authenticate": challenge}
    return Answer(status=status, headers=headers, body=json.dumps({"reason": reason}).encode())


def record(status: int = 200, **seen: str) -> Answer:
    headers = {"x-upstream-saw": json.dumps({name.replace("_", "-"): value for name, value in seen.items()})}
    return Answer(status=status, headers=headers, body=b"{}")


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        pytest.param(EXPIRED, problem(401, "token_expired", f'{CHALLENGE}, error="invalid_token"'), id="invalid token"),
        pytest.param(BARE, problem(401, "token_missing", CHALLENGE), id="bare challenge"),
        pytest.param(
            LACKING,
            problem(403, "scope_missing", f'{CHALLENGE}, error="insufficient_scope", scope="{LACKING.scope}"'),
            id="scope",
        ),
        pytest.param(MISMATCH, problem(403, "patient_mismatch"), id="no challenge"),
    ],
)
def test_the_expected_refusal_is_good_unless_it_came_too_late(expected: Refusal, answer: Answer) -> None:
    assert refused(answer, expected, reached_upstream=False).ok
    assert not refused(answer, expected, reached_upstream=True).ok


@pytest.mark.parametrize(
    ("expected", "answer", "fault"),
    [
        pytest.param(EXPIRED, record(), "status 200", id="let through"),
        pytest.param(
            EXPIRED,
            problem(403, "token_expired", f'{CHALLENGE}, error="invalid_token"'),
            "status 403",
            id="another status",
        ),
        pytest.param(
            EXPIRED,
            problem(401, "token_client", f'{CHALLENGE}, error="invalid_token"'),
            "reason token_client, not token_expired",
            id="another reason",
        ),
        pytest.param(EXPIRED, problem(401, "token_expired"), "challenge ``", id="no challenge"),
        pytest.param(EXPIRED, problem(401, "token_expired", CHALLENGE), "without invalid_token", id="no error"),
        pytest.param(
            BARE, problem(401, "token_missing", f'{CHALLENGE}, error="invalid_token"'), "challenge `", id="not bare"
        ),
        pytest.param(
            LACKING,
            problem(403, "scope_missing", f'{CHALLENGE}, error="insufficient_scope", scope="openid"'),
            "without patient/Observation.read",
            id="another scope",
        ),
        pytest.param(
            MISMATCH, problem(403, "patient_mismatch", CHALLENGE), "challenge `Bearer", id="needless challenge"
        ),
    ],
)
def test_whatever_differs_from_the_expected_refusal_fails_the_row(
    expected: Refusal, answer: Answer, fault: str
) -> None:
    got = refused(answer, expected, reached_upstream=False)
    assert not got.ok
    assert fault in got.note


@pytest.mark.parametrize(
    ("answer", "is_good"),
    [
        pytest.param(record(x_client_id="app", x_patient_id="123"), True, id="as it should"),
        pytest.param(record(x_client_id="other", x_patient_id="123"), False, id="another client"),
        pytest.param(record(x_client_id="app", x_patient_id="124"), False, id="another patient"),
        pytest.param(record(x_client_id="app"), False, id="no patient"),
        pytest.param(record(404, x_client_id="app", x_patient_id="123"), False, id="not found"),
        pytest.param(problem(403, "patient_mismatch"), False, id="refused"),
    ],
)
def test_an_answer_is_good_only_from_the_api_for_the_right_client_and_patient(answer: Answer, is_good: bool) -> None:  # noqa: FBT001 a table's column
    assert allowed(answer, "app", "123").ok is is_good


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"reason": "token_missing", "status": 401}', "token_missing"),
        (b'{"issue": [{"details": {"coding": [{"code": "path_ambiguous"}]}}]}', "path_ambiguous"),
        (b'{"issue": []}', None),
        (b"[]", None),
        (b"upstream connect error", None),
        (b"\xff", None),
    ],
)
def test_a_reason_is_read_from_either_body(body: bytes, reason: str | None) -> None:
    assert Answer(status=403, headers={}, body=body).reason == reason


def test_who_was_not_asked_saw_nothing() -> None:
    assert saw(problem(401, "token_missing")) == {}


@pytest.mark.parametrize(
    ("passed", "took_s", "is_within"),
    [(20, 0.0, False), (21, 0.0, True), (22, 0.09, False), (22, 0.1, True), (31, 1.09, True), (32, 1.09, False)],
)
def test_a_flood_lets_pass_the_burst_and_what_the_rate_adds(passed: int, took_s: float, is_within: bool) -> None:  # noqa: FBT001 a table's column
    assert Flood(passed=(record(),) * passed, stopped=(), took_s=took_s).is_within_quota is is_within


async def test_a_step_that_cannot_be_taken_fails_and_the_others_are_taken() -> None:
    def step(name: str, outcome: Got | Exception) -> Step:
        async def act() -> Got:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return Step(name=name, asked="/", expect=200, act=act)

    good = Got(value=200, ok=True)
    sections = {
        "one": (step("refused", ConnectionRefusedError("nobody there")), step("good", good)),
        "two": (step("failed", DemoFailed("no")),),
    }
    taken: AsyncIterator[tuple[str, Step, Got]] = walk(sections)
    assert [(section, one.name, got) async for section, one, got in taken] == [
        ("one", "refused", Got(value="ConnectionRefusedError", ok=False, note="nobody there")),
        ("one", "good", good),
        ("two", "failed", Got(value="DemoFailed", ok=False, note="no")),
    ]
