"""The CA is lost for good: another one is made where, and only where, somebody gives the old one up by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clientpolicy_operator.bundle import read_roots
from kubernetes_api import KubernetesApi
from operator_process import OperatorProcess, Tenant, until

HURRIED: dict[str, Any] = {"interval": "1s", "propagation": "1s", "spread": "1s"}
QUICK: dict[str, Any] = {"certificates": {"resync": "2s"}}


def bundle(plane: KubernetesApi, system: str) -> set[str]:
    data = plane.api("GET", f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust")[1].get("data", {})
    return set(read_roots(data.get("ca.crt", "")))


@pytest.mark.parametrize("lost", ["the CA alone", "the CA and what was published", "all that the operator had"])
def test_ca_that_is_given_up_by_name_is_replaced(plane: KubernetesApi, tmp_path: Path, lost: str) -> None:
    """As long as the bundle is there, the old root stays in it, and its certificates count until they are replaced."""
    tenant, system = Tenant(plane, plane.new_namespace()), plane.new_namespace()
    place = f"/api/v1/namespaces/{system}"

    def operator(*given_up: str) -> OperatorProcess:
        authority = HURRIED | {"lostRoots": list(given_up)}
        return OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=authority, **QUICK)

    with operator() as running:
        running.ready()
        tenant.apply()
        first = tenant.ready()
        assert running.stop() == 0
    plane.must("DELETE", f"{place}/secrets/clientpolicy-ca")
    if lost == "the CA and what was published":
        plane.must("DELETE", f"{place}/configmaps/clientpolicy-trust")
        plane.must("DELETE", f"{place}/secrets/clientpolicy-trust")
    elif lost == "all that the operator had":
        plane.must("DELETE", f"{place}/configmaps")
        plane.must("DELETE", f"{place}/secrets/clientpolicy-trust")
    with operator("f" * 64) as running:
        until("told which", lambda: f"({first['caSha256']}): restore it from its backup" in running.log.read_text())
        assert plane.api("GET", f"{place}/secrets/clientpolicy-ca")[0] == 404, "another root was given up"
        assert running.stop() == 0
    with operator("f" * 64, first["caSha256"].upper()) as running:
        running.ready()
        tenant.apply("late")
        new = tenant.ready("late")["caSha256"]
        assert new != first["caSha256"]
        until("re-issued", lambda: tenant.certificate().get("caSha256") == new)
        assert [one["sha256"] for one in tenant.certificate()["previous"]] == [first["sha256"]]
        kept = {first["caSha256"]} if lost == "the CA alone" else set()
        until("published", lambda: bundle(plane, system) == {new} | kept)
        plane.must("DELETE", f"{place}/secrets/clientpolicy-ca")
        until("the new one is as safe", lambda: f"({new}): restore it from its backup" in running.log.read_text())
        assert running.stop() == 0


def test_root_that_a_backup_lacks_is_given_up_and_signing_goes_on(plane: KubernetesApi, tmp_path: Path) -> None:
    tenant, system = Tenant(plane, plane.new_namespace()), plane.new_namespace()
    path = f"/api/v1/namespaces/{system}/secrets/clientpolicy-ca"
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=HURRIED) as running:
        running.ready()
        tenant.apply()
        first = tenant.ready()
        old = plane.must("GET", path)
        wish = {"metadata": {"annotations": {"authz.healthtech.dev/rotate": "now"}}}
        plane.must("PATCH", path, wish, "application/merge-patch+json")
        until("re-issued", lambda: tenant.certificate()["caSha256"] != first["caSha256"])
        newer = tenant.certificate()["caSha256"]
        assert running.stop() == 0
    plane.must("PUT", path, {**plane.must("GET", path), "data": old["data"]})
    given_up = HURRIED | {"lostRoots": [newer]}
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=given_up, **QUICK) as running:
        running.ready()
        tenant.apply("late")
        assert tenant.ready("late")["caSha256"] == first["caSha256"]
        assert newer in bundle(plane, system), "its certificates count until their end"
        assert running.stop() == 0
