"""SMART scopes: the grammar of v1 and v2, and nothing near it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.policy.smart import SCOPE_MAX_CHARACTERS, Scope, intersect, parse_scope

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


@pytest.mark.parametrize("text", NONE)
def test_what_is_not_a_clinical_scope_grants_nothing(text: str) -> None:
    assert parse_scope(text) is None


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
