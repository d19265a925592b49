"""`clientpolicy check`: decide recorded requests without a server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from google.protobuf.json_format import ParseDict, ParseError

from authz.assembly import client_address_of, policy_source, rules_of, style_of
from authz.core import told
from authz.core.decide import Deny, Shadowed, Verdict
from authz.core.quota import Exceeded, Within
from authz.core.reasons import ANSWERS
from authz.edge.keys import KeyRing
from authz.edge.settings import Settings, load
from authz.edge.store.limiter import Limiter
from authz.edge.store.memory import MemoryStore
from authz.model import Reason, Refused, Request
from authz.service import Facts, Rules, Service
from authz.wire import request as wire_request
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from authz.wire.ratelimit import retry_after_s
from authz.wire.response import ALWAYS_REMOVED, Style, answer, reason_of

HTTP_OK = 200


class BadRequests(Exception):  # noqa: N818 it is what the file holds
    """A file holds no CheckRequests; the message names it."""


def read_requests(name: str, stream: TextIO) -> tuple[CheckRequest, ...]:
    """Return the CheckRequests of a text in protobuf JSON: one, an array, or one a line.

    Raises:
        BadRequests: with the place.
    """
    requests: list[CheckRequest] = []
    for place, value in _values(name, stream):
        if not isinstance(value, dict):
            raise BadRequests(f"{place}: expected a CheckRequest object")
        try:
            requests.append(ParseDict(value, CheckRequest()))
        except ParseError as failed:
            raise BadRequests(f"{place}: {failed}") from None
        except RecursionError:
            raise BadRequests(f"{place}: nested too deeply") from None
    return tuple(requests)


def _values(name: str, stream: TextIO) -> Iterator[tuple[str, object]]:
    try:
        text = stream.read()
    except UnicodeDecodeError:
        raise BadRequests(f"{name}: not UTF-8 text") from None
    try:
        whole = json.loads(text)
    except RecursionError:
        raise BadRequests(f"{name}: nested too deeply") from None
    except ValueError:
        yield from _lines(name, text)
        return
    if isinstance(whole, list):
        yield from ((f"{name}[{place}]", value) for place, value in enumerate(whole))
    else:
        yield name, whole


def _lines(name: str, text: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield f"{name}:{number}", json.loads(line)
        except (ValueError, RecursionError):
            raise BadRequests(f"{name}:{number}: expected JSON: one CheckRequest, an array, or one a line") from None
    if not text.strip():
        raise BadRequests(f"{name}: empty")


def check(config: Path, requests: tuple[CheckRequest, ...], now_us: int) -> tuple[dict[str, object], ...]:
    """Return the decisions, in order; quotas start full and are kept in memory, nothing is audited.

    Raises:
        Misconfigured: with every mistake.
        OSError, NoPolicies: the policies cannot be read.
    """
    settings = load(config, os.environ)
    rules = rules_of(settings, config.resolve().parent)
    return asyncio.run(_check(settings, rules, requests, now_us))


async def _check(
    settings: Settings, rules: Rules, requests: tuple[CheckRequest, ...], now_us: int
) -> tuple[dict[str, object], ...]:
    policies = await policy_source(settings).load()
    keys = KeyRing(settings.issuers)
    await keys.open(lambda: None)
    try:
        await keys.load_once()
    finally:
        await keys.close()
    service = Service(rules, Limiter(MemoryStore(), replicas=settings.quota.replicas), lambda _: None)
    facts = None
    if not keys.by_name or len(keys.missing) < len(keys.by_name):
        facts = Facts(policies=policies, trusted=keys.trusted_at(now_us))
    style, client_address = style_of(settings), client_address_of(settings)
    lines: list[dict[str, object]] = []
    for number, message in enumerate(requests, 1):
        request = wire_request.read_message(message, client_address)
        verdict: Verdict = Deny(Refused(Reason.NOT_READY))
        if facts is not None:
            try:
                verdict = await service.judge(request, facts, now_us)
            except Exception as bug:  # noqa: BLE001 as the service answers it: a denial, and the next request
                verdict = Deny(Refused(Reason.INTERNAL, type(bug).__name__))
        lines.append(_describe(verdict, request, f"{number:032x}", style))
    return tuple(lines)


def _describe(verdict: Verdict, request: Request, decision_id: str, style: Style) -> dict[str, object]:
    answered = answer(verdict, decision_id, request.target, style)
    client, claims = verdict.client, verdict.claims
    reason, refused = reason_of(verdict), told.refusal(verdict)
    shadow = None
    if isinstance(verdict, Shadowed):
        shadow = {"reason": verdict.refused.reason.value, "status": ANSWERS[verdict.refused.reason].status}
    remove = [*answered.remove, *ALWAYS_REMOVED] if answered.status == HTTP_OK else []
    return {
        "verdict": "error" if reason is Reason.NOT_READY else "deny" if isinstance(verdict, Deny) else "allow",
        "status": answered.status,
        "reason": reason.value,
        "detail": refused.detail if refused is not None else None,
        "decision_id": decision_id,
        "client": client.id if client is not None else None,
        "policy": client.policy if client is not None else None,
        "subject": claims.subject if claims is not None else None,
        "scopes": list(told.granted(verdict) or ()),
        "scopes_needed": list(refused.needed) if refused is not None else [],
        "quota": _quota(verdict),
        "shadow": shadow,
        "headers": {"upstream": answered.upstream, "remove": remove, "response": answered.response},
    }


def _quota(verdict: Verdict) -> object:
    quota = verdict.quota
    if not isinstance(quota, Within | Exceeded) or not quota.levels:
        return None
    limits = [
        {"name": level.name, "limit": level.quota, "remaining": level.remaining, "reset_us": level.reset_us}
        for level in quota.levels
    ]
    if isinstance(quota, Within):
        return {"within": True, "limits": limits}
    return {
        "within": False,
        "limits": limits,
        "binding": quota.binding,
        "wait_us": quota.wait_us,
        "retry_after": retry_after_s(quota),
    }
