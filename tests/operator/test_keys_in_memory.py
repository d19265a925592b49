"""A private key is in the operator's memory from its signing until its Secret is written, or its policy is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_gate import ApiGate, status_of
from kubernetes_api import KubernetesApi
from operator_process import OperatorProcess, Tenant, ledger_of, until

UNSTORED = "clientpolicy_certificates_unstored"


@pytest.mark.parametrize(("code", "reason"), [(403, "Forbidden"), (422, "Invalid"), (503, "ServiceUnavailable")])
def test_key_of_a_policy_that_goes_before_its_secret_leaves_memory(
    plane: KubernetesApi, tmp_path: Path, code: int, reason: str
) -> None:
    tenant, system = Tenant(plane, plane.new_namespace()), plane.new_namespace()
    with ApiGate(plane, tmp_path) as gate:
        refused = gate.on(
            lambda asked: asked.method == "POST" and asked.path.endswith(f"{tenant.namespace}/secrets"),
            lambda: status_of(code, reason),
        )
        with OperatorProcess(tmp_path, gate.kubeconfig, system, tenant.namespace) as operator:
            operator.ready()
            uid = tenant.apply()["metadata"]["uid"]
            until("signed, and not stored", lambda: refused.hits and operator.metric(UNSTORED) == 1)
            assert len(ledger_of(plane, system)[uid]) == 1
            tenant.delete()
            until("gone from memory", lambda: operator.metric(UNSTORED) == 0)
            gate.rules.clear()
            tenant.apply()
            assert tenant.ready()["revision"] == 1
            assert operator.metric(UNSTORED) == 0
            assert operator.stop() == 0
