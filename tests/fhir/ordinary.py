"""What a patient's app asks for, all of it within the patient's record.

Source: US Core 6.1 "Quick Start" of each profile, International Patient Access 1.0, and what client libraries add of
their own (`_=` against caches, empty pairs, `_format`, POST instead of GET).
"""

from __future__ import annotations

from collections.abc import Iterator

from fhir.asking import Ask, form, get, write

from authz.policy.fhir_r4 import PATIENT_COMPARTMENT

TARGETS = (
    "/metadata", "/Patient/123", "/Patient/123?_format=json", "/Patient/123?_summary=true", "/Patient/123?_elements=id,name",
    "/Patient/123?_pretty=true", "/Patient/123/_history", "/Patient/123/_history/1", "/Patient?_id=123",
    "/Patient?_id=123&_format=json", "/Patient?_id=123&birthdate=1974-12-25", "/Patient?name=Example&_id=123",
    "/AllergyIntolerance?patient=123", "/AllergyIntolerance?patient=Patient/123&clinical-status=active",
    "/AllergyIntolerance?clinical-status=http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical|active&patient=123",
    "/CarePlan?patient=123&category=assess-plan&status=active&date=ge2019", "/CareTeam?patient=123&status=active",
    "/Condition?patient=123", "/Condition?subject=Patient/123&clinical-status=active,recurrence",
    "/Condition?patient=123&category=problem-list-item", "/Condition?patient=123&category=encounter-diagnosis&_count=10",
    "/Condition?patient=123&onset-date=ge2020-01-14", "/Condition?encounter=Encounter/123-visit-1&patient=123",
    "/Coverage?patient=123", "/Coverage?beneficiary=Patient/123", "/Coverage?beneficiary=123",
    "/DiagnosticReport?patient=123&category=LAB&code=24323-8,58410-2", "/DocumentReference?patient=123&type=34133-9",
    "/DocumentReference?patient=123&category=clinical-note&date=ge2020-01-14&date=le2026-12-31", "/Encounter?patient=123",
    "/Encounter?subject=Patient/123&date=gt2019-09-24T00:00:00Z", "/Encounter?patient=123&_id=123-visit-1", "/Goal?patient=123",
    "/Immunization?patient=123&status=completed&_sort=-date", "/MedicationRequest?patient=123&intent=order,plan",
    "/MedicationRequest?patient=123&intent=order&authoredon=ge2020-01-14T00:00:00Z&status=active",
    "/Observation?patient=123&category=laboratory", "/Observation?patient=123&category=vital-signs&date=ge2020-01-14&date=le2026-01-14",
    "/Observation?patient=123&category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory",
    "/Observation?patient=123&code=http://loinc.org|2339-0,http://loinc.org|718-7", "/Observation?patient=123&code=2339-0&_count=100",
    "/Observation?patient=123&_sort=-date,code&_count=1", "/Observation?patient=123&_lastUpdated=gt2020-01-01T00:00:00Z",
    "/Observation?patient=123&_summary=count", "/Observation?patient=123&_total=accurate&_count=0",
    "/Observation?patient=123&_elements=id,code,valueQuantity", "/Observation?patient=123&_elements:exclude=note",
    "/Observation?patient=123&_tag=x", "/Observation?patient=123&_security=x", "/Observation?patient=123&_profile=http://hl7.org/x",
    "/Observation?patient=123&code:text=heart", "/Observation?patient=123&code:not=718-7", "/Observation?patient=123&date=2024-01",
    "/Observation?patient=123&value-quantity=gt5||mg", "/Observation?patient=123&status=final,amended,corrected",
    "/Observation?patient=123&patient=123", "/Observation?patient=123,123", "/Observation?subject=Patient/123&patient=123",
    "/Observation?patient=123&encounter=Encounter/123-visit-1", "/Observation?patient=123&performer=Practitioner/nurse",
    "/Observation?patient=123&", "/Observation?&&patient=123", "/Observation?patient=123&&code=718-7", "/Observation?%70atient=%31%32%33",
    "/Observation?patient=Patient%2F123", "/Observation?patient=123&code=http%3A%2F%2Floinc.org%7C718-7", "/Observation?patient=123&_=1795840653537",
    "/Observation?patient=123&_format=application/fhir%2Bjson", "/Observation?patient=123&_pretty=false&_count=5",
    "/Procedure?patient=123&date=ge2019", "/QuestionnaireResponse?patient=123", "/RelatedPerson?patient=123",
    "/ServiceRequest?patient=123&category=387713003", "/Specimen?patient=123", "/Appointment?patient=123&date=ge2024-01-01",
    "/Appointment?actor=Patient/123", "/Provenance?patient=123", "/AuditEvent?patient=123", "/List?patient=123&_count=5",
)  # fmt: skip
HEADERS = (
    {"Accept": "application/fhir+json, application/json;q=0.9, */*;q=0.1"}, {"Accept": "application/fhir+xml"},
    {"Cache-Control": "no-cache"}, {"Prefer": "handling=strict"}, {"Prefer": "handling=lenient"},
    {"If-None-Match": 'W/"999"'}, {"Accept-Encoding": "identity"}, {"Origin": "https://app.example.org"},
)  # fmt: skip


def asked() -> Iterator[Ask]:
    yield from map(get, TARGETS)
    for target in TARGETS:
        path, _, query = target.partition("?")
        if query and path != "/metadata" and not path.startswith("/Patient/") and "|" not in query:
            yield form(f"{path}/_search", query)
    yield form(
        "/Observation/_search?_count=5", "patient=123", Content_Type="application/x-www-form-urlencoded; charset=UTF-8"
    )
    yield form("/Observation/_search?patient=123", "")
    yield from (
        Ask("GET", target, headers) for headers in HEADERS for target in ("/Patient/123", "/Observation?patient=123")
    )
    yield Ask("HEAD", "/Patient/123")


def pinned() -> Iterator[Ask]:
    """Yield a search by each parameter of the compartment: HAPI has them from HL7 by a way of its own."""
    for kind, pins in PATIENT_COMPARTMENT.items():
        if kind == "Patient":  # its `link` finds other patients
            continue
        for code, targets in pins.items():
            yield get(f"/{kind}?{code}=Patient/123")
            if targets == {"Patient"}:
                yield get(f"/{kind}?{code}=123")


def changed() -> Iterator[Ask]:
    """Yield what an app may write: the patient's own demographics."""
    whole = {"resourceType": "Patient", "id": "123", "active": True, "birthDate": "1974-12-25", "gender": "other"}
    yield write("PUT", "/Patient/123", whole)
    yield write("PUT", "/Patient/123", whole | {"gender": "female"}, Prefer="return=minimal")
    yield write(
        "PATCH",
        "/Patient/123",
        '[{"op": "replace", "path": "/gender", "value": "male"}]',
        Content_Type="application/json-patch+json",
    )
