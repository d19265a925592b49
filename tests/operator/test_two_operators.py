"""Two operators with CAs of their own that would serve one namespace: the second says so and does nothing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from kubernetes_api import KubernetesApi
from operator_process import OperatorProcess, Tenant, until

QUICK: dict[str, Any] = {"certificates": {"resync": "2s"}}
OTHERS = "clientpolicy_namespaces_of_others"


@pytest.fixture
def tenant(plane: KubernetesApi) -> Tenant:
    return Tenant(plane, plane.new_namespace())


def lease(tenant: Tenant) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{tenant.namespace}/leases/clientpolicy-served"


def holder(tenant: Tenant) -> str:
    told: str = tenant.plane.api("GET", lease(tenant))[1].get("spec", {}).get("holderIdentity", "")
    return told


def has_ca(tenant: Tenant, system: str) -> bool:
    return tenant.plane.api("GET", f"/api/v1/namespaces/{system}/secrets/clientpolicy-ca")[0] == 200


def test_second_operator_does_nothing_until_the_namespace_is_handed_over(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path
) -> None:
    systems = plane.new_namespace(), plane.new_namespace()
    first, second = (OperatorProcess(tmp_path, plane.kubeconfig, one, tenant.namespace, **QUICK) for one in systems)
    with first:
        first.ready()
        until("held", lambda: holder(tenant) == systems[0])
        with second:
            second.ready()
            until("told", lambda: second.metric(OTHERS) == 1)
            assert "another operator serves this namespace" in second.log.read_text()
            tenant.apply()
            told = tenant.ready()
            before = tenant.policy()
            until("looked at", lambda: second.metric('clientpolicy_reconciles_total{result="settled"}') >= 3)
            assert tenant.policy() == before, "not even its status is written"
            assert (has_ca(tenant, systems[0]), has_ca(tenant, systems[1])) == (True, False)
            assert first.stop() == 0
            plane.must("DELETE", lease(tenant))
            until("taken over", lambda: holder(tenant) == systems[1])
            until("said", lambda: "the status of policies tells" in second.log.read_text())
            assert tenant.certificate() == told, "no CA is made where a status tells of one"
            assert second.stop() == 0


def test_who_shares_one_of_its_namespaces_serves_the_other(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path
) -> None:
    mine, systems = Tenant(plane, plane.new_namespace()), (plane.new_namespace(), plane.new_namespace())
    first = OperatorProcess(tmp_path, plane.kubeconfig, systems[0], tenant.namespace, **QUICK)
    second = OperatorProcess(tmp_path, plane.kubeconfig, systems[1], tenant.namespace, mine.namespace, **QUICK)
    with first:
        tenant.apply()
        theirs = tenant.ready()
        with second:
            second.ready()
            mine.apply()
            assert mine.ready()["caSha256"] != theirs["caSha256"]
            tenant.apply("late")
            assert tenant.ready("late")["caSha256"] == theirs["caSha256"]
            assert tenant.certificate() == theirs
            assert (first.metric(OTHERS), second.metric(OTHERS)) == (0, 1)
            assert (first.stop(), second.stop()) == (0, 0)


def test_operator_of_all_namespaces_and_one_of_a_few_see_each_other(own_plane: ControlPlane, tmp_path: Path) -> None:
    tenant, other = (Tenant(own_plane, own_plane.new_namespace()) for _ in range(2))
    systems = own_plane.new_namespace(), own_plane.new_namespace()
    few = OperatorProcess(tmp_path, own_plane.kubeconfig, systems[0], tenant.namespace, **QUICK)
    every = OperatorProcess(tmp_path, own_plane.kubeconfig, systems[1], **QUICK)
    with few:
        tenant.apply()
        theirs = tenant.ready()
        with every:
            every.ready()
            other.apply()
            assert other.ready()["caSha256"] != theirs["caSha256"]
            assert tenant.certificate() == theirs
            assert every.metric(OTHERS) == 1
            assert (few.stop(), every.stop()) == (0, 0)
    late = OperatorProcess(tmp_path, own_plane.kubeconfig, systems[0], other.namespace, **QUICK)
    with late:
        until("told", lambda: late.metric(OTHERS) == 1)
        assert late.stop() == 0


def test_namespace_of_an_operator_that_is_gone_is_taken_over(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path
) -> None:
    body = {"metadata": {"name": "clientpolicy-served"}, "spec": {"holderIdentity": "gone-for-good"}}
    plane.must("POST", lease(tenant).rpartition("/")[0], body)
    system = plane.new_namespace()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, **QUICK) as operator:
        operator.ready()
        tenant.apply()
        tenant.ready()
        assert holder(tenant) == system
        assert operator.stop() == 0
