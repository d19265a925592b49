"""The audit trail: a line a decision, nothing secret in it, never in the way."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from partner import check_request, token, xfcc

from authz.core.decide import Allow, Deny, Public, Shadowed
from authz.core.quota import Level, Within
from authz.edge import audit, chance, clock
from authz.edge.audit import AuditLog, record
from authz.model import CertificateFacts, Claims, Client, Confirmation, Grant, Presented, Reason, Refused
from authz.policy.smart import parse_scope
from authz.wire.request import ClientAddress, read_message

SCOPE = parse_scope("patient/*.rs")
assert SCOPE is not None
CLIENT = Client(id="app", policy="p/app", scopes=(SCOPE,))
CLAIMS = Claims("iss", "key", "user-1", "app", ("patient/Patient.read",), "123", 0, None, Confirmation.NONE)
TARGET = "/fhir/Patient?name=Secret&birthdate=1990-01-01&access_token=abc&pat%69ent=1"
BEARER = token()
REQUEST = read_message(check_request(TARGET, bearer=BEARER, headers={"x-request-id": "r-1"}), ClientAddress())
QUOTA = Within((Level("q", 5, 1, 4, 1),))


def line(verdict: Any, request: Any = REQUEST) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(record(verdict, request, "d1", "2026-11-23T12:00:00.000000Z", 42))
    return written


def test_allow_tells_who_what_with_which_scopes_and_why() -> None:
    written = line(Allow(Grant(("patient/Patient.read",), "patient/Patient.read"), QUOTA, CLIENT, CLAIMS))
    assert written == {
        "time": "2026-11-23T12:00:00.000000Z",
        "decision_id": "d1",
        "request_id": "r-1",
        "address": "192.0.2.7",
        "method": "GET",
        "host": "api.example.org",
        "path": "/fhir/Patient",
        "parameters": ["name", "birthdate", "access_token", "patient"],
        "client": "app",
        "policy": "p/app",
        "subject": "user-1",
        "issuer": "iss",
        "patient": "123",
        "scopes_asked": ["patient/Patient.read"],
        "scopes_granted": ["patient/Patient.read"],
        "verdict": "allow",
        "status": 200,
        "reason": "allowed",
        "rule": "patient/Patient.read",
        "quota": {"q": 4},
        "duration_us": 42,
    }


def test_deny_tells_reason_detail_and_what_was_needed() -> None:
    refused = Refused(Reason.SCOPE_MISSING, "needs x", needed=("x",))
    written = line(Deny(refused, QUOTA, CLIENT, CLAIMS))
    assert (written["verdict"], written["status"], written["reason"]) == ("deny", 403, "scope_missing")
    assert (written["detail"], written["scopes_needed"]) == ("needs x", ["x"])
    assert line(Deny(Refused(Reason.REQUEST_MALFORMED)), None)["reason"] == "request_malformed"


def test_shadow_public_and_abandoned_are_told_apart() -> None:
    shadow = line(Shadowed(Refused(Reason.TOKEN_MISSING, "no bearer token"), QUOTA, CLIENT, None))
    assert shadow["verdict"] == "allow"
    assert shadow["shadow"] == {"reason": "token_missing", "detail": "no bearer token"}
    lacking = line(Shadowed(Refused(Reason.SCOPE_MISSING, "needs x", needed=("x",)), QUOTA, CLIENT, CLAIMS))
    assert lacking["shadow"] == {"reason": "scope_missing", "detail": "needs x", "scopes_needed": ["x"]}
    assert line(Allow(Public("GET /health"), Within(()), None, None))["rule"] == "GET /health"
    assert line(None)["verdict"] == "abandoned"


def test_no_token_certificate_or_search_value_is_written() -> None:
    for verdict in (Deny(Refused(Reason.TOKEN_MALFORMED), QUOTA, CLIENT, CLAIMS), None):
        text = json.dumps(line(verdict))
        for secret in (BEARER, BEARER.split(".")[1], "Secret", "1990", "abc", xfcc()[:40]):
            assert secret not in text


def test_certificate_is_told_whoever_it_identified() -> None:
    whole = Presented("ab" * 32, CertificateFacts(0, 1, (), "CN=CA,O=Partner", "5a01"))
    refused = Refused(Reason.CERTIFICATE_UNKNOWN)
    for verdict in (
        Allow(Public("GET /health"), Within(()), None, None, whole),
        Shadowed(refused, QUOTA, CLIENT, None, whole),
        Deny(refused, presented=whole),
    ):
        told = {"sha256": "ab" * 32, "issuer": "CN=CA,O=Partner", "serial": "5a01"}
        assert line(verdict)["certificate"] == told
    bare = Deny(refused, presented=Presented("ab" * 32, None))
    assert line(bare)["certificate"] == {"sha256": "ab" * 32}
    assert "certificate" not in line(Deny(refused))


def test_generation_of_the_policy_is_told_where_it_has_one() -> None:
    versioned = replace(CLIENT, generation=7)
    assert line(Deny(Refused(Reason.TOKEN_MISSING), QUOTA, versioned))["policy_generation"] == 7
    assert "policy_generation" not in line(Deny(Refused(Reason.TOKEN_MISSING), QUOTA, CLIENT))


def test_line_is_bounded() -> None:
    huge = REQUEST._replace(
        target="/" + "a" * 100_000 + "?" + "b&" * 100_000, host="h" * 100_000, request_id="i" * 100_000
    )
    assert len(json.dumps(line(None, huge))) < 10_000


def test_lines_are_appended_in_order(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    path.write_text("before\n")
    log = AuditLog(str(path))
    for number in range(3000):
        log.put(b"%d" % number)
    log.close()
    assert path.read_text().splitlines() == ["before", *map(str, range(3000))]
    assert (log.written, log.dropped) == (3000, 0)


def written(log: AuditLog, lines: int) -> None:
    deadline = time.monotonic() + 20
    while log.written < lines:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_file_that_is_moved_away_is_followed_by_another_and_no_line_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LOOK_S", 0.01)
    path, names = tmp_path / "audit", []
    log = AuditLog(str(path))
    for round_ in range(3):
        for number in range(100):
            log.put(b"%d" % (100 * round_ + number))
        written(log, 100 * (round_ + 1))
        names.append(path.rename(tmp_path / f"audit.{round_}"))
        log.reopen()
        while not path.exists():
            time.sleep(0.005)
    log.put(b"300")
    log.close()
    assert [len(name.read_text().splitlines()) for name in names] == [100, 100, 100]
    assert path.read_text() == "300\n"
    assert (log.written, log.dropped) == (301, 0)


def test_file_that_cannot_be_opened_anew_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit, "LOOK_S", 0.01)
    path = tmp_path / "folder" / "audit"
    path.parent.mkdir()
    log = AuditLog(str(path))
    path.parent.rename(tmp_path / "gone")
    log.reopen()
    while not caplog.records:
        time.sleep(0.005)
    log.put(b"1")
    log.close()
    assert (tmp_path / "gone" / "audit").read_text() == "1\n"
    assert "the one before is written on" in caplog.text


def test_standard_output_is_never_opened_anew(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    log = AuditLog("-")
    log.reopen()
    log.put(b"1")
    log.close()
    assert capfdbinary.readouterr().out == b"1\n"


@pytest.mark.parametrize(("bound", "most"), [("LINES_MAX", 100), ("LINES_MAX_BYTES", 100_000)])
def test_reader_that_stops_costs_lines_and_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(audit, bound, most)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AuditLog(str(pipe))
    for _ in range(50):
        for _ in range(50):
            log.put(b"x" * 1000)
    assert log.dropped > 0
    os.close(reader)
    log.close()
    assert log.written + log.dropped == 2500


def test_lines_that_wait_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LINES_MAX_BYTES", 10_000)
    monkeypatch.setattr(audit, "GATHER_S", 0.0)
    log = AuditLog(str(tmp_path / "audit"))
    log.put(b"x" * 10_001)
    assert log.dropped == 1
    for number in range(1, 51):  # what was written makes room again
        log.put(b"x" * 9_000)
        while log.written < number:
            time.sleep(0.001)
    log.close()
    assert (log.written, log.dropped) == (50, 1)


def test_identifiers_do_not_repeat_and_clocks_agree() -> None:
    drawn = {chance.decision_id() for _ in range(1000)}
    assert len(drawn) == 1000
    assert {len(one) for one in drawn} == {32}
    assert clock.rfc3339(1_767_225_600_000_001) == "2026-01-01T00:00:00.000001Z"


SECRET = {
    "/x?access_token%3DSECRET": ["access_token"],
    "/x?access_token%253DSECRET=1": ["access_token"],
    "/x?[access_token]%3DSECRET": ["[access_token]"],
    "/x?SECRET%20value": ["(no name)"],
    "/fhir/Patient?name%3DSECRET&code=SECRET": ["name", "code"],
    "/fhir/Patient?_has:Observation:patient:code=SECRET": ["_has:Observation:patient:code"],
    "/fhir/Patient%3Faccess_token=SECRET": None,
    "/fhir/Patient%253Fname=SECRET": None,
    "/x;access_token=SECRET": None,
    "/x%3Baccess_token=SECRET": None,
    "/x#access_token=SECRET": None,
    "/x%23access_token=SECRET": None,
}


@pytest.mark.parametrize(("target", "parameters"), SECRET.items())
def test_nothing_behind_a_path_and_no_value_is_told(target: str, parameters: list[str] | None) -> None:
    refused = Deny(Refused(Reason.PATH_AMBIGUOUS, "x"))
    written = line(refused, REQUEST._replace(target=target))
    assert "SECRET" not in json.dumps(written)
    assert written.get("parameters") == parameters
    assert written["path"] in ("/x", "/fhir/Patient")
