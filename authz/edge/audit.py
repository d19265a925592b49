"""One JSON line a decision: who asked for what, with which scopes, what came of it and why.

Search values may name a patient, and a query may carry a token, so of a query only the names of its parameters are
kept. Writing happens in a thread of its own: a reader that stops reading costs lines, which are counted, never answers.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import unquote_plus

from authz.core import grant
from authz.core.decide import Allow, Deny, Shadowed, Verdict
from authz.core.quota import Exceeded, Within
from authz.core.reasons import ANSWERS
from authz.model import Grant, Request

LINES_MAX: Final = 65_536  # some 40 MB; at 1,000 decisions a second a minute of a reader that stands still
_TEXT_MAX: Final = 1_024
_PARAMETERS_MAX: Final = 64
_BATCH: Final = 1_024


def record(verdict: Verdict | None, request: Request | None, decision_id: str, at: str, duration_us: int) -> str:
    """Return the audit line of a decision; without a verdict the caller went away before there was one."""
    line: dict[str, object] = {"time": at, "decision_id": decision_id}
    if request is not None:
        path, _, query = request.target.partition("?")
        line["request_id"] = request.request_id[:_TEXT_MAX]
        line["address"] = request.address[:_TEXT_MAX]
        line["method"] = request.method[:_TEXT_MAX]
        line["host"] = request.host[:_TEXT_MAX]
        line["path"] = path[:_TEXT_MAX]
        if query:
            line["parameters"] = _names(query)
    if verdict is None:
        line |= {"verdict": "abandoned", "status": None, "reason": None}
    else:
        line |= _outcome(verdict)
    line["duration_us"] = duration_us
    return json.dumps(line, separators=(",", ":"))


def _names(query: str) -> list[str]:
    return [unquote_plus(pair.partition("=")[0])[:64] for pair in query.split("&", _PARAMETERS_MAX)[:_PARAMETERS_MAX]]


def _outcome(verdict: Verdict) -> dict[str, object]:
    line: dict[str, object] = {}
    client, claims = verdict.client, verdict.claims
    if client is not None:
        line["client"] = client.id
        line["policy"] = client.policy
    if claims is not None:
        line["subject"] = claims.subject
        line["issuer"] = claims.issuer
        line["patient"] = claims.patient
        line["scopes_asked"] = list(claims.scopes)
    if client is not None and claims is not None:
        line["scopes_granted"] = list(grant.effective(claims.scopes, client).texts)
    match verdict:
        case Allow(right=right):
            line |= {"verdict": "allow", "status": 200, "reason": "allowed"}
            line["rule"] = right.rule
            if isinstance(right, Grant):
                line["scopes_granted"] = list(right.scopes)
        case Shadowed(refused=refused):
            line |= {"verdict": "allow", "status": 200, "reason": "allowed"}
            line["shadow"] = {"reason": refused.reason.value, "detail": refused.detail}
        case Deny(refused=refused):
            status = ANSWERS[refused.reason].status
            line |= {"verdict": "deny", "status": status, "reason": refused.reason.value, "detail": refused.detail}
            if refused.needed:
                line["scopes_needed"] = list(refused.needed)
    if isinstance(verdict.quota, Within | Exceeded) and verdict.quota.levels:
        line["quota"] = {level.name: level.remaining for level in verdict.quota.levels}
    return line


class AuditLog:
    """Writes lines in order from a thread; `put` never waits."""

    def __init__(self, path: str) -> None:
        self._stream: TextIO = sys.stdout if path == "-" else Path(path).open("a", encoding="utf-8")  # noqa: SIM115
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._closing = False
        self.dropped = 0
        self.written = 0
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        if len(self._lines) >= LINES_MAX:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._lines:
                batch = [self._lines.popleft() for _ in range(min(_BATCH, len(self._lines)))]
                try:
                    self._stream.write("\n".join(batch) + "\n")
                    self._stream.flush()
                except (OSError, ValueError):
                    self.dropped += len(batch)
                else:
                    self.written += len(batch)
            if self._closing:
                return

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left, for at most `timeout_s`."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        if self._stream is not sys.stdout and not self._thread.is_alive():
            self._stream.close()
