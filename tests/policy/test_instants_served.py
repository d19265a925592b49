"""Instants on a real API server: what it refuses lint refuses, and what it takes we read as the same instant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes_api import KubernetesApi, policies_in

from authz.policy import ClientPolicy, parse

NO_DAYS = (
    "2026-12-31T24:00:00Z", "2026-12-31T23:60:00Z", "2026-12-31T23:59:60Z", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z",
)  # fmt: skip
ORDINARY = (
    "2026-12-31T00:00:00Z", "2026-12-31T00:00:00.5Z", "2026-12-31T00:00:00.123456789Z", "2026-12-31T00:00:00+01:00",
    "2026-12-31T23:59:59-11:30", "2024-02-29T00:00:00Z", "9999-12-31T23:59:59Z", "2026-12-31T00:00:00.5+01:00",
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    *NO_DAYS, *ORDINARY,

    "2026-12-31t00:00:00z", "2026-12-31T00:00:00z", "2026-12-31t00:00:00Z",
    "2026-12-31 00:00:00Z", "2026-12-31_00:00:00Z", "2026-12-31T00:00Z", "2026-12-31T00Z", "2026-12-31", "2026-12-31T00:00:00",

    "2026-12-31T00:00:00,5Z", "2026-12-31T00:00:00.Z", "2026-12-31T00:00:00+0100", "2026-12-31T00:00:00+01", "2026-12-31T00:00:00+24:00",
    "2026-12-31T00:00:00+23:59", "2026-12-31T00:00:00+25:00", "2026-12-31T00:00:00+01:60", "2026-12-31T00:00:00-00:00", " 2026-12-31T00:00:00Z",
    "2026-12-31T00:00:00Z ", "2026-12-31T00:00:00Z\n", "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z", "20261231T000000Z", "2026-W53-4T00:00:00Z", "2026-366T00:00:00Z", "1798675200", 1798675200, "", "now",
    "\uff12026-12-31T00:00:00Z", "2026-12-31T00:00:00.1234567890123Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00",
    "2026-12-31T00:00:00\u22121:00", "2026-12-31T00:00:00 Z", "+2026-12-31T00:00:00Z", "2026-12-31T0:00:00Z",
)  # fmt: skip
PLACES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "validity.notAfter": lambda text: {"validity": {"notAfter": text}},
    "validity.notBefore beside a rule": lambda text: {
        "validity": {"notBefore": text, "notAfter": "9999-12-31T23:59:59.999999Z"}
    },
    "revocation.issuedBefore": lambda text: {"revocation": {"issuedBefore": text}},
    "revocation.fingerprints.time": lambda text: {"revocation": {"fingerprints": [{"sha256": "a" * 64, "time": text}]}},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_api_server_takes_and_refuses_what_we_do(
    plane: KubernetesApi, namespace: str, place: Callable[[Any], dict[str, Any]]
) -> None:
    taken: list[Any] = []
    for text in TEXTS:
        sent = {
            "apiVersion": "authz.healthtech.dev/v1alpha1",
            "kind": "ClientPolicy",
            "metadata": {"name": "app"},
            "spec": {"clientId": "app"} | place(text),
        }
        status, answer = plane.api("POST", policies_in(namespace) + "?fieldValidation=Strict&dryRun=All", sent)
        assert isinstance(parse(sent), ClientPolicy) == (status == 201), (text, answer)
        if status == 201:
            taken.append(text)
    assert set(ORDINARY) <= set(taken)
