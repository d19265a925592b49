"""The bytes that Envoy gets: read back, they are the answer, whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from authz.core.decide import Allow, Deny, Public, Shadowed, Verdict
from authz.core.quota import Level, Unknown, Within
from authz.model import Claims, Client, Compartment, Confirmation, Fhir, Grant, Reason, Refused
from authz.wire import encoding
from authz.wire.encoding import encode
from authz.wire.pb.envoy.config.core.v3.base_pb2 import HeaderValueOption
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from authz.wire.ratelimit import Form
from authz.wire.response import ALWAYS_REMOVED, Style, answer

ID = "0123456789abcdef0123456789abcdef"
STYLE = Style(fhir=Fhir("/fhir", Compartment.DENY), form=Form.IETF, remove_authorization=True)
CLIENT = Client(id="app", policy="partners/app")


def quota(remaining: int = 4) -> Within:
    return Within((Level("steady", 21, 2_100_000, remaining, 100_001),))


ALLOW = Allow(Grant(("user/Patient.read",), "r"), quota(), CLIENT, None)
PUBLIC = Allow(Public("GET /health"), quota(), None, None)
SHADOWED = Shadowed(Refused(Reason.SCOPE_MISSING), quota(), CLIENT, None)
FRAMES = {
    "allow": (ALLOW, {"reason": "allowed", "client": "app", "policy": "partners/app"}),
    "public": (PUBLIC, {"reason": "allowed"}),
    "shadow": (SHADOWED, {"reason": "allowed", "client": "app", "policy": "partners/app", "shadow": "scope_missing"}),
}


def told(options: Any) -> dict[str, str]:
    assert {option.append_action for option in options} <= {HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD}
    assert len({option.header.key for option in options}) == len(options)
    return {option.header.key: option.header.value for option in options}


def read(data: bytes) -> CheckResponse:
    response, known = CheckResponse.FromString(data), CheckResponse.FromString(data)
    known.DiscardUnknownFields()
    assert known.SerializeToString() == response.SerializeToString()
    return response


def metadata(response: CheckResponse) -> dict[str, str]:
    return {name: value.string_value for name, value in response.dynamic_metadata.fields.items()}


@pytest.mark.parametrize(("verdict", "expected"), FRAMES.values(), ids=FRAMES)
def test_allow_is_the_answer_whole(verdict: Any, expected: dict[str, str]) -> None:
    answered = answer(verdict, ID, "/fhir/Patient/1", STYLE)
    response = read(encode(answered, verdict, ID))
    assert response.WhichOneof("http_response") == "ok_response"
    assert response.status.code == 0
    assert told(response.ok_response.headers) == answered.upstream
    assert told(response.ok_response.response_headers_to_add) == answered.response
    assert set(answered.response) == {"x-decision-id", "ratelimit-policy", "ratelimit"}
    assert list(response.ok_response.headers_to_remove) == [*answered.remove, *ALWAYS_REMOVED]
    assert metadata(response) == {**expected, "decision_id": ID}


@pytest.mark.parametrize(
    "name",
    [
        "x-original-url", "x-rewrite-url", "x-original-uri", "x-http-path-override", "x_original_url", "x-original_url",
        "x_rewrite_url", "x_original_uri", "x_http_path_override", "x-http_path-override", "x-forwarded-uri",
        "x_forwarded_path", "x-ms-original-url", "x-script-name", "script-name", "script_name", "path-info", "path_info",
    ],
)  # fmt: skip
@pytest.mark.parametrize("verdict", [ALLOW, PUBLIC, SHADOWED], ids=["allowed", "public", "shadowed"])
def test_header_that_names_another_path_never_reaches_the_upstream(name: str, verdict: Verdict) -> None:
    response = read(encode(answer(verdict, ID, "/fhir/Patient/1", STYLE), verdict, ID))
    assert name in response.ok_response.headers_to_remove


# google.rpc.Code: INVALID_ARGUMENT, UNAUTHENTICATED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE.
CODES = {
    Reason.REQUEST_MALFORMED: 3,
    Reason.TOKEN_EXPIRED: 16,
    Reason.SCOPE_MISSING: 7,
    Reason.QUOTA_EXCEEDED: 8,
    Reason.STORE_UNAVAILABLE: 14,
}


@pytest.mark.parametrize(("reason", "code"), CODES.items())
@pytest.mark.parametrize("client", [CLIENT, None], ids=["known", "stranger"])
def test_denial_is_the_answer_whole(reason: Reason, code: int, client: Client | None) -> None:
    verdict = Deny(Refused(reason), Unknown("x"), client)
    answered = answer(verdict, ID, "/fhir/Patient/1", STYLE)
    response = read(encode(answered, verdict, ID))
    assert response.WhichOneof("http_response") == "denied_response"
    assert response.status.code == code
    assert response.denied_response.status.code == answered.status
    assert response.denied_response.body == answered.body
    assert told(response.denied_response.headers) == answered.response
    assert answered.response["content-type"] == "application/fhir+json"
    known = {"client": "app", "policy": "partners/app"} if client is not None else {}
    assert metadata(response) == {"reason": reason.value, "decision_id": ID, **known}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
def test_every_reason_denies_on_the_wire(reason: Reason) -> None:
    verdict = Deny(Refused(reason))
    answered = answer(verdict, ID, "/other", STYLE)
    response = read(encode(answered, verdict, ID))
    assert response.status.code != 0
    assert response.HasField("denied_response")
    assert response.denied_response.status.code == answered.status


def test_what_is_left_of_a_quota_is_not_kept() -> None:
    before = None
    for remaining in range(20):
        verdict = Allow(Grant(("user/Patient.read",), "r"), quota(remaining), CLIENT, None)
        encode(answer(verdict, ID, "/fhir/Patient/1", STYLE), verdict, ID)
        kept = vars(encoding)["_response_header"].cache_info().currsize
        assert before in (None, kept)
        before = kept


KEPT: dict[str, Callable[[int], tuple[Any, ...]]] = {
    "_frame": lambda number: (Reason.ALLOWED, str(number), "", ""),
    "_removed": lambda number: ((str(number),),),
    "_upstream_header": lambda number: ("x-patient-id", str(number)),
    "_kept_long_upstream_header": lambda number: ("x-token-scopes", f"{number:0200}"),
    "_response_header": lambda number: ("ratelimit-policy", str(number)),
}


@pytest.mark.parametrize(("part", "arguments"), KEPT.items())
def test_parts_kept_are_bounded(part: str, arguments: Callable[[int], tuple[Any, ...]]) -> None:
    cached = vars(encoding)[part]
    for number in range(4_100):
        cached(*arguments(number))
    assert cached.cache_info().currsize == (512 if "long" in part else 4_096)
    cached.cache_clear()


def encoded_scopes(*scopes: str) -> str:
    claims = Claims("iss", "key", None, "encoded", scopes, None, 0, None, Confirmation.NONE)
    verdict = Allow(Grant(scopes, scopes[0]), Within(()), CLIENT, claims)
    data = encode(answer(verdict, ID, "/fhir/Patient/1", STYLE), verdict, ID)
    headers = CheckResponse.FromString(data).ok_response.headers
    return next(one.header.value for one in headers if one.header.key == "x-token-scopes")


@pytest.mark.parametrize(("length", "short", "long"), [(128, 1, 0), (129, 0, 1), (1_024, 0, 1), (1_025, 0, 0)])
def test_header_of_a_long_value_is_written_and_kept_among_few_or_not(length: int, short: int, long: int) -> None:
    scope = f"{length:a<{length}}"
    assert encoded_scopes(scope) == scope
    caches = [vars(encoding)[name] for name in ("_upstream_header", "_kept_long_upstream_header")]
    before = [cached.cache_info() for cached in caches]
    assert encoded_scopes(scope) == scope
    after = [cached.cache_info() for cached in caches]
    assert [one.currsize for one in after] == [one.currsize for one in before]
    hits = [now.hits - then.hits for now, then in zip(after, before, strict=True)]
    assert hits == [2 + short, long]  # besides the client's id and policy
