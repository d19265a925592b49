"""Every FHIR request form and what it needs; what is no such form is refused."""

from __future__ import annotations

import pytest

from authz.core import interaction, search
from authz.core.control_parameters import SERVERS
from authz.core.interaction import Interaction, Kind, Need, classify, reached
from authz.model import Reason, Refused
from authz.policy.fhir_r4 import RESOURCE_TYPES


def ask(method: str, path: str, *, conditional: bool = False) -> Interaction:
    path, _, query = path.partition("?")
    segments = tuple(path.split("/")) if path else ()
    return classify(method, segments, search.parse(query), conditional=conditional)


NEEDS = {
    "GET Patient/1": "Patient.r",
    "HEAD Patient/1": "Patient.r",
    "GET Observation/a.b-C": "Observation.r",
    "GET Patient/1/_history/2": "Patient.r",
    "GET Patient/1/_history": "Patient.r",
    "GET Observation": "Observation.s",
    "GET Observation?patient=1": "Observation.s",
    "HEAD Observation?patient=1": "Observation.s",
    "POST Observation/_search": "Observation.s",
    "GET Observation/_history": "Observation.s",
    "GET _history": "*.s",
    "GET _history?_type=Patient": "*.s",
    "GET ?_type=Patient,Observation": "Patient.s Observation.s",
    "GET ?_type=Patient&_type=Encounter": "Patient.s Encounter.s",
    "GET ?name=x": "*.s",
    "POST Observation": "Observation.c",
    "PUT Observation/1": "Observation.u",
    "PATCH Observation/1": "Observation.u",
    "DELETE Observation/1": "Observation.d",
    "PUT Observation?code=x": "Observation.u Observation.s",
    "PATCH Observation?code=x": "Observation.u Observation.s",
    "DELETE Observation?code=x": "Observation.d Observation.s",
    "GET Patient/1/Observation": "Observation.s",
    "POST Patient/1/Observation/_search": "Observation.s",
    "GET Encounter/1/Observation?code=x": "Observation.s",
    "GET Patient/1/*": "*.s",
    "GET Patient/1/$everything": "*.r *.s",
}
UNSUPPORTED = [
    "POST ",
    "GET ",
    "PUT ",
    "GET patient/1",
    "GET Patient/",
    "GET Patient/1/",
    "GET Patient/1/_history/",
    "GET Patient/1/2",
    "GET Patient/1/Observation/2",
    "GET Patient/1/_history/2/3",
    "GET Patient/a_b",
    "GET Patient/" + "1" * 65,
    "GET Patient/é",
    "GET metadata",
    "GET .well-known/smart-configuration",
    "POST $process-message",
    "GET Patient/$everything",
    "GET Patient/$match",
    "GET Observation/1/$everything",
    "POST Patient/1/$everything",
    "GET Patient/1/$graphql",
    "POST Patient/1",
    "PUT Patient",
    "DELETE Patient",
    "POST Patient/_history",
    "GET Patient/_search",
    "PUT Patient/_search",
    "OPTIONS Patient/1",
    "TRACE Patient/1",
    "get Patient/1",
    "DELETE Patient/1/_history",
    "PUT Patient/1/_history/1",
    "GET Patient/1/observation",
    "POST Patient/1/Observation",
    "GET ?_type=patient",
    "GET ?_type=Patient,",
    "GET ?_type=" + ",".join(["Patient"] * (interaction.TYPES_MAX + 1)),
    "GET Pa%74ient/1",
    "GET FutureType/1",
    "GET DomainResource/1",
    "GET Resource",
    "GET DEFAULT/Patient",
    "GET _ALL/Patient",
    "POST DEFAULT",
    "DELETE ACME/Patient?name=x",
    "GET DEFAULT/Patient/1",
    "POST DEFAULT/_search",
    "GET DEFAULT/_history",
    "GET Patient/1/DEFAULT",
    "GET ?_type=DEFAULT",
    "GET 1",
]


