"""What asks the upstream for another method or brings a second token, in a query, however it is spelt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import check_request

from authz.core.plain import carries_token, require_plain, require_plain_form
from authz.model import Reason, Refused, Request
from authz.wire.request import ClientAddress, read_message

METHOD = {
    "plain": "_method=DELETE",
    "later": "patient=123&_method=DELETE",
    "without a value": "_method",
    "encoded": "%5Fmethod=DELETE",
    "an encoded letter": "_m%65thod=DELETE",
    "all encoded": "%5f%6d%65%74%68%6f%64=DELETE",
    "decoded twice": "%255Fmethod=DELETE",
    "decoded three times": "%25255Fmethod=DELETE",
    "with its value": "_method%3DDELETE",
    "upper case": "_METHOD=DELETE",
    "full width": "_%EF%BD%8Dethod=DELETE",
    "a space before, which PHP drops": "+_method=DELETE",
    "an encoded space before": "a=1&%20_method=DELETE",
    "a plus that a second decoder reads as a space": "%2B_method=DELETE",
    "a space behind": "_method%20=DELETE",
    "a dot, which PHP reads as _": ".method=DELETE",
    "an array": "_method[]=DELETE",
    "an encoded array": "_method%5B0%5D=DELETE",
    "qs reads brackets around a name": "[_method]=DELETE",
    "after a semicolon": "a=1;_method=DELETE",
    "a control byte, which HAPI deletes": "_meth%2500od=DELETE",
    "an encoded separator before it": "a%26_method=DELETE",
}
TOKEN = {
    "plain": "access_token=x",
    "later": "patient=123&access_token=x",
    "encoded": "access%5Ftoken=x",
    "encoded in lower case": "access%5ftoken=x",
    "an encoded letter": "%61ccess_token=x",
    "decoded twice": "access%255Ftoken=x",
    "upper case": "ACCESS_TOKEN=x",
    "Kelvin's sign": "access_to%E2%84%AAen=x",
    "long s": "acce%C5%BFs_token=x",
    "a space before": "+access_token=x",
    "a dot, which PHP reads as _": "access.token=x",
    "a space, which PHP reads as _": "access+token=x",
    "a bracket, which PHP reads as _": "access[token=x",
    "an array": "access_token[]=x",
    "after a semicolon": "a=1;access_token=x",
    "twice": "access_token=x&access_token=y",
}
ORDINARY = [
    "",
    "patient=123&category=vital-signs&_sort=-date&_count=50",
    "method=123",  # Observation's and Procedure's own search parameter
    "method:missing=true",
    "code=http%3A%2F%2Floinc.org%7C1234-5&date=ge2026-01-01",
    "x_method=1&my_access_token=2&access_tokens=3&token=4&page_token=5&_methods=6",
    "redirect=https%3A%2F%2Fapp.example%2F%3F_method%3Da%26access_token%3Db",  # a value is not a name
    "note=_method=DELETE",
    "subject%3APatient.name=a&_has%3AObservation%3Apatient%3Amethod=b",
    "accesstoken=1&access-token=2",
    "name=J%C3%BCrgen",
]


def request_of(query: str, method: str = "GET", bearer: str | None = "t") -> Request:
    return read_message(check_request(f"/fhir/Observation?{query}", method, bearer=bearer), ClientAddress())


def form_of(form: str, bearer: str | None = None) -> Request:
    return request_of("", "POST", bearer)._replace(form=form.encode())


def ask(query: str, method: str = "GET", bearer: str | None = "t") -> None:
    require_plain(request_of(query, method, bearer), query)


@pytest.mark.parametrize("method", ["get", "Delete", "pOST", "", "GET /", "GE\nT", "G" * 33, "GÉT", "GET,PUT"])
def test_method_is_one_token(method: str) -> None:
    with pytest.raises(Refused, match="not an RFC 9110 token") as refused:
        ask("a=1", method)
    assert refused.value.reason is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize("method", ["GET", "PROPFIND", "VERSION-CONTROL", "G" * 32, "!#$%&'*+-.^_`|~09AZ"])
def test_methods_known_or_not_are_tokens(method: str) -> None:
    ask("a=1", method)
    ask("", method)


def test_overriding_header_and_second_authorization_are_refused() -> None:
    with pytest.raises(Refused, match="a header asks for another method"):
        require_plain(request_of("")._replace(is_overridden=True), "")
    with pytest.raises(Refused, match="more than one Authorization value") as refused:
        require_plain(request_of("")._replace(authorization="Bearer a,Bearer b"), "")
    assert refused.value.challenge


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("query", METHOD.values(), ids=METHOD.keys())
def test_method_in_a_parameter_is_refused(query: str, method: str) -> None:
    with pytest.raises(Refused, match="another method") as refused:
        ask(query, method)
    assert refused.value.reason is Reason.REQUEST_MALFORMED
    assert not refused.value.challenge


@pytest.mark.parametrize("query", TOKEN.values(), ids=TOKEN.keys())
def test_token_in_a_parameter_beside_one_in_the_header_is_refused(query: str) -> None:
    with pytest.raises(Refused, match="a token in the header and one in the query") as refused:
        ask(query)
    assert refused.value.reason is Reason.REQUEST_MALFORMED
    assert refused.value.challenge
    ask(query, bearer=None)
    assert carries_token(request_of(query), query)


@pytest.mark.parametrize("query", ORDINARY)
def test_ordinary_parameters_pass(query: str) -> None:
    ask(query)
    assert not carries_token(request_of(query), query)
    require_plain_form(form_of(query, "t"))
    assert not carries_token(form_of(query), "")


@pytest.mark.parametrize("form", METHOD.values(), ids=METHOD.keys())
def test_method_in_a_form_is_refused(form: str) -> None:
    with pytest.raises(Refused, match="`_method` in the form asks for another method"):
        require_plain_form(form_of(form))


@pytest.mark.parametrize("form", TOKEN.values(), ids=TOKEN.keys())
def test_token_in_a_form_is_a_token(form: str) -> None:
    with pytest.raises(Refused, match="a token in the header and one in the form") as refused:
        require_plain_form(form_of(form, "t"))
    assert refused.value.challenge
    require_plain_form(form_of(form))
    assert carries_token(form_of(form), "")


def test_form_of_any_bytes_is_judged() -> None:
    require_plain_form(form_of("")._replace(form=b"\xff&a=\x00"))
    for form in (b"\xff=1&_meth\x00od=PUT", "_\uff4d\uff45\uff54\uff48\uff4f\uff44=PUT".encode()):
        with pytest.raises(Refused, match="another method"):
            require_plain_form(form_of("")._replace(form=form))


@given(
    st.lists(st.sampled_from(["_", "method", "%5F", "access", "token", "&", "=", "%", "+", "25", "[", ";", ".", "x"]))
)
def test_any_query_is_judged_without_an_error(pieces: list[str]) -> None:
    try:
        ask("".join(pieces))
    except Refused as refused:
        assert refused.reason is Reason.REQUEST_MALFORMED
