"""Verdict → answer: what the caller and the upstream get to see, for every reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz.core.decide import Allow, Deny, Public, Shadowed
from authz.core.quota import Exceeded, Level, Unknown, Within
from authz.core.reasons import ANSWERS
from authz.model import Claims, Client, Compartment, Confirmation, Fhir, Grant, Reason, Refused
from authz.policy.smart import parse_scope
from authz.wire import ratelimit
from authz.wire.ratelimit import Form
from authz.wire.response import ALWAYS_REMOVED, IDENTITY_HEADERS, Answered, Style, answer

ID = "d" * 32
STYLE = Style(fhir=Fhir("/fhir", Compartment.DENY), form=Form.IETF)
LEVEL = Level("steady", 21, 2_100_000, 4, 100_001)
SCOPE = parse_scope("patient/Patient.read")
assert SCOPE is not None
CLIENT = Client(id="app", policy="partners/app", scopes=(SCOPE,))
CLAIMS = Claims("iss", "key", "user-1", "app", ("patient/Patient.read", "x"), "123", 0, None, Confirmation.NONE)
ALLOW = Allow(Grant(("patient/Patient.read",), "patient/Patient.read"), Within((LEVEL,)), CLIENT, CLAIMS)

# Design §4, reason by reason: status and RFC 6750 error.
TABLE = {
    200: "allowed",
    400: "path_ambiguous request_malformed",
    401: "token_missing token_malformed token_algorithm token_key_unknown token_signature token_expired "
    "token_not_yet_valid token_issuer token_audience token_type token_client token_binding token_inactive",
    403: "certificate_missing certificate_malformed certificate_unknown certificate_revoked certificate_expired "
    "certificate_not_yet_valid proxy_untrusted client_suspended client_not_valid policy_conflict policy_invalid "
    "scope_missing patient_unknown patient_mismatch compartment_undecidable interaction_unsupported route_not_allowed",
    429: "quota_exceeded",
    503: "store_unavailable issuer_unavailable internal not_ready",
}
STATUS = {reason: status for status, reasons in TABLE.items() for reason in reasons.split()}


def deny(reason: Reason, target: str = "/other", style: Style = STYLE, **more: Any) -> Answered:
    quota = more.pop("quota", None)
    return answer(Deny(Refused(reason, "secret detail", **more), quota), ID, target, style)


@pytest.mark.parametrize("reason", Reason)
def test_status_of_every_reason(reason: Reason) -> None:
    assert ANSWERS[reason].status == STATUS[reason.value]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
def test_denial_tells_reason_and_decision_and_no_detail(reason: Reason) -> None:
    problem, outcome = deny(reason), deny(reason, "/fhir/Patient/1")
    for answered, kind in ((problem, "application/problem+json"), (outcome, "application/fhir+json")):
        assert answered.response["content-type"] == kind
        assert answered.response["x-decision-id"] == ID
        assert answered.response["cache-control"] == "no-store"
        assert "secret" not in answered.body
        assert answered.upstream == {}
    body = json.loads(problem.body)
    assert (body["reason"], body["status"], body["decision_id"]) == (reason.value, STATUS[reason.value], ID)
    issue = json.loads(outcome.body)["issue"][0]
    assert json.loads(outcome.body)["resourceType"] == "OperationOutcome"
    assert issue["details"]["coding"][0]["code"] == reason.value
    assert issue["diagnostics"] == f"decision {ID}"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
def test_challenge_of_every_reason(reason: Reason) -> None:
    challenge = deny(reason).response.get("www-authenticate")
    if reason is Reason.TOKEN_MISSING:
        assert challenge == 'Bearer realm="clientpolicy"'
    elif STATUS[reason.value] == 401:
        assert challenge is not None
        assert 'error="invalid_token"' in challenge
    elif reason is Reason.SCOPE_MISSING:
        assert challenge is not None
        assert 'error="insufficient_scope"' in challenge
    else:
        assert challenge is None


def test_missing_scopes_and_bad_authorization_are_named() -> None:
    challenge = deny(Reason.SCOPE_MISSING, needed=("patient/Observation.s", "x")).response["www-authenticate"]
    assert challenge.endswith('scope="patient/Observation.s x"')
    challenge = deny(Reason.REQUEST_MALFORMED, challenge=True).response["www-authenticate"]
    assert 'error="invalid_request"' in challenge


@pytest.mark.parametrize(
    ("target", "is_fhir"),
    [
        ("/fhir", True),
        ("/fhir/x", True),
        ("/fhir?x", True),
        ("/fhirs", False),
        ("", False),
        ("/x/fhir/", False),
        ("/%66hir/..", True),
    ],
)
def test_body_speaks_fhir_under_its_base(target: str, *, is_fhir: bool) -> None:
    kind = "application/fhir+json" if is_fhir else "application/problem+json"
    assert deny(Reason.INTERNAL, target).response["content-type"] == kind


def test_quota_denial_says_when() -> None:
    exceeded = Exceeded("steady", 1_000_001, (LEVEL._replace(remaining=0),))
    answered = deny(Reason.QUOTA_EXCEEDED, quota=exceeded)
    assert answered.response["retry-after"] == "2"
    assert answered.response["ratelimit"] == '"steady";r=0;t=1'
    assert json.loads(answered.body)["type"].endswith("#quota-exceeded")
    assert "retry-after" not in deny(Reason.TOKEN_MISSING, quota=exceeded).response


def test_allow_overwrites_or_removes_every_identity_header() -> None:
    answered = answer(ALLOW, ID, "/fhir/Patient/123", STYLE)
    assert answered.status == 200
    assert answered.upstream == {
        "x-decision-id": ID,
        "x-client-id": "app",
        "x-client-policy": "partners/app",
        "x-token-subject": "user-1",
        "x-patient-id": "123",
        "x-token-scopes": "patient/Patient.read",
    }
    assert answered.response == {
        "x-decision-id": ID,
        "ratelimit-policy": '"steady";q=21;w=2',
        "ratelimit": '"steady";r=4;t=1',
    }
    assert set(IDENTITY_HEADERS) - set(answered.upstream) == {"x-fhir-compartment"}
    assert "x-fhir-compartment" in answered.remove
    spellings = ("x_client_id", "x-client_id", "x_client-id", "x_token_scopes", "x_fhir_compartment", "x_decision_id")
    assert set(spellings) <= set(ALWAYS_REMOVED)
    assert not {*answered.remove, *ALWAYS_REMOVED} & set(answered.upstream)


def test_what_is_removed_on_every_answer_is_named_once_and_stays_small() -> None:
    """It is sent with each allow; links behind a proxy need X-Forwarded-Prefix and X-Forwarded-Host."""
    assert len(set(ALWAYS_REMOVED)) == len(ALWAYS_REMOVED)
    assert sum(len(name) + 2 for name in ALWAYS_REMOVED) < 2_048
    assert not {"x-forwarded-prefix", "x-forwarded-host", "x-forwarded-for", "x-forwarded-proto"} & set(ALWAYS_REMOVED)


def test_delegation_is_a_header() -> None:
    allow = Allow(Grant(("patient/*.rs",), "r", "Patient/123"), Within(()), CLIENT, CLAIMS)
    assert answer(allow, ID, "/fhir/Observation/1", STYLE).upstream["x-fhir-compartment"] == "Patient/123"


def test_anonymous_allow_claims_nothing() -> None:
    answered = answer(Allow(Public("GET /health"), Within(()), None, None), ID, "/health", STYLE)
    assert answered.upstream == {"x-decision-id": ID}
    assert set(IDENTITY_HEADERS) - set(answered.remove) == {"x-decision-id"}


def test_public_allow_of_a_client_names_it_and_no_scopes() -> None:
    answered = answer(Allow(Public("GET /health"), Within(()), CLIENT, None), ID, "/health", STYLE)
    assert answered.upstream == {"x-decision-id": ID, "x-client-id": "app", "x-client-policy": "partners/app"}


def test_shadow_sets_no_header_from_unverified_claims() -> None:
    refused = Refused(Reason.TOKEN_SIGNATURE)
    answered = answer(Shadowed(refused, Within(()), CLIENT, None), ID, "/x", STYLE)
    assert set(answered.upstream) == {"x-decision-id", "x-client-id", "x-client-policy"}
    verified = answer(Shadowed(Refused(Reason.PATIENT_MISMATCH), Unknown("x"), CLIENT, CLAIMS), ID, "/x", STYLE)
    assert verified.upstream["x-token-scopes"] == "patient/Patient.read"
    silent = CLAIMS._replace(subject=None, patient=None, scopes=())
    bare = answer(Shadowed(refused, Within(()), CLIENT, silent), ID, "/x", STYLE)
    assert set(bare.upstream) == {"x-decision-id", "x-client-id", "x-client-policy"}


def test_upstream_gets_no_credentials_where_so_configured() -> None:
    style = Style(fhir=STYLE.fhir, form=Form.NONE, remove_authorization=True, remove_xfcc=True)
    answered = answer(ALLOW, ID, "/", style)
    assert {"authorization", "x-forwarded-client-cert"} <= set(answered.remove)
    assert not {"authorization", "x-forwarded-client-cert"} & set(answer(ALLOW, ID, "/", STYLE).remove)
    assert set(answered.response) == {"x-decision-id"}


def test_legacy_form_tells_the_limit_that_is_nearest() -> None:
    far = Level("daily", 1000, 86_400_000_000, 900, 5_000_000)
    assert ratelimit.fields(Within((far, LEVEL)), Form.LEGACY) == [
        ("ratelimit-limit", "21"),
        ("ratelimit-remaining", "4"),
        ("ratelimit-reset", "1"),
    ]
    for quota in (None, Unknown("x"), Within(())):
        assert ratelimit.fields(quota, Form.IETF) == []
