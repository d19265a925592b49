"""HL7's definitions of one FHIR version, read from the jar that `fetch` brings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from zipfile import ZipFile

HERE = Path(__file__).parent
VERSION = "4.0.1"
_MODEL = "org/hl7/fhir/r4/model"
_FHIR = "{http://hl7.org/fhir}"
_TYPE_URL = "http://hl7.org/fhir/StructureDefinition/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A search parameter; `targets` are those of every type that it is defined on."""

    code: str
    bases: tuple[str, ...]
    expression: str
    targets: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    parents: Mapping[str, str]  # concrete resource type → `Resource` or `DomainResource`
    references: Mapping[str, frozenset[str]]  # element path → types that it may refer to, `Resource` for any
    compartment: Mapping[str, tuple[str, ...]]  # concrete resource type → codes of the patient compartment
    parameters: tuple[Parameter, ...]


def fetch() -> Path:
    """Return where the jar is; it is fetched if it is not there.

    Raises:
        subprocess.CalledProcessError: Maven is missing or fails, or what came is not what `versions` pins.
    """
    run = subprocess.run([str(HERE / "fetch")], check=True, stdout=subprocess.PIPE, text=True)
    return Path(run.stdout.strip())


def read(jar: Path) -> Definitions:
    """Return what a jar defines.

    Raises:
        ValueError: it is of another FHIR version.
    """
    with ZipFile(jar) as files:
        bundle = json.loads(files.read(f"{_MODEL}/sp/search-parameters.json"))
        with files.open(f"{_MODEL}/profile/profiles-resources.xml") as stream:
            entries = [_keep(entry) for _, entry in ET.iterparse(stream) if entry.tag == f"{_FHIR}entry"]
    structures = [one for one in entries if _name(one) == "StructureDefinition" and _value(one, "kind") == "resource"]
    types = [one for one in structures if _value(one, "abstract") == "false"]
    (patient,) = (one for one in entries if _name(one) == "CompartmentDefinition" and _value(one, "code") == "Patient")
    parameters = [entry["resource"] for entry in bundle["entry"]]
    versions = {_value(one, "version") for one in (patient, *types)} | {one["version"] for one in parameters}
    if versions != {VERSION}:
        raise ValueError(f"FHIR {VERSION} was expected, and the jar has {sorted(versions)}")
    return Definitions(
        parents={_value(one, "type"): _value(one, "baseDefinition").removeprefix(_TYPE_URL) for one in types},
        references=dict(reference for one in types for reference in _references(one)),
        compartment={
            _value(row, "code"): tuple(param.get("value", "") for param in row.findall(f"{_FHIR}param"))
            for row in patient.findall(f"{_FHIR}resource")
        },
        parameters=tuple(_parameter(one) for one in parameters),
    )


def _keep(entry: ET.Element) -> ET.Element:
    """Return an entry's resource without its text and without what the snapshot repeats: they are most of 20 MB."""
    (resource,) = entry.findall(f"{_FHIR}resource/*")
    for heavy in ("text", "differential"):
        for child in resource.findall(f"{_FHIR}{heavy}"):
            resource.remove(child)
    entry.clear()
    return resource


def _name(resource: ET.Element) -> str:
    return resource.tag.removeprefix(_FHIR)


def _value(parent: ET.Element, child: str) -> str:
    found = parent.find(f"{_FHIR}{child}")
    return "" if found is None else found.get("value", "")


def _references(structure: ET.Element) -> Iterator[tuple[str, frozenset[str]]]:
    for element in structure.findall(f"{_FHIR}snapshot/{_FHIR}element"):
        kinds = [kind for kind in element.findall(f"{_FHIR}type") if _value(kind, "code") == "Reference"]
        urls = [target.get("value", "") for kind in kinds for target in kind.findall(f"{_FHIR}targetProfile")]
        if kinds:
            yield _value(element, "path"), frozenset(url.removeprefix(_TYPE_URL) for url in urls or ["Resource"])


def _parameter(resource: dict[str, Any]) -> Parameter:
    return Parameter(
        code=resource["code"],
        bases=tuple(resource["base"]),
        expression=resource.get("expression", ""),
        targets=frozenset(resource.get("target", ())),
    )
