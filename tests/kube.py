"""The cluster that KUBECONFIG names, by kubectl and helm, as a platform team has it."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import operator_process

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "clientpolicy"
VALUES = Path(__file__).parent / "e2e" / "values.yaml"
RELEASE, SYSTEM = "clientpolicy", "clientpolicy-system"
until = partial(operator_process.until, deadline_s=180.0)
FIRST_INSTALL: dict[str, float] = {}  # seconds of each step, where this suite installed


def run(*command: str, stdin: str | None = None, check: bool = True) -> str:
    """Return what a command printed.

    Raises:
        AssertionError: it failed; with all that it said.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=600, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    return run("kubectl", *arguments, stdin=stdin, check=check)


def get(kind: str, name: str, namespace: str = SYSTEM) -> dict[str, Any] | None:
    text = kubectl("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found


def pods(component: str) -> list[dict[str, Any]]:
    """Return the pods that are not on their way out."""
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"
    found = json.loads(kubectl("-n", SYSTEM, "get", "pods", "-l", selector, "-o", "json"))["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def helm(*arguments: str, check: bool = True) -> str:
    return run("helm", "-n", SYSTEM, *arguments, check=check)


def is_installed() -> bool:
    return bool(helm("status", RELEASE, "-o", "json", check=False))


def install(*more: str) -> None:
    """Install or upgrade, and wait until everything is ready."""
    helm("upgrade", "--install", RELEASE, str(CHART), "--create-namespace", "-f", str(VALUES), *more,
         "--wait", "--timeout", "180s")  # fmt: skip


class Tenant:
    """A namespace of one partner."""

    def __init__(self) -> None:
        self.namespace = f"e2e-{secrets.token_hex(4)}"
        kubectl("create", "namespace", self.namespace)
        until("the namespace's account, without which no pod is made", lambda: get("sa", "default", self.namespace))

    def delete(self) -> None:
        kubectl("delete", "namespace", self.namespace, "--wait=false")

    def apply(self, name: str, **spec: Any) -> str:
        """Apply a policy of that name, and return its client id, which nobody else has."""
        client_id = f"{name}-{self.namespace}"
        good = {
            "clientId": client_id,
            "identity": {"uris": [f"spiffe://healthtech.dev/client/{client_id}"]},
            "scopes": ["patient/Patient.read", "patient/Observation.read", "system/Patient.read"],
            "quotas": [{"name": "steady", "requests": 100_000, "per": "1s"}],
        }
        document = {
            "apiVersion": "authz.healthtech.dev/v1alpha1", "kind": "ClientPolicy",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": good | spec,
        }  # fmt: skip
        kubectl("apply", "-f", "-", stdin=json.dumps(document))
        return client_id

    def ready(self, name: str) -> None:
        kubectl("-n", self.namespace, "wait", f"clientpolicy/{name}", "--for=condition=Ready", "--timeout=120s")

    def patch(self, name: str, **spec: Any) -> None:
        kubectl("-n", self.namespace, "patch", "clientpolicy", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def secret(self, name: str) -> dict[str, str]:
        """Return the data of the policy's Secret, decoded; empty where there is none."""
        found = get("secret", f"{name}-tls", self.namespace)
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()} if found else {}


def counted_by_pod(metric: str) -> dict[str, float]:
    """Return what each authz pod tells of a metric, over all its labels."""
    found = {}
    for pod in pods("authz"):
        name = pod["metadata"]["name"]
        text = kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{name}:9192/proxy/metrics")
        lines = [line for line in text.splitlines() if line.startswith(f"{metric}{{")]
        found[name] = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return found


# Kills what runs on its node with this word in its command line, in this pod or, where that is empty, in any.
KILLER = """
import os, pathlib, signal, sys
word, pod = sys.argv[1:]
for entry in pathlib.Path("/proc").iterdir():
    if not entry.name.isdigit() or int(entry.name) == os.getpid():
        continue
    try:
        command = (entry / "cmdline").read_bytes().decode(errors="replace").replace(chr(0), " ")
        group = (entry / "cgroup").read_text().replace("_", "-")
    except OSError:
        continue
    if word in command and pod in group and "/pause" not in command:
        os.kill(int(entry.name), signal.SIGKILL)
"""


def kill_on_node(tenant: Tenant, word: str, pod: dict[str, Any] | None = None) -> None:
    """SIGKILL processes of the (only) node by a pod that sees them: a container cannot kill its own first process so."""
    container = {
        "name": "killer", "image": pods("trial")[0]["spec"]["containers"][0]["image"], "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", KILLER, word, pod["metadata"]["uid"] if pod else ""],
        "securityContext": {"privileged": True, "runAsUser": 0},
    }  # fmt: skip
    on = {"nodeName": pod["spec"]["nodeName"]} if pod else {}
    document = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "killer-", "namespace": tenant.namespace},
        "spec": {"hostPID": True, "restartPolicy": "Never", "containers": [container], **on},
    }  # fmt: skip
    kubectl("create", "-f", "-", stdin=json.dumps(document))
