from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from authz.demo.ask import Peer
from authz.demo.fhir import FhirApi
from authz.demo.ports import listen, serve
from authz.demo.walk import saw


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    api: FhirApi
    peer: Peer


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    api, opened = FhirApi({"issuer": "http://127.0.0.1"}), listen(0)
    runner = await serve(api.app, {opened: None})
    yield Site(api=api, peer=Peer(host="127.0.0.1", port=opened.getsockname()[1]))
    await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/health", {"status": "up"}),
        ("/fhir/metadata", {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}),
        ("/fhir/.well-known/smart-configuration", {"issuer": "http://127.0.0.1"}),
        ("/fhir/Patient/123", {"resourceType": "Patient", "id": "123"}),
        ("/fhir/Patient/124", {"resourceType": "Patient", "id": "124"}),
        ("/fhir/Patient/124/Observation", {"resourceType": "Bundle", "type": "searchset", "total": 1}),
    ],
)
async def test_what_it_serves(site: Site, path: str, expected: dict[str, object]) -> None:
    answer = await asyncio.to_thread(site.peer.ask, "GET", path)
    body = json.loads(answer.body)
    assert answer.status == 200
    assert {name: body[name] for name in expected} == expected


async def test_observations_are_the_patients_own(site: Site) -> None:
    answer = await asyncio.to_thread(site.peer.ask, "GET", "/fhir/Patient/123/Observation")
    subjects = [entry["resource"]["subject"]["reference"] for entry in json.loads(answer.body)["entry"]]
    assert subjects == ["Patient/123"]


@pytest.mark.parametrize("path", ["/fhir/Patient/125", "/fhir/Patient/125/Observation", "/fhir/Practitioner/1"])
async def test_what_is_not_there_is_not_found(site: Site, path: str) -> None:
    assert (await asyncio.to_thread(site.peer.ask, "GET", path)).status == 404


async def test_it_tells_every_identity_header_that_came_in_and_no_other(site: Site) -> None:
    headers = (("X-Client-Id", "a"), ("x-client-id", "b"), ("x_patient_id", "124"), ("authorization", "Bearer secret"))
    answer = await asyncio.to_thread(site.peer.ask, "GET", "/health", headers)
    assert saw(answer) == {"x-client-id": "a, b", "x_patient_id": "124"}
    await asyncio.to_thread(site.peer.ask, "GET", "/nowhere")
    assert site.api.served == 2, "what it does not have has reached it all the same"
