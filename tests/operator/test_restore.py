"""Policies that are restored from a backup have new UIDs, and their Secrets the old ones in their annotations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from kubernetes_api import KubernetesApi
from operator_process import OperatorProcess, Tenant, ledger_of, until

QUICK: dict[str, Any] = {"certificates": {"resync": "2s"}}


@pytest.fixture
def tenant(plane: KubernetesApi) -> Tenant:
    return Tenant(plane, plane.new_namespace())


def restored(tenant: Tenant, secret: dict[str, Any]) -> None:
    """Write the Secret as a backup tool does: a new object of the same content, without owners."""
    place = f"/api/v1/namespaces/{tenant.namespace}/secrets"
    until("its Secret may be made", lambda: tenant.plane.api("DELETE", f"{place}/app-tls")[0] in (200, 404))
    metadata = {part: secret["metadata"][part] for part in ("name", "labels", "annotations")}
    tenant.plane.must("POST", place, {"metadata": metadata, "type": secret["type"], "data": secret["data"]})


def revoked(plane: KubernetesApi, system: str) -> set[str]:
    data = plane.must("GET", f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust")["data"]
    return {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl(data["ca.crl"].encode())}


def test_restored_policy_keeps_its_certificate(plane: KubernetesApi, tenant: Tenant, tmp_path: Path) -> None:
    """Nothing is signed, nothing of it is listed in the CRL, and what comes later is as ever."""
    system = plane.new_namespace()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, **QUICK) as operator:
        operator.ready()
        old = tenant.apply()["metadata"]["uid"]
        first = tenant.ready()
        assert operator.stop() == 0
    secret = tenant.secret()
    assert secret is not None
    tenant.delete()
    new = tenant.apply()["metadata"]["uid"]
    restored(tenant, secret)
    assert new != old
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, **QUICK) as operator:
        operator.ready()
        kept = tenant.ready()
        assert kept | {"renewalTime": ""} == first | {"renewalTime": ""}, "its spread is the UID's"
        assert operator.metric('clientpolicy_signings_total{reason="DoesNotExist"}') == 0
        assert [row[1] for row in ledger_of(plane, system)[new]] == [first["sha256"]]
        found = tenant.secret()
        assert found is not None
        assert found["metadata"]["annotations"]["authz.healthtech.dev/policy-uid"] == new
        assert [one["uid"] for one in found["metadata"]["ownerReferences"]] == [new]
        tenant.apply("late")
        late = tenant.ready("late")
        tenant.delete("late")
        until("CRL", lambda: late["serialNumber"] in revoked(plane, system))
        assert first["serialNumber"] not in revoked(plane, system)
        tenant.apply(identity={"commonName": "another"})
        until("re-issued", lambda: tenant.certificate().get("revision") == 2)
        tenant.patch(revocation={"fingerprints": [{"sha256": first["sha256"]}]})
        until("revoked", lambda: first["serialNumber"] in revoked(plane, system))
        assert operator.stop() == 0


def rows_of(tenant: Tenant, operator: OperatorProcess) -> list[list[Any]]:
    return [row for rows in ledger_of(tenant.plane, operator.namespace).values() for row in rows]


def seen_to_go(tenant: Tenant, operator: OperatorProcess, secret: dict[str, Any]) -> None:
    operator.start().ready()
    tenant.delete()
    until("noted", lambda: all(len(row) == 10 for row in rows_of(tenant, operator)))
    assert operator.stop() == 0
    restored(tenant, secret)
    tenant.apply()


def another_client(tenant: Tenant, operator: OperatorProcess, secret: dict[str, Any]) -> None:  # noqa: ARG001
    tenant.delete()
    restored(tenant, secret)
    tenant.apply(clientId=f"{tenant.namespace}-another")


def another_identity(tenant: Tenant, operator: OperatorProcess, secret: dict[str, Any]) -> None:  # noqa: ARG001
    tenant.delete()
    restored(tenant, secret)
    tenant.apply(identity={"commonName": "another"})


def lost_ledger(tenant: Tenant, operator: OperatorProcess, secret: dict[str, Any]) -> None:
    tenant.delete()
    restored(tenant, secret)
    selector = "labelSelector=app.kubernetes.io/component%3Dledger"
    tenant.plane.must("DELETE", f"/api/v1/namespaces/{operator.namespace}/configmaps?{selector}")
    tenant.apply()


@pytest.mark.parametrize("happened", [seen_to_go, another_client, another_identity, lost_ledger])
def test_namesake_inherits_nothing(
    plane: KubernetesApi,
    tenant: Tenant,
    tmp_path: Path,
    happened: Callable[[Tenant, OperatorProcess, dict[str, Any]], None],
) -> None:
    system = plane.new_namespace()
    operator = OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, **QUICK)
    with operator:
        operator.ready()
        tenant.apply()
        tenant.ready()
        assert operator.stop() == 0
        secret = tenant.secret()
        assert secret is not None
        happened(tenant, operator, secret)
        operator.start().ready()
        until("not its own", lambda: tenant.condition("CertificateReady") == ("False", "SecretConflict"))
        assert "sha256" not in tenant.certificate()
        found = tenant.secret()
        assert found is not None
        assert found["data"] == secret["data"]
        assert operator.stop() == 0
