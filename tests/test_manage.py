"""`clientpolicy status` and `renew`, as processes, on a real API server."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from kubernetes_api import KubernetesApi, policies_in
from operator_process import Tenant

STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready", "status": "True", "reason": "Ready", "message": "valid until then", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
    "certificate": {
        "secretName": "app-tls", "sha256": "ab" * 32, "notAfter": "2027-01-01T00:00:00Z",
        "previous": [{"sha256": "cd" * 32, "notAfter": "2026-12-01T00:00:00Z"}],
    },
}  # fmt: skip


@pytest.fixture
def tenant(plane: KubernetesApi) -> Tenant:
    return Tenant(plane, plane.new_namespace())


def run(tenant: Tenant, action: str, name: str = "app", kubeconfig: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "authz", action, name, "-n", tenant.namespace],
        capture_output=True, text=True, check=False,
        env={**os.environ, "KUBECONFIG": kubeconfig or str(tenant.plane.kubeconfig)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def tell(tenant: Tenant, **changes: Any) -> None:
    path = policies_in(tenant.namespace, "app") + "/status"
    tenant.plane.must("PATCH", path, {"status": STATUS | changes}, "application/merge-patch+json")


def test_policy_that_is_ready_is_shown_with_its_certificates(tenant: Tenant) -> None:
    tenant.apply()
    tell(tenant)
    code, told, wrong = run(tenant, "status")
    assert (code, wrong) == (0, "")
    assert told.splitlines()[0] == f"{tenant.namespace}/app"
    for words in ("Ready            True     Ready: valid until then", "Issuing          Unknown", "ab" * 32,
                  f"{'cd' * 32}, until 2026-12-01T00:00:00Z"):  # fmt: skip
        assert words in told


@pytest.mark.parametrize("reason", ["an edit that nobody has seen", "not ready"])
def test_policy_that_is_not_ready_as_it_is_written_ends_with_one(tenant: Tenant, reason: str) -> None:
    tenant.apply()
    if reason == "not ready":
        tell(tenant, conditions=[STATUS["conditions"][0] | {"status": "False"}])
    else:
        tell(tenant)
        tenant.patch(suspended=True)
    code, told, _ = run(tenant, "status")
    assert code == 1
    assert ("has not seen the last edit" in told) is (reason != "not ready")


def test_each_wish_for_another_certificate_is_another_one(tenant: Tenant) -> None:
    tenant.apply()
    wishes = set()
    for _ in range(2):
        code, told, wrong = run(tenant, "renew")
        assert (code, wrong) == (0, "")
        assert "another certificate is asked for" in told
        wishes.add((tenant.policy() or {})["metadata"]["annotations"]["authz.healthtech.dev/renew"])
    assert len(wishes) == 2


@pytest.mark.parametrize(("certificate", "told"), [
    ({"issuerRef": {"name": "ca"}}, "cmctl renew"),
    ({"source": "External", "fingerprints": ["ab" * 32]}, "source External: no certificate is made for it"),
])  # fmt: skip
def test_what_nobody_here_makes_is_not_renewed(tenant: Tenant, certificate: dict[str, Any], told: str) -> None:
    tenant.apply(certificate=certificate)
    code, shown, wrong = run(tenant, "renew")
    assert (code, shown) == (2, "")
    assert told in wrong


@pytest.mark.parametrize("action", ["status", "renew"])
def test_what_is_wrong_is_told_in_a_line(tenant: Tenant, action: str) -> None:
    assert run(tenant, action, "nobody")[2].endswith("no such ClientPolicy; -n NAMESPACE says where it is\n")
    code, _, wrong = run(tenant, action, kubeconfig="/nowhere")
    assert code == 2
    assert "no credentials for a Kubernetes API" in wrong
    stranger = str(tenant.plane.kubeconfig_for("nobody-at-all"))
    assert "forbidden" in run(tenant, action, kubeconfig=stranger)[2]
