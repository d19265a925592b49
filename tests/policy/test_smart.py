"""SMART scopes: the grammar of v1 and v2, and nothing near it."""

from __future__ import annotations

import re
from string import ascii_letters, ascii_uppercase

import pytest
from alphabet import HEX, VISIBLE, taken, without
from hypothesis import given
from hypothesis import strategies as st

from authz.policy.smart import SCOPE_MAX_CHARACTERS, SCOPE_PATTERN, Scope, intersect, parse_scope

GRANTS = {
    "patient/Patient.read": "rs",
    "user/*.write": "cud",
    "system/Observation.*": "cruds",
    "patient/*.cruds": "cruds",
    "patient/Observation.rs": "rs",
    "patient/Observation.c": "c",
    "system/FutureType.us": "us",
    "patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory": "rs",
    "patient/Observation.s?category=a&status=b": "s",
}
NONE = [
    "",
    "patient/Patient.",
    "patient/Patient.druc",
    "patient/Patient.sr",
    "patient/Patient.rr",
    "patient/Patient.x",
    "patient/Patient.READ",
    "patient/patient.read",
    "Patient/Patient.read",
    "patient/Patient",
    "patient/.read",
    "patient/Patient.read?x=y",
    "patient/Patient.*?x=y",
    "patient/Patient.rs?",
    "patient/Patient.rs?x",
    "patient/Patient.rs?=y",
    "patient/Patient.rs?x=",
    "patient/Patient.rs?x=y&",
    "patient/Patient.rs?x=%zz",
    "patient/Patient.rs?x=y?z=w",
    "patient/Patient.rs?code:in=x",
    "patient/Patient.rs?subject.name=x",
    "patient/Patient.rs?_filter=x",
    "patient/Patient.rs?_has=x",
    "patient/Patient.rs?c%6fde=x",
    "patient/Patient.rs?" + "&".join(f"a{n}=b" for n in range(9)),
    "patient/Patient.read\n",
    " patient/Patient.read",
    "patient/Observation.rs?code=a patient/*.cruds",
    "patient/Observation.rs?code=a\r\nx-evil: 1",
    'patient/Observation.rs?code="a"',
    "patient/Observation.rs?code=\u00e9",
    "launch/patient",
    "openid",
    "group/Patient.read",
    "patient/Pat ient.read",
    "patient/Patient.rs?x=" + "a" * SCOPE_MAX_CHARACTERS,
]


@pytest.mark.parametrize(("text", "letters"), GRANTS.items())
def test_scope_grants_its_letters(text: str, letters: str) -> None:
    scope = parse_scope(text)
    assert scope is not None
    assert scope.letters == frozenset(letters)
    assert scope.text == text


@pytest.mark.parametrize("text", GRANTS)
def test_schemas_refuse_no_scope(text: str) -> None:
    assert re.search(SCOPE_PATTERN, text)
    assert "?P<" not in SCOPE_PATTERN


@pytest.mark.parametrize("text", NONE)
def test_what_is_not_a_clinical_scope_grants_nothing(text: str) -> None:
    assert parse_scope(text) is None


PLACES = [
    ("patient/{}.rs", ascii_uppercase + "*"),
    ("patient/A{}.rs", ascii_letters),
    ("patient/Aa{}r", "."),
    ("patient/A.{}", "cruds*"),
    ("patient/A.c{}", "ruds"),
    ("patient/A.cruds{}", ""),
    ("patient/A.rs?a={}", without(VISIBLE, '"\\?%&')),
    ("patient/A.rs?a=b{}", without(VISIBLE, '"\\?%&')),
    ("patient/A.rs?{}=b", without(VISIBLE, '"\\?%&:.=')),
    ("patient/A.rs?a{}=b", without(VISIBLE, '"\\?%&:.')),
    ("patient/A.rs?a=%{}0", HEX),
    ("patient/A.rs?a=%0{}", HEX),
    ("patient/A.rs?a=%{}", ""),
]


@pytest.mark.parametrize(("frame", "expected"), PLACES)
def test_characters_in_each_place(frame: str, expected: str) -> None:
    assert taken(frame, parse_scope) == set(expected)


@pytest.mark.parametrize(
    "letters", ["cc", "ccruds", "rr", "crruds", "uu", "cruuds", "dd", "ruddds", "ss", "crudss", ""]
)
def test_no_letter_stands_twice(letters: str) -> None:
    assert parse_scope(f"patient/Observation.{letters}") is None


