"""What a decision needs of HL7's definitions: types, search parameters, and those that tie a resource to its patient.

The compartment definition names, for each type, the parameters whose reference puts a resource into the compartment.
Many types have a second parameter for the same element: `Observation.subject` is searched by `subject` and, restricted
to patients, by `patient`, which is what apps send; for Condition the definition names the one and apps send the other.
Such a twin reads the same element, so it is taken in when all its elements are the definition's.

One parameter may stand for many types (`patient` for 33 of them), and its targets are those of all. On one of them it
refers to what its element may refer to: `AllergyIntolerance.patient` to a Patient, though `patient` also says Group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from definitions.hl7 import Definitions, Parameter

# Search parameters of every type that the specification defines in prose, without a SearchParameter resource.
# Source: FHIR R4 search.html, sections 3.1.1.1 (common to all resources) and 3.1.3 (`_filter`).
IN_PROSE = frozenset({"_filter", "_has", "_list", "_type"})

CONTAINERS = frozenset({"Bundle", "Parameters"})  # hold whole resources, so they may hold a patient's
_PATIENT_OR_ANY = frozenset({"Patient", "Resource"})
_ELEMENT = re.compile(r"([A-Za-z.]+)(?:\.where\(resolve\(\) is (\w+)\))?")

Targets = frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    types: frozenset[str]
    common: Mapping[str, frozenset[str]]  # `Resource`, `DomainResource` → codes of every type below it
    parameters: Mapping[str, tuple[str, frozenset[str]]]  # type → which of the two it is, and the codes of its own
    compartment: Mapping[str, Mapping[str, Targets]]  # type → parameter → types that it may refer to
    patient_free: frozenset[str]  # types that no element of theirs can tie to a patient


def tabulate(definitions: Definitions) -> Tables:
    by_type: dict[str, dict[str, Parameter]] = {}
    for parameter in definitions.parameters:
        for base in parameter.bases:
            by_type.setdefault(base, {})[parameter.code] = parameter
    root = frozenset(by_type["Resource"]) | IN_PROSE
    return Tables(
        types=frozenset(definitions.parents),
        common={"Resource": root, "DomainResource": root | frozenset(by_type["DomainResource"])},
        parameters={
            kind: (parent, frozenset(by_type.get(kind, {}))) for kind, parent in sorted(definitions.parents.items())
        },
        compartment={
            kind: _pins(kind, codes, by_type[kind], definitions)
            for kind, codes in sorted(definitions.compartment.items())
            if codes
        },
        patient_free=frozenset(definitions.parents)
        - CONTAINERS
        - {path.partition(".")[0] for path, targets in definitions.references.items() if targets & _PATIENT_OR_ANY},
    )


def _pins(
    kind: str, codes: tuple[str, ...], known: Mapping[str, Parameter], definitions: Definitions
) -> dict[str, Targets]:
    within = {element for code in codes for element, _ in elements(known[code].expression, kind)}
    pins = {}
    for code, parameter in sorted(known.items()):
        read = dict(elements(parameter.expression, kind))
        if code in codes or (read and within.issuperset(read)):
            targets = _targets(parameter, kind, definitions)
            if code in codes or "Patient" in targets:
                pins[code] = targets
    return pins


def elements(expression: str, kind: str) -> Iterator[tuple[str, str | None]]:
    """Yield the elements of a type that an expression reads, each with the one target type it is restricted to."""
    for part in (part.strip() for part in expression.split("|")):
        if part.lstrip("(").startswith(f"{kind}."):
            read = _ELEMENT.fullmatch(part)
            yield (read[1], read[2]) if read else (part, None)


def _targets(parameter: Parameter, kind: str, definitions: Definitions) -> Targets:
    """Return the types that a parameter may refer to on `kind`: what its elements allow, and it declares.

    Raises:
        KeyError: the definitions have no such element, or it is no reference.
    """
    allowed: set[str] = set()
    for element, restricted in elements(parameter.expression, kind):
        allowed |= {restricted} if restricted else definitions.references[element]
    return parameter.targets if "Resource" in allowed else parameter.targets & allowed
