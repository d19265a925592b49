"""What examples/ tells a platform to apply: the tests configure their proxies by it, so that it cannot say something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
VALUES = ("values.yaml", "values-sidecar.yaml", "istiod-values.yaml")  # of Helm charts: no objects
MANIFESTS = sorted(
    file for mesh in ("istio", "envoy-gateway") for file in (EXAMPLES / mesh).glob("*.yaml") if file.name not in VALUES
)


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document is not None]


def values(mesh: str, name: str = "values.yaml") -> dict[str, Any]:
    (found,) = documents(EXAMPLES / mesh / name)
    return found


def manifest(mesh: str, name: str, kind: str) -> dict[str, Any]:
    """Return the only object of a kind in a file."""
    (found,) = (one for one in documents(EXAMPLES / mesh / name) if one["kind"] == kind)
    return found


def identity(mesh: str, name: str = "values.yaml") -> dict[str, Any]:
    """Return what the values tell authz of the proxies in front of it."""
    found: dict[str, Any] = values(mesh, name)["authz"]["config"]["identity"]
    return found
