"""A request to a FHIR server and what came, whose it is."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import partner

from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

FORM = "application/x-www-form-urlencoded"
JSON = "application/fhir+json"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request below the FHIR base; `target` is what stands on the wire."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None

    def __str__(self) -> str:
        told = [f"{name}: {value}" for name, value in self.headers.items()]
        return " ".join([self.method, self.target, *told, *([] if self.body is None else [repr(self.body)])])

    def with_page(self, page: str) -> Ask:
        """Return the request with the id of somebody else's page in the place of THEIRS."""
        body = self.body and self.body.replace("THEIRS", page)
        return replace(self, target=self.target.replace("THEIRS", page), body=body)

    @property
    def content(self) -> bytes:
        return (self.body or "").encode("latin-1")

    def described(self, token: str) -> CheckRequest:
        """Return the request as Envoy describes it with its body (`with_request_body`)."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.body is not None:
            headers |= {"content-length": str(len(self.content)), "x-envoy-auth-partial-body": "false"}
        request = partner.check_request(f"/fhir{self.target}", self.method, headers=headers, bearer=token)
        request.attributes.request.http.raw_body = self.content
        return request

    def bytes_to(self, host: str) -> bytes:
        headers = {"Host": host, "Accept": JSON, "Connection": "close"} | dict(self.headers)
        if self.body is not None or self.method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(len(self.content))
        lines = [f"{self.method} /fhir{self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.content


def get(target: str, **headers: str) -> Ask:
    return Ask("GET", target, _names(headers))


def form(target: str, body: str, **headers: str) -> Ask:
    """Return a search by POST."""
    return Ask("POST", target, {"Content-Type": FORM} | _names(headers), body)


def write(method: str, target: str, resource: object = None, **headers: str) -> Ask:
    body = None if resource is None else resource if isinstance(resource, str) else json.dumps(resource)
    kind = {} if body is None else {"Content-Type": JSON}
    return Ask(method, target, kind | _names(headers), body)


def _names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True, slots=True)
class Came:
    status: int
    media_type: str
    text: str

    def resources(self) -> list[dict[str, Any]]:
        """Return every resource in the answer; of formats that are not JSON, its type and id."""
        if self.media_type in ("application/fhir+json", "application/json"):
            return list(_unpack(json.loads(self.text))) if self.text else []
        text = html.unescape(re.sub(r"<[^>]*>", "", self.text)) if self.media_type == "text/html" else self.text
        named = [one for found in _ELSEWHERE for one in found.findall(text)]
        return [{"resourceType": kind, "id": id_} for kind, id_ in named if kind != "Bundle"]

    @property
    def total(self) -> int:
        """Return how many a search says that it has found; a count tells of resources without naming them."""
        found = re.search(r'"total":\s*(\d+)', self.text) if self.media_type == JSON else None
        return int(found[1]) if found else 0


# In XML, JSON shown as a page, Turtle.
_ELSEWHERE = (
    re.compile(r'<(\w+) xmlns="http://hl7\.org/fhir">\s*<id value="([^"]+)"'),
    re.compile(r'"resourceType":\s*"(\w+)",\s*"id":\s*"([^"]+)"'),
    re.compile(r"<http://[^/>]*/fhir/(\w+)/([^/>]+)(?:/_history/\d+)?>\s+rdf:type"),
)


def _unpack(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if resource.get("resourceType") != "Bundle":
        yield resource
        return
    for entry in resource.get("entry", ()):
        if "resource" in entry:
            yield from _unpack(entry["resource"])


def names(resource: object) -> set[str]:
    """Return every reference in a resource."""
    if isinstance(resource, dict):
        own = {value for key, value in resource.items() if key == "reference" and isinstance(value, str)}
        return own.union(*map(names, resource.values()))
    return set().union(*map(names, resource)) if isinstance(resource, list) else set()
