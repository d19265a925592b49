"""The cluster that TEST_KUBECONFIG names, where tests of the operator run on it and not on a control plane of their own.

It must be one for tests: they install the CRDs of ClientPolicy and cert-manager, and remove them with all that is in them.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes_api import DEFINITIONS, PEM, KubernetesApi, private_pem

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUPS = ("authz.healthtech.dev", "cert-manager.io")


class ExistingCluster(KubernetesApi):
    """Leaves the cluster as it found it; refuses one that has what it would remove."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="existing-cluster-")))
        self._config = _current(yaml.safe_load(kubeconfig.read_text()))
        address = urlsplit(self._config["cluster"]["server"])
        self._place = str(address.hostname), address.port or 443
        self._before: dict[str, set[str]] = {}

    def __enter__(self) -> Self:
        found = sorted(name for name in self._names(DEFINITIONS) if name.endswith(GROUPS))
        if found:
            raise RuntimeError(f"TEST_KUBECONFIG: a cluster without {', '.join(found)} is expected: tests remove them")
        self._before = {path: self._names(path) for path in self._swept}
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._swept:
            for name in self._names(path) - self._before[path]:
                self.api("DELETE", f"{path}/{name}")
        self._until("end of the definitions", lambda: self._names(DEFINITIONS) == self._before[DEFINITIONS])
        shutil.rmtree(self.folder)

    # Policies and their finalizers first, with their definition; a namespace that holds one would not go.
    _swept = (DEFINITIONS, "/api/v1/namespaces", f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings", REQUESTS)

    def _names(self, path: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.must("GET", path)["items"]}

    @property
    def place(self) -> tuple[str, int]:
        return self._place

    @property
    def ca(self) -> Path:
        return self._file("cluster", "certificate-authority", "ca.crt")

    @property
    def admin(self) -> tuple[Path, Path]:
        return self._file("user", "client-certificate", "api.crt"), self._file("user", "client-key", "api.key")

    def _file(self, part: str, field: str, name: str) -> Path:
        if field in self._config[part]:
            return Path(self._config[part][field])
        path = self.folder / name
        if not path.exists():
            path.write_bytes(base64.b64decode(self._config[part][f"{field}-data"]))
        return path

    def _issue(self, name: str, user: str) -> tuple[Path, Path]:
        """Have the cluster sign it, as its users' certificates are."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        spec = {
            "request": base64.b64encode(request.public_bytes(PEM)).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        }
        made = self.must("POST", REQUESTS, {"metadata": {"generateName": "test-"}, "spec": spec})
        path = f"{REQUESTS}/{made['metadata']['name']}"
        approved = {"type": "Approved", "status": "True", "reason": "Test", "message": "a test's user"}
        self.must("PUT", f"{path}/approval", made | {"status": {"conditions": [approved]}})
        signed: dict[str, Any] = {}

        def is_signed() -> bool:
            signed.update(self.must("GET", path).get("status", {}))
            return "certificate" in signed

        self._until(f"certificate for {user}", is_signed)
        certificate, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(base64.b64decode(signed["certificate"]))
        private.write_bytes(private_pem(key))
        return certificate, private


def named() -> Path | None:
    """Return the kubeconfig of the cluster to run on; None for a control plane of the session's own."""
    path = os.environ.get("TEST_KUBECONFIG")
    return Path(path) if path else None


def _current(config: Any) -> dict[str, Any]:
    """Return cluster and user of the current context."""
    context = _named(config["contexts"], config["current-context"])["context"]
    return {
        "cluster": _named(config["clusters"], context["cluster"])["cluster"],
        "user": _named(config["users"], context["user"])["user"],
    }


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in entries if one["name"] == name)
