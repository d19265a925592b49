"""The real `clientpolicy operator` as a process, as tests start, ask, stop and kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml
from kubernetes_api import KubernetesApi, policies_in
from redis_server import free_port

DEADLINE_S = float(os.environ.get("TEST_DEADLINE_S", "90"))  # for what takes a second on an idle machine


def until(what: str, true: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true answer; the test fails where none comes."""
    end = time.monotonic() + deadline_s
    while True:
        answer = true()
        if answer:
            return answer
        assert time.monotonic() < end, f"never: {what}; last: {answer}"
        time.sleep(0.05)


def shifted(offset: str) -> dict[str, str]:
    """Return the environment in which a program's wall clock is wrong."""
    libraries = sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("libfaketime is not installed; see tests/programs")
    return {"LD_PRELOAD": str(libraries[0]), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class OperatorProcess:
    """`namespace` is the operator's own; it watches `watched`, all where none is named."""

    def __init__(
        self,
        folder: Path,
        kubeconfig: Path,
        namespace: str,
        *watched: str,
        environment: dict[str, str] | None = None,
        **config: Any,
    ) -> None:
        self.folder = folder
        self.namespace = namespace
        self.ops = f"127.0.0.1:{free_port()}"
        self.log = folder / f"operator-{self.ops.rpartition(':')[2]}.log"
        self.config = folder / f"{self.log.stem}.yaml"
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig), **(environment or {})}
        self._environment.pop("KUBERNETES_SERVICE_HOST", None)
        good: dict[str, Any] = {
            "namespace": namespace,
            "listen": {"ops": self.ops},
            "watch": {"namespaces": list(watched)},
            "authority": {"interval": "1s"},
        }
        self.config.write_text(yaml.safe_dump(good | config))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "authz", "operator", "--config", str(self.config)],
                stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if kind is not None:
            sys.stderr.write(self.log.read_text()[-6_000:])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 30) -> int:
        """Return its exit code after SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.ops}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as failed:
            return failed.code, failed.read().decode()
        except OSError:
            return 0, ""

    @property
    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4_000:]
        return self.get("/readyz")[0] == 200

    def live(self) -> Self:
        until("operator up", lambda: self.get("/livez")[0] == 200)
        return self

    def ready(self) -> Self:
        until("operator ready", lambda: self.is_ready)
        return self

    def metric(self, line: str) -> float:
        """Return the value of a metric; `line` is its name with labels."""
        for found in self.get("/metrics")[1].splitlines():
            name, _, value = found.rpartition(" ")
            if name == line:
                return float(value)
        return 0.0


class Tenant:
    """A namespace of policies, as its owner and the tests see it."""

    def __init__(self, plane: KubernetesApi, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def apply(self, name: str = "app", **spec: Any) -> dict[str, Any]:
        """Create the policy, or give it this spec."""
        found = self.policy(name)
        body = {
            "apiVersion": "authz.healthtech.dev/v1alpha1", "kind": "ClientPolicy", "metadata": {"name": name},
            "spec": {"clientId": f"{self.namespace}-{name}", "scopes": ["system/*.rs"]} | spec,
        }  # fmt: skip
        if found is None:
            made: dict[str, Any] = self.plane.must("POST", policies_in(self.namespace), body)
            return made
        body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]  # type: ignore[index]
        changed: dict[str, Any] = self.plane.must("PUT", policies_in(self.namespace, name), body)
        return changed

    def patch(self, name: str = "app", **spec: Any) -> dict[str, Any]:
        changed: dict[str, Any] = self.plane.must(
            "PATCH", policies_in(self.namespace, name), {"spec": spec}, "application/merge-patch+json"
        )
        return changed

    def delete(self, name: str = "app") -> None:
        self.plane.must("DELETE", policies_in(self.namespace, name))

    def policy(self, name: str = "app") -> dict[str, Any] | None:
        code, found = self.plane.api("GET", policies_in(self.namespace, name))
        return found if code == 200 else None

    def status(self, name: str = "app") -> dict[str, Any]:
        told: dict[str, Any] = (self.policy(name) or {}).get("status", {})
        return told

    def certificate(self, name: str = "app") -> dict[str, Any]:
        told: dict[str, Any] = self.status(name).get("certificate", {})
        return told

    def condition(self, kind: str, name: str = "app") -> tuple[str, str]:
        """Return status and reason of a condition."""
        listed = self.status(name).get("conditions", [])
        return next(((one["status"], one["reason"]) for one in listed if one["type"] == kind), ("", ""))

    def is_ready(self, name: str = "app") -> bool:
        """Whether it is ready as it is written now."""
        found = self.policy(name)
        if found is None or found.get("status", {}).get("observedGeneration") != found["metadata"]["generation"]:
            return False
        return self.condition("Ready", name)[0] == "True"

    def ready(self, name: str = "app") -> dict[str, Any]:
        """Return what its status tells of the certificate, once it is ready."""
        try:
            until(f"{name} ready", lambda: self.is_ready(name))
        except AssertionError:
            raise AssertionError(json.dumps(self.status(name), indent=1)) from None
        return self.certificate(name)

    def secret(self, name: str = "app-tls") -> dict[str, Any] | None:
        code, found = self.plane.api("GET", f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        return found if code == 200 else None

    def events(self) -> list[str]:
        listed = self.plane.must("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return [one["reason"] for one in listed]


def ledger_of(plane: KubernetesApi, namespace: str) -> dict[str, list[list[Any]]]:
    """Return the rows of the ledger by UID."""
    rows: dict[str, list[list[Any]]] = {}
    for one in plane.must("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"]:
        if one["metadata"]["name"].startswith("clientpolicy-ledger-"):
            rows |= {uid: json.loads(text) for uid, text in one.get("data", {}).items()}
    return rows
