"""fault_*: parts are killed under traffic. No wrong answer; lost calls are those that docs/kubernetes.md tells of."""

from __future__ import annotations

import os
import signal

import pytest
from caller import Traffic, a_partner, answers
from kube import SYSTEM, Tenant, api_server, kubectl, pods, processes, until


def kill(component: str) -> None:
    """Kill a pod with no grace."""
    name = pods(component)[0]["metadata"]["name"]
    kubectl("-n", SYSTEM, "delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
    until(
        f"{component} back",
        lambda: name not in [pod["metadata"]["name"] for pod in pods(component)] and ready(component),
    )


def ready(component: str) -> bool:
    def is_ready(pod: dict[str, object]) -> bool:
        conditions = pod["status"].get("conditions", [])  # type: ignore[attr-defined] # JSON
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    found = pods(component)
    return bool(found) and all(is_ready(pod) for pod in found)


def test_fault_authz_pod_killed(tenant: Tenant, place: tuple[str, int]) -> None:
    until("two authz pods", lambda: len(pods("authz")) >= 2 and ready("authz"))
    with Traffic(a_partner(tenant, place)) as traffic:
        kill("authz")
        traffic.more(100)
    assert traffic.wrong == []
    assert traffic.lost <= traffic.threads, "more than what was in flight"


def test_fault_operator_killed(tenant: Tenant, place: tuple[str, int]) -> None:
    with Traffic(a_partner(tenant, place)) as traffic:
        kill("operator")
        traffic.more(50)
    assert traffic.wrong == []
    assert traffic.lost == 0
    later = a_partner(tenant, place, "later")
    assert later.read(later.system_token()).status == 200


def test_fault_redis_killed(tenant: Tenant, place: tuple[str, int]) -> None:
    with Traffic(a_partner(tenant, place)) as traffic:
        kill("redis")
        traffic.more(200)
    assert traffic.wrong == []
    assert traffic.lost == 0, "each replica counts for itself meanwhile (onStoreFailure: Local)"


def test_fault_redis_killed_closes_what_is_to_close(tenant: Tenant, place: tuple[str, int]) -> None:
    quota = {"name": "strict", "requests": 1000, "per": "1s", "onStoreFailure": "Closed"}
    partner = a_partner(tenant, place, quotas=[quota])
    token = partner.system_token()
    kubectl("-n", SYSTEM, "scale", "deployment/clientpolicy-redis", "--replicas=0")
    try:
        answers("closed", lambda: partner.read(token), 503, "store_unavailable")
    finally:
        kubectl("-n", SYSTEM, "scale", "deployment/clientpolicy-redis", "--replicas=1")
    answers("open again", lambda: partner.read(token), 200)


def test_fault_api_server_killed(tenant: Tenant, place: tuple[str, int]) -> None:
    address = api_server().rpartition(":")[0]
    killed = processes("kube-apiserver", f"--advertise-address={address}") or processes(
        "kube-apiserver", "--etcd-servers="
    )
    if not killed:
        pytest.skip("the API server's process is not on this machine")
    partner = a_partner(tenant, place)
    token = partner.system_token()
    with Traffic(partner) as traffic:
        os.kill(killed[0], signal.SIGKILL)
        traffic.more(200)
        until("the API server is back", lambda: kubectl("get", "--raw", "/readyz", check=False) == "ok")
        traffic.more(50)
    assert traffic.wrong == []
    assert traffic.lost == 0
    tenant.patch("app", suspended=True)
    # With both replicas: the gateway goes round them.
    until("an edit counts again", lambda: all(partner.read(token).reason == "client_suspended" for _ in range(20)))
