"""What a valid policy says that nobody can have meant is told, by field; ordinary policies say none of it."""

from __future__ import annotations

from typing import Any

import pytest
from partner import policy_document

from authz.policy import ClientPolicy, parse
from authz.policy.cautions import R4, cautions


def policy(**spec: Any) -> ClientPolicy:
    parsed = parse(policy_document(**spec))
    assert isinstance(parsed, ClientPolicy), parsed
    return parsed


def route(name: str, scope: str = "system/*.r", **match: Any) -> dict[str, Any]:
    return {"name": name, "match": match, "scopes": {"anyOf": [scope]}}


ORDINARY: dict[str, dict[str, Any]] = {
    "reads": {"scopes": ["patient/Patient.read", "patient/Observation.rs", "user/*.cruds", "system/*.*"]},
    "filters": {
        "scopes": [
            "patient/Observation.rs?category=laboratory",
            "user/Condition.s?category=problem-list-item&clinical-status=active",
            "patient/*.rs?_security=R",
            "system/*.s?code=x",
            "patient/Patient.rs?_tag=x&_id=1",
        ]
    },
    "routes": {
        "routes": [
            route("a", path="/export/status"),
            route("b", pathPrefix="/export/"),
            route("c", pathPrefix="/exports"),
            route("d", pathPrefix="/"),
        ]
    },
    "a route of another scope": {"routes": [route("a", "export.run", path="/a")], "otherScopes": ["export.run"]},
    "routes by method": {"routes": [route("a", path="/a", methods=["GET"]), route("b", path="/a")]},
    "routes by another method": {
        "routes": [route("a", pathPrefix="/a", methods=["GET"]), route("b", path="/a", methods=["GET", "POST"])]
    },
    "an exact path before what is below it": {"routes": [route("a", path="/a"), route("b", pathPrefix="/a")]},
    "nothing": {"scopes": []},
}


@pytest.mark.parametrize("spec", ORDINARY.values(), ids=ORDINARY.keys())
def test_nothing_is_told_of_an_ordinary_policy(spec: dict[str, Any]) -> None:
    assert list(cautions(policy(**spec), R4)) == []


TOLD: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "a type that does not exist": (
        {"scopes": ["patient/Patient.read", "patient/Pateint.read"]},
        [("spec.scopes[1]", "FHIR R4 has no resource type `Pateint`: this grants nothing")],
    ),
    "a type in another case": ({"scopes": ["system/PATIENT.rs"]}, [("spec.scopes[0]", "no resource type `PATIENT`")]),
    "a type of no instances": ({"scopes": ["system/Resource.rs"]}, [("spec.scopes[0]", "no resource type `Resource`")]),
    "its filter is not told, too": ({"scopes": ["user/Pateint.s?nmae=x"]}, [("spec.scopes[0]", "no resource type")]),
    "a filter that does not exist": (
        {"scopes": ["patient/Observation.rs?catgory=laboratory"]},
        [("spec.scopes[0]", "no search parameter `catgory` of Observation, and a server ignores what it does not know: this grants nothing")],
    ),
    "a filter of another type": ({"scopes": ["user/Patient.s?code=x"]}, [("spec.scopes[0]", "`code` of Patient")]),
    "a filter of no type": ({"scopes": ["user/*.s?catgory=x"]}, [("spec.scopes[0]", "`catgory` of *")]),
    "a result parameter": ({"scopes": ["user/*.s?_count=1"]}, [("spec.scopes[0]", "`_count` of *")]),
    "two filters": (
        {"scopes": ["user/Patient.s?b=1&a=1&name=x"]},
        [("spec.scopes[0]", "`a` of Patient"), ("spec.scopes[0]", "`b` of Patient")],
    ),
    "a filter without a search": (
        {"scopes": ["patient/Observation.r?category=x"]},
        [("spec.scopes[0]", "a filter opens searches alone")],
    ),
    "in a route": (
        {
            "routes": [
                {"name": "a", "match": {"path": "/a"}, "scopes": {"allOf": ["system/Patient.r", "system/Pateint.r"]}},
                {"name": "b", "match": {"path": "/b"}, "scopes": {"anyOf": ["system/Grup.r"]}},
            ]
        },
        [
            ("spec.routes[0].scopes.allOf[1]", "no resource type `Pateint`"),
            ("spec.routes[1].scopes.anyOf[0]", "no resource type `Grup`"),
        ],
    ),
    "a route behind a wider one": (
        {"routes": [route("a", pathPrefix="/export"), route("b", path="/export/admin", methods=["GET"])]},
        [("spec.routes[1]", "never reached: spec.routes[0] matches all of it first")],
    ),
    "a prefix behind a wider one": (
        {"routes": [route("a", pathPrefix="/export/", methods=["GET", "PUT"]), route("b", pathPrefix="/export/x", methods=["GET"])]},
        [("spec.routes[1]", "never reached: spec.routes[0]")],
    ),
    "the same path again": (
        {"routes": [route("a", path="/b"), route("b", path="/a"), route("c", path="/a")]},
        [("spec.routes[2]", "never reached: spec.routes[1]")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), TOLD.values(), ids=TOLD.keys())
def test_what_grants_nothing_or_is_never_reached_is_told_by_field(
    spec: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    found = list(cautions(policy(**spec), R4))
    assert [caution.place for caution in found] == [place for place, _ in expected]
    assert all(told in caution.message for caution, (_, told) in zip(found, expected, strict=True)), found
