from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_api import KubernetesApi
from operator_process import OperatorProcess, Tenant

TENANTS = 40
CEILING = {"namespaces": ["*"], "scopes": ["system/*.cruds", "patient/*.cruds"]}


@pytest.fixture(scope="session")
def office(
    plane: KubernetesApi, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OperatorProcess, list[Tenant]]]:
    """One operator for the session, and the tenants that it has left for tests."""
    tenants = [Tenant(plane, plane.new_namespace()) for _ in range(TENANTS)]
    system = plane.new_namespace()
    with OperatorProcess(
        tmp_path_factory.mktemp("office"), plane.kubeconfig, system, *(one.namespace for one in tenants),
        certificates={"resync": "2s"}, ceilings=[CEILING],
    ) as running:  # fmt: skip
        yield running.ready(), tenants


@pytest.fixture
def operator(office: tuple[OperatorProcess, list[Tenant]]) -> OperatorProcess:
    return office[0]


@pytest.fixture
def tenant(office: tuple[OperatorProcess, list[Tenant]]) -> Tenant:
    """A namespace of the test's own, looked after by the session's operator."""
    return office[1].pop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
