"""The tables of FHIR R4 are what HL7's definitions give, read from the jar that `tools/definitions/versions` pins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from definitions.__main__ import MODULE
from definitions.hl7 import Definitions, Parameter, fetch, read
from definitions.module import render
from definitions.tables import Tables, tabulate


@pytest.fixture(scope="module")
def jar() -> Path:
    try:
        return fetch()
    except subprocess.CalledProcessError:
        if shutil.which("mvn") is None:
            pytest.skip("mvn is not installed, which fetches HL7's definitions; see tests/programs")
        raise


@pytest.fixture(scope="module")
def defined(jar: Path) -> Definitions:
    return read(jar)


def test_module_is_what_the_definitions_give(defined: Definitions) -> None:
    """If this fails: `make tables`, and commit."""
    assert render(tabulate(defined)) == MODULE.read_text()


def test_definitions_are_read_whole(defined: Definitions) -> None:
    """All three counts are those of the packaged files: a reader that loses some would give smaller tables."""
    assert len(defined.parents) == 146
    assert defined.compartment.keys() == defined.parents.keys() - {"Parameters"}
    assert len(defined.parameters) == 1375
    assert defined.compartment["Task"] == ()
    assert defined.references["Observation.subject"] == {"Patient", "Group", "Device", "Location"}


def define(compartment: dict[str, tuple[str, ...]], *parameters: Parameter) -> Tables:
    """Return the tables of types T and U, whose `subject` is a Patient or a Group."""
    common = (parameter("_id", "Resource.id", base="Resource"), parameter("_text", "", base="DomainResource"))
    return tabulate(
        Definitions(
            parents={"T": "DomainResource", "U": "Resource", "Patient": "DomainResource", "Group": "DomainResource"},
            references={
                "T.subject": frozenset({"Patient", "Group"}),
                "T.owner": frozenset({"Patient"}),
                "T.about": frozenset({"Resource"}),
            },
            compartment=compartment,
            parameters=(*common, *parameters),
        )
    )


def parameter(code: str, expression: str, targets: str = "", *, base: str = "T") -> Parameter:
    return Parameter(code=code, bases=(base,), expression=expression, targets=frozenset(targets.split()))


SUBJECT = parameter("subject", "T.subject | V.subject", "Patient Group")


@pytest.mark.parametrize(
    ("other", "targets"),
    [
        (parameter("patient", "V.x | T.subject.where(resolve() is Patient)", "Patient Group"), {"Patient"}),
        (parameter("whole", "T.subject", "Patient Group Device"), {"Patient", "Group"}),
        (parameter("owner", "T.owner", "Patient"), None),
        (parameter("both", "T.subject | T.owner", "Patient"), None),
        (parameter("group", "T.subject.where(resolve() is Group)", "Group"), None),
        (parameter("cast", "(T.subject as Reference)", "Patient"), None),
        (parameter("foreign", "V.subject", "Patient"), None),
        (parameter("prose", "", "Patient"), None),
    ],
    ids=lambda value: value.code if isinstance(value, Parameter) else "",
)
def test_twin_of_a_compartment_parameter_reads_the_same_elements(other: Parameter, targets: set[str] | None) -> None:
    pins = define({"T": ("subject",), "U": ()}, SUBJECT, other).compartment
    assert pins == {"T": {"subject": {"Patient", "Group"}} | ({} if targets is None else {other.code: targets})}


@pytest.mark.parametrize(
    ("expression", "declared", "targets"),
    [
        ("T.owner", "Patient Group", {"Patient"}),  # the element allows less than the parameter
        ("T.subject", "Patient", {"Patient"}),  # and the other way round
        ("T.about", "Patient Group T", {"Patient", "Group", "T"}),  # any resource: what the parameter says
        ("T.owner | T.subject.where(resolve() is Group)", "Patient Group U", {"Patient", "Group"}),
    ],
)
def test_parameter_refers_to_what_its_elements_allow(expression: str, declared: str, targets: set[str]) -> None:
    pins = define({"T": ("pin",)}, parameter("pin", expression, declared)).compartment
    assert pins == {"T": {"pin": targets}}


@pytest.mark.parametrize("code", ["unknown", "cast"])
def test_what_the_definitions_do_not_explain_is_no_guess(code: str) -> None:
    with pytest.raises(KeyError):
        define({"T": (code,)}, parameter("cast", "(T.subject as Reference)", "Patient"))


def test_type_has_the_parameters_of_what_it_derives_from() -> None:
    tables = define({}, SUBJECT)
    assert tables.parameters["T"] == ("DomainResource", frozenset({"subject"}))
    assert tables.parameters["U"] == ("Resource", frozenset())
    assert tables.common["Resource"] == {"_id", "_filter", "_has", "_list", "_type"}
    assert tables.common["DomainResource"] == tables.common["Resource"] | {"_text"}


def test_jar_of_another_version_is_refused(jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("definitions.hl7.VERSION", "4.3.0")
    with pytest.raises(ValueError, match=r"FHIR 4\.3\.0 was expected, and the jar has \['4\.0\.1'\]"):
        read(jar)


def test_jar_of_another_hash_is_refused(tmp_path: Path) -> None:
    """`fetch` with a Maven that brings something else."""
    tools = shutil.copytree(Path(MODULE).parents[2] / "tools" / "definitions", tmp_path / "definitions")
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text(
        '#!/bin/sh\nfor word in "$@"; do case $word in -DoutputDirectory=*) echo else >"${word#*=}/a.jar" ;; esac; done\n'
    )
    maven.chmod(0o755)
    environment = {"PATH": f"{maven.parent}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    run = subprocess.run([tools / "fetch"], check=False, capture_output=True, text=True, env=environment)
    assert run.returncode == 1
    assert "is not the file that R4_SHA256" in run.stderr
    assert list((tmp_path / "cache").rglob("*.jar")) == []
