"""What is allowed for patient 123 brings and changes nothing of anybody else, on a FHIR server that nobody here wrote.

Each request is decided by the real service; what it allows goes to HAPI FHIR byte for byte, and HAPI's answer is judged
by whose the resources in it are. What is refused does not go there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from fhir import hostile, ordinary
from fhir.asking import Ask, Came
from fhir.conftest import Decide
from fhir.owners import how_many, is_his, key
from fhir.server import FhirServer, resources

Lines = dict[str, dict[str, Any]]


def distinct(asks: Iterator[Ask]) -> list[Ask]:
    return list({str(ask): ask for ask in asks}.values())


READS = distinct(hostile.reads())
FILTERED = distinct(hostile.filters())
WRITES = distinct(hostile.writes())
ORDINARY = distinct(chain(ordinary.asked(), ordinary.pinned()))
CHANGES = distinct(ordinary.changed())
SOME = {"Encounter", "Observation", "Patient"}
OF_NOBODY = {"OperationOutcome", "CapabilityStatement"}


@pytest.fixture(scope="module")
def page(hapi: FhirServer) -> str:
    return hapi.page_of("124")


@pytest.fixture(scope="module")
def reading(decide: Decide) -> Lines:
    return decide("patient/*.rs", [*READS, *ORDINARY])


@pytest.fixture(scope="module")
def writing(decide: Decide) -> Lines:
    return decide("patient/*.cruds", [*WRITES, *CHANGES])


@pytest.fixture(scope="module")
def observing(decide: Decide) -> Lines:
    return decide("user/Observation.rs", READS)


@pytest.fixture(scope="module")
def filtering(decide: Decide) -> Lines:
    return decide("patient/Observation.rs?category=laboratory", FILTERED)


@pytest.fixture(scope="module")
def changing(decide: Decide) -> Lines:
    return decide(f"user/{'.cruds user/'.join(sorted(SOME))}.cruds", WRITES)


def passes(line: dict[str, Any]) -> bool:
    """Return whether a request reaches a server that is told nothing of a compartment."""
    return line["verdict"] == "allow" and "x-fhir-compartment" not in line["headers"]["upstream"]


def forwarded(ask: Ask, line: dict[str, Any], page: str = "") -> Ask:
    removed = set(line["headers"]["remove"])
    kept = {name: told for name, told in ask.headers.items() if name.lower() not in removed}
    return replace(ask, headers=kept).with_page(page)


def strangers(came: Came) -> list[str]:
    """Return the resources of an answer that are not patient 123's."""
    found = came.resources()
    if came.status == 200 and came.text and not found:
        assert came.media_type == "application/fhir+json" or not re.search(r"\b12[45]\b", came.text), came.text[:500]
    return [key(one) for one in found if one["resourceType"] not in OF_NOBODY and not is_his(one)]


@pytest.mark.parametrize("ask", READS, ids=str)
def test_read_that_is_allowed_brings_his_resources_alone(ask: Ask, reading: Lines, hapi: FhirServer, page: str) -> None:
    line = reading[str(ask)]
    if passes(line):
        came = hapi.send(forwarded(ask, line, page))
        assert strangers(came) == []
        kind = ask.target.strip("/").partition("?")[0].partition("/")[0]
        offset = re.search(r"[?&]_offset=(\d+)", ask.target)  # beyond the end HAPI tells the offset as the total
        assert came.total <= max(how_many(kind), 1, int(offset[1]) if offset else 0)  # 1: a history of one


@pytest.mark.parametrize("ask", READS, ids=str)
def test_scope_for_one_type_brings_that_type_alone(ask: Ask, observing: Lines, hapi: FhirServer, page: str) -> None:
    line = observing[str(ask)]
    if passes(line):
        came = hapi.send(forwarded(ask, line, page))
        assert {one["resourceType"] for one in came.resources()} <= OF_NOBODY | {"Observation"}


@pytest.mark.parametrize("ask", FILTERED, ids=str)
def test_scope_with_a_filter_brings_what_it_filters_alone(ask: Ask, filtering: Lines, hapi: FhirServer) -> None:
    line = filtering[str(ask)]
    if passes(line):
        came = hapi.send(forwarded(ask, line))
        assert strangers(came) == []
        observations = [one for one in came.resources() if one["resourceType"] == "Observation"]
        categories = {one["category"][0]["coding"][0]["code"] for one in observations}
        assert categories <= {"laboratory"}


@pytest.mark.parametrize("ask", WRITES, ids=str)
def test_write_that_is_allowed_changes_his_resources_alone(ask: Ask, writing: Lines, hapi: FhirServer) -> None:
    line = writing[str(ask)]
    if passes(line):
        came, changed = written(hapi, forwarded(ask, line))
        hapi.load()
        assert strangers(came) == []
        for name, resource in changed:
            assert name not in resources() or is_his(resources()[name])
            assert not resource or is_his(resource)


def written(server: FhirServer, ask: Ask) -> tuple[Came, list[tuple[str, dict[str, Any]]]]:
    """Return what came, and each resource that changed: its `Type/id`, and what it is now, if it is."""
    before = server.history()
    came = server.send(ask)
    changed = {version: resource for version, resource in server.history().items() if version not in before}
    return came, [(version.partition("/_history")[0], resource) for version, resource in changed.items()]


@pytest.mark.parametrize("ask", ORDINARY, ids=str)
def test_ordinary_request_of_an_app_is_answered(ask: Ask, reading: Lines, hapi: FhirServer) -> None:
    line = reading[str(ask)]
    assert (line["verdict"], line["reason"]) == ("allow", "allowed")
    assert passes(line)
    came = hapi.send(forwarded(ask, line))
    assert came.status == 200, came.text[:1000]
    assert strangers(came) == []


@pytest.mark.parametrize("ask", CHANGES, ids=str)
def test_ordinary_write_of_an_app_is_done(ask: Ask, writing: Lines, hapi: FhirServer) -> None:
    line = writing[str(ask)]
    assert passes(line)
    came, changed = written(hapi, forwarded(ask, line))
    hapi.load()
    assert came.status == 200
    assert [name for name, _ in changed] == ["Patient/123"]


def test_delegating_lets_nothing_more_pass_without_a_word(decide: Decide, reading: Lines, writing: Lines) -> None:
    for scope, asks, denying in (("patient/*.rs", READS, reading), ("patient/*.cruds", WRITES, writing)):
        delegating = decide(scope, asks, "delegate")
        assert [str(ask) for ask in asks if passes(delegating[str(ask)]) and not passes(denying[str(ask)])] == []


def test_tables_reach_the_server(
    reading: Lines, writing: Lines, observing: Lines, filtering: Lines, changing: Lines
) -> None:
    """A table whose every row is refused would prove nothing."""
    tables = ((reading, READS), (observing, READS), (filtering, FILTERED), (writing, WRITES), (changing, WRITES))
    passed = [sum(passes(lines[str(ask)]) for ask in asks) for lines, asks in tables]
    assert all(at_least <= found for at_least, found in zip((100, 100, 5, 4, 20), passed, strict=True)), passed


@pytest.mark.parametrize("ask", WRITES, ids=str)
def test_scope_for_some_types_changes_those_alone(ask: Ask, changing: Lines, hapi: FhirServer) -> None:
    """The last: what others are allowed here stays written."""
    line = changing[str(ask)]
    if passes(line):
        _, changed = written(hapi, forwarded(ask, line))
        assert {name.partition("/")[0] for name, _ in changed} <= SOME