@pytest.mark.parametrize(("request_line", "needs"), NEEDS.items())
def test_request_needs_its_permissions(request_line: str, needs: str) -> None:
    method, _, path = request_line.partition(" ")
    expected = tuple(Need(*need.split(".")) for need in needs.split())
    assert ask(method, path).needs == expected


@pytest.mark.parametrize("request_line", UNSUPPORTED)
def test_what_is_no_interaction_is_refused(request_line: str) -> None:
    method, _, path = request_line.partition(" ")
    with pytest.raises(Refused) as refused:
        ask(method, path)
    assert refused.value.reason is Reason.INTERACTION_UNSUPPORTED


def test_conditional_create_searches_too() -> None:
    assert ask("POST", "Observation", conditional=True).needs == (Need("Observation", "c"), Need("Observation", "s"))


def test_search_by_post_without_its_body_is_not_readable() -> None:
    unseen = search.parse("patient=1")._replace(is_complete=False)
    assert not classify("POST", ("Observation", "_search"), unseen).is_readable
    seen = search.parse("patient=1&code=x")
    asked = classify("POST", ("Patient", "1", "Observation", "_search"), seen)
    assert asked == Interaction(Kind.COMPARTMENT_SEARCH, (Need("Observation", "s"),), "Patient", "1", "Observation")


REACHED = {
    "code=x&date=ge2020&_sort=-date&_count=5": "",
    "_include=Observation:subject": "*.r",
    "_include=Observation:subject:Patient": "Patient.r",
    "_include:iterate=Observation:subject:Patient": "Patient.r",
    "_include=*": "*.r",
    "_include=Observation:subject:patient": "*.r",
    "_revinclude=Provenance:target": "Provenance.s",
    "_revinclude:iterate=Provenance:target": "Provenance.s",
    "_revinclude=*": "*.s",
    "_revinclude=Provenance:target,Observation:subject": "Provenance.s Observation.s",
    "_include=Observation:subject:Patient,Observation:device:Device": "Patient.r Device.r",
    "_include=Observation:subject:Patient,Observation:device": "Patient.r *.r",
    "_include=Observation:subject:DEFAULT": "*.r",
    "_revinclude=DEFAULT:target": "*.s",
    "_sort=subject.name": "*.s",
    "_sort=-patient:Patient.name": "*.s",
    "_sort=-date,code": "",
    "_has:Observation:patient:_HAS:AuditEvent:entity:agent=x": "*.s",
    "_has:Observation:patient:code=x": "Observation.s",
    "_has:Observation:patient:_has:AuditEvent:entity:agent=x": "*.s",
    "_has=x": "*.s",
    "subject.name=x": "*.s",
    "subject:Patient.name=x": "*.s",
    "_filter=name+eq+x": "*.s",
    "_contained=true": "*.s",
    "_query=x": "*.s",
    "_graph=x": "*.s",
    "_INCLUDE=Observation:subject:Patient": "Patient.r",
    "code=x;_include=a": "*.r *.s",
}


@pytest.mark.parametrize(("query", "needs"), REACHED.items())
def test_what_a_search_reaches_besides_its_type(query: str, needs: str) -> None:
    expected = tuple(Need(*need.split(".")) for need in needs.split())
    asked = ask("GET", f"Observation?{query}")
    assert reached(asked, search.parse(query)) == expected


@pytest.mark.parametrize("query", ["_type=Patient&_getpages=u", "_getpages=u&_type=Patient", "_getpages=u"])
def test_page_of_a_system_search_may_hold_any_type(query: str) -> None:
    parameters = search.parse(query, SERVERS["hapi"])
    assert classify("GET", (), parameters).needs == (Need("*", "s"),)


def test_types_of_a_system_search_are_bounded() -> None:
    types = sorted(RESOURCE_TYPES)
    assert len(ask("GET", "?_type=" + ",".join(types[:32])).needs) == 32
    with pytest.raises(Refused):
        ask("GET", "?_type=" + ",".join(types[:33]))
