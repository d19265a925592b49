"""Whether a request provably stays within one patient's compartment.

Servers ignore parameters that they do not know, so only a parameter of the FHIR R4 table pins a search; and what could
widen a pinned search (includes, reverse chains, a modifier on the pin) makes it undecidable again.

Source: HL7 FHIR R4 CompartmentDefinition/patient and the targets of its SearchParameters (`compartment_r4`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final

from authz.core.compartment_r4 import PATIENT_COMPARTMENT
from authz.core.interaction import WIDENING, Interaction, Kind
from authz.core.search import Parameter, Parameters

Pins = Mapping[str, frozenset[str]]  # parameter → types that it may refer to

_REFERENCE: Final = re.compile(r"(?:([A-Z][A-Za-z]{0,63})/)?([A-Za-z0-9.-]{1,64})")
_ONLY_PATIENT: Final = frozenset({"Patient"})
# `Patient?link=` finds linked patients, and those are compartments of their own.
_PINS: Final[Mapping[str, Pins]] = {**PATIENT_COMPARTMENT, "Patient": {"_id": _ONLY_PATIENT}}


class Finding(IntEnum):
    """Ordered: the worst of several findings counts."""

    WITHIN = 0
    UNDECIDABLE = 1
    OUTSIDE = 2


class _Match(IntEnum):
    """What one value of a pinning parameter says."""

    PATIENT = 0
    SOMETHING_ELSE = 1  # a practitioner, a group, or an untyped id that could be one: it narrows, but does not pin
    UNREADABLE = 2
    OTHER_PATIENT = 3


def locate(interaction: Interaction, parameters: Parameters, patient: str) -> Finding:
    """Return where a request stands to the compartment of `Patient/{patient}`."""
    match interaction.kind:
        case Kind.INSTANCE if interaction.resource_type == "Patient":
            return _same(interaction.id, patient)
        case Kind.EVERYTHING:
            return max(_same(interaction.id, patient), _narrowing(parameters, {}, patient))
        case Kind.COMPARTMENT_SEARCH if interaction.resource_type == "Patient":
            return _within_patient(interaction, parameters, patient)
        case Kind.SEARCH:
            return _search(interaction, parameters, patient)
        case _:
            return Finding.UNDECIDABLE


def _same(id_: str, patient: str) -> Finding:
    return Finding.WITHIN if id_ == patient else Finding.OUTSIDE


def _within_patient(interaction: Interaction, parameters: Parameters, patient: str) -> Finding:
    within = interaction.within
    known = within == "*" or (within in PATIENT_COMPARTMENT and within != "Patient")
    certain = Finding.WITHIN if known and interaction.is_readable else Finding.UNDECIDABLE
    return max(certain, _same(interaction.id, patient), _narrowing(parameters, _PINS.get(within, {}), patient))


def _search(interaction: Interaction, parameters: Parameters, patient: str) -> Finding:
    pins = _PINS.get(interaction.resource_type, {})
    pinned = any(
        _pins(name, pins, parameters, patient) for name in {item.name for item in parameters.items} & pins.keys()
    )
    certain = Finding.WITHIN if pinned and interaction.is_readable else Finding.UNDECIDABLE
    return max(certain, _narrowing(parameters, pins, patient))


def _pins(name: str, pins: Pins, parameters: Parameters, patient: str) -> bool:
    return all(
        _read(one, pins[name], patient) is _Match.PATIENT
        for value in parameters.values(name)
        for one in value.split(",")
    )


def _narrowing(parameters: Parameters, pins: Pins, patient: str) -> Finding:
    """Return WITHIN if no parameter can widen the result or lead to another patient."""
    found = Finding.UNDECIDABLE if parameters.is_ambiguous else Finding.WITHIN
    for item in parameters.items:
        one = _of_parameter(item, pins, patient)
        found = max(found, one)
    return found


def _of_parameter(item: Parameter, pins: Pins, patient: str) -> Finding:
    code = item.code.lower()
    if code in WIDENING or "." in item.name:
        return Finding.UNDECIDABLE
    if item.code not in pins:
        # A server that ignores case would read this as a second value of the pin; all pins are lower case.
        return Finding.UNDECIDABLE if code in pins else Finding.WITHIN
    if item.name != item.code:
        return Finding.UNDECIDABLE
    return _of_values(_read(one, pins[item.code], patient) for one in item.value.split(","))


def _of_values(matches: Iterable[_Match]) -> Finding:
    worst = max(matches)
    if worst is _Match.OTHER_PATIENT:
        return Finding.OUTSIDE
    return Finding.UNDECIDABLE if worst is _Match.UNREADABLE else Finding.WITHIN


def _read(value: str, targets: frozenset[str], patient: str) -> _Match:
    reference = _REFERENCE.fullmatch(value)
    if reference is None:  # an absolute URL, a version, an escape, nothing at all
        return _Match.UNREADABLE
    kind, id_ = reference.groups()
    if kind not in (None, "Patient") or (kind is None and targets != _ONLY_PATIENT):
        return _Match.SOMETHING_ELSE
    return _Match.PATIENT if id_ == patient else _Match.OTHER_PATIENT
