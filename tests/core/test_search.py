"""Parameters have one reading: a name that some server would read as another one is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core import search
from authz.model import Effect, Parameters, Reason, Refused, SearchByPost

NAMES = [
    "patient",
    "_id",
    "-pageContext",
    "_",
    "value-quantity",
    "code:in",
    "subject:Patient.name",
    "_has:Observation:patient:code",
    "_has:Observation:patient:_has:AuditEvent:entity:agent",
    "_include:iterate",
    "general-practitioner.organization.name",
    "date2",
]
# What PHP, Express with qs, HAPI, a second decoder or a case-folding reader takes for another name.
TWO_READINGS = {
    "leading space": "%20patient=124",
    "leading plus": "+patient=124",
    "trailing space": "patient%20=124",
    "trailing plus": "patient+=124",
    "array": "patient[]=124",
    "array first": "[patient]=124",
    "array with an index": "patient[0]=124",
    "array encoded": "patient%5B0%5D=124",
    "array of includes": "_include[]=Observation:subject",
    "include after a space": "%20_include=Observation:subject",
    "array of types": "_type[]=Patient",
    "decoded twice": "%2570atient=124",
    "equals in the name": "patient%3D124",
    "equals in the name, with a value": "patient%3D124=1",
    "ampersand in the name": "a%26patient=124",
    "case folding": "%C5%BFubject=Patient/124",
    "Kelvin sign": "%E2%84%AAey=1",
    "fullwidth": "%EF%BD%90atient=124",
    "soft hyphen": "pa%C2%ADtient=124",
    "C1 control": "patient%C2%85=124",
    "semicolon": "a;patient=124",
    "quote": "'patient'=124",
    "slash": "a/b=1",
    "dollar": "$patient=1",
    "percent": "patient%25=1",
    "empty modifier": "_include:=Observation:subject",
    "empty chain": "_include.=Observation:subject",
    "leading dot": ".patient=124",
    "two dots": "patient..name=x",
    "value without a name": "=124",
    "nothing at all": "=",
    "charset of the form": "_charset_=utf-16",
    "charset in other case": "_CHARSET_=utf-16",
}


ENCODINGS = {
    "plain": str,
    "separators encoded": lambda name: quote(name, safe=""),
    "first letter encoded": lambda name: f"%{ord(name[0]):02X}{name[1:]}",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_name_of_fhirs_grammar_is_read(name: str, encode: Callable[[str], str]) -> None:
    parameters = search.parse(f"a=1&{encode(name)}=x%2Cy")
    assert [(item.name, item.value) for item in parameters.items] == [("a", "1"), (name, "x,y")]


@pytest.mark.parametrize("pair", TWO_READINGS.values(), ids=TWO_READINGS.keys())
@pytest.mark.parametrize("place", ["{}", "patient=123&{}", "{}&patient=123", "&&{}&&"])
def test_name_with_two_readings_is_refused_in_query_form_and_condition(pair: str, place: str) -> None:
    text = place.format(pair)
    readings: list[Callable[[], Parameters]] = [
        lambda: search.parse(text),
        lambda: search.parse_form(text.encode()),
        lambda: search.parse_condition(text, "Observation"),
    ]
    for reading in readings:
        with pytest.raises(Refused) as refused:
            reading()
        assert refused.value.reason is Reason.REQUEST_MALFORMED
        assert "124" not in refused.value.detail


@given(st.text(max_size=12), st.text(max_size=6))
def test_any_name_is_read_as_it_is_or_refused(name: str, value: str) -> None:
    try:
        parameters = search.parse(f"{quote(name, safe='')}={quote(value, safe='')}")
    except Refused:
        return
    assert [(item.name, item.value) for item in parameters.items] == [(name, value)]
    assert name.isascii()
    assert name.replace("_", "").replace("-", "").replace(".", "").replace(":", "").isalnum() or set(name) <= set("_-")


def test_parameters_are_read_in_order_and_empty_pairs_count_for_nothing() -> None:
    parameters = search.parse("a=1&b:exact=2%2C3&&c&pat%69ent=4+5&")
    assert [tuple(item)[:3] for item in parameters.items] == [
        ("a", "a", "1"),
        ("b:exact", "b", "2,3"),
        ("c", "c", ""),
        ("patient", "patient", "4 5"),
    ]
    assert parameters.is_complete
    assert not parameters.is_ambiguous
    assert not search.parse("&&")
    assert [item.value for item in search.parse("a=4+5&b=6").items] == ["4 5", "6"]
    assert [item.value for item in search.parse("a=%34&b=6").items] == ["4", "6"]
    assert search.parse("") == search.NONE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("&".join(["a=1"] * search.PARAMETERS_MAX), False),
        ("&".join(["a=1"] * (search.PARAMETERS_MAX + 1)), True),
        ("a=1;b=2", True),
        ("_format=application/fhir+json;fhirVersion=4.0", False),
        ("_format=application/fhir%2Bjson;fhirVersion=4.0&code=x;y", True),
        ("_format=json;patient=124", True),
        ("_format=json;fhirVersion=4.0;patient=124", True),
        ("x_format=json;fhirVersion=4.0", True),
        ("code=a%3Bb", False),
    ],
)
def test_what_servers_may_divide_elsewhere_is_ambiguous(text: str, expected: bool) -> None:  # noqa: FBT001
    assert search.parse(text).is_ambiguous is expected


FORMS_AT_FAULT = {
    "encoded NUL": b"patient=123&_include%00=Observation:performer",
    "encoded control": b"_include%01=*",
    "encoded control in a value": b"patient=123%0A",
    "encoded delete": b"patient=1%7F23",
    "control": b"patient=123\x00",
    "newline": b"patient=123\n",
    "space": b"patient= 123",
    "not ASCII": "name=M\u00fcller".encode(),
    "deflated": bytes.fromhex("785e2b48"),
    "bad percent-encoding": b"patient=%z",
    "cut percent-encoding": b"patient=123%4",
    "overlong": b"patient=%C0%AE",
    "half a character": b"name=M%C3ller",
}


@pytest.mark.parametrize("form", FORMS_AT_FAULT.values(), ids=FORMS_AT_FAULT.keys())
def test_form_follows_the_rules_of_a_query(form: bytes) -> None:
    with pytest.raises(Refused) as refused:
        search.parse_form(form)
    assert refused.value.reason is Reason.REQUEST_MALFORMED


def test_ordinary_form_is_read() -> None:
    assert search.parse_form(b"") == search.NONE
    parameters = search.parse_form(b"patient=123&name=M%C3%BCller&code=http%3A%2F%2Floinc.org%7C8480-6")
    assert [item.value for item in parameters.items] == ["123", "M\u00fcller", "http://loinc.org|8480-6"]


@pytest.mark.parametrize(
    ("header", "expected", "ambiguous"),
    [
        ("identifier=http://x|1", [("identifier", "http://x|1")], False),
        ("?identifier=1&status=active", [("identifier", "1"), ("status", "active")], False),
        (" identifier=1,2", [("identifier", "1,2")], False),
        ("Patient?identifier=1", [("identifier", "1")], False),
        ("https://api.example.org/fhir/Patient?identifier=urn%3Amrn%7C1", [("identifier", "urn:mrn|1")], False),
        ("/fhir/Patient?identifier=1", [("identifier", "1")], False),
        ("Patient?", [], False),
        ("identifier=1,=2", [("identifier", "1,=2")], True),
        ("identifier=1&status=a,b&code=c", [("identifier", "1"), ("status", "a,b"), ("code", "c")], False),
        ("identifier=1,_has:Observation:patient:code=2", [("identifier", "1,_has:Observation:patient:code=2")], True),
    ],
)
def test_condition_is_read_as_the_search_that_it_is(
    header: str,
    expected: list[tuple[str, str]],
    ambiguous: bool,  # noqa: FBT001
) -> None:
    parameters = search.parse_condition(header, "Patient")
    assert [(item.name, item.value) for item in parameters.items] == expected
    assert parameters.is_ambiguous is ambiguous


@pytest.mark.parametrize(
    "header", ["Observation?code=x", "https://x/fhir/Observation?code=x", "Patients?a=b", "a/b?c=d"]
)
def test_condition_on_another_type_is_refused(header: str) -> None:
    with pytest.raises(Refused) as refused:
        search.parse_condition(header, "Patient")
    assert refused.value.reason is Reason.REQUEST_MALFORMED


@pytest.mark.parametrize(
    ("by", "certain"),
    [
        (SearchByPost.BOTH, ["query", "both", "both", "form"]),
        (SearchByPost.FORM, ["both", "both", "form"]),
        (SearchByPost.QUERY, ["query", "both", "both"]),
    ],
)
def test_what_counts_of_a_search_by_post_is_what_the_server_reads(by: SearchByPost, certain: list[str]) -> None:
    found = search.joined_by_post(search.parse("query=1&both=1"), search.parse("both=1&form=1"), by)
    assert sorted(item.name for item in found.items) == ["both", "both", "form", "query"]
    assert sorted(item.name for item in found.items if item.is_certain) == sorted(certain)
    other = search.joined_by_post(search.parse("both=1"), search.parse("both=2"), SearchByPost.FORM)
    assert [item.is_certain for item in other.items] == [True, False]


def test_query_and_form_are_one() -> None:
    query, form = search.parse("a=1"), search.parse("b=2;c=3")
    both = search.joined(query, form)
    assert [item.name for item in both.items] == ["a", "b"]
    assert both.is_ambiguous
    assert search.joined(form, query).is_ambiguous
    unseen: Parameters = query._replace(is_complete=False)
    assert not search.joined(unseen, query).is_complete
    half = search.parse("&".join(["a=1"] * (search.PARAMETERS_MAX // 2 + 1)))
    assert search.joined(half, half).is_ambiguous
    assert not search.joined(query, query).is_ambiguous


def test_names_of_any_length_are_read_alike() -> None:
    for length in (search.NAME_CACHED_MAX_CHARACTERS, search.NAME_CACHED_MAX_CHARACTERS + 1):
        name = "_" + "x" * (length - 1)
        assert search.parse(f"{name}=1").items[0].effect is Effect.UNKNOWN
        with pytest.raises(Refused):
            search.parse(f"{name}[]=1")


def test_what_is_kept_of_strangers_names_is_bounded() -> None:
    def names(start: int) -> list[str]:
        return [f"{start + number:_>{search.NAME_CACHED_MAX_CHARACTERS}}" for number in range(search.NAMES_CACHED_MAX)]

    def read_all(start: int) -> None:
        for name in names(start):
            search.parse(f"{name}=1&{name}{'n' * 1000}=1")

    read_all(10**6)
    tracemalloc.start()
    read_all(2 * 10**6)
    read_all(3 * 10**6)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500 * search.NAMES_CACHED_MAX


def test_condition_says_what_the_servers_own_parameters_do() -> None:
    declared = {"_with": Effect.NARROWS}
    assert search.parse_condition("_with=x", "Patient", declared).items[0].effect is Effect.NARROWS
    assert search.parse_condition("_with=x", "Patient").items[0].effect is Effect.UNKNOWN
