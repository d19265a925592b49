"""fault_*: parts are killed under traffic. No wrong answer; lost calls are those that docs/kubernetes.md tells of."""

from __future__ import annotations

from typing import Any

from caller import Traffic, a_partner, answers
from kube import SYSTEM, Tenant, kill_on_node, kubectl, pods, until


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


def test_fault_authz_container_killed(tenant: Tenant, place: tuple[str, int]) -> None:
    """SIGKILL: no drain, and no word to anybody; the pod and its address stay."""
    until("two authz pods", lambda: len(pods("authz")) >= 2 and ready("authz"))
    pod = pods("authz")[0]
    name, before = pod["metadata"]["name"], restarts(pod)
    with Traffic(a_partner(tenant, place)) as traffic:
        kill_on_node(tenant, "clientpolicy serve", pod)
        until(
            "its container anew",
            lambda: [restarts(one) for one in pods("authz") if one["metadata"]["name"] == name] > [before],
        )
        traffic.more(100)
        until("ready again", lambda: ready("authz"))
        traffic.more(100)
    assert traffic.wrong == []
    assert traffic.lost <= traffic.threads, "more than what was in flight"


def restarts(pod: dict[str, Any]) -> int:
    return sum(one["restartCount"] for one in pod["status"]["containerStatuses"])


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
    partner = a_partner(tenant, place)
    token = partner.system_token()
    with Traffic(partner) as traffic:
        kill_on_node(tenant, "kube-apiserver --")
        until("the API server is gone", lambda: not api_server_answers())
        traffic.more(200)
        until("the API server is back", api_server_answers)
        traffic.more(50)
    assert traffic.wrong == []
    assert traffic.lost == 0
    tenant.patch("app", suspended=True)
    # With both replicas: the gateway goes round them.
    until("an edit counts again", lambda: all(partner.read(token).reason == "client_suspended" for _ in range(20)))


def api_server_answers() -> bool:
    return kubectl("get", "--raw", "/readyz", check=False) == "ok"
