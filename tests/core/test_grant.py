"""SMART traps: a scope opens what it says and no more, and a patient's app stays with its patient."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import policy_document
from scoped import DELEGATE, DENY, READ, claims, client, decide, reason, request

from authz.core import grant
from authz.model import Client, Compartment, Fhir, Grant, Reason, Refused
from authz.policy import ClientPolicy, parse
from authz.policy.smart import Scope

ORDINARY = [
    "GET /fhir/Patient/123",
    "HEAD /fhir/Patient/123",
    "GET /fhir/Patient/123/_history",
    "GET /fhir/Patient/123/_history/4",
    "GET /fhir/Patient?_id=123",
    "GET /fhir/Patient?_id=123&_elements=name",
    "GET /fhir/Patient/123/Observation",
    "GET /fhir/Patient/123/Observation?code=http://loinc.org%7C8480-6&_sort=-date&_count=50",
    "GET /fhir/Patient/123/*",
    "GET /fhir/Observation?patient=123",
    "GET /fhir/Observation?patient=Patient/123",
    "GET /fhir/Observation?subject=Patient/123",
    "GET /fhir/Observation?subject=Patient%2F123&category=vital-signs",
    "GET /fhir/Observation?patient=123&patient=Patient/123",
    "GET /fhir/Observation?patient=123&category=http://terminology.hl7.org/CodeSystem/observation-category%7Claboratory",
    "GET /fhir/Observation?patient=123&date=ge2026-01-01&date=lt2026-02-01&_sort=-date&_count=100",
    "GET /fhir/Observation?patient=123&code=8480-6,8462-4&_total=accurate&_format=json",
    "GET /fhir/Observation?patient=123&code:in=http://example.org/vs&_lastUpdated=gt2026-01-01",
    "GET /fhir/Observation?patient=123&performer=Practitioner/9",
    "GET /fhir/Observation?patient=123&_format=application/fhir+json;fhirVersion=4.0",
    "GET /fhir/Observation?patient=123&value-quantity=gt5.4%7Chttp://unitsofmeasure.org%7Cmg",
    "GET /fhir/Condition?patient=123&clinical-status=active&category:not=x",
    "GET /fhir/Condition?subject=Patient/123",
    "GET /fhir/MedicationRequest?patient=123&status=active&intent=order",
    "GET /fhir/AllergyIntolerance?patient=123&clinical-status=active",
    "GET /fhir/Encounter?patient=123&date=ge2020-01-01&_sort=date",
    "GET /fhir/DocumentReference?patient=123&type=http://loinc.org%7C34133-9",
    "GET /fhir/Coverage?beneficiary=123",
    "GET /fhir/Immunization?patient=123&_summary=count",
    "GET /fhir/Observation?patient=123&encounter=https://other.example.org/Encounter/1",
]
TRAPS = {
    "another patient": ("GET /fhir/Patient/124", Reason.PATIENT_MISMATCH),
    "another patient's history": ("GET /fhir/Patient/124/_history/1", Reason.PATIENT_MISMATCH),
    "another patient's compartment": ("GET /fhir/Patient/124/Observation", Reason.PATIENT_MISMATCH),
    "another patient's everything": ("GET /fhir/Patient/124/$everything", Reason.PATIENT_MISMATCH),
    "id in other case": ("GET /fhir/Patient?_id=123A", Reason.PATIENT_MISMATCH),
    "search by another id": ("GET /fhir/Patient?_id=124", Reason.PATIENT_MISMATCH),
    "search pinned elsewhere": ("GET /fhir/Observation?patient=124", Reason.PATIENT_MISMATCH),
    "typed elsewhere": ("GET /fhir/Observation?subject=Patient/124", Reason.PATIENT_MISMATCH),
    "comma-OR": ("GET /fhir/Observation?patient=123,124", Reason.PATIENT_MISMATCH),
    "comma-OR encoded": ("GET /fhir/Observation?patient=123%2C124", Reason.PATIENT_MISMATCH),
    "comma-OR ids": ("GET /fhir/Patient?_id=123,124", Reason.PATIENT_MISMATCH),
    "repeated": ("GET /fhir/Observation?patient=123&patient=124", Reason.PATIENT_MISMATCH),
    "repeated with encoded name": ("GET /fhir/Observation?patient=123&pat%69ent=124", Reason.PATIENT_MISMATCH),
    "two pins that disagree": ("GET /fhir/Observation?patient=123&subject=Patient/124", Reason.PATIENT_MISMATCH),
    "inside own compartment": ("GET /fhir/Patient/123/Observation?patient=124", Reason.PATIENT_MISMATCH),
    "search unpinned": ("GET /fhir/Observation?code=x", Reason.COMPARTMENT_UNDECIDABLE),
    "search without parameters": ("GET /fhir/Observation", Reason.COMPARTMENT_UNDECIDABLE),
    "patients by name": ("GET /fhir/Patient?name=x", Reason.COMPARTMENT_UNDECIDABLE),
    "patients by link": ("GET /fhir/Patient?link=Patient/123", Reason.COMPARTMENT_UNDECIDABLE),
    "typed id of a patient search": ("GET /fhir/Patient?_id=Patient/123", Reason.COMPARTMENT_UNDECIDABLE),
    "semicolon in the format": (
        "GET /fhir/Observation?patient=123&_format=json;patient=124",
        Reason.COMPARTMENT_UNDECIDABLE,
    ),
    "linked patients": ("GET /fhir/Patient/123/Patient", Reason.COMPARTMENT_UNDECIDABLE),
    "empty pin": ("GET /fhir/Observation?patient=", Reason.COMPARTMENT_UNDECIDABLE),
    "pin and empty": ("GET /fhir/Observation?patient=123,", Reason.COMPARTMENT_UNDECIDABLE),
    "pin without value": ("GET /fhir/Observation?patient", Reason.COMPARTMENT_UNDECIDABLE),
    "unknown parameter": ("GET /fhir/Observation?pationt=123", Reason.COMPARTMENT_UNDECIDABLE),
    "parameter of another type": ("GET /fhir/Observation?beneficiary=123", Reason.COMPARTMENT_UNDECIDABLE),
    "parameter in other case": ("GET /fhir/Observation?Patient=123", Reason.COMPARTMENT_UNDECIDABLE),
    "pin and other case": ("GET /fhir/Observation?patient=123&PATIENT=124", Reason.COMPARTMENT_UNDECIDABLE),
    "untyped where others fit": ("GET /fhir/Observation?subject=123", Reason.COMPARTMENT_UNDECIDABLE),
    "patient or group": ("GET /fhir/Observation?subject=Patient/123,Group/5", Reason.COMPARTMENT_UNDECIDABLE),
    "type not in the table": ("GET /fhir/Organization?patient=123", Reason.COMPARTMENT_UNDECIDABLE),
    "type not in the compartment": ("GET /fhir/Patient/123/Organization", Reason.COMPARTMENT_UNDECIDABLE),
    "read of another type": ("GET /fhir/Observation/1", Reason.COMPARTMENT_UNDECIDABLE),
    "absolute URL": (
        "GET /fhir/Observation?subject=https://evil.example.org/Patient/123",
        Reason.COMPARTMENT_UNDECIDABLE,
    ),
    "version": ("GET /fhir/Observation?subject=Patient/123/_history/1", Reason.COMPARTMENT_UNDECIDABLE),
    "escaped comma": ("GET /fhir/Observation?patient=123\\,124", Reason.PATIENT_MISMATCH),
    "modifier on the pin": ("GET /fhir/Observation?subject:Patient=123", Reason.COMPARTMENT_UNDECIDABLE),
    "not": ("GET /fhir/Observation?patient:not=123", Reason.COMPARTMENT_UNDECIDABLE),
    "missing": ("GET /fhir/Observation?patient=123&patient:missing=true", Reason.COMPARTMENT_UNDECIDABLE),
    "identifier": ("GET /fhir/Observation?patient:identifier=123", Reason.COMPARTMENT_UNDECIDABLE),
    "chain on the pin": ("GET /fhir/Observation?patient.name=x", Reason.COMPARTMENT_UNDECIDABLE),
    "chain beside the pin": ("GET /fhir/Observation?patient=123&encounter.status=x", Reason.COMPARTMENT_UNDECIDABLE),
    "_include": ("GET /fhir/Observation?patient=123&_include=Observation:subject", Reason.COMPARTMENT_UNDECIDABLE),
    "_include in other case": (
        "GET /fhir/Observation?patient=123&_Include=Observation:subject",
        Reason.COMPARTMENT_UNDECIDABLE,
    ),
    "_include:iterate": ("GET /fhir/Observation?patient=123&_include:iterate=*", Reason.COMPARTMENT_UNDECIDABLE),
    "_revinclude": ("GET /fhir/Patient?_id=123&_revinclude=Provenance:target", Reason.COMPARTMENT_UNDECIDABLE),
    "_has": ("GET /fhir/Patient?_id=123&_has:Observation:patient:code=x", Reason.COMPARTMENT_UNDECIDABLE),
    "_filter": ("GET /fhir/Observation?patient=123&_filter=x", Reason.COMPARTMENT_UNDECIDABLE),
    "_contained": ("GET /fhir/Observation?patient=123&_contained=true", Reason.COMPARTMENT_UNDECIDABLE),
    "_query": ("GET /fhir/Observation?patient=123&_query=x", Reason.COMPARTMENT_UNDECIDABLE),
    "semicolons": ("GET /fhir/Observation?patient=123;patient=124", Reason.COMPARTMENT_UNDECIDABLE),
    "system search": ("GET /fhir?_type=Observation&patient=123", Reason.COMPARTMENT_UNDECIDABLE),
    "type history": ("GET /fhir/Observation/_history", Reason.COMPARTMENT_UNDECIDABLE),
    "compartment of another type": ("GET /fhir/Encounter/1/Observation", Reason.COMPARTMENT_UNDECIDABLE),
    "everything with an include": ("GET /fhir/Patient/123/$everything?_include=*", Reason.COMPARTMENT_UNDECIDABLE),
}


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_request_of_a_patients_app_passes(line: str) -> None:
    assert decide(line, *READ).compartment is None


@pytest.mark.parametrize(("line", "expected"), TRAPS.values(), ids=TRAPS.keys())
def test_trap_is_refused(line: str, expected: Reason) -> None:
    assert reason(line, *READ) is expected


@pytest.mark.parametrize(("line", "expected"), TRAPS.values(), ids=TRAPS.keys())
def test_delegation_tells_the_server_and_never_opens_another_patient(line: str, expected: Reason) -> None:
    if expected is Reason.PATIENT_MISMATCH:
        assert reason(line, *READ, fhir=DELEGATE) is expected
    else:
        assert decide(line, *READ, fhir=DELEGATE).compartment == "Patient/123"


@pytest.mark.parametrize("line", [*ORDINARY, *(line for line, _ in TRAPS.values())])
def test_without_a_patient_claim_nothing_opens(line: str) -> None:
    assert reason(line, *READ, patient=None) is Reason.PATIENT_UNKNOWN
    assert reason(line, *READ, patient=None, fhir=DELEGATE) is Reason.PATIENT_UNKNOWN


@pytest.mark.parametrize("line", [line for line, _ in TRAPS.values()])
@pytest.mark.parametrize("context", ["user", "system"])
def test_user_or_system_scope_needs_no_compartment(line: str, context: str) -> None:
    assert decide(line, f"{context}/*.rs", *READ, patient=None).compartment is None


SCOPES = {
    "v1 read reads": ("GET /fhir/Patient/123", ["patient/Patient.read"], None),
    "v1 read searches": ("GET /fhir/Patient?_id=123", ["patient/Patient.read"], None),
    "v1 read does not write": ("PUT /fhir/Patient/123", ["patient/Patient.read"], "patient/Patient.write"),
    "v1 write does not read": ("GET /fhir/Patient/123", ["patient/Patient.write"], "patient/Patient.read"),
    "v1 write updates": ("PUT /fhir/Patient/123", ["patient/Patient.write"], None),
    "v1 star": ("DELETE /fhir/Patient/123", ["patient/Patient.*"], None),
    "read of one type does not search another": (
        "GET /fhir/Observation?patient=123",
        ["patient/Patient.read"],
        "patient/Observation.read",
    ),
    "v2 r does not search": ("GET /fhir/Patient?_id=123", ["patient/Patient.r"], "patient/Patient.s"),
    "v2 s does not read": ("GET /fhir/Patient/123", ["patient/Patient.s"], "patient/Patient.r"),
    "v2 u": ("PATCH /fhir/Patient/123", ["patient/Patient.u"], None),
    "v2 out of order": ("GET /fhir/Patient/123", ["patient/Patient.sr"], "patient/Patient.r"),
    "druc": ("GET /fhir/Patient/123", ["patient/Patient.druc"], "patient/Patient.r"),
    "empty suffix": ("GET /fhir/Patient/123", ["patient/Patient."], "patient/Patient.r"),
    "v1 with filter": ("GET /fhir/Patient/123", ["patient/Patient.read?x=y"], "patient/Patient.r"),
    "launch grants nothing": ("GET /fhir/Patient/123", ["launch/patient", "openid", "fhirUser"], "patient/Patient.r"),
    "conditional create": ("PUT /fhir/Observation?code=x", ["system/Observation.u"], "system/Observation.s"),
    "everything": ("GET /fhir/Patient/123/$everything", ["patient/Patient.rs"], "user/*.r user/*.s"),
    "all types": ("GET /fhir/Patient/123/*", ["patient/Observation.rs"], "patient/*.s"),
    "system search": ("GET /fhir?_type=Patient,Encounter", ["system/Patient.s"], "system/Encounter.s"),
    "filter carried": (
        "GET /fhir/Observation?patient=123&category=lab",
        ["patient/Observation.rs?category=lab"],
        None,
    ),
    "filter encoded": (
        "GET /fhir/Observation?patient=123&category=http%3A%2F%2Fx%7Clab",
        ["patient/Observation.rs?category=http://x|lab"],
        None,
    ),
    "filter not carried": (
        "GET /fhir/Observation?patient=123",
        ["patient/Observation.rs?category=lab"],
        "patient/Observation.s",
    ),
    "filter widened by comma": (
        "GET /fhir/Observation?patient=123&category=lab,vital",
        ["patient/Observation.rs?category=lab"],
        "patient/Observation.s",
    ),
    "filter with a modifier": (
        "GET /fhir/Observation?patient=123&category:not=lab",
        ["patient/Observation.rs?category=lab"],
        "patient/Observation.s",
    ),
    "filter does not read": (
        "GET /fhir/Observation/1",
        ["system/Observation.rs?category=lab"],
        "system/Observation.r",
    ),
    "filter does not write": (
        "PUT /fhir/Observation/1",
        ["system/Observation.u?category=lab"],
        "system/Observation.u",
    ),
    "two filters need both": (
        "GET /fhir/Observation?patient=123&category=lab",
        ["patient/Observation.rs?category=lab&status=final"],
        "patient/Observation.s",
    ),
    "plus is space or plus": (
        "GET /fhir/Observation?patient=123&category=a+b",
        ["patient/Observation.rs?category=a%20b"],
        "patient/Observation.s",
    ),
    "include of an ungranted type": (
        "GET /fhir/Observation?_include=Observation:subject:Patient",
        ["system/Observation.rs"],
        "system/Patient.r",
    ),
    "include of a granted type": (
        "GET /fhir/Observation?_include=Observation:subject:Patient",
        ["system/Observation.rs", "system/Patient.r"],
        None,
    ),
    "include granted with a filter only": (
        "GET /fhir/Observation?_revinclude=Provenance:target",
        ["system/Observation.rs", "system/Provenance.s?x=y"],
        "system/Provenance.s",
    ),
}


@pytest.mark.parametrize(("line", "scopes", "missing"), SCOPES.values(), ids=SCOPES.keys())
def test_scope_opens_what_it_says(line: str, scopes: list[str], missing: str | None) -> None:
    if missing is None:
        assert decide(line, *scopes)
        return
    with pytest.raises(Refused) as refused:
        decide(line, *scopes)
    assert refused.value.reason is Reason.SCOPE_MISSING
    assert " ".join(refused.value.needed) == missing


def test_include_beyond_the_system_scope_falls_back_to_the_patients_compartment() -> None:
    scopes = ("system/Observation.rs", "patient/Observation.rs")
    line = "GET /fhir/Observation?patient=123&_include=Observation:subject"
    assert reason(line, *scopes) is Reason.COMPARTMENT_UNDECIDABLE
    assert decide(line, *scopes, fhir=DELEGATE).compartment == "Patient/123"


def test_without_a_patient_the_challenge_asks_for_a_system_scope() -> None:
    with pytest.raises(Refused) as refused:
        decide("GET /fhir/Patient/1", "system/Observation.read", patient=None)
    assert refused.value.needed == ("system/Patient.read",)


EFFECTIVE = [
    (["patient/*.read"], ["patient/Patient.read", "patient/Observation.rs"], "patient/Patient.read patient/Observation.rs"),
    (["patient/Patient.read"], ["patient/*.cruds"], "patient/Patient.read"),
    (["patient/Patient.cruds"], ["patient/*.rs"], "patient/Patient.rs"),
    (["patient/Patient.read"], ["patient/Patient.rs"], "patient/Patient.read"),
    (["patient/Patient.write"], ["patient/Patient.read"], ""),
    (["system/Patient.read"], ["patient/Patient.read"], ""),
    (["user/Patient.read"], ["system/*.read"], ""),
    (["patient/Observation.rs"], ["patient/Observation.rs?category=lab"], "patient/Observation.rs?category=lab"),
    (["patient/*.cru?a=b"], ["patient/Observation.rs?c=d"], "patient/Observation.r?a=b&c=d"),
    (["export.run", "other", "openid"], ["patient/*.rs"], "export.run"),
]  # fmt: skip


@pytest.mark.parametrize(("token", "policy", "expected"), EFFECTIVE)
def test_effective_scopes_are_what_token_and_policy_share(token: list[str], policy: list[str], expected: str) -> None:
    held = grant.effective(tuple(token), client(*policy, other_scopes=frozenset({"export.run"})))
    assert " ".join(held.texts) == expected


def test_certificate_alone_holds_the_system_scopes() -> None:
    policy = client("system/Patient.rs", "patient/*.rs", "user/*.rs")

    def by_certificate(target: str) -> Grant:
        return grant.decide(request("GET", target), grant.read_target(target, DENY), policy, None, DENY)

    assert by_certificate("/fhir/Patient/9").scopes == ("system/Patient.rs",)
    with pytest.raises(Refused) as refused:
        by_certificate("/fhir/Observation/9")
    assert refused.value.needed == ("system/Observation.r",)


def test_search_by_post_is_pinned_by_its_form_and_undecidable_without() -> None:
    line = "POST /fhir/Observation/_search"
    assert decide(line, *READ, form=b"patient=123&code=x")
    assert decide(line + "?code=x", *READ, form=b"patient=123")
    assert reason(line + "?patient=123", *READ, form=b"") is Reason.COMPARTMENT_UNDECIDABLE
    assert reason(line, *READ, form=b"patient=124") is Reason.PATIENT_MISMATCH
    assert reason(line + "?patient=123", *READ, form=b"patient=124") is Reason.PATIENT_MISMATCH
    assert reason(line + "?patient=123", *READ, form=None) is Reason.COMPARTMENT_UNDECIDABLE
    assert reason("POST /fhir/Patient/123/Observation/_search", *READ, form=None) is Reason.COMPARTMENT_UNDECIDABLE


FORMS = ["_method=DELETE&patient=123", "a=b&%5Fmethod=PUT", "access_token=x", "patient=123&access%5Ftoken=x"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", ["/fhir/Observation/_search", "/export/jobs"])
def test_form_asks_for_no_other_method_and_brings_no_second_token(target: str, form: str) -> None:
    more: dict[str, Any] = {"form": form.encode(), "authorization": "Bearer x", "policy": ROUTES}
    assert reason(f"POST {target}", "export.run", "patient/*.rs", **more) is Reason.REQUEST_MALFORMED


def test_unseen_form_may_include_anything() -> None:
    line = "POST /fhir/Observation/_search?code=1"
    assert reason(line, "user/Observation.rs", form=None) is Reason.SCOPE_MISSING
    assert decide(line, "user/Observation.rs", form=b"date=2026")
    assert decide(line, "user/*.rs", form=None)


def test_challenge_names_no_patient_scope_that_would_not_do() -> None:
    with pytest.raises(Refused) as refused:
        decide("GET /fhir/Observation/5", "user/Observation.rs?category=lab")
    assert refused.value.needed == ("user/Observation.r",)


def test_scopes_that_multiply_beyond_reason_are_none() -> None:
    token = tuple(f"patient/*.rs?a={number}" for number in range(500))
    policy = client(*(f"patient/Observation.rs?b={number}" for number in range(64)))
    assert grant.effective(token, policy).texts == ()


def test_writes_within_the_patient_record_itself_pass() -> None:
    assert decide("PUT /fhir/Patient/123", "patient/Patient.cud")
    assert reason("PUT /fhir/Patient/124", "patient/Patient.cud") is Reason.PATIENT_MISMATCH
    assert reason("POST /fhir/Observation", "patient/Observation.c") is Reason.COMPARTMENT_UNDECIDABLE
    assert (
        reason("POST /fhir/Observation", "patient/Observation.c", if_none_exist="identifier=x") is Reason.SCOPE_MISSING
    )


def routed(*routes: dict[str, Any]) -> Client:
    policy = parse(policy_document(routes=list(routes), otherScopes=["export.run", "export.read"]))
    assert isinstance(policy, ClientPolicy)
    return client(routes=policy.spec.routes, other_scopes=frozenset(policy.spec.other_scopes))


ROUTES = routed(
    {"name": "one", "match": {"methods": ["GET"], "path": "/export/status"}, "scopes": {"anyOf": ["export.read", "system/*.read"]}},
    {"name": "admin", "match": {"pathPrefix": "/export/admin"}, "scopes": {"allOf": ["export.run", "export.read"]}},
    {"name": "all", "match": {"methods": ["GET", "POST"], "pathPrefix": "/export/"}, "scopes": {"allOf": ["export.run"]}},
)  # fmt: skip
ROUTED = {
    "exact, any of": ("GET /export/status?x=1", ["export.read"], "one"),
    "exact, the clinical one": ("GET /export/status", ["system/*.rs"], "one"),
    "exact, wider than asked": ("GET /export/status", ["system/*.cruds"], "one"),
    "exact, narrower than asked": ("GET /export/status", ["system/Patient.rs"], Reason.SCOPE_MISSING),
    "first match decides": ("GET /export/status", ["export.run"], Reason.SCOPE_MISSING),
    "exact is exact": ("GET /export/status/x", ["export.run"], "all"),
    "prefix": ("POST /export/jobs", ["export.run"], "all"),
    "prefix, other method": ("DELETE /export/jobs", ["export.run"], Reason.ROUTE_NOT_ALLOWED),
    "prefix, segment": ("GET /export/admin", ["export.run"], Reason.SCOPE_MISSING),
    "prefix, below": ("GET /export/admin/x", ["export.run", "export.read"], "admin"),
    "prefix, not a segment": ("GET /export/administrator", ["export.run"], "all"),
    "encoded letters are letters": ("GET /export/%61dmin/x", ["export.run"], Reason.SCOPE_MISSING),
    "no match": ("GET /other", ["export.run"], Reason.ROUTE_NOT_ALLOWED),
    "prefix without its slash": ("GET /export", ["export.run"], Reason.ROUTE_NOT_ALLOWED),
}


@pytest.mark.parametrize(("line", "scopes", "expected"), ROUTED.values(), ids=ROUTED.keys())
def test_route_outside_fhir(line: str, scopes: list[str], expected: str | Reason) -> None:
    if isinstance(expected, Reason):
        assert reason(line, *scopes, policy=ROUTES) is expected
    else:
        assert decide(line, *scopes, policy=ROUTES).rule == expected


def test_no_route_opens_what_is_below_the_fhir_base() -> None:
    everywhere = routed({"name": "all", "match": {"pathPrefix": "/"}, "scopes": {"anyOf": ["export.run"]}})
    assert decide("GET /anything", "export.run", policy=everywhere).rule == "all"
    assert decide("GET /fhirs/Patient/1", "export.run", policy=everywhere).rule == "all"
    assert reason("GET /fhir/Patient/1", "export.run", policy=everywhere) is Reason.SCOPE_MISSING
    assert reason("GET /fhir/metadata", "export.run", policy=everywhere) is Reason.INTERACTION_UNSUPPORTED


# ROUTES, as they look to a lenient upstream: `one` and `admin` ask for more than `all`.
LOOKALIKES = {
    "slash": "GET /export/status/",
    "case": "GET /export/STATUS",
    "width": "GET /export/%EF%BD%93tatus",
    "space": "GET /export/status%20",
    "dot": "GET /export/status.",
    "suffix": "GET /export/status.json",
    "of a prefix: case": "GET /export/Admin",
    "of a prefix: below": "POST /export/ADMIN/users",
    "of a prefix: space": "POST /export/admin%20/users",
    "of a prefix: dot": "POST /export/admin./users",
    "of a prefix: suffix": "GET /export/admin.json",
}


@pytest.mark.parametrize("scopes", [["export.run"], ["export.run", "export.read"], ["system/*.cruds"]])
@pytest.mark.parametrize("line", LOOKALIKES.values(), ids=LOOKALIKES.keys())
def test_path_that_may_be_a_stricter_routes_is_refused_whoever_asks(line: str, scopes: list[str]) -> None:
    assert reason(line, *scopes, policy=ROUTES) is Reason.PATH_AMBIGUOUS


NOT_ALIKE = {
    "another method than the stricter route's": ("POST /export/STATUS", "all"),
    "another path": ("GET /export/states", "all"),
    "a suffix further down": ("GET /export/admin.json/x", "all"),
    "literally a stricter one's, and after the first match": ("GET /export/status", "one"),
}


@pytest.mark.parametrize(("line", "route"), NOT_ALIKE.values(), ids=NOT_ALIKE.keys())
def test_other_paths_are_their_routes(line: str, route: str) -> None:
    assert decide(line, "export.run", "export.read", policy=ROUTES).rule == route


ANY, BOTH = {"anyOf": ["export.run", "export.read"]}, {"allOf": ["export.run", "export.read"]}
ONE, OTHER = {"allOf": ["export.run"]}, {"anyOf": ["export.read"]}
STRICTER: dict[
    str, tuple[dict[str, Any], dict[str, Any], bool]
] = {  # what one asks, what its lookalike asks, is it more
    "the same": (ONE, ONE, False),
    "less": (BOTH, ONE, False),
    "one of them": (BOTH, OTHER, False),
    "any of them": (ONE, ANY, False),
    "both instead of one": (ONE, BOTH, True),
    "both instead of any": (ANY, BOTH, True),
    "one instead of any": (ANY, ONE, True),
    "another": (ONE, OTHER, True),
    "a wider scope": ({"allOf": ["system/Patient.r"]}, {"allOf": ["system/*.rs"]}, True),
    "a narrower scope": ({"allOf": ["system/*.rs"]}, {"allOf": ["system/Patient.r"]}, False),
    "another context": ({"allOf": ["system/*.rs"]}, {"allOf": ["user/*.rs"]}, True),
}
ALL_SCOPES = ("export.run", "export.read", "system/*.rs", "user/*.rs")


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("loose", "strict", "is_refused"), STRICTER.values(), ids=STRICTER.keys())
def test_lookalike_counts_where_it_asks_for_more(
    loose: dict[str, Any], strict: dict[str, Any], *, is_refused: bool, is_first: bool
) -> None:
    routes = [
        {"name": "strict", "match": {"path": "/Jobs"}, "scopes": strict},
        {"name": "loose", "match": {"path": "/jobs/"}, "scopes": loose},
    ]
    policy = routed(*(routes if is_first else reversed(routes)))
    if is_refused:
        assert reason("GET /jobs/", *ALL_SCOPES, policy=policy) is Reason.PATH_AMBIGUOUS
    else:
        assert decide("GET /jobs/", *ALL_SCOPES, policy=policy).rule == "loose"


@pytest.mark.parametrize(("method", "route"), [("CONNECT", None), ("GET", "all"), ("PURGE", "all")])
def test_tunnel_matches_no_route_that_does_not_name_it(method: str, route: str | None) -> None:
    everywhere = {"name": "all", "match": {"pathPrefix": "/"}, "scopes": ONE}
    named = {"name": "tunnel", "match": {"methods": ["CONNECT"], "pathPrefix": "/"}, "scopes": ONE}
    if route is None:
        assert reason(f"{method} /x", "export.run", policy=routed(everywhere)) is Reason.ROUTE_NOT_ALLOWED
    else:
        assert decide(f"{method} /x", "export.run", policy=routed(everywhere)).rule == route
    assert decide("CONNECT /x", "export.run", policy=routed(everywhere, named)).rule == "tunnel"


def test_everything_is_fhir_where_the_base_is_the_root() -> None:
    token = claims("patient/*.rs")
    for target, expected in (("/Patient/123", "patient/*.rs"),):
        fhir = Fhir("", Compartment.DENY)
        target_read = grant.read_target(target, fhir)
        assert grant.decide(request("GET", target), target_read, client(), token, fhir).rule == expected


SCOPE = st.builds(
    "{}/{}.{}".format,
    st.sampled_from(["patient", "user", "system"]),
    st.sampled_from(["*", "Patient", "Observation"]),
    st.sampled_from(["r", "s", "rs", "cruds", "read", "write", "*", "s?category=lab"]),
)
LINE = st.sampled_from(
    [*ORDINARY, *(line for line, _ in TRAPS.values()), "GET /fhir/Observation?patient=123&category=lab"]
)


@given(LINE, st.lists(SCOPE, max_size=4), st.data())
def test_removing_a_scope_never_turns_deny_into_allow(line: str, scopes: list[str], data: st.DataObject) -> None:
    fewer = [scope for scope in scopes if data.draw(st.booleans())]
    try:
        decide(line, *scopes)
    except Refused:
        with pytest.raises(Refused):
            decide(line, *fewer)


@given(LINE, st.lists(SCOPE, max_size=4), st.lists(SCOPE, max_size=4))
def test_token_and_policy_limit_each_other_alike(line: str, token: list[str], policy: list[str]) -> None:
    def passes(token: list[str], policy: list[str]) -> bool:
        try:
            decide(line, *token, policy=Client(id="c", policy="p", scopes=client(*policy).scopes if policy else ()))
        except Refused:
            return False
        return True

    assert passes(token, policy) == passes(policy, token)


def deep_size(value: object, seen: set[int]) -> int:
    """Return what a value takes in memory with all that it holds, in bytes; enums and clients are shared."""
    if id(value) in seen or isinstance(value, Enum | Client):
        return 0
    seen.add(id(value))
    held: list[object] = list(value) if isinstance(value, tuple | frozenset) else []
    if isinstance(value, Scope):
        held = [getattr(value, name) for name in ("resource_type", "letters", "filters", "text")]
    return getsizeof(value) + sum(deep_size(one, seen) for one in held)


FILTERED = [
    [
        f"patient/Observation.rs?{'&'.join(f'{chr(97 + place)}{number}=x' for place in range(8))}"
        for number in range(99)
    ],
    [f"patient/Observation.rs?category={'x' * 400}{number}" for number in range(20)],
    ["patient/Patient.read", "patient/Observation.read", "openid"],
]


@pytest.mark.parametrize("texts", FILTERED, ids=["filters", "long", "ordinary"])
def test_remembered_scopes_weigh_no_less_than_they_take(texts: list[str]) -> None:
    before = grant.remembered.bytes
    token, policy = tuple(texts), client("patient/*.cruds")
    found = grant.effective(token, policy)
    assert grant.effective(token, policy) is found
    taken = deep_size((token, found), set())
    assert taken <= grant.remembered.bytes - before <= 3 * taken + 1_000


def test_remembered_scopes_are_bounded_in_bytes() -> None:
    for _ in range(3):
        for texts in FILTERED[:2]:
            for number in range(60):
                grant.effective((*texts, f"patient/Patient.rs?x={number}"), client("patient/*.cruds"))
    assert grant.remembered.bytes <= grant.EFFECTIVE_MAX_BYTES
    assert len(grant.remembered) < 360


STRICT_BY_METHOD = [
    {"name": "strict", "match": {"methods": ["GET", "DELETE"], "pathPrefix": "/x"}, "scopes": {"allOf": ["system/*.cruds"]}},
    {"name": "root", "match": {"pathPrefix": "/"}, "scopes": {"anyOf": ["export.run"]}},
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_head_is_of_the_route_that_names_get(method: str) -> None:
    assert reason(f"{method} /x/1", "export.run", policy=routed(*STRICT_BY_METHOD)) is Reason.SCOPE_MISSING
    assert decide(f"{method} /y", "export.run", policy=routed(*STRICT_BY_METHOD)).rule == "root"


ROUTE_CHALLENGES: list[tuple[dict[str, list[str]], list[str], str | None, list[str]]] = [
    ({"allOf": ["system/*.read"]}, ["patient/Patient.rs"], "123", []),
    ({"allOf": ["system/*.read"]}, ["user/Patient.rs"], None, []),
    ({"allOf": ["system/*.read"]}, ["system/Patient.rs"], None, ["system/*.read"]),
    ({"allOf": ["system/*.read"]}, ["openid"], None, ["system/*.read"]),
    ({"allOf": ["export.run", "export.read"]}, ["export.run"], None, ["export.read"]),
    ({"allOf": ["user/*.rs", "export.read"]}, ["user/*.rs"], None, ["export.read"]),
    ({"allOf": ["user/*.rs"]}, ["user/*.cruds"], None, []),
]


@pytest.mark.parametrize(("scopes", "token", "patient", "expected"), ROUTE_CHALLENGES)
def test_routes_challenge_asks_for_what_can_be_had(
    scopes: dict[str, list[str]], token: list[str], patient: str | None, expected: list[str]
) -> None:
    policy = replace(
        routed({"name": "r", "match": {"path": "/r"}, "scopes": scopes}), scopes=(), other_scopes=frozenset()
    )
    with pytest.raises(Refused) as refused:
        decide("GET /r", *token, patient=patient, policy=policy)
    assert refused.value.reason is Reason.SCOPE_MISSING
    assert list(refused.value.needed) == expected


def test_route_tells_each_scope_that_it_needs() -> None:
    policy = routed({"name": "r", "match": {"path": "/r"}, "scopes": {"allOf": ["export.run", "export.read"]}})
    with pytest.raises(Refused) as refused:
        decide("GET /r", "openid", policy=policy)
    assert refused.value.detail == "route r needs export.run export.read"
