"""`fhir:` of the configuration: where FHIR is served, and what the platform knows of its server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from authz.core.compartment import PINS
from authz.core.control_parameters import OWN, SERVERS
from authz.edge.configuration import SettingsModel
from authz.model import Compartment, Effect, Fhir, SearchByPost
from authz.policy.fhir_r4 import RESOURCE_TYPES

PARAMETERS_MAX: Final = 64
_ONLY_PATIENT: Final = frozenset({"Patient"})
_PATIENT_OR_OTHER: Final = frozenset({"Patient", "other"})  # of an unknown element: only a typed reference pins


def _base_path(value: str) -> str:
    if value in ("", "/"):
        return ""
    if not re.fullmatch(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?", value):
        raise ValueError("expected an absolute path such as /fhir")
    return value.rstrip("/")


def _declarable(parameters: dict[str, str]) -> dict[str, str]:
    pinning = {name for pins in PINS.values() for name in pins}
    fixed = sorted(
        name
        for name, effect in parameters.items()
        if effect != Effect.REFUSE.value
        and (OWN.get(name.lower(), Effect.UNKNOWN) is not Effect.UNKNOWN or name.lower() in pinning)
    )
    folded = [name.lower() for name in parameters]
    twice = sorted(name for name in parameters if folded.count(name.lower()) > 1)
    wrong = []
    if fixed:
        wrong.append(f"FHIR's own, or what widens a delete, can be declared `refuse` alone: {', '.join(fixed)}")
    if twice:
        wrong.append(f"given twice, in different case: {', '.join(twice)}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return parameters


def _known_types(added: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    unknown = sorted(added.keys() - RESOURCE_TYPES)
    if unknown:
        raise ValueError(f"no resource types of FHIR R4: {', '.join(unknown)}")
    if "Patient" in added:
        raise ValueError("Patient is pinned by _id alone: any other parameter finds other patients' records")
    return added


ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
# All pins are in lower case, as FHIR's own are: another spelling of one is then known for what it is.
PinName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
ServerKind = Literal["hapi", "microsoft", "google", "oracle", "epic", "medplum"]


# Where a server looks for the parameters of a search by POST. HAPI was asked; Google says so of its fhir.search-type.
_SEARCH_BY_POST: Final = {"hapi": SearchByPost.BOTH, "google": SearchByPost.QUERY}


class FhirServerSettings(SettingsModel):
    kind: ServerKind | None = None
    search_by_post: SearchByPost | None = None  # without one: as the kind does, else the form alone


class CompartmentSettings(SettingsModel):
    """`add`: resource type → search parameters that tie it to a patient on this server, besides FHIR's own."""

    add: Annotated[
        dict[str, Annotated[tuple[PinName, ...], Field(min_length=1, max_length=16)]],
        Field(max_length=PARAMETERS_MAX),
        AfterValidator(_known_types),
    ] = Field(default_factory=dict)


class FhirSettings(SettingsModel):
    base_path: Annotated[str, AfterValidator(_base_path)] = "/fhir"
    compartment: Compartment = Compartment.DENY
    everything: Literal["linked", "within"] = "linked"
    server: FhirServerSettings = FhirServerSettings()
    parameters: Annotated[
        dict[ParameterName, Literal["narrows", "cursor", "refuse"]],
        Field(max_length=PARAMETERS_MAX),
        AfterValidator(_declarable),
    ] = Field(default_factory=dict)
    compartments: CompartmentSettings = CompartmentSettings()

    def facts(self) -> Fhir:
        """Return what a decision has to know of all this; the platform's own word goes before a server's preset."""
        preset = SERVERS[self.server.kind] if self.server.kind is not None else {}
        declared = {name.lower(): Effect(effect) for name, effect in self.parameters.items()}
        return Fhir(
            base_path=self.base_path,
            compartment=self.compartment,
            search_by_post=self.server.search_by_post or _SEARCH_BY_POST.get(self.server.kind or "", SearchByPost.FORM),
            is_everything_within=self.everything == "within",
            parameters={**preset, **declared},
            pins={kind: _targets(names) for kind, names in self.compartments.add.items()},
        )


def _targets(names: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    return {name: _ONLY_PATIENT if name == "patient" else _PATIENT_OR_OTHER for name in names}
