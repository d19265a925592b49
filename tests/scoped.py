"""Requests of an app with some scopes: allowed by which right, or refused for which reason."""

from __future__ import annotations

from typing import Any

import pytest

from authz.core import grant
from authz.model import Claims, Client, Compartment, Confirmation, Fhir, Grant, Reason, Refused, Request
from authz.policy.smart import parse_scope

DENY = Fhir("/fhir", Compartment.DENY)
DELEGATE = Fhir("/fhir", Compartment.DELEGATE)
EVERYTHING = ("patient/*.cruds", "user/*.cruds", "system/*.cruds")


def client(*scopes: str, **more: Any) -> Client:
    parsed = tuple(scope for scope in map(parse_scope, scopes or EVERYTHING) if scope is not None)
    return Client(**({"id": "c", "policy": "p/c", "scopes": parsed} | more))


def claims(*scopes: str, patient: str | None = "123") -> Claims:
    return Claims("iss", "key", None, "c", scopes, patient, 0, None, Confirmation.NONE)


def request(method: str, target: str, **more: Any) -> Request:
    blank = Request(method, target, "h", "id", "", None, None, None, is_overridden=False)
    return blank._replace(**more)


def decide(
    line: str,
    *scopes: str,
    patient: str | None = "123",
    policy: Client | None = None,
    fhir: Fhir = DENY,
    **more: Any,
) -> Grant:
    method, _, target = line.partition(" ")
    asked = request(method, target, **more)
    token = claims(*scopes, patient=patient)
    known = policy or client()
    return grant.decide(asked, grant.complete(asked, grant.read_target(target, fhir), known, fhir), known, token, fhir)


def reason(line: str, *scopes: str, **more: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        decide(line, *scopes, **more)
    return refused.value.reason


READ = ("patient/*.rs",)
