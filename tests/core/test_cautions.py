"""What a policy says that this platform never does, or does whatever the policy says."""

from __future__ import annotations

from typing import Any

import pytest
from partner import policy_document

from authz.core.cautions import Platform, cautions_on
from authz.core.public import PublicRoutes
from authz.policy import ClientPolicy, parse

PUBLIC = PublicRoutes(exact=frozenset({("GET", "/health")}), below=(("GET", "/docs/"), ("POST", "/docs/")))


def told(base_path: str = "/fhir", **spec: Any) -> list[str]:
    policy = parse(policy_document(**spec))
    assert isinstance(policy, ClientPolicy), policy
    own = frozenset({"birth-clinic"})
    platform = Platform(issuers=frozenset({"a", "b"}), base_path=base_path, public=PUBLIC, parameters=own)
    return [str(caution) for caution in cautions_on(policy, platform)]


def matching(**match: Any) -> dict[str, Any]:
    return {"routes": [{"name": "r", "match": match, "scopes": {"anyOf": ["system/*.r"]}}]}


ORDINARY: dict[str, dict[str, Any]] = {
    "no issuers": {},
    "known issuers": {"token": {"issuers": ["b", "a"]}},
    "a parameter that the platform declares": {"scopes": ["user/Patient.s?birth-clinic=7", "user/*.s?birth-clinic=7"]},
    "a route elsewhere": matching(pathPrefix="/export/"),
    "a path that begins like FHIR": matching(pathPrefix="/fhirs"),
    "an exact path above FHIR": matching(path="/"),
    "a route beside a public one": matching(pathPrefix="/doc"),
    "a route around a public path": matching(pathPrefix="/health"),
    "a path where what is below it is public": matching(path="/docs/"),
    "a public path, by another method": matching(path="/docs/a", methods=["PUT"]),
}


@pytest.mark.parametrize("spec", ORDINARY.values(), ids=ORDINARY.keys())
def test_nothing_is_told_of_an_ordinary_policy(spec: dict[str, Any]) -> None:
    assert told(**spec) == []


def test_unknown_issuer_is_told_with_those_that_there_are() -> None:
    assert told(token={"issuers": ["a", "c"]}) == [
        "spec.token.issuers[1]: no issuer of the configuration is called `c` (those are: a, b): no token of it is accepted"
    ]


@pytest.mark.parametrize(
    ("match", "base_path", "field"),
    [
        ({"path": "/fhir/Patient"}, "/fhir", "path"),
        ({"path": "/fhir"}, "/fhir", "path"),
        ({"pathPrefix": "/fhir/"}, "/fhir", "pathPrefix"),
        ({"pathPrefix": "/FHIR/x"}, "/fhir", "pathPrefix"),
        ({"pathPrefix": "/fhir/r4/Patient"}, "/fhir/R4", "pathPrefix"),
        ({"path": "/export"}, "", "path"),
        ({"path": "/Fhir/Patient.json"}, "/fhir", "path"),
    ],
)
def test_route_on_a_fhir_path_is_never_asked(match: dict[str, Any], base_path: str, field: str) -> None:
    (found,) = told(base_path, **matching(**match))
    assert found.startswith(f"spec.routes[0].match.{field}: below {base_path or '/'} FHIR is served")


@pytest.mark.parametrize(("prefix", "base_path"), [("/", "/fhir"), ("/api", "/api/fhir"), ("/API/", "/api/fhir")])
def test_route_around_fhir_reaches_all_else(prefix: str, base_path: str) -> None:
    (found,) = told(base_path, **matching(pathPrefix=prefix))
    assert found.startswith(f"spec.routes[0].match.pathPrefix: reaches around FHIR at {base_path}")


@pytest.mark.parametrize(
    ("match", "rules"),
    [
        ({"path": "/health"}, ["GET /health"]),
        ({"path": "/docs/a", "methods": ["GET"]}, ["GET /docs/*"]),
        ({"path": "/docs/a"}, ["GET /docs/*", "POST /docs/*"]),
        ({"pathPrefix": "/docs/"}, ["GET /docs/*", "POST /docs/*"]),
        ({"pathPrefix": "/docs/a", "methods": ["POST", "PUT"]}, ["POST /docs/*"]),
    ],
)
def test_route_that_is_public_anyway_is_told(match: dict[str, Any], rules: list[str]) -> None:
    found = told(**matching(**match))
    assert [one.split("`")[1] for one in found] == rules


def test_what_the_document_alone_tells_comes_first() -> None:
    assert told(scopes=["patient/Pateint.read"], token={"issuers": ["c"]})[0].startswith("spec.scopes[0]")
