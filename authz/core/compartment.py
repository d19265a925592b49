"""Whether a request provably stays within one patient's compartment.

Servers ignore parameters that they do not know, so only a parameter of the FHIR R4 table pins a search; and what could
widen a pinned search (includes, reverse chains, a modifier on the pin, a control parameter in no table) makes it
undecidable again.

Source: HL7 FHIR R4 CompartmentDefinition/patient and the targets of its SearchParameters (`fhir_r4`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Final

from authz.core.interaction import ANY, Interaction, Kind
from authz.model import Effect, Fhir, Parameters
from authz.policy.fhir_r4 import PATIENT_COMPARTMENT, PATIENT_FREE

Pins = Mapping[str, frozenset[str]]  # parameter → types that it may refer to

_REFERENCE: Final = re.compile(r"(?:([A-Z][A-Za-z]{0,63})/)?([A-Za-z0-9.-]{1,64})")
_ONLY_PATIENT: Final = frozenset({"Patient"})
# `Patient?link=` finds linked patients, and those are compartments of their own.
PINS: Final[Mapping[str, Pins]] = {**PATIENT_COMPARTMENT, "Patient": {"_id": _ONLY_PATIENT}}
_NO_PINS: Final[Pins] = {}
# Beside an id they change nothing in HAPI; a server that takes them before the path would lead to another patient.
_BESIDE_ID: Final[Pins] = {"_id": _ONLY_PATIENT, "patient": _ONLY_PATIENT, "subject": _ONLY_PATIENT}


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


def locate(asked: Interaction, parameters: Parameters, patient: str, fhir: Fhir) -> Finding:
    """Return where a request stands to the compartment of `Patient/{patient}`."""
    if _writes(asked) and _is_outside(asked, fhir):
        return Finding.OUTSIDE
    match asked.kind:
        case Kind.INSTANCE if asked.resource_type == "Patient":
            return max(_same(asked.id, patient), _narrowing(parameters, _BESIDE_ID, patient)[0])
        case Kind.EVERYTHING:
            # A server may follow Patient.link, and then it brings the other patient (HAPI 8.8.0 does).
            certain = Finding.WITHIN if fhir.is_everything_within else Finding.UNDECIDABLE
            return max(certain, _same(asked.id, patient), _narrowing(parameters, _BESIDE_ID, patient)[0])
        case Kind.COMPARTMENT_SEARCH if asked.resource_type == "Patient":
            return _within_patient(asked, parameters, patient, fhir)
        case Kind.SEARCH:
            return _search(asked, parameters, patient, fhir)
        case _:  # a parameter may still say that it is about another patient
            pins = {**_BESIDE_ID, **_pins(asked.within or asked.resource_type, fhir)}
            if asked.resource_type != "Patient" or asked.kind is Kind.COMPARTMENT_SEARCH:
                del pins["_id"]
            return max(Finding.UNDECIDABLE, _narrowing(parameters, pins, patient)[0])


def _writes(asked: Interaction) -> bool:
    return asked.needs[0].letter in ("c", "u", "d")


def _is_outside(asked: Interaction, fhir: Fhir) -> bool:
    """Return whether what a write makes or changes is certainly in no compartment of the token's patient."""
    if asked.resource_type == "Patient":
        return asked.kind in (Kind.CREATE, Kind.CONDITIONAL_CREATE)  # it would be another patient
    return asked.resource_type in PATIENT_FREE and asked.resource_type not in fhir.pins


def _pins(resource_type: str, fhir: Fhir) -> Pins:
    pins = PINS.get(resource_type, _NO_PINS)
    added = fhir.pins.get(resource_type) if fhir.pins else None
    return pins if added is None else {**added, **pins}


def _same(id_: str, patient: str) -> Finding:
    return Finding.WITHIN if id_ == patient else Finding.OUTSIDE


def _within_patient(asked: Interaction, parameters: Parameters, patient: str, fhir: Fhir) -> Finding:
    within = asked.within
    pins = _pins(within, fhir)
    known = within == ANY or (bool(pins) and within != "Patient")
    certain = Finding.WITHIN if known and asked.is_readable else Finding.UNDECIDABLE
    return max(certain, _same(asked.id, patient), _narrowing(parameters, pins, patient)[0])


def _search(asked: Interaction, parameters: Parameters, patient: str, fhir: Fhir) -> Finding:
    found, pinned = _narrowing(parameters, _pins(asked.resource_type, fhir), patient)
    if found is Finding.WITHIN and not (pinned and asked.is_readable):
        return Finding.UNDECIDABLE
    return found


def _narrowing(parameters: Parameters, pins: Pins, patient: str) -> tuple[Finding, bool]:
    """Return WITHIN if no parameter can widen the result or lead to another patient, and whether one pins it.

    A parameter pins if all its values, repeated or comma-joined, are the patient.
    """
    found = Finding.UNDECIDABLE if parameters.is_ambiguous else Finding.WITHIN
    pinned: dict[str, bool] = {}
    for name, code, value, effect, is_certain in parameters.items:
        if code in pins and name == code:
            read = _read_id if code == "_id" else _read
            matches = [read(one, pins[code], patient) for one in value.split(",")]
            if is_certain:
                pinned[code] = pinned.get(code, True) and all(match is _Match.PATIENT for match in matches)
            found = max(found, _of_values(matches))
        elif effect is not Effect.NARROWS or code in pins or (not code.islower() and code.lower() in pins):
            # What brings in, selects by or does more than it is known to; a modifier on a pin; a pin in other case,
            # which a server may read as one (all are lower).
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
