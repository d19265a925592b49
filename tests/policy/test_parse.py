"""What is wrong with a document: in whose words, and where."""

from __future__ import annotations

import pytest
from partner import policy_document

from authz.policy import FieldError, Path, parse


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), ""),
        (("spec",), "spec"),
        (("spec", "quotas", 0, "per"), "spec.quotas[0].per"),
        (("spec", "a", 1, 2), "spec.a[1][2]"),
        ((0, "a"), "[0].a"),
    ],
)
def test_place_is_written_as_people_write_it(path: Path, place: str) -> None:
    error = FieldError(path=path, message="expected x")
    assert error.place == place
    assert str(error) == f"{place}: expected x"


def told(**spec: object) -> list[str]:
    found = parse(policy_document() | {"spec": {"clientId": "a", **spec}})
    assert isinstance(found, tuple)
    return [str(error) for error in found]


def test_wording_is_ours_where_pydantic_speaks_of_itself() -> None:
    assert told(x=1) == ["spec.x: no such field"]
    assert told(quotas=[{"name": "a", "per": "1s"}]) == ["spec.quotas[0].requests: required, but not given"]
    assert told(routes=[{"name": "a", "match": {}, "scopes": {"anyOf": ["x"]}}]) == [
        "spec.routes[0].match: needs exactly one of path, pathPrefix"
    ]


def test_list_is_not_too_short_because_an_item_in_it_is_bad() -> None:
    assert told(token={"issuers": ["A"]}) == [
        "spec.token.issuers[0]: " + told(token={"issuers": ["A"]})[0].split(": ")[1]
    ]
    (short,) = told(token={"issuers": []})
    assert short.startswith("spec.token.issuers: ")
    both = told(token={"issuers": []}, certificate={"source": "External", "fingerprints": ["x"]})
    assert [line.split(":")[0] for line in both] == ["spec.certificate.fingerprints[0]", "spec.token.issuers"]


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), b"a", object()])
def test_what_is_no_plain_value_is_said_once(value: object) -> None:
    (line,) = told(x=value)
    assert line == ": expected plain maps, lists, strings, numbers and booleans"
