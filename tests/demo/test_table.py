from __future__ import annotations

import json

import pytest
from rich.console import Console

from authz.demo import table
from authz.demo.walk import Got, Step


async def nothing() -> Got:
    return Got(value=200, ok=True)


STEP = Step(name="expired token", asked="/fhir/Patient/123", expect=401, act=nothing)
GOOD = Got(value=401, ok=True, note="token_expired")
BAD = Got(value=200, ok=False, note="let through")


def test_json_is_one_line_a_step_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with table.report(as_json=True) as add:
        add("token", STEP, GOOD)
        add("token", STEP, BAD)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"step": "expired token: /fhir/Patient/123", "expect": 401, "got": 401, "ok": True},
        {"step": "expired token: /fhir/Patient/123", "expect": 401, "got": 200, "ok": False},
    ]


def test_a_row_tells_what_was_asked_expected_and_came(capsys: pytest.CaptureFixture[str]) -> None:
    with table.report(as_json=False) as add:
        add("token", STEP, GOOD)
        add("token", STEP, BAD)
    heading, section, good, bad, verdict = capsys.readouterr().out.splitlines()
    assert heading.split() == ["step", "asked", "expected", "got"]
    assert section == "─ token"
    assert good.split() == ["✓", "expired", "token", "/fhir/Patient/123", "401", "401", "token_expired"]
    assert bad.split() == ["✗", "expired", "token", "/fhir/Patient/123", "401", "200", "let", "through"]
    assert verdict == "1 of 2 steps as expected"


def test_a_narrow_terminal_gets_two_lines_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "Console", lambda **_: Console(width=80))
    with table.report(as_json=False) as add:
        add("token", STEP, GOOD)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.split() for line in lines[3:5]] == [
        ["✓", "expired", "token", "401", "401"],
        ["/fhir/Patient/123", "token_expired"],
    ]
