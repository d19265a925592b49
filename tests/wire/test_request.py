"""CheckRequest → Request: both header forms, and nothing that a caller can bend."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import check_request

from authz.model import Reason, Refused, Request
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from authz.wire.request import FORM_MAX_BYTES, ClientAddress, read, read_message

PEER = ClientAddress()


def with_header_map(*headers: tuple[str, str | bytes]) -> Request:
    message = check_request(forwarded=None)
    for name, value in headers:
        header = message.attributes.request.http.header_map.headers.add()
        header.key = name
        if isinstance(value, bytes):
            header.raw_value = value
        else:
            header.value = value
    return read_message(message, PEER)


def test_request_is_what_envoy_saw() -> None:
    headers = {"x-request-id": "r-1", "if-none-exist": "a=b", "accept": "application/fhir+json"}
    message = check_request("/fhir/Patient?x=1", "POST", headers=headers, bearer="t", forwarded="f", peer="p")
    assert read(message.SerializeToString(), PEER) == Request(
        method="POST",
        target="/fhir/Patient?x=1",
        host="api.example.org",
        request_id="r-1",
        address="192.0.2.7",
        authorization="Bearer t",
        forwarded="f",
        certificate="p",
        is_overridden=False,
        if_none_exist="a=b",
    )


def test_empty_message_is_a_request_without_anything() -> None:
    request = read(b"", PEER)
    assert (request.method, request.target, request.authorization, request.forwarded) == ("", "", None, None)


def test_both_header_forms_are_read_and_repeats_are_joined() -> None:
    request = with_header_map(("Authorization", b"Bearer a"), ("authorization", "Bearer b"))
    assert request.authorization == "Bearer a,Bearer b"
    message = check_request(bearer="a")
    header = message.attributes.request.http.header_map.headers.add()
    header.key, header.value = "authorization", "Bearer b"
    assert read_message(message, PEER).authorization == "Bearer a,Bearer b"
    assert with_header_map(("x-forwarded-client-cert", b"\xff")).forwarded == "\u00ff"


@pytest.mark.parametrize("header", ["authorization", "x-forwarded-client-cert"])
def test_header_in_many_spellings_of_case_is_one_header(header: str) -> None:
    """A map has no order, so among many spellings the plain one is hardly ever the first."""
    spellings = dict.fromkeys([header, *(header[:place] + header[place:].capitalize() for place in range(len(header)))])
    values = {name: f"v{number}" for number, name in enumerate(spellings)}
    for request in (
        read_message(check_request(headers=values, forwarded=None), PEER),
        with_header_map(*values.items()),
    ):
        found = request.authorization if header == "authorization" else request.forwarded
        assert found is not None
        assert sorted(found.split(",")) == sorted(values.values())


@pytest.mark.parametrize(
    "name",
    [
        "x-http-method-override", "X-HTTP-Method", "x-method-override", "x_http_method_override", "X_Method-Override",
        "x-method", "X-Method", "x_method", "X_METHOD",
    ],
)  # fmt: skip
def test_method_override_is_seen_in_every_spelling(name: str) -> None:
    assert with_header_map((name, "PUT")).is_overridden
    assert read_message(check_request(headers={name: "PUT"}), PEER).is_overridden


def test_cgi_spelling_of_other_headers_is_not_the_header() -> None:
    request = with_header_map(("x_forwarded_client_cert", "Hash=x"), ("if_none_exist", "a"))
    assert request.forwarded is None
    assert request.if_none_exist == "a"  # it asks the upstream for a search, and must be seen in every spelling


STEERING = {
    "X-Cascade": ("_cascade",),
    "x_cascade": ("_cascade",),
    "X-Provenance": ("x-provenance",),
    "x-request-partition-ids": ("x-request-partition-ids",),
    "X-FHIR-TENANT-ID": ("x-fhir-tenant-id",),
    "X_FHIR_DSID": ("x-fhir-dsid",),
    "x-cascaded": (),
}


@pytest.mark.parametrize(("name", "expected"), STEERING.items())
def test_header_that_acts_as_a_parameter_is_seen_in_every_spelling(name: str, expected: tuple[str, ...]) -> None:
    assert with_header_map((name, "delete")).steering == expected
    assert read_message(check_request(headers={name: ""}), PEER).steering == expected


ADDRESSES = [
    (ClientAddress(), "203.0.113.9", "192.0.2.7"),
    (ClientAddress(1), "203.0.113.9", "203.0.113.9"),
    (ClientAddress(1), "10.0.0.1, 203.0.113.9", "203.0.113.9"),
    (ClientAddress(2), "10.0.0.1, 203.0.113.9, 198.51.100.1", "203.0.113.9"),
    (ClientAddress(2), "203.0.113.9", "192.0.2.7"),
    (ClientAddress(1), "", "192.0.2.7"),
    (ClientAddress(1), "203.0.113.9:51234", "203.0.113.9"),
    (ClientAddress(1), "10.0.0.1, [2001:db8::1]:443", "2001:db8::1"),
    (ClientAddress(2), "2001:db8::1,10.0.0.1:80", "2001:db8::1"),
    (ClientAddress(1), "203.0.113.9, unknown", "192.0.2.7"),
    (ClientAddress(1), "203.0.113.9, ", "192.0.2.7"),
    (ClientAddress(2), "_hidden, 203.0.113.9", "192.0.2.7"),
]


@pytest.mark.parametrize(("source", "header", "expected"), ADDRESSES)
def test_address_comes_from_the_trusted_place(source: ClientAddress, header: str, expected: str) -> None:
    assert read_message(check_request(headers={"x-forwarded-for": header}), source).address == expected
    assert read_message(check_request(), source).address == "192.0.2.7"


def test_without_any_address_there_is_none() -> None:
    message = check_request(headers={"x-forwarded-for": "unknown"}, address="")
    assert read_message(message, ClientAddress(1)).address == ""


WHOLE = {"x-envoy-auth-partial-body": "false", "content-type": "application/x-www-form-urlencoded"}
FORMS: dict[str, tuple[dict[str, Any], bytes | None]] = {
    "whole": ({"body": "patient=1"}, b"patient=1"),
    "raw": ({"raw_body": b"patient=1"}, b"patient=1"),
    "with its length": ({"body": "a=b", "content-length": "3"}, b"a=b"),
    "with charset": ({"body": "a=b", "content-type": "application/x-www-form-urlencoded; charset=UTF-8"}, b"a=b"),
    "empty": ({}, b""),
    "declared empty": ({"content-length": "0", "x-envoy-auth-partial-body": None}, b""),
    "as long as allowed": ({"raw_body": b"a" * FORM_MAX_BYTES}, b"a" * FORM_MAX_BYTES),
    "bytes are read later": ({"raw_body": b"a=\xff%z\n"}, b"a=\xff%z\n"),
    "longer than allowed": ({"raw_body": b"a" * (FORM_MAX_BYTES + 1)}, None),
    "longer text than allowed": ({"body": "a" * (FORM_MAX_BYTES + 1)}, None),
    "not sent, as Envoy does by default": ({"content-length": "25", "x-envoy-auth-partial-body": None}, None),
    "not sent and chunked": ({"x-envoy-auth-partial-body": None}, None),
    "sent without Envoy's word": ({"body": "patient=1", "x-envoy-auth-partial-body": None}, None),
    "cut": ({"body": "patient=1", "x-envoy-auth-partial-body": "true"}, None),
    "shorter than declared": ({"body": "patient=1", "content-length": "20"}, None),
    "two lengths": ({"body": "patient=1", "content-length": "9,9"}, None),
    "JSON": ({"body": "{}", "content-type": "application/fhir+json"}, None),
    "multipart": ({"body": "a=b", "content-type": "multipart/form-data; boundary=x"}, None),
    "with charset close by": (
        {"body": "a=b", "content-type": "application/x-www-form-urlencoded;charset=utf-8"},
        b"a=b",
    ),
    "with charset far": (
        {"body": "a=b", "content-type": "Application/X-WWW-Form-Urlencoded \t;  charset=utf-8"},
        b"a=b",
    ),
    "type that goes on": ({"body": "a=b", "content-type": "application/x-www-form-urlencodedx;charset=utf-8"}, None),
    "type with more": ({"body": "a=b", "content-type": "application/x-www-form-urlencoded; charset=utf-8; x=y"}, None),
    "two types": ({"body": "a=b", "content-type": "application/x-www-form-urlencoded,text/plain"}, None),
    "other charset": ({"body": "a=b", "content-type": "application/x-www-form-urlencoded; charset=latin1"}, None),
    "no type": ({"body": "a=b", "content-type": None}, None),
    "inflated by the server": ({"body": "x=y", "content-encoding": "deflate"}, None),
    "any coding": ({"body": "x=y", "content-encoding": "identity"}, None),
    "coding in disguise": ({"body": "x=y", "content_encoding": "gzip"}, None),
}


@pytest.mark.parametrize("size", [0, -1, 9])
@pytest.mark.parametrize(("given", "expected"), FORMS.values(), ids=FORMS.keys())
def test_form_counts_only_when_certainly_whole(given: dict[str, Any], expected: bytes | None, size: int) -> None:
    """Envoy's `size` says how much it has buffered, so it says nothing here (0 without a buffer: measured, 1.40.0)."""
    headers = {
        name: value for name, value in (WHOLE | given).items() if name not in {"body", "raw_body"} and value is not None
    }
    message = check_request("/fhir/Observation/_search", "POST", headers=headers)
    http = message.attributes.request.http
    http.size = size
    http.body = given.get("body", "")
    http.raw_body = given.get("raw_body", b"")
    assert read_message(message, PEER).form == expected
    http.method = "GET"
    assert read_message(message, PEER).form is None


