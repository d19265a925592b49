"""What a platform says of its FHIR server, and what of that it cannot say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from authz.edge.fhir_settings import PARAMETERS_MAX, FhirSettings
from authz.model import Compartment, Effect, Fhir
from authz.policy import field_errors


def read(**fhir: Any) -> Fhir:
    return FhirSettings.model_validate(fhir).facts()


def test_default_knows_of_no_server() -> None:
    assert read() == Fhir("/fhir", Compartment.DENY, is_everything_within=False, parameters={}, pins={})


def test_platforms_word_goes_before_the_servers_preset() -> None:
    fhir = read(
        server={"kind": "hapi"}, parameters={"_mdm": "narrows", "_With": "narrows", "_next": "cursor", "code": "refuse"}
    )
    assert fhir.parameters["_getpages"] is Effect.CURSOR
    assert fhir.parameters["_mdm"] is Effect.NARROWS
    assert fhir.parameters["_with"] is Effect.NARROWS
    assert fhir.parameters["_next"] is Effect.CURSOR
    assert fhir.parameters["code"] is Effect.REFUSE
    assert read(parameters={"ct": "cursor"}).parameters == {"ct": Effect.CURSOR}


def test_added_parameter_pins_by_a_bare_id_only_where_it_means_patients() -> None:
    fhir = read(compartments={"add": {"Task": ["patient", "owner"]}}, everything="within")
    assert fhir.pins["Task"]["patient"] == {"Patient"}
    assert "Patient" in fhir.pins["Task"]["owner"]
    assert len(fhir.pins["Task"]["owner"]) > 1
    assert fhir.is_everything_within


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "server": ({"server": {"kind": "smile"}}, ["server.kind: "]),
    "everything": ({"everything": "all"}, ["everything: "]),
    "effect": ({"parameters": {"_x": "reaches"}}, ["parameters._x: "]),
    "name": ({"parameters": {"a b": "narrows"}}, ["parameters.a b"]),
    "modifier": ({"parameters": {"_x:y": "narrows"}}, ["parameters._x:y"]),
    "FHIR's own": (
        {"parameters": {"_include": "narrows", "_Has": "narrows", "_count": "cursor", "_cascade": "narrows"}},
        ["parameters: FHIR's own, or what widens a delete, can be declared `refuse` alone: _Has, _cascade, _count, _include"],
    ),
    "a pin": ({"parameters": {"patient": "narrows", "Subject": "cursor"}}, ["refuse` alone: Subject, patient"]),
    "twice": ({"parameters": {"_x": "narrows", "_X": "cursor"}}, ["given twice, in different case: _X, _x"]),
    "type": ({"compartments": {"add": {"Tusk": ["patient"], "Foo": ["x"]}}}, ["no resource types of FHIR R4: Foo, Tusk"]),
    "Patient": ({"compartments": {"add": {"Patient": ["link"]}}}, ["compartments.add: Patient is pinned by _id alone"]),
    "upper case": ({"compartments": {"add": {"Task": ["forPatient"]}}}, ["compartments.add.Task[0]: "]),
    "no parameter": ({"compartments": {"add": {"Task": []}}}, ["compartments.add.Task: "]),
    "too many": (
        {"parameters": {f"_x{number}": "narrows" for number in range(PARAMETERS_MAX + 1)}},
        ["parameters: "],
    ),
    "two at once": ({"everything": 1, "parameters": {"_has": "narrows"}}, ["everything: ", "parameters: "]),
}  # fmt: skip


@pytest.mark.parametrize(("given", "told"), BAD.values(), ids=BAD.keys())
def test_every_mistake_is_told_with_its_key(given: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(ValidationError) as invalid:
        FhirSettings.model_validate(given)
    errors = [str(error) for error in field_errors(invalid.value)]
    assert len(errors) == len(told)
    for error, expected in zip(errors, told, strict=True):
        assert expected in error
