"""Ten thousand ClientPolicies in a real Kubernetes API: how fast authz has them, in how much memory, and sees an edit.

Usage: python tests/bench/authz_policies.py [--policies N]

`clientpolicy serve` runs as it does anywhere, with the rights that it needs and no more. Enforcement is seen by gRPC
Checks. Exit code 1: a bound is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from grpc import aio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import partner
from cluster import MERGE, accepted, allow_reading, external, policy_object
from control_plane import ControlPlane
from kubernetes_api import KubernetesApi, policies_in
from redis_server import free_port

from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

LOAD_MAX_S, RSS_MAX_MIB, EDIT_MAX_S = 10.0, 200.0, 1.0
IN_FLIGHT = 64
EDITS = 20
METHOD = "/envoy.service.auth.v3.Authorization/Check"
NOW = datetime.now(UTC)
CERTIFICATE = partner.certificate(start=NOW - timedelta(days=1), end=NOW + timedelta(days=1))


def spec(number: int) -> dict[str, Any]:
    name = f"partner-{number:05d}"
    return {
        "clientId": name,
        "identity": {"commonName": name, "uris": [f"spiffe://example.org/client/{name}"]},
        "scopes": ["patient/Patient.rs", "patient/Observation.rs?category=laboratory", "system/*.read"],
        "otherScopes": ["export.run"],
        "routes": [{"name": "export", "match": {"pathPrefix": "/export/"}, "scopes": {"anyOf": ["export.run"]}}],
        "quotas": [
            {"name": "steady", "requests": 10 + number % 90, "per": "1s", "burst": 20},
            {"name": "daily", "requests": 10_000, "calendar": "Day"},
        ],
    }


def status(number: int) -> dict[str, Any]:
    """As the operator writes it."""
    begin, end = ((NOW + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ") for days in (-1, 29))
    conditions = [
        {"type": kind, "status": "True", "reason": kind, "message": "as it should be", "observedGeneration": 1, "lastTransitionTime": begin}
        for kind in ("Accepted", "CertificateReady", "Issuing", "QuotaReady", "Programmed", "Ready")
    ]  # fmt: skip
    row = {"serialNumber": f"{number:032x}", "notBefore": begin, "notAfter": end, "revision": 2}
    certificate = row | {
        "secretName": f"partner-{number:05d}-tls", "sha256": f"{number:064x}", "renewalTime": end, "caSha256": "c" * 64,
        "previous": [row | {"sha256": f"{number + 10**9:064x}", "revision": 1}],
    }  # fmt: skip
    return {"observedGeneration": 1, "conditions": conditions, "certificate": certificate}


async def create(plane: KubernetesApi, namespace: str, count: int) -> None:
    """Write the policies and their statuses, many at a time."""
    context = ssl.create_default_context(cafile=str(plane.ca))
    context.load_cert_chain(*plane.admin)
    numbers = iter(range(count))
    base = f"{plane.url}"

    async def work(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            name = f"partner-{number:05d}"
            body = policy_object(name, **spec(number))
            body["metadata"] = {"name": name, "namespace": namespace}
            async with session.post(base + policies_in(namespace), json=body) as answer:
                assert answer.status == 201, await answer.text()
            path = f"{base}{policies_in(namespace, name)}/status"
            patch = json.dumps({"status": status(number)})
            async with session.patch(path, data=patch, headers={"Content-Type": MERGE}) as answer:
                assert answer.status == 200, await answer.text()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=context)) as session:
        await asyncio.gather(*(work(session) for _ in range(IN_FLIGHT)))


class Server:
    """The process under measurement."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.ops = f"127.0.0.1:{free_port()}"
        address = f"127.0.0.1:{free_port()}"
        site = partner.Site(folder)
        site.write(policies={"source": "kubernetes"}, listen={"grpc": address, "ops": self.ops})
        self.began_s = time.monotonic()
        with (folder / "audit.jsonl").open("wb") as audit, (folder / "log.jsonl").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "authz", "serve", "--config", site.config_file],
                stdout=audit, stderr=log, env=os.environ | {"KUBECONFIG": str(config)},
            )  # fmt: skip
        self.channel = aio.insecure_channel(address)
        self.call: Any = self.channel.unary_unary(METHOD)
        self.message = partner.check_request(forwarded=partner.xfcc(CERTIFICATE)).SerializeToString()

    async def ready(self) -> float:
        """Return how long it took from the start of the process, s."""
        async with aiohttp.ClientSession() as session:
            while True:
                assert self.process.poll() is None, "the server has ended"
                try:
                    async with session.get(f"http://{self.ops}/readyz") as answer:
                        if answer.status == 200:
                            return time.monotonic() - self.began_s
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)

    async def reason(self) -> str:
        answered = CheckResponse.FromString(await self.call(self.message, timeout=20))
        return answered.dynamic_metadata.fields["reason"].string_value

    async def becomes(self, reason: str) -> None:
        async with asyncio.timeout(30):
            while await self.reason() != reason:
                await asyncio.sleep(0.001)

    def resident_mib(self, what: str = "VmRSS") -> float:
        found = re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    async def stop(self) -> None:
        await self.channel.close()
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, 30)