FORM = "application/x-www-form-urlencoded"
BODIES: dict[str, tuple[str, dict[str, str], str, bool, bool]] = {
    # method, headers, body; whether there is one, and whether an upstream may read it as a form
    "none": ("GET", {}, "", False, False),
    "none, declared": ("GET", {"content-length": "0"}, "", False, False),
    "declared": ("GET", {"content-length": "9"}, "", True, False),
    "declared twice": ("GET", {"content-length": "0,9"}, "", True, False),
    "chunked": ("DELETE", {"transfer-encoding": "chunked"}, "", True, False),
    "seen": ("GET", {}, "a=b", True, False),
    "JSON": ("POST", {"content-type": "application/fhir+json", "content-length": "9"}, "", True, False),
    "form": ("POST", {"content-type": FORM}, "", False, True),
    "form in other case": (
        "GET",
        {"content-type": "Application/X-WWW-Form-Urlencoded; charset=utf-8"},
        "",
        False,
        True,
    ),
    "multipart": ("PUT", {"content-type": "multipart/form-data; boundary=x"}, "", False, True),
    "second of two types": ("POST", {"content-type": f"application/json, {FORM}"}, "", False, True),
    "no type": ("POST", {"content-length": "9"}, "", True, True),
    "no type, not a POST": ("PUT", {"content-length": "9"}, "", True, False),
    "no type and no body": ("POST", {}, "", False, False),
    "a type that names one": ("POST", {"content-type": f'text/plain; a="{FORM}"'}, "", False, False),
}


@pytest.mark.parametrize(("method", "headers", "body", "has_body", "has_form_type"), BODIES.values(), ids=BODIES.keys())
def test_body_is_told_as_far_as_headers_tell(
    method: str, headers: dict[str, str], body: str, has_body: object, has_form_type: object
) -> None:
    message = check_request("/fhir/Patient", method, headers=headers)
    message.attributes.request.http.body = body
    request = read_message(message, PEER)
    assert (request.has_body, request.has_form_type) == (has_body, has_form_type)


@given(st.binary())
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        assert isinstance(read(data, PEER), Request)
    except Refused as refused:
        assert refused.reason is Reason.REQUEST_MALFORMED


def test_what_is_no_check_request_is_refused() -> None:
    with pytest.raises(Refused, match="not a CheckRequest"):
        read(b"\xff", PEER)
    assert CheckRequest.FromString(b"") == CheckRequest()
