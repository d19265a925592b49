"""ClientPolicies as the Kubernetes API has them: what tests of authz on a cluster are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubernetes_api import KubernetesApi, policies_in

MERGE = "application/merge-patch+json"
CREATED = "2026-01-01T00:00:00Z"


def external(*fingerprints: str) -> dict[str, Any]:
    return {"source": "External", "fingerprints": list(fingerprints)}


def accepted(*fingerprints: str) -> dict[str, Any]:
    """A status as the operator writes it for External."""
    return {"certificate": {"fingerprints": list(fingerprints)}}


def issued(
    sha256: str, *previous: str, begin: str = "2026-01-01T00:00:00Z", end: str = "2027-01-01T00:00:00Z"
) -> dict[str, Any]:
    """A status as the operator writes it for Issued and CSR."""
    told: dict[str, Any] = {"sha256": sha256, "notBefore": begin, "notAfter": end}
    if previous:
        told["previous"] = [{"sha256": one, "notBefore": begin, "notAfter": end} for one in previous]
    return {"certificate": told}


def policy_object(
    name: str = "app",
    *,
    namespace: str = "partners",
    status: Any = None,
    meta: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """An object as the API returns it; `meta` changes its metadata."""
    metadata = {
        "name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1,
        "creationTimestamp": CREATED,
    }  # fmt: skip
    made: dict[str, Any] = {
        "apiVersion": "authz.healthtech.dev/v1alpha1",
        "kind": "ClientPolicy",
        "metadata": metadata | (meta or {}),
        "spec": {"clientId": name, "suspended": False, "revocation": {}, "validity": {}} | spec,
    }
    return made if status is None else made | {"status": status}


class Policies:
    """The ClientPolicies of one namespace on a real API server, written as their owner and the operator write them."""

    def __init__(self, plane: KubernetesApi, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def create(self, name: str, status: Any = None, **spec: Any) -> dict[str, Any]:
        body = policy_object(name, namespace=self.namespace, **({"clientId": f"{name}.{self.namespace}"} | spec))
        body["metadata"] = {"name": name, "namespace": self.namespace}
        made: dict[str, Any] = self.plane.must("POST", policies_in(self.namespace), body)
        return self.status(name, status) if status is not None else made

    def status(self, name: str, status: Any) -> dict[str, Any]:
        path = f"{policies_in(self.namespace, name)}/status"
        answered: dict[str, Any] = self.plane.must("PATCH", path, {"status": status}, MERGE)
        return answered

    def edit(self, name: str, **spec: Any) -> dict[str, Any]:
        answered: dict[str, Any] = self.plane.must("PATCH", policies_in(self.namespace, name), {"spec": spec}, MERGE)
        return answered

    def annotate(self, name: str, finalizers: list[str] | None) -> None:
        self.plane.must("PATCH", policies_in(self.namespace, name), {"metadata": {"finalizers": finalizers}}, MERGE)

    def delete(self, name: str) -> None:
        self.plane.must("DELETE", policies_in(self.namespace, name))


def allow_reading(plane: KubernetesApi, user: str, namespace: str | None = None) -> Path:
    """Let a user get, list and watch ClientPolicies, and nothing else; return its kubeconfig."""
    rules = [
        {"apiGroups": ["authz.healthtech.dev"], "resources": ["clientpolicies"], "verbs": ["get", "list", "watch"]}
    ]
    within = f"/namespaces/{namespace}" if namespace is not None else ""
    kinds = ("roles", "rolebindings") if namespace is not None else ("clusterroles", "clusterrolebindings")
    role, binding = ("Role", "RoleBinding") if namespace is not None else ("ClusterRole", "ClusterRoleBinding")
    group = "rbac.authorization.k8s.io"
    bodies: tuple[dict[str, Any], ...] = (
        {"apiVersion": f"{group}/v1", "kind": role, "metadata": {"name": user}, "rules": rules},
        {
            "apiVersion": f"{group}/v1", "kind": binding, "metadata": {"name": user},
            "roleRef": {"apiGroup": group, "kind": role, "name": user},
            "subjects": [{"kind": "User", "apiGroup": group, "name": user}],
        },
    )  # fmt: skip
    for kind, body in zip(kinds, bodies, strict=True):
        plane.must("POST", f"/apis/{group}/v1{within}/{kind}", body)
    return plane.kubeconfig_for(user)


def forbid_reading(plane: KubernetesApi, user: str) -> None:
    plane.must("DELETE", f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{user}")
