"""A verdict → what the caller and the upstream get to see.

Source: RFC 6750 section 3 (challenges); RFC 9457 (problem JSON); HL7 FHIR R4 OperationOutcome.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from typing import Final, NamedTuple
from urllib.parse import unquote

from authz.core.decide import Allow, Deny, Shadowed, Verdict
from authz.core.quota import Exceeded
from authz.core.reasons import ANSWERS
from authz.core.told import granted
from authz.model import Fhir, Grant, Reason, Refused
from authz.wire import ratelimit
from authz.wire.ratelimit import Form

REALM: Final = "clientpolicy"
IDENTITY_HEADERS: Final = (
    "x-client-id",
    "x-client-policy",
    "x-token-subject",
    "x-token-scopes",
    "x-patient-id",
    "x-fhir-compartment",
    "x-decision-id",
)
# Software behind us takes these for the path that was asked, and would serve another than was decided. What goes into
# links alone (X-Forwarded-Prefix, X-Forwarded-Host) stays.
PATH_CARRIERS: Final = (
    "x-original-url",  # Symfony, Laminas, IIS URL Rewrite
    "x-rewrite-url",  # Laminas, Yii, ISAPI_Rewrite
    "x-original-uri",
    "x-http-path-override",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-ms-original-url",  # adapters for Azure Static Web Apps
    "x-script-name",  # a WSGI recipe that cuts it off the path
    "script-name",  # gunicorn, from the peers that it trusts, and so it does PATH_INFO
    "path-info",
)
Headers = dict[str, str]


def _twins(name: str) -> tuple[str, ...]:
    """Return the other spellings that a CGI-like upstream cannot tell from `name`."""
    parts = name.split("-")
    spellings = (
        "".join(part + separator for part, separator in zip(parts, (*separators, ""), strict=True))
        for separators in product("-_", repeat=len(parts) - 1)
    )
    return tuple(spelling for spelling in spellings if spelling != name)


_TWINS: Final = tuple(
    twin for name in (*IDENTITY_HEADERS, "x-forwarded-client-cert", *PATH_CARRIERS) for twin in _twins(name)
)
ALWAYS_REMOVED: Final = (*PATH_CARRIERS, *_TWINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How answers are written."""

    fhir: Fhir
    form: Form
    remove_authorization: bool = False
    remove_xfcc: bool = False


class Answered(NamedTuple):
    """What a verdict becomes, before it is protobuf: also what `clientpolicy check` prints."""

    status: int
    upstream: Headers
    remove: tuple[str, ...]  # besides ALWAYS_REMOVED
    response: Headers
    body: str


def answer(verdict: Verdict, decision_id: str, target: str, style: Style) -> Answered:
    """Return the status, headers and body for a verdict; `target` decides between FHIR and problem JSON."""
    response = {"x-decision-id": decision_id, **dict(ratelimit.fields(verdict.quota, style.form))}
    if isinstance(verdict, Deny):
        return _denied(verdict, decision_id, target, style, response)
    upstream = _identity(verdict, decision_id)
    remove = [name for name in IDENTITY_HEADERS if name not in upstream]
    if style.remove_authorization:
        remove.append("authorization")
    if style.remove_xfcc:
        remove.append("x-forwarded-client-cert")
    return Answered(200, upstream, tuple(remove), response, "")


def _identity(verdict: Allow | Shadowed, decision_id: str) -> Headers:
    headers = {"x-decision-id": decision_id}
    client, claims = verdict.client, verdict.claims
    if client is None:
        return headers
    headers["x-client-id"] = client.id
    headers["x-client-policy"] = client.policy
    right = verdict.right if isinstance(verdict, Allow) else None
    if claims is not None:
        if claims.subject is not None:
            headers["x-token-subject"] = claims.subject
        if claims.patient is not None:
            headers["x-patient-id"] = claims.patient
    scopes = granted(verdict)
    if scopes:
        headers["x-token-scopes"] = " ".join(scopes)
    if isinstance(right, Grant) and right.compartment is not None:
        headers["x-fhir-compartment"] = right.compartment
    return headers


def _denied(verdict: Deny, decision_id: str, target: str, style: Style, response: Headers) -> Answered:
    refused = verdict.refused
    told = ANSWERS[refused.reason]
    challenge = _challenge(refused)
    if challenge is not None:
        response["www-authenticate"] = challenge
    exceeded = verdict.quota if refused.reason is Reason.QUOTA_EXCEEDED else None
    if isinstance(exceeded, Exceeded):
        response["retry-after"] = str(ratelimit.retry_after_s(exceeded))
    response["cache-control"] = "no-store"
    is_fhir = _is_fhir(target, style.fhir.base_path)
    response["content-type"] = "application/fhir+json" if is_fhir else "application/problem+json"
    body = _outcome(refused.reason, decision_id) if is_fhir else _problem(refused.reason, decision_id)
    if isinstance(exceeded, Exceeded) and not is_fhir:
        body["violated-policies"] = [exceeded.binding]
    return Answered(told.status, {}, (), response, json.dumps(body, separators=(",", ":")))


def _challenge(refused: Refused) -> str | None:
    told = ANSWERS[refused.reason]
    if refused.reason is Reason.TOKEN_MISSING:
        return f'Bearer realm="{REALM}"'
    if told.error is None or (told.status == 400 and not refused.challenge):  # noqa: PLR2004 the table's own number
        return None
    challenge = f'Bearer realm="{REALM}", error="{told.error}", error_description="{told.title}"'
    return f'{challenge}, scope="{" ".join(refused.needed)}"' if refused.needed else challenge


def _is_fhir(target: str, base_path: str) -> bool:
    target = unquote(target.partition("?")[0])  # as it was judged, also where it was refused for its encoding
    return target.startswith(base_path) and target[len(base_path) : len(base_path) + 1] in ("", "/", "?")


def _outcome(reason: Reason, decision_id: str) -> dict[str, object]:
    told = ANSWERS[reason]
    coding = [{"system": "https://authz.healthtech.dev/reason", "code": reason.value}]
    issue = {
        "severity": "error",
        "code": told.issue,
        "details": {"coding": coding, "text": told.title},
        "diagnostics": f"decision {decision_id}",
    }
    return {"resourceType": "OperationOutcome", "issue": [issue]}


# Problem types that IANA's registry holds for what RateLimit tells; the others say it all in title and reason.
_PROBLEM_TYPES: Final = {
    Reason.QUOTA_EXCEEDED: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    Reason.STORE_UNAVAILABLE: "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}


def _problem(reason: Reason, decision_id: str) -> dict[str, object]:
    told = ANSWERS[reason]
    return {
        "type": _PROBLEM_TYPES.get(reason, "about:blank"),
        "title": told.title,
        "status": told.status,
        "reason": reason.value,
        "decision_id": decision_id,
    }


def reason_of(verdict: Verdict) -> Reason:
    """Return what the caller is told; a shadowed refusal is `allowed`, and told apart elsewhere."""
    return verdict.refused.reason if isinstance(verdict, Deny) else Reason.ALLOWED