async def edits(server: Server, plane: KubernetesApi, namespace: str) -> list[float]:
    """Return the times from the answer to an edit's request to its enforcement, s."""
    took = []
    path = policies_in(namespace, "measured")
    for number in range(EDITS):
        is_suspended = number % 2 == 0
        await asyncio.to_thread(plane.must, "PATCH", path, {"spec": {"suspended": is_suspended}}, MERGE)
        began_s = time.monotonic()
        await server.becomes("client_suspended" if is_suspended else "token_missing")
        took.append(time.monotonic() - began_s)
    return took


async def measure(count: int) -> bool:
    with tempfile.TemporaryDirectory() as temporary, ControlPlane(Path(temporary)) as plane:
        plane.install_crd()
        namespace = plane.new_namespace()
        began_s = time.monotonic()
        await create(plane, namespace, count - 1)
        measured = policy_object("measured", certificate=external(CERTIFICATE.fingerprint), quotas=[])
        measured["metadata"] = {"name": "measured", "namespace": namespace}
        plane.must("POST", policies_in(namespace), measured)
        plane.must(
            "PATCH",
            f"{policies_in(namespace, 'measured')}/status",
            {"status": accepted(CERTIFICATE.fingerprint)},
            MERGE,
        )
        print(f"{count:,} policies written in {time.monotonic() - began_s:.1f} s")
        folder = Path(temporary) / "authz"
        folder.mkdir()
        server = Server(folder, allow_reading(plane, "authz"))
        try:
            load_s = await server.ready()
            loaded_mib = server.resident_mib()
            await server.becomes("token_missing")
            took = await edits(server, plane, namespace)
            print("edits, ms:", " ".join(f"{one * 1000:.0f}" for one in took))
            rows = [
                ("from start to ready", f"{load_s:.2f} s", f"{LOAD_MAX_S:g} s", load_s <= LOAD_MAX_S),
                ("memory when ready", f"{loaded_mib:.0f} MiB", f"{RSS_MAX_MIB:g} MiB", loaded_mib <= RSS_MAX_MIB),
                ("memory at most", f"{server.resident_mib('VmHWM'):.0f} MiB", f"{RSS_MAX_MIB:g} MiB", server.resident_mib("VmHWM") <= RSS_MAX_MIB),
                ("edit to enforcement, median", f"{statistics.median(took) * 1000:.0f} ms", f"{EDIT_MAX_S:g} s", True),
                ("edit to enforcement, worst", f"{max(took) * 1000:.0f} ms", f"{EDIT_MAX_S:g} s", max(took) <= EDIT_MAX_S),
            ]  # fmt: skip
        finally:
            await server.stop()
    for what, value, bound, is_kept in rows:
        print(f"{'pass' if is_kept else 'FAIL'}  {what:28} {value:>10}  (bound {bound})")
    return all(row[-1] for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=10_000)
    return 0 if asyncio.run(measure(parser.parse_args().policies)) else 1


if __name__ == "__main__":
    sys.exit(main())
