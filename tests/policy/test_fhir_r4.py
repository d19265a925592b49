"""The generated tables say what HL7's pages say, and cost nothing to load."""

from __future__ import annotations

import pytest

from authz.policy.fhir_r4 import PATIENT_COMPARTMENT, RESOURCE_TYPES, SEARCH_PARAMETERS

PATIENT = {"Patient"}


@pytest.mark.parametrize(
    ("kind", "pins"),
    [
        # hl7.org/fhir/R4/compartmentdefinition-patient.html; a twin is a parameter of the same element.
        ("AllergyIntolerance", {"patient", "recorder", "asserter"}),
        ("Appointment", {"actor", "patient"}),  # twin: patient
        ("CarePlan", {"patient", "subject", "performer"}),  # twin: subject
        ("Condition", {"patient", "subject", "asserter"}),  # twin: subject
        ("Coverage", {"policy-holder", "subscriber", "beneficiary", "payor", "patient"}),  # twin: patient
        ("Encounter", {"patient", "subject"}),  # twin: subject
        ("Group", {"member"}),
        ("Immunization", {"patient"}),
        ("MedicationRequest", {"subject", "patient"}),  # twin: patient
        ("Observation", {"subject", "performer", "patient"}),  # twin: patient
        ("Patient", {"link"}),
        ("Provenance", {"patient", "target"}),  # twin: target
        ("Specimen", {"subject", "patient"}),  # twin: patient
    ],
)
def test_parameters_tie_a_type_to_its_patient(kind: str, pins: set[str]) -> None:
    assert PATIENT_COMPARTMENT[kind].keys() == pins


@pytest.mark.parametrize(
    ("kind", "parameter", "targets"),
    [
        # The element's targets: hl7.org/fhir/R4/[type].html.
        ("AllergyIntolerance", "patient", PATIENT),  # the parameter, shared by 33 types, also says Group
        ("Condition", "patient", PATIENT),
        ("Condition", "subject", {"Patient", "Group"}),
        ("Coverage", "beneficiary", PATIENT),
        ("DeviceUseStatement", "patient", {"Patient", "Group"}),
        ("Immunization", "patient", PATIENT),
        ("Observation", "patient", PATIENT),
        ("Observation", "subject", {"Patient", "Group", "Device", "Location"}),
        ("Patient", "link", {"Patient", "RelatedPerson"}),
        ("Basic", "subject", RESOURCE_TYPES - {"Parameters"}),
    ],
)
def test_parameter_refers_to_what_its_element_may_refer_to(kind: str, parameter: str, targets: set[str]) -> None:
    assert PATIENT_COMPARTMENT[kind][parameter] == targets


@pytest.mark.parametrize(
    "kind", ["Task", "Organization", "Practitioner", "Location", "Device", "Medication", "ValueSet", "Binary", "Slot"]
)
def test_type_is_in_no_patients_compartment(kind: str) -> None:
    assert kind in RESOURCE_TYPES
    assert kind not in PATIENT_COMPARTMENT


def test_no_type_and_no_row_is_missing() -> None:
    """hl7.org/fhir/R4/resourcelist.html lists 148 with the two abstract ones; 66 have a row with a parameter."""
    assert len(RESOURCE_TYPES) == 146
    assert not {"Resource", "DomainResource"} & RESOURCE_TYPES
    assert SEARCH_PARAMETERS.keys() == RESOURCE_TYPES
    assert len(PATIENT_COMPARTMENT) == 66
    assert PATIENT_COMPARTMENT.keys() <= RESOURCE_TYPES
    for kind, pins in PATIENT_COMPARTMENT.items():
        assert pins.keys() <= SEARCH_PARAMETERS[kind]
        for targets in pins.values():
            assert "Patient" in targets
            assert targets <= RESOURCE_TYPES


@pytest.mark.parametrize(
    ("kind", "has", "lacks"),
    [
        # hl7.org/fhir/R4/searchparameter-registry.html, and search.html for those that are of every type
        ("Observation", {"category", "code", "date", "patient", "_id", "_lastUpdated", "_tag", "_text"}, {"categroy"}),
        ("Patient", {"birthdate", "general-practitioner", "link", "_has", "_list", "_type"}, {"patient", "subject"}),
        ("Coverage", {"beneficiary", "patient", "_profile", "_security", "_content"}, {"period"}),
        ("Task", {"patient", "owner", "focus"}, {"for"}),
        ("Binary", {"_id", "_filter", "_query", "_source"}, {"_text", "patient"}),  # no DomainResource
        ("Parameters", {"_id"}, {"_text", "name"}),
        ("OperationOutcome", {"_text"}, {"issue"}),
    ],
)
def test_type_has_its_search_parameters_and_no_others(kind: str, has: set[str], lacks: set[str]) -> None:
    assert has <= SEARCH_PARAMETERS[kind]
    assert not lacks & SEARCH_PARAMETERS[kind]
