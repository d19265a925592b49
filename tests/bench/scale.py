"""The operator at scale, on a real API server: `make bench-operator`. Exits with 1 where a bound does not hold.

First so many policies from nothing to Ready; then ten times as many, known and unchanged, at a restart.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, TCPConnector

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from control_plane import ControlPlane
from kubernetes_api import POLICIES, KubernetesApi, policies_in
from operator_process import OperatorProcess

NAMESPACES = 20
IN_FLIGHT = 32
RESTART_MAX_S, RSS_MAX_MIB = 60, 300


def policy(number: int) -> dict[str, Any]:
    name = f"client-{number:05d}"
    return {
        "apiVersion": "authz.healthtech.dev/v1alpha1", "kind": "ClientPolicy", "metadata": {"name": name},
        "spec": {
            "clientId": name,
            "identity": {"commonName": name, "organizations": ["Partner Ltd"], "uris": [f"spiffe://healthtech.dev/client/{name}"]},
            "scopes": ["patient/Patient.read", "patient/Observation.read", "system/*.read"],
            "quotas": [
                {"name": "steady", "requests": 10, "per": "1s", "burst": 20},
                {"name": "daily", "requests": 10_000, "calendar": "Day"},
            ],
        },
    }  # fmt: skip


async def create(plane: KubernetesApi, namespaces: list[str], numbers: range) -> None:
    context = ssl.create_default_context(cafile=str(plane.ca))
    context.load_cert_chain(*map(str, plane.admin))
    waiting: Iterator[int] = iter(numbers)
    async with ClientSession(connector=TCPConnector(limit=IN_FLIGHT, ssl=context)) as session:

        async def some() -> None:
            for number in waiting:
                path = policies_in(namespaces[number % len(namespaces)])
                url = f"{plane.url}{path}"
                async with session.post(url, json=policy(number)) as answer:
                    assert answer.status == 201, await answer.text()

        await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))


def rss_mib(process: OperatorProcess) -> float:
    assert process.process is not None
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def say(what: str, value: str, bound: str = "", *, holds: bool = True) -> bool:
    print(f"{what:58} {value:>16}  {bound:12} {'' if not bound else 'ok' if holds else 'MISSED'}", flush=True)
    return holds


def wait(process: OperatorProcess, count: int, pause_s: float) -> None:
    """Wait until all are settled; asking is not free, because the page has lines of each policy."""
    for _ in range(int(3600 / pause_s)):
        if settled(process, count):
            return
        time.sleep(pause_s)
    raise TimeoutError(count)


def settled(process: OperatorProcess, count: int) -> bool:
    if not process.is_ready:
        return False
    page = process.get("/metrics")[1].splitlines()
    numbers = {name: float(value) for name, _, value in (line.rpartition(" ") for line in page) if name[:1] != "#"}
    ready = numbers.get('clientpolicy_policy_conditions{condition="Ready",status="True"}', 0)
    return numbers.get("clientpolicy_leading") == 1 and ready >= count and numbers["clientpolicy_agenda_overdue"] == 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--policies", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1_000)
    asked = parser.parse_args()
    holds: list[bool] = []
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder)) as plane:
        plane.install_crd()
        namespaces = [plane.new_namespace() for _ in range(NAMESPACES)]
        config: dict[str, Any] = {"certificates": {"signingsPerSecond": 1000}, "authority": {"interval": "15s"}}
        with OperatorProcess(Path(folder), plane.kubeconfig, "clientpolicy-system", **config) as operator:
            operator.ready()
            started = time.monotonic()
            asyncio.run(create(plane, namespaces, range(asked.first)))
            say(f"{asked.first} policies created", f"{time.monotonic() - started:.1f} s")
            wait(operator, asked.first, 1)
            say(f"{asked.first} policies from nothing to Ready", f"{time.monotonic() - started:.1f} s")
            say(
                "  writes a policy (ledger, Secret, status, two events)",
                f"{operator.metric('clientpolicy_api_writes_total') / asked.first:.2f}",
            )
            asyncio.run(create(plane, namespaces, range(asked.first, asked.policies)))
            wait(operator, asked.policies, 10)
            say(f"{asked.policies} policies from nothing to Ready", f"{time.monotonic() - started:.1f} s")
            say("  peak memory of the operator meanwhile", f"{rss_mib(operator):.0f} MiB")
            assert operator.stop() == 0
        listed = plane.must("GET", POLICIES)["metadata"]["resourceVersion"]
        with OperatorProcess(Path(folder), plane.kubeconfig, "clientpolicy-system", **config) as operator:
            started = time.monotonic()
            wait(operator, asked.policies, 2)
            took = time.monotonic() - started
            bound = f"<= {RESTART_MAX_S} s"
            holds.append(
                say(
                    f"restart with {asked.policies} known policies", f"{took:.1f} s", bound, holds=took <= RESTART_MAX_S
                )
            )
            time.sleep(30)
            memory, writes = rss_mib(operator), operator.metric("clientpolicy_api_writes_total")
            bound = f"<= {RSS_MAX_MIB} MiB"
            holds.append(say("  peak memory, 30 s later", f"{memory:.0f} MiB", bound, holds=memory <= RSS_MAX_MIB))
            holds.append(say("  writes", f"{writes:.0f}", "0", holds=writes == 0))
            visits = operator.metric('clientpolicy_reconciles_total{result="settled"}')
            say("  policies looked at again meanwhile", f"{visits:.0f}")
            assert operator.stop() == 0
        changed = [one["metadata"]["name"] for one in plane.must("GET", POLICIES)["items"]
                   if int(one["metadata"]["resourceVersion"]) > int(listed)]  # fmt: skip
        holds.append(say("  policies changed", str(len(changed)), "0", holds=not changed))
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
