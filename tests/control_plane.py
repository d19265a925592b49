"""A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager on loopback.

No kubelet, so nothing runs in it; but objects are stored, validated, watched, authorized and garbage-collected as on any
cluster, and each part can be stopped, killed and started again.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubernetes_api import PEM, KubernetesApi, private_pem
from redis_server import free_port

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
_NAMES = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]


@cache
def program(name: str) -> str:
    """Return where a program is; the test that needs it is skipped by name if it is nowhere."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = [
        os.environ.get("KUBERNETES_TEST_BIN", ""),
        str(home / "clientpolicy-tests" / "bin"),
        os.environ["PATH"],
    ]
    found = shutil.which(name, path=os.pathsep.join(filter(None, folders)))
    if found is None:
        pytest.skip(f"{name} is not installed; see tests/programs")
    return found


class Pki:
    """One CA for all of a control plane's certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test control plane")])
        self.ca = folder / "ca.crt"
        certificate = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self._write("ca", self._key, certificate)

    def issue(self, file: str, common_name: str, groups: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Return certificate and key of a user of the API, or of a server on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        sans = [
            *map(x509.DNSName, _NAMES),
            x509.IPAddress(ip_address("127.0.0.1")),
            x509.IPAddress(ip_address("10.0.0.1")),
        ]
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return self._write(file, key, builder.add_extension(x509.SubjectAlternativeName(sans), critical=False))

    def signing_key(self) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        public, private = self.folder / "accounts.pub", self.folder / "accounts.key"
        public.write_bytes(key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        private.write_bytes(private_pem(key))
        return public, private

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
        )

    def _write(self, file: str, key: ec.EllipticCurvePrivateKey, builder: x509.CertificateBuilder) -> tuple[Path, Path]:
        certificate, private = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))
        private.write_bytes(private_pem(key))
        return certificate, private


class ControlPlane(KubernetesApi):
    """Starts on free ports of loopback."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = 0
        self._etcd_port = 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in PROGRAMS:
            program(name)
        self._pki = Pki(folder)
        self._accounts = self._pki.signing_key()

    def start(self) -> None:
        for attempt in range(3):
            self.port, self._etcd_port = free_port(), free_port()
            try:
                self._start_all()
            except RuntimeError:
                self.stop()
                shutil.rmtree(self.folder / "etcd", ignore_errors=True)
                for stale in self.folder.glob("*.kubeconfig"):
                    stale.unlink()
                if attempt == 2:
                    raise
            else:
                return  # else another program took a port first

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_all(self) -> None:
        peer = free_port()
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )  # fmt: skip
        self.start_api()
        config = self.kubeconfig_for("system:kube-controller-manager")
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1", f"--secure-port={free_port()}", "--leader-elect=false",
            "--use-service-account-credentials=true", f"--root-ca-file={self._pki.ca}",
            f"--service-account-private-key-file={self._accounts[1]}",
            "--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller",
        )  # fmt: skip
        self._until(
            "default service account",
            lambda: self.api("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200,
        )

    def start_api(self) -> None:
        certificate, key = self._pki.issue("apiserver", "kube-apiserver")
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1", f"--secure-port={self.port}", "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC", f"--client-ca-file={self._pki.ca}",
            f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}", f"--cert-dir={self.folder}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={self._accounts[0]}",
            f"--service-account-signing-key-file={self._accounts[1]}", "--endpoint-reconciler-type=none",
            "--profiling=false", "--max-requests-inflight=4000",
        )  # fmt: skip
        self._until("kube-apiserver", lambda: self.api("GET", "/readyz")[0] == 200)

    def _run(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [program(name), *arguments], stdout=log, stderr=log, cwd=self.folder
            )

    def _check_alive(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended:\n{self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        for name in reversed(PROGRAMS):  # an API server would wait for those who watch
            self._end(name, signal.SIGKILL if name == "kube-apiserver" else signal.SIGTERM)

    def stop_api(self, number: signal.Signals = signal.SIGKILL) -> None:
        self._end("kube-apiserver", number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The API server takes connections and answers nothing."""
        process = self._processes["kube-apiserver"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def _end(self, name: str, number: signal.Signals) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def place(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def ca(self) -> Path:
        return self._pki.ca

    @cached_property
    def admin(self) -> tuple[Path, Path]:
        return self._pki.issue("api", "admin", ("system:masters",))

    def _issue(self, name: str, user: str) -> tuple[Path, Path]:
        return self._pki.issue(name, user)

    def compact(self) -> None:
        """Forget all but the newest state, so that a watch from an older one is 410 Gone."""
        key = base64.b64encode(b"compact").decode()
        revision = self._etcd("/v3/kv/put", {"key": key, "value": key})["header"]["revision"]
        self._etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def _etcd(self, path: str, body: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=30)
        try:
            connection.request("POST", path, json.dumps(body))
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert "error" not in answer, answer
        return answer
