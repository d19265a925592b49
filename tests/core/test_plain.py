"""What asks the upstream for another method or brings a second token, in a query, however it is spelt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import check_request

from authz.core.plain import carries_token, require_plain, require_plain_parameters
from authz.model import Reason, Refused
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


def ask(query: str, method: str = "GET", bearer: str | None = "t") -> None:
    request = read_message(check_request(f"/fhir/Observation?{query}", method, bearer=bearer), ClientAddress())
    require_plain(request, query)


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
    assert carries_token(query)


@pytest.mark.parametrize("query", ORDINARY)
def test_ordinary_parameters_pass(query: str) -> None:
    ask(query)
    assert not carries_token(query)


def test_form_is_judged_like_a_query() -> None:
    with pytest.raises(Refused, match="`_method` in the form"):
        require_plain_parameters("a=1&%5Fmethod=PUT", None, "form")
    with pytest.raises(Refused, match="one in the form"):
        require_plain_parameters("access%5Ftoken=x", "Bearer t", "form")
    require_plain_parameters("patient=123&_count=5", "Bearer t", "form")


@given(
    st.lists(st.sampled_from(["_", "method", "%5F", "access", "token", "&", "=", "%", "+", "25", "[", ";", ".", "x"]))
)
def test_any_query_is_judged_without_an_error(pieces: list[str]) -> None:
    try:
        ask("".join(pieces))
    except Refused as refused:
        assert refused.reason is Reason.REQUEST_MALFORMED
