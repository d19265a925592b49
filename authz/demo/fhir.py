"""A small FHIR API with two invented patients. It trusts its proxy: who gets this far gets an answer.

Each answer tells in `x-upstream-saw` which identity headers came in, so that a walk-through can show who set them.
"""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web

SAW: Final = "x-upstream-saw"
_IDENTITY: Final = frozenset(
    {"x-client-id", "x-client-policy", "x-patient-id", "x-token-subject", "x-token-scopes", "x-fhir-compartment"}
)
_PATIENTS: Final = {
    "123": {"resourceType": "Patient", "id": "123", "name": [{"family": "Example", "given": ["Ada"]}]},
    "124": {"resourceType": "Patient", "id": "124", "name": [{"family": "Sample", "given": ["Ben"]}]},
}
_CAPABILITIES: Final = {
    "resourceType": "CapabilityStatement",
    "status": "active",
    "date": "2026-01-01",
    "kind": "instance",
    "fhirVersion": "4.0.1",
    "format": ["application/fhir+json"],
    "rest": [{"mode": "server", "resource": [{"type": "Patient"}, {"type": "Observation"}]}],
}


class FhirApi:
    """Counts what reaches it: a refusal that still got here would be none."""

    def __init__(self, smart_configuration: dict[str, object]) -> None:
        self.served = 0
        self._smart_configuration = smart_configuration
        self.app: Final = web.Application()
        self.app.on_response_prepare.append(self._tell)
        self.app.add_routes(
            [
                web.get("/health", _health),
                web.get("/fhir/metadata", _capabilities),
                web.get("/fhir/.well-known/smart-configuration", self._smart),
                web.get("/fhir/Patient/{id}", _patient),
                web.get("/fhir/Patient/{id}/Observation", _observations),
            ]
        )

    async def _tell(self, request: web.Request, response: web.StreamResponse) -> None:
        self.served += 1
        # `x_client_id` counts as well: many servers cannot tell it from `x-client-id`.
        seen = sorted((name.lower(), request.headers.getall(name)) for name in set(request.headers))
        response.headers[SAW] = json.dumps(
            {name: ", ".join(values) for name, values in seen if name.replace("_", "-") in _IDENTITY}
        )

    async def _smart(self, _: web.Request) -> web.Response:
        return web.json_response(self._smart_configuration)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "up"})


async def _capabilities(_: web.Request) -> web.Response:
    return _fhir(_CAPABILITIES)


async def _patient(request: web.Request) -> web.Response:
    patient = _PATIENTS.get(request.match_info["id"])
    return _not_found() if patient is None else _fhir(patient)


async def _observations(request: web.Request) -> web.Response:
    patient_id = request.match_info["id"]
    if patient_id not in _PATIENTS:
        return _not_found()
    observation = {
        "resourceType": "Observation",
        "id": f"pulse-of-{patient_id}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": f"Patient/{patient_id}"},
        "valueQuantity": {"value": 60, "unit": "beats/minute"},
    }
    return _fhir({"resourceType": "Bundle", "type": "searchset", "total": 1, "entry": [{"resource": observation}]})


def _not_found() -> web.Response:
    issue = {"severity": "error", "code": "not-found"}
    return _fhir({"resourceType": "OperationOutcome", "issue": [issue]}, status=404)


def _fhir(resource: object, status: int = 200) -> web.Response:
    return web.json_response(resource, status=status, content_type="application/fhir+json")
