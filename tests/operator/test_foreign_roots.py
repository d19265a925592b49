"""Certificates of a CA that is not ours, where our own stand: they are the matter of their one policy."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from kubernetes_api import KubernetesApi, policies_in
from operator_process import OperatorProcess, Tenant, until
from partner import Certificate, certificate

MERGE = "application/merge-patch+json"


@pytest.fixture
def tenant(plane: KubernetesApi) -> Tenant:
    return Tenant(plane, plane.new_namespace())


def foreign_leaf() -> tuple[Certificate, str]:
    """Return a leaf that another operator's CA signed, and that CA's fingerprint."""
    now = datetime.now(UTC).replace(microsecond=0)
    root = certificate("another CA", is_ca=True, start=now, end=now + timedelta(days=3650))
    return certificate("app", issuer=root, start=now, end=now + timedelta(days=30)), root.fingerprint


def tell(tenant: Tenant, name: str, leaf: Certificate, ca_sha256: str) -> None:
    """Write the status as the other operator would."""
    told = {
        "secretName": f"{name}-tls",
        "sha256": leaf.fingerprint,
        "serialNumber": f"{leaf.parsed.serial_number:x}",
        "notBefore": f"{leaf.parsed.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "notAfter": f"{leaf.parsed.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "revision": 7,
        "caSha256": ca_sha256,
    }
    path = f"{policies_in(tenant.namespace, name)}/status"
    tenant.plane.must("PATCH", path, {"status": {"certificate": told}}, MERGE)


def store(tenant: Tenant, name: str, leaf: Certificate) -> None:
    """Write the Secret as the other operator would."""
    key = leaf.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    data = {"tls.crt": leaf.pem.encode(), "tls.key": key}
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets/{name}-tls"
    tenant.plane.must(
        "PATCH", path, {"data": {part: base64.b64encode(value).decode() for part, value in data.items()}}, MERGE
    )


def status_alone(tenant: Tenant, leaf: Certificate, ca_sha256: str) -> None:
    tell(tenant, "app", leaf, ca_sha256)


def secret_alone(tenant: Tenant, leaf: Certificate, ca_sha256: str) -> None:  # noqa: ARG001 the Secret does not say
    store(tenant, "app", leaf)


def both(tenant: Tenant, leaf: Certificate, ca_sha256: str) -> None:
    store(tenant, "app", leaf)
    tell(tenant, "app", leaf, ca_sha256)


def serials(plane: KubernetesApi, system: str) -> set[int]:
    data = plane.must("GET", f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust")["data"]
    return {one.serial_number for one in x509.load_pem_x509_crl(data["ca.crl"].encode())}


@pytest.mark.parametrize("wrote", [status_alone, secret_alone, both])
@pytest.mark.parametrize("when", ["while it runs", "while it is away"])
def test_foreign_certificate_is_replaced_and_stops_nobody(
    plane: KubernetesApi,
    tenant: Tenant,
    tmp_path: Path,
    wrote: Callable[[Tenant, Certificate, str], None],
    when: str,
) -> None:
    """The CA signs for every policy, its CRL is renewed, and the one policy gets a certificate of ours."""
    system = plane.new_namespace()
    quick: dict[str, Any] = {"certificates": {"resync": "2s"}}
    leaf, ca_sha256 = foreign_leaf()
    operator = OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, **quick)
    with operator:
        operator.ready()
        tenant.apply()
        first = tenant.ready()
        if when == "while it is away":
            assert operator.stop() == 0
        wrote(tenant, leaf, ca_sha256)
        if when == "while it is away":
            operator.start()
        operator.ready()
        tenant.apply("late")
        assert tenant.ready("late")["caSha256"] == first["caSha256"]
        until("ours again", lambda: tenant.certificate().get("caSha256") == first["caSha256"])
        until(
            "in the Secret",
            lambda: leaf.pem not in base64.b64decode((tenant.secret() or {})["data"]["tls.crt"]).decode(),
        )
        late = tenant.certificate("late")
        tenant.patch("late", revocation={"fingerprints": [{"sha256": late["sha256"]}]})
        until("CRL", lambda: int(late["serialNumber"], 16) in serials(plane, system))
        assert operator.metric("clientpolicy_ca_available") == 1
        assert "restore" not in operator.log.read_text()
        assert operator.stop() == 0
