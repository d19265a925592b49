from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import partner
import pytest
from fhir.asking import Ask
from fhir.server import FhirServer, require

from authz.check import check


class Decide(Protocol):
    def __call__(self, scope: str, asks: Sequence[Ask], compartment: str = "deny") -> dict[str, dict[str, Any]]: ...


@pytest.fixture(scope="module")
def hapi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirServer]:
    """One FHIR server for a module's tests; who writes puts the records back."""
    require()
    with FhirServer(tmp_path_factory.mktemp("hapi")) as running:
        yield running


@pytest.fixture(scope="module")
def decide(tmp_path_factory: pytest.TempPathFactory) -> Decide:
    """Return what `clientpolicy check` says of requests with a token of these scopes, by the request."""

    def decided(scope: str, asks: Sequence[Ask], compartment: str = "deny") -> dict[str, dict[str, Any]]:
        site = partner.Site(tmp_path_factory.mktemp("site"))
        policy = partner.policy_document(scopes=scope.split())
        config = site.write(policy, fhir={"basePath": "/fhir", "compartment": compartment, "server": {"kind": "hapi"}})
        token = partner.token(scope=scope)
        lines = check(config, tuple(ask.described(token) for ask in asks), partner.NOW_US)
        return {str(ask): line for ask, line in zip(asks, lines, strict=True)}

    return decided
