"""One JSON line a decision: who asked for what, with which scopes, what came of it and why.

Search values may name a patient, and a query may carry a token, so of a query only the names of its parameters are
kept. Writing happens in a thread of its own: a reader that stops reading costs lines, which are counted, never answers.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote_plus

import orjson

from authz.core.decide import Allow, Deny, Shadowed, Verdict
from authz.core.quota import Exceeded, Within
from authz.core.reasons import ANSWERS
from authz.core.told import granted
from authz.model import Presented, Refused, Request

logger = logging.getLogger(__name__)

LINES_MAX: Final = 65_536  # at 1,000 decisions a second a minute of a reader that stands still
LINES_MAX_BYTES: Final = 64 * 2**20  # 1 kB each; a caller can make a line of 20
GATHER_S: Final = 0.1  # a thread woken for each line would take the interpreter from a decision each time
LOOK_S: Final = 1.0  # for a file that was moved away, also while nothing is asked
_TEXT_MAX: Final = 1_024
_DECODINGS: Final = 3
_NAME: Final = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,64}")
_NO_NAME: Final = "(no name)"
# Where a path ends for somebody: behind it may stand a search, a token, a name.
_PATH_END: Final = re.compile(r"[?;#]|%(?:25)*(?:3[BbFf]|23)")
_PARAMETERS_MAX: Final = 64
_BATCH: Final = 1_024


def record(verdict: Verdict | None, request: Request | None, decision_id: str, at: str, duration_us: int) -> bytes:
    """Return the audit line of a decision; without a verdict the caller went away before there was one."""
    line: dict[str, object] = {"time": at, "decision_id": decision_id}
    if request is not None:
        query = request.target.partition("?")[2]
        line["request_id"] = request.request_id[:_TEXT_MAX]
        line["address"] = request.address[:_TEXT_MAX]
        line["method"] = request.method[:_TEXT_MAX]
        line["host"] = request.host[:_TEXT_MAX]
        line["path"] = _PATH_END.split(request.target[: 2 * _TEXT_MAX], maxsplit=1)[0][:_TEXT_MAX]
        if query:
            line["parameters"] = _names(query)
    if verdict is None:
        line["verdict"], line["status"], line["reason"] = "abandoned", None, None
    else:
        _add_outcome(line, verdict)
        _add_quota(line, verdict)
    line["duration_us"] = duration_us
    return orjson.dumps(line)


def _names(query: str) -> list[str]:
    return [_name(pair) for pair in query.split("&", _PARAMETERS_MAX)[:_PARAMETERS_MAX]]


def _name(pair: str) -> str:
    """Return the name of a parameter; what is no name may be a value, so it is not told."""
    name = pair
    for _ in range(_DECODINGS):
        name = unquote_plus(name.partition("=")[0])
    name = name.partition("=")[0]
    return name if _NAME.fullmatch(name) else _NO_NAME


def _add_quota(line: dict[str, object], verdict: Verdict) -> None:
    quota = verdict.quota
    if isinstance(quota, Within | Exceeded) and quota.levels:
        line["quota"] = {level.name: level.remaining for level in quota.levels}
    if isinstance(quota, Within) and quota.shadowed:
        line["quota_shadowed"] = quota.shadowed


def _add_outcome(line: dict[str, object], verdict: Verdict) -> None:
    client, claims, presented = verdict.client, verdict.claims, verdict.presented
    if presented is not None:
        line["certificate"] = _certificate(presented)
    if client is not None:
        line["client"], line["policy"] = client.id, client.policy
        if client.generation is not None:
            line["policy_generation"] = client.generation
    if claims is not None:
        line["subject"], line["issuer"], line["patient"] = claims.subject, claims.issuer, claims.patient
        line["scopes_asked"] = claims.scopes
    scopes = granted(verdict)
    if scopes is not None:
        line["scopes_granted"] = scopes
    line["verdict"], line["status"], line["reason"] = "allow", 200, "allowed"
    match verdict:
        case Allow(right=right):
            line["rule"] = right.rule
        case Shadowed(refused=refused):
            line["shadow"] = {"reason": refused.reason.value, **_why(refused)}
        case Deny(refused=refused):
            line["verdict"], line["status"] = "deny", ANSWERS[refused.reason].status
            line["reason"] = refused.reason.value
            line.update(_why(refused))


def _certificate(presented: Presented) -> dict[str, str]:
    facts = presented.facts
    # Both are bounded where the certificate was read, as is what a line may hold of anything that a caller writes.
    if facts is None:
        return {"sha256": presented.fingerprint}
    return {"sha256": presented.fingerprint, "issuer": facts.issuer, "serial": facts.serial}


def _why(refused: Refused) -> dict[str, object]:
    needed: dict[str, object] = {"scopes_needed": refused.needed} if refused.needed else {}
    return {"detail": refused.detail, **needed}


class AuditLog:
    """Writes lines in order from a thread; `put` never waits."""

    def __init__(self, path: str) -> None:
        self._path = None if path == "-" else Path(path)
        self._stream: BinaryIO = sys.stdout.buffer if self._path is None else self._path.open("ab")
        self._is_moved = False
        self._lines: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._put_bytes = 0  # counted by `put` alone, and what was taken by the thread alone, so neither needs a lock
        self._taken_bytes = 0
        self.dropped = 0
        self.written = 0
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        if len(self._lines) >= LINES_MAX or self._put_bytes - self._taken_bytes + len(line) > LINES_MAX_BYTES:
            self.dropped += 1
            return
        self._put_bytes += len(line)
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def reopen(self) -> None:
        """Go on, within `LOOK_S`, in a new file where the one before was moved away."""
        self._is_moved = True

    def _reopen(self) -> None:
        self._is_moved = False
        if self._path is None:
            return
        try:
            stream = self._path.open("ab")
        except OSError as failed:
            logger.warning("audit file not opened anew; the one before is written on", extra={"error": failed.strerror})
            return
        self._stream.close()
        self._stream = stream

    def _write(self) -> None:
        while True:
            woken = self._wake.wait(LOOK_S)
            if self._is_moved:
                self._reopen()
            if not woken:
                continue
            if not self._closing:
                time.sleep(GATHER_S)
            self._wake.clear()
            while self._lines:
                batch = [self._lines.popleft() for _ in range(min(_BATCH, len(self._lines)))]
                self._taken_bytes += sum(map(len, batch))
                try:
                    self._stream.write(b"\n".join(batch) + b"\n")
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
        if self._path is not None and not self._thread.is_alive():
            self._stream.close()
