"""Whether a request provably stays within one patient's compartment.

Servers ignore parameters that they do not know, so only a parameter of the FHIR R4 table pins a search; and what could
widen a pinned search (includes, reverse chains, a modifier on the pin) makes it undecidable again.

Source: HL7 FHIR R4 CompartmentDefinition/patient and the targets of its SearchParameters (`fhir_r4`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Final

from authz.core.fhir_r4 import PATIENT_COMPARTMENT
from authz.core.interaction import WIDENING, Interaction, Kind
from authz.core.search import Parameters

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


class _Match(Enum):
    """What one value of a pinning parameter says."""

    PATIENT = "patient"
    SOMETHING_ELSE = "something else"  # or an untyped id that may be: it narrows, but does not pin
    UNREADABLE = "unreadable"
    OTHER_PATIENT = "other patient"


def locate(interaction: Interaction, parameters: Parameters, patient: str) -> Finding:
    """Return where a request stands to the compartment of `Patient/{patient}`."""
    match interaction.kind:
        case Kind.INSTANCE if interaction.resource_type == "Patient":
            return _same(interaction.id, patient)
        case Kind.EVERYTHING:
            return max(_same(interaction.id, patient), _narrowing(parameters, {}, patient)[0])
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
    return max(certain, _same(interaction.id, patient), _narrowing(parameters, _PINS.get(within, {}), patient)[0])


def _search(interaction: Interaction, parameters: Parameters, patient: str) -> Finding:
    found, pinned = _narrowing(parameters, _PINS.get(interaction.resource_type, {}), patient)
    if found is Finding.WITHIN and not (pinned and interaction.is_readable):
        return Finding.UNDECIDABLE
    return found


def _narrowing(parameters: Parameters, pins: Pins, patient: str) -> tuple[Finding, bool]:
    """Return WITHIN if no parameter can widen the result or lead to another patient, and whether one pins it.

    A parameter pins if all its values, repeated or comma-joined, are the patient.
    """
    found = Finding.UNDECIDABLE if parameters.is_ambiguous else Finding.WITHIN
    pinned: dict[str, bool] = {}
    for name, code, value in parameters.items:
        if code in pins and name == code:
            read = _read_id if code == "_id" else _read
            matches = [read(one, pins[code], patient) for one in value.split(",")]
            pinned[code] = pinned.get(code, True) and all(match is _Match.PATIENT for match in matches)
            found = max(found, _of_values(matches))
        elif code.lower() in pins or code.lower() in WIDENING or "." in name:
            # A modifier on a pin; a pin in other case, which a server may read as one (all are lower); a chain.
            found = max(found, Finding.UNDECIDABLE)
    return found, any(pinned.values())


def _of_values(matches: list[_Match]) -> Finding:
    if _Match.OTHER_PATIENT in matches:
        return Finding.OUTSIDE
    return Finding.UNDECIDABLE if _Match.UNREADABLE in matches else Finding.WITHIN


def _read_id(value: str, targets: frozenset[str], patient: str) -> _Match:
    """`_id` takes a bare id; a server may drop what it cannot read, and then nothing pins."""
    return _Match.UNREADABLE if "/" in value else _read(value, targets, patient)


def _read(value: str, targets: frozenset[str], patient: str) -> _Match:
    reference = _REFERENCE.fullmatch(value)
    if reference is None:  # an absolute URL, a version, an escape, nothing at all
        return _Match.UNREADABLE
    kind, id_ = reference.groups()
    if kind not in (None, "Patient") or (kind is None and targets != _ONLY_PATIENT):
        return _Match.SOMETHING_ELSE
    return _Match.PATIENT if id_ == patient else _Match.OTHER_PATIENT
