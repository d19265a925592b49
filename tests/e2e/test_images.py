"""install_image_*: what is in the images, and what is not, by a container of each with a read-only root."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kube import ROOT, Tenant, kubectl, pods
from packaging.requirements import Requirement

INSIDE = Path(__file__).parent / "inside_image.py"
RESTRICTED = {
    "runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def told(tenant: Tenant, component: str) -> dict[str, Any]:
    """Return what a container of the image tells; its user is the image's own."""
    image = pods(component)[0]["spec"]["containers"][0]["image"]
    container = {
        "name": "inside", "image": image, "imagePullPolicy": "IfNotPresent", "stdin": True, "stdinOnce": True,
        "command": ["python", "-"], "securityContext": RESTRICTED,
    }  # fmt: skip
    overrides = json.dumps({"spec": {"automountServiceAccountToken": False, "containers": [container]}})
    said = kubectl("-n", tenant.namespace, "run", "inside", f"--image={image}", "--restart=Never", "--rm", "-i", "--quiet",
                   "--overrides", overrides, stdin=INSIDE.read_text())  # fmt: skip
    found: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    return found


def locked(name: str, markers: dict[str, str]) -> dict[str, str]:
    """Return what the lock of an image installs under such a Python."""
    lines = re.findall(r"^[a-z0-9].*?(?= \\$)", (ROOT / f"deploy/requirements/{name}.txt").read_text(), re.MULTILINE)
    wanted = [Requirement(line) for line in lines]
    return {
        one.name: str(one.specifier).removeprefix("==")
        for one in wanted
        if one.marker is None or one.marker.evaluate(dict(markers))
    }


@pytest.mark.parametrize("name", ["authz", "operator", "trial"])
def test_install_image_holds_what_is_locked_and_no_tools(tenant: Tenant, name: str) -> None:
    found = told(tenant, name)
    assert found["user"] == 65532
    assert found["programs"] == []
    assert not found["pip"]
    assert found["writable"] == []
    assert found["package lists"] == []
    assert found["uncompiled"] == []
    assert "External authorization for health APIs." in found["help"]
    installed = {re.sub(r"[-_.]+", "-", one): version for one, version in found["installed"].items()}
    assert installed.pop("clientpolicy")
    assert installed == locked(name, found["markers"])
