"""Events: what has changed for a ClientPolicy, for whoever reads `kubectl describe`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from authz.policy import API_VERSION, KIND
from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, ApiError, core_path
from clientpolicy_operator.facts import Document, Subject
from clientpolicy_operator.told import condition_of, current_revision, current_sha256, map_of, previous_of, text

logger = logging.getLogger(__name__)

WAITING_MAX: Final = 1_000
_WITH_WARNINGS: Final = "AcceptedWithWarnings"  # the one reason of a condition that holds and is worth a warning
_MESSAGE_MAX_BYTES: Final = 1_000  # an Event holds 1024 of it


def transitions(before: Document, after: Document) -> Iterator[tuple[str, str, str]]:
    """Yield (type, reason, message) of the events that a change is worth: flips, and new certificates."""
    known = {current_sha256(before), *(str(one.get("sha256")) for one in previous_of(before)), None}
    is_issued = current_sha256(after) not in known
    if is_issued:
        end = map_of(after.get("certificate")).get("notAfter")
        yield "Normal", "Issued", f"certificate {current_revision(after)}, valid until {end}"
    held_back, before_it = condition_of(after, "Issuing"), condition_of(before, "Issuing")
    holds = condition_of(after, "CertificateReady").get("status") == "True"  # else that condition says why
    is_new = any(held_back.get(part) != before_it.get(part) for part in ("status", "reason"))
    if holds and held_back.get("status") == "True" and is_new:
        yield "Warning", str(held_back.get("reason", "Issuing")), str(held_back.get("message", ""))
    for name in ("Accepted", "CertificateReady", "Ready"):
        was, now = condition_of(before, name), condition_of(after, name)
        is_warning = now.get("status") == "False" or now.get("reason") == _WITH_WARNINGS
        is_news = now.get("status") != was.get("status") or (is_warning and now.get("reason") != was.get("reason"))
        if not is_news or (name != "Ready" and not is_warning and not was):
            continue
        if now.get("reason") == "NotAccepted" or (is_issued and now.get("reason") == "Issued"):
            continue  # said already by Accepted, or by the certificate itself
        causes = [condition_of(after, cause).get("reason") for cause in ("Accepted", "CertificateReady")]
        if name == "Ready" and now.get("reason") in causes:
            continue  # said already by the condition that it follows from
        kind = "Warning" if is_warning else "Normal"
        yield kind, str(now.get("reason", name)), str(now.get("message", ""))


class Events:
    """Posts in the background; what cannot be posted is dropped and counted, because nothing depends on it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: deque[tuple[str, Document]] = deque(maxlen=WAITING_MAX)
        self._news = asyncio.Event()
        self.dropped = 0

    def post(self, subject: Subject, before: Document, after: Document) -> None:
        for kind, reason, message in transitions(before, after):
            self.dropped += len(self._waiting) == WAITING_MAX
            self._waiting.append((subject.namespace, _event(subject, kind, reason, message)))
            where = f"{subject.namespace}/{subject.name}"
            logger.info("policy", extra={"policy": where, "reason": reason, "told": message})
            self._news.set()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                namespace, event = self._waiting.popleft()
                try:
                    await self._api.create(core_path(namespace, "events"), event)
                except ApiError as failed:
                    self.dropped += 1
                    logger.warning("event not posted", extra={"error": str(failed)})


def _event(subject: Subject, kind: str, reason: str, message: str) -> dict[str, Any]:
    now = text(clock.now())
    return {
        "metadata": {"generateName": f"{subject.name[:200].rstrip('-.')}.", "namespace": subject.namespace},
        "involvedObject": {"apiVersion": API_VERSION, "kind": KIND, "name": subject.name,
                           "namespace": subject.namespace, "uid": subject.uid},
        "type": kind, "reason": reason, "message": message.encode()[:_MESSAGE_MAX_BYTES].decode(errors="ignore"),
        "count": 1,
        "firstTimestamp": now, "lastTimestamp": now,
        "source": {"component": "clientpolicy-operator"}, "reportingComponent": "authz.healthtech.dev/operator",
        "reportingInstance": "",
    }  # fmt: skip
