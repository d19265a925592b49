"""A Kubernetes API server as tests ask it, whatever started it."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authz.policy.crd import crd

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PEM = serialization.Encoding.PEM
POLICIES = "/apis/authz.healthtech.dev/v1alpha1/clientpolicies"


def policies_in(namespace: str, name: str = "") -> str:
    """Return the path of a namespace's ClientPolicies, or of one of them."""
    path = POLICIES.replace("/clientpolicies", f"/namespaces/{namespace}/clientpolicies")
    return f"{path}/{name}" if name else path


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class KubernetesApi(ABC):
    """`api` speaks to it as its administrator; `folder` is where kubeconfigs are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    @abstractmethod
    def place(self) -> tuple[str, int]:
        """Return its host and port."""

    @property
    @abstractmethod
    def ca(self) -> Path:
        """Return the CA of its own certificate."""

    @property
    @abstractmethod
    def admin(self) -> tuple[Path, Path]:
        """Return certificate and key of the administrator."""

    @abstractmethod
    def _issue(self, name: str, user: str) -> tuple[Path, Path]:
        """Return certificate and key, new files of this name, of a user who may do what RBAC says."""

    @property
    def url(self) -> str:
        host, port = self.place
        return f"https://{host}:{port}"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self._kubeconfig("admin", lambda: self.admin)

    def kubeconfig_for(self, user: str) -> Path:
        """Return the kubeconfig of a user, who may do what RBAC says."""
        name = user.replace(":", "-")
        return self._kubeconfig(name, lambda: self._issue(name, user))

    def _kubeconfig(self, name: str, credentials: Callable[[], tuple[Path, Path]]) -> Path:
        path = self.folder / f"{name}.kubeconfig"
        if path.exists():
            return path
        certificate, key = credentials()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "test", "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(*self.admin)
        return context

    def api(
        self, method: str, path: str, body: object = None, kind: str = "application/json", accept: str = "*/*"
    ) -> tuple[int, Any]:
        """Return the status and the decoded answer to one request of the administrator's; a YAML text is applied as it is."""
        connection = http.client.HTTPSConnection(*self.place, context=self._tls, timeout=30)
        try:
            sent = (body if isinstance(body, str) else json.dumps(body)).encode()
            connection.request(
                method, path, sent if body is not None else None, {"Content-Type": kind, "Accept": accept}
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")

    def must(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """Return the decoded answer; anything but success fails the test."""
        status, answer = self.api(method, path, body, kind)
        assert status < 300, (method, path, status, answer)
        return answer

    def table(self, path: str) -> Any:
        """Return what kubectl would print."""
        return self.api("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")[1]

    def install_crd(self, text: str = "") -> None:
        """Install what `clientpolicy crd` prints, or another one, and wait until it is served."""
        self.must("POST", DEFINITIONS, text or crd(), "application/yaml")
        self._until("ClientPolicy", lambda: self.api("GET", POLICIES)[0] == 200)

    def new_namespace(self) -> str:
        made = self.must("POST", "/api/v1/namespaces", {"metadata": {"generateName": "test-"}})
        return str(made["metadata"]["name"])

    def _until(self, what: str, true: Callable[[], bool]) -> None:
        for _ in range(1200):
            self._check_alive()
            try:
                if true():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"no {what}")

    def _check_alive(self) -> None:  # noqa: B027 there is nothing to see of a cluster that others run
        """Raise where waiting any longer is of no use."""