def test_lengths_end_where_they_say() -> None:
    assert parse_scope("patient/" + "A" * 64 + ".rs")
    assert not parse_scope("patient/" + "A" * 65 + ".rs")
    longest = "patient/Patient.rs?x=".ljust(512, "a")
    assert parse_scope(longest)
    assert not parse_scope(longest + "a")
    assert parse_scope("patient/Patient.rs?" + "&".join(f"a{n}=b" for n in range(8)))
    assert not parse_scope("patient/Patient.rs?" + "&".join(f"a{n}=b" for n in range(9)))


def test_names_near_the_experimental_ones_are_ordinary() -> None:
    for name in ("_filters", "x_filter", "_has_x", "x_has", "_lastUpdated"):
        assert parse_scope(f"patient/Observation.rs?{name}=x")


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        ("patient/A.ru", "patient/A.rs", "patient/A.r"),
        ("patient/A.cr", "patient/A.ds", None),
        ("patient/A.rs", "patient/B.rs", None),
        ("patient/*.ru", "patient/A.rs", "patient/A.r"),
        ("patient/A.ru", "patient/*.rs", "patient/A.r"),
        ("patient/*.ru", "patient/*.rs", "patient/*.r"),
        ("patient/A.cruds", "user/A.cruds", None),
        ("patient/A.write", "patient/A.crs?a=b", "patient/A.c?a=b"),
        ("patient/A.rs?a=1&b=2", "patient/A.ru?b=2&c=3", "patient/A.r?a=1&b=2&c=3"),
        ("patient/A.rs?b=2&a=1", "patient/A.rs?c=%7C", "patient/A.rs?b=2&a=1&c=%7C"),
        ("patient/A.*", "patient/*.cruds?a=1", "patient/A.cruds?a=1"),
        ("patient/A.rs?a=1", "patient/A.rs?a=2", None),
        ("patient/A.rs?a=1&a=2", "patient/A.rs?a=1", None),
        ("patient/A.rs?a=1&a=2", "patient/A.rs?a=2&a=1", "patient/A.rs?a=1&a=2"),
        ("patient/A.rs?a=1&b=1", "patient/A.rs?a=1&c=1", "patient/A.rs?a=1&b=1&c=1"),
    ],
)
def test_intersection_is_what_both_allow(left: str, right: str, common: str | None) -> None:
    first, second = parse_scope(left), parse_scope(right)
    assert first is not None
    assert second is not None
    found = intersect(first, second)
    assert (None if found is None else found.text) == common
    assert found == (None if common is None else parse_scope(common))


def test_value_of_a_filter_may_have_an_equals_sign() -> None:
    scope = parse_scope("patient/Observation.s?code=a=b")
    assert scope is not None
    assert scope.filters == frozenset({("code", "a=b")})


def test_filters_are_decoded() -> None:
    scope = parse_scope("patient/Observation.s?category=http%3A%2F%2Fx%7Clab")
    assert scope is not None
    assert scope.filters == frozenset({("category", "http://x|lab")})


SCOPES = st.builds(
    "{}/{}.{}{}".format,
    st.sampled_from(["patient", "system"]),
    st.sampled_from(["*", "Patient", "Observation"]),
    st.sampled_from(["r", "rs", "cud", "s", "cruds"]),
    st.sampled_from(["", "?a=b", "?a=c", "?a=b&c=d"]),
).map(parse_scope)


@given(SCOPES, SCOPES)
def test_intersection_is_covered_by_both_and_reads_back(left: Scope, right: Scope) -> None:
    common = intersect(left, right)
    other = intersect(right, left)
    assert (common is None) == (other is None)
    if common is None or other is None:
        return
    assert left.covers(common)
    assert right.covers(common)
    assert common.covers(other)
    assert other.covers(common)
    again = parse_scope(common.text)
    assert again is not None
    assert again.covers(common)
    assert common.covers(again)


@given(SCOPES, SCOPES)
def test_what_one_scope_covers_intersects_to_itself(left: Scope, right: Scope) -> None:
    if left.covers(right):
        assert intersect(right, left) == right


@given(st.text())
def test_any_text_is_a_scope_or_none(text: str) -> None:
    scope = parse_scope(text)
    assert scope is None or scope.text == text
