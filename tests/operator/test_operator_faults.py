"""What goes wrong in a cluster, done to the real operator on a real API server."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_gate import AFTER, BEFORE, ApiGate, Asked, status_of
from control_plane import ControlPlane
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from kubernetes_api import KubernetesApi, policies_in
from operator_process import OperatorProcess, Tenant, ledger_of, shifted, until

from authz.policy.crd import crd

RBAC = Path(__file__).parents[2] / "examples" / "kubernetes" / "rbac.yaml"


@pytest.fixture
def gate(plane: KubernetesApi, tmp_path: Path) -> Iterator[ApiGate]:
    with ApiGate(plane, tmp_path) as running:
        yield running


@pytest.fixture
def tenant(plane: KubernetesApi) -> Tenant:
    return Tenant(plane, plane.new_namespace())


def secret_sha256(tenant: Tenant, name: str = "app-tls") -> str:
    secret = tenant.secret(name)
    assert secret is not None
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    return certificate.fingerprint(hashes.SHA256()).hex()


def crl_of(plane: KubernetesApi, namespace: str) -> set[str]:
    data = plane.must("GET", f"/api/v1/namespaces/{namespace}/configmaps/clientpolicy-trust")["data"]
    serials: set[str] = set()
    end = "-----END X509 CRL-----\n"
    for pem in filter(str.strip, data["ca.crl"].split(end)):
        serials |= {f"{one.serial_number:x}" for one in x509.load_pem_x509_crl((pem + end).encode())}
    return serials


def writes(name: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.is_write and asked.name.startswith(name)


OBJECTS = {
    "CA": writes("clientpolicy-ca"),
    "trust bundle": writes("clientpolicy-trust"),
    "ledger": writes("clientpolicy-ledger"),
    "Secret": writes("app-tls"),
    "status": lambda asked: asked.path.endswith("/status"),
}
POINTS = {f"{when} the {what}": (when, match) for what, match in OBJECTS.items() for when in (BEFORE, AFTER)}
STARTS = {
    "nothing": list(POINTS),
    "a certificate": [point for point in POINTS if point.split()[-1] in ("ledger", "Secret", "status")],
}


@pytest.mark.parametrize("start", STARTS)
def test_killed_at_any_point_it_ends_with_one_certificate(plane: KubernetesApi, tmp_path: Path, start: str) -> None:
    """Each point has an operator, a tenant and a gate of its own; they run side by side, because some must wait."""

    def killed(number: int, point: str) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        tenant, system = Tenant(plane, plane.new_namespace()), plane.new_namespace()
        when, match = POINTS[point]
        with ApiGate(plane, folder) as gate:
            first = ""
            if start == "a certificate":
                with OperatorProcess(folder, gate.kubeconfig, system, tenant.namespace) as before:
                    before.ready()
                    tenant.apply(identity={"commonName": "one"})
                    first = tenant.ready()["sha256"]
                    assert before.stop() == 0
            victim = OperatorProcess(folder, gate.kubeconfig, system, tenant.namespace)
            rule = gate.on(match, victim.kill, when=when, times=1)
            made = tenant.apply(identity={"commonName": "two"})
            with victim:
                until(f"{point}: killed", lambda: rule.hits and victim.process and victim.process.poll() is not None)
            with OperatorProcess(folder, gate.kubeconfig, system, tenant.namespace) as after:
                after.ready()
                until(f"{point}: signed", lambda: tenant.certificate().get("sha256") not in ("", first, None))
                told = tenant.ready()
                check_one_certificate(tenant, ledger_of(plane, system)[made["metadata"]["uid"]], first)
                assert told["sha256"] != first, point
                check_one_ca(plane, system, tenant)
                assert after.stop() == 0

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(killed, number, point) for number, point in enumerate(STARTS[start])]:
            done.result()


def check_one_certificate(tenant: Tenant, rows: list[list[Any]], first: str) -> None:
    """The one in the status is in the Secret and the last in the ledger; of a crash at most one was lost."""
    told = tenant.certificate()
    assert told["sha256"] == secret_sha256(tenant)
    assert [one["sha256"] for one in told.get("previous", [])] == ([first] if first else [])
    assert len({row[0] for row in rows}) == len(rows), "two signings for one revision"
    assert [row[1] for row in rows][-1] == told["sha256"]
    assert len(rows) <= (3 if first else 2)


def check_one_ca(plane: KubernetesApi, system: str, tenant: Tenant) -> None:
    """The CA in its Secret, the published one and the leaf's are the same."""
    held = plane.must("GET", f"/api/v1/namespaces/{system}/secrets/clientpolicy-ca")["data"]["tls.crt"]
    authority = x509.load_pem_x509_certificate(base64.b64decode(held))
    secret = tenant.secret()
    assert secret is not None
    x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"])).verify_directly_issued_by(authority)
    path = f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust"
    published = until("published", lambda: plane.api("GET", path)[1].get("data"))
    assert published["ca.crt"].encode() == base64.b64decode(held)


FAILURES: dict[str, tuple[int, dict[str, Any]]] = {
    "409": status_of(409, "Conflict"),
    "429": status_of(429, "TooManyRequests"),
    "500": status_of(500, "InternalError"),
    "503": status_of(503, "ServiceUnavailable"),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
def test_failing_writes_are_done_later_and_once(
    gate: ApiGate, tenant: Tenant, tmp_path: Path, answer: tuple[int, dict[str, Any]]
) -> None:
    system = tenant.plane.new_namespace()
    with OperatorProcess(tmp_path, gate.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        rules = [
            gate.on(lambda asked: asked.path.endswith("/status"), lambda: answer, times=2),
            gate.on(lambda asked: asked.path.endswith(f"{tenant.namespace}/secrets"), lambda: answer, times=2),
        ]
        made = tenant.apply()
        told = tenant.ready()
        assert [rule.hits for rule in rules] == [2, 2]
        assert told["sha256"] == secret_sha256(tenant)
        rows = ledger_of(tenant.plane, system)[made["metadata"]["uid"]]
        assert [row[1] for row in rows] == [told["sha256"]], "what was signed is stored as soon as it can be"
        assert operator.stop() == 0


def test_restart_of_the_api_server_costs_no_certificate(own_plane: ControlPlane, tmp_path: Path) -> None:
    tenant = Tenant(own_plane, own_plane.new_namespace())
    with OperatorProcess(tmp_path, own_plane.kubeconfig, own_plane.new_namespace(), tenant.namespace) as operator:
        operator.ready()
        tenant.apply()
        first = tenant.ready()
        own_plane.stop_api()
        until("not ready while it watches nothing", lambda: operator.get("/readyz")[0] == 503)
        own_plane.start_api()
        operator.ready()
        tenant.apply("later")
        tenant.ready("later")
        assert tenant.certificate() == first
        assert operator.stop() == 0


def test_api_server_killed_in_the_middle_of_issuing_leaves_one_certificate_each(
    own_plane: ControlPlane, tmp_path: Path
) -> None:
    tenant, system = Tenant(own_plane, own_plane.new_namespace()), own_plane.new_namespace()
    with OperatorProcess(tmp_path, own_plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        uids = {name: tenant.apply(name)["metadata"]["uid"] for name in map("p{}".format, range(20))}
        own_plane.stop_api()
        own_plane.start_api()
        for name in uids:
            told = tenant.ready(name)
            assert told["sha256"] == secret_sha256(tenant, f"{name}-tls")
            rows = ledger_of(own_plane, system)[uids[name]]
            assert len({row[0] for row in rows}) == len(rows)
            assert told["sha256"] == rows[-1][1]
        assert operator.stop() == 0


def test_policy_deleted_while_nobody_operates_is_caught_up_with(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path
) -> None:
    """Its Secret goes without us (owner reference), and the CRL lists what the ledger tells of."""
    system = plane.new_namespace()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        tenant.apply()
        serial = tenant.ready()["serialNumber"]
        assert operator.stop() == 0
    tenant.delete()
    until("garbage collected", lambda: tenant.secret() is None)
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        until("CRL", lambda: serial in crl_of(plane, system))
        assert operator.stop() == 0


def test_deletions_that_no_watch_told_are_found_after_compaction(own_plane: ControlPlane, tmp_path: Path) -> None:
    """410 Gone: what was known is too old, and what went meanwhile is in no list."""
    tenant = Tenant(own_plane, own_plane.new_namespace())
    system = own_plane.new_namespace()
    with ApiGate(own_plane, tmp_path) as gate, OperatorProcess(
        tmp_path, gate.kubeconfig, system, tenant.namespace, watch={"namespaces": [tenant.namespace], "timeout": "2s"}
    ) as operator:  # fmt: skip
        operator.ready()
        tenant.apply("gone")
        serial = tenant.ready("gone")["serialNumber"]
        away = gate.on(lambda asked: asked.is_watch, lambda: status_of(503, "ServiceUnavailable"))
        until("no watch any more", lambda: operator.get("/readyz")[0] == 503)
        tenant.delete("gone")
        tenant.apply("new")
        own_plane.compact()
        away.times = 0
        tenant.ready("new")
        until("CRL", lambda: serial in crl_of(own_plane, system))
        assert operator.stop() == 0


def test_policy_made_while_a_list_is_under_way_is_not_forgotten(gate: ApiGate, tenant: Tenant, tmp_path: Path) -> None:
    """What is not in a list is gone only if it was there before the list was made."""
    with OperatorProcess(
        tmp_path, gate.kubeconfig, tenant.plane.new_namespace(), tenant.namespace, certificates={"resync": "2s"}
    ) as operator:
        operator.ready()
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            go_on.wait(30)

        path = policies_in(tenant.namespace)
        gate.on(lambda asked: asked.path == path and not asked.is_watch, hold, when=AFTER, times=1)
        assert held.wait(30)
        tenant.apply()
        tenant.ready()
        go_on.set()
        lists = sum(asked.path == path and not asked.is_watch for asked in gate.asked)
        until("listed", lambda: sum(asked.path == path and not asked.is_watch for asked in gate.asked) > lists)
        assert operator.metric('clientpolicy_policy_conditions{condition="Ready",status="True"}') == 1
        assert operator.stop() == 0


def test_silent_watch_is_opened_anew(gate: ApiGate, tenant: Tenant, tmp_path: Path) -> None:
    with OperatorProcess(
        tmp_path, gate.kubeconfig, tenant.plane.new_namespace(), tenant.namespace,
        watch={"namespaces": [tenant.namespace], "silence": "2s"},
    ) as operator:  # fmt: skip
        operator.ready()
        gate.silence()
        tenant.apply()
        tenant.ready()
        assert gate.streams > gate.silenced
        assert operator.stop() == 0


def test_watch_that_is_forbidden_ends_the_process(gate: ApiGate, tenant: Tenant, tmp_path: Path) -> None:
    with OperatorProcess(
        tmp_path, gate.kubeconfig, tenant.plane.new_namespace(), tenant.namespace,
        watch={"namespaces": [tenant.namespace], "timeout": "2s"},
    ) as operator:  # fmt: skip
        operator.ready()
        gate.on(lambda asked: asked.is_watch, lambda: status_of(403, "Forbidden"))
        assert operator.process is not None
        assert operator.process.wait(60) == 1
        assert "watching ClientPolicies is forbidden" in operator.log.read_text()


def as_user(plane: KubernetesApi, system: str) -> tuple[Path, Callable[[str, str, Any], Any]]:
    """Return the kubeconfig of a user with the rights of examples/kubernetes/rbac.yaml, and how to change a role."""
    user = f"operator-{system}"
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    for document in yaml.safe_load_all(RBAC.read_text()):
        if document["metadata"]["name"] != "clientpolicy-operator" or document["kind"] in (
            "ServiceAccount",
            "Namespace",
        ):
            continue
        document["metadata"]["name"] += f"-{system}"
        if "roleRef" in document:
            document["roleRef"]["name"] += f"-{system}"
            document["subjects"] = [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]
        where = f"/namespaces/{system}" if "namespace" in document["metadata"] else ""
        document["metadata"].pop("namespace", None)
        plane.must("POST", f"{rbac}{where}/{document['kind'].lower()}s", document)

    def role(kind: str, name: str, rules: Any) -> Any:
        where = f"/namespaces/{system}" if kind == "roles" else ""
        path = f"{rbac}{where}/{kind}/{name}-{system}"
        found = plane.must("GET", path)
        plane.must("PUT", path, found | {"rules": rules})
        return found["rules"]

    return plane.kubeconfig_for(user), role


def test_least_rights_suffice_and_secrets_forbidden_live_are_told_while_others_go_on(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path
) -> None:
    system = plane.new_namespace()
    kubeconfig, role = as_user(plane, system)
    with OperatorProcess(
        tmp_path, kubeconfig, system, tenant.namespace, certificates={"resync": "2s"}, leader={"election": "on"}
    ) as operator:
        operator.ready()
        tenant.apply()
        first = tenant.ready()
        rules = role("clusterroles", "clientpolicy-operator", [])
        kept = [rule for rule in rules if "secrets" not in rule["resources"]]
        role("clusterroles", "clientpolicy-operator", kept)
        tenant.apply("late")
        until("told", lambda: tenant.condition("CertificateReady", "late") == ("False", "Forbidden"))
        tenant.apply("out", certificate={"source": "External", "fingerprints": ["ab" * 32]})
        tenant.ready("out")
        assert tenant.certificate()["sha256"] == first["sha256"]
        assert tenant.condition("Ready")[0] == "True", "its certificate is good, whether or not it can be looked at"
        role("clusterroles", "clientpolicy-operator", rules)
        tenant.ready("late")
        until("events", lambda: "Issued" in tenant.events())
        assert operator.stop() == 0


def test_without_the_kind_it_says_what_to_install(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as bare, OperatorProcess(tmp_path, bare.kubeconfig, "own", "default") as operator:
        assert operator.process is not None
        assert operator.process.wait(60) == 1
        assert "clientpolicy crd | kubectl apply" in operator.log.read_text()


def test_older_crd_prunes_what_it_lacks_and_costs_a_write_a_visit_at_most(tmp_path: Path) -> None:
    """A new operator on the CRD of before: ready, and no loop of writes that never stick."""
    older = "".join(
        line for line in crd().splitlines(keepends=True) if not re.match(r" +(caSha256|renewalTime):", line)
    )
    older = re.sub(r"(description: Earlier ones.*\n +maxItems: )32", r"\g<1>4", older)
    assert len(crd()) - len(older) > 100
    with ControlPlane(tmp_path) as bare, ApiGate(bare, tmp_path) as gate:
        bare.install_crd(older)
        tenant = Tenant(bare, bare.new_namespace())
        with OperatorProcess(
            tmp_path, gate.kubeconfig, bare.new_namespace(), tenant.namespace, certificates={"resync": "2s"}
        ) as operator:
            operator.ready()
            tenant.apply()
            assert "caSha256" not in tenant.ready()
            line = 'clientpolicy_reconciles_total{result="settled"}'
            until("looked at again", lambda: operator.metric(line) >= 5)
            written = sum(asked.path.endswith("/status") for asked in gate.asked)
            assert written <= operator.metric(line) + 1
            for number in range(6):
                tenant.apply(identity={"commonName": f"name-{number}"})
                revised(tenant, "app")
            assert len(tenant.certificate()["previous"]) == 4
            assert operator.stop() == 0


def test_deleted_ca_is_told_never_replaced_and_works_again_once_restored(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path
) -> None:
    system = plane.new_namespace()
    path = f"/api/v1/namespaces/{system}/secrets/clientpolicy-ca"
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        tenant.apply()
        first = tenant.ready()
        backup = plane.must("GET", path)
        plane.must("DELETE", path)
        until("missed", lambda: operator.metric("clientpolicy_ca_available") == 0)
        tenant.apply("late")
        until("told", lambda: tenant.condition("CertificateReady", "late") == ("False", "CAUnavailable"))
        assert plane.api("GET", path)[0] == 404, "it is never silently replaced"
        assert tenant.condition("Ready")[0] == "True", "certificates that are out stay valid"
        assert operator.stop() == 0
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        until("still missed after a restart", lambda: "is gone, but" in operator.log.read_text())
        assert plane.api("GET", path)[0] == 404
        backup["metadata"] = {key: backup["metadata"][key] for key in ("name", "labels") if key in backup["metadata"]}
        plane.must("POST", f"/api/v1/namespaces/{system}/secrets", backup)
        tenant.ready("late")
        assert tenant.certificate() == first
        check_one_ca(plane, system, tenant)
        assert operator.stop() == 0


@pytest.mark.parametrize("part", ["tls.crt", "tls.key"])
def test_compromised_key_is_not_certified_where_half_of_its_secret_was_emptied(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path, part: str
) -> None:
    """Both happened while nobody operated: what is due is then a Secret without its data, not a revocation."""
    system = plane.new_namespace()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        tenant.apply(certificate={"privateKey": {"rotationPolicy": "Never"}})
        first = tenant.ready()
        assert operator.stop() == 0
    before = tenant.secret()
    assert before is not None
    tenant.patch(revocation={"fingerprints": [{"sha256": first["sha256"], "reason": "KeyCompromise"}]})
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls"
    plane.must("PATCH", path, {"data": {part: ""}}, "application/merge-patch+json")
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        revised(tenant, "app")
        after = tenant.secret()
        assert after is not None
        assert after["data"]["tls.key"] not in ("", before["data"]["tls.key"])
        assert operator.stop() == 0


def test_deleted_ledger_is_written_again(plane: KubernetesApi, tenant: Tenant, tmp_path: Path) -> None:
    system = plane.new_namespace()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        uid = tenant.apply(identity={"commonName": "one"})["metadata"]["uid"]
        first = tenant.ready()
        plane.must("DELETE", f"/api/v1/namespaces/{system}/configmaps")
        tenant.apply(identity={"commonName": "two"})
        second = revised(tenant, "app")
        assert [row[1] for row in ledger_of(plane, system)[uid]] == [first["sha256"], second["sha256"]]
        assert operator.stop() == 0


def rotate(plane: KubernetesApi, system: str) -> None:
    wish = {"metadata": {"annotations": {"authz.healthtech.dev/rotate": "now"}}}
    path = f"/api/v1/namespaces/{system}/secrets/clientpolicy-ca"
    plane.must("PATCH", path, wish, "application/merge-patch+json")


HURRIED = {"interval": "1s", "propagation": "1s", "spread": "1s"}


def test_backup_from_before_a_rotation_drops_no_root(plane: KubernetesApi, tenant: Tenant, tmp_path: Path) -> None:
    """What is published goes on holding the root that living leaves need, and CRLs of the roots there are.

    Nothing is signed until it is restored.
    """
    system = plane.new_namespace()
    path = f"/api/v1/namespaces/{system}/secrets/clientpolicy-ca"
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=HURRIED) as operator:
        operator.ready()
        tenant.apply()
        first = tenant.ready()
        old = plane.must("GET", path)
        rotate(plane, system)
        until("re-issued", lambda: tenant.certificate()["caSha256"] != first["caSha256"])
        new = plane.must("GET", path)
        plane.must("PUT", path, {**new, "data": old["data"]})
        until("told", lambda: operator.metric("clientpolicy_ca_available") == 0)
        assert roots(plane, system) == 2
        assert "restore a newer backup" in operator.log.read_text()
        tenant.patch(revocation={"fingerprints": [{"sha256": first["sha256"]}]})
        until("CRL of the root that is there", lambda: first["serialNumber"] in crl_of(plane, system))
        assert roots(plane, system) == 2
        assert tenant.condition("Ready") == ("True", "Ready")
        current = plane.must("GET", path)
        plane.must("PUT", path, {**current, "data": new["data"]})
        until("works again", lambda: operator.metric("clientpolicy_ca_available") == 1)
        assert operator.stop() == 0


def test_lost_ledger_costs_no_root_and_no_revocation(plane: KubernetesApi, tenant: Tenant, tmp_path: Path) -> None:
    """What the status tells of a certificate stands in for its row."""
    system = plane.new_namespace()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        tenant.apply()
        first = tenant.ready()
        assert operator.stop() == 0
    plane.must("DELETE", f"/api/v1/namespaces/{system}/configmaps?labelSelector=app.kubernetes.io/component%3Dledger")
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=HURRIED) as operator:
        operator.ready()
        rotate(plane, system)
        until("re-issued", lambda: tenant.certificate()["caSha256"] != first["caSha256"])
        told = tenant.certificate()
        assert [one["sha256"] for one in told["previous"]] == [first["sha256"]]
        lines = len(operator.log.read_text().splitlines())
        until("time passes", lambda: operator.metric("clientpolicy_ca_rotations_total") == 1 and lines)
        tenant.patch(revocation={"fingerprints": [{"sha256": first["sha256"]}]})
        until("CRL", lambda: first["serialNumber"] in crl_of(plane, system))
        assert operator.stop() == 0


def test_rotation_runs_through_with_two_roots_and_goes_on_after_a_kill(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path
) -> None:
    system = plane.new_namespace()
    path = f"/api/v1/namespaces/{system}/secrets/clientpolicy-ca"
    times = {"interval": "1s", "propagation": "3s", "spread": "2s"}
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=times) as operator:
        operator.ready()
        tenant.apply()
        first = tenant.ready()
        rotate(plane, system)
        until("both roots published", lambda: roots(plane, system) == 2)
        assert tenant.certificate() == first, "nothing is signed by a root that nobody trusts yet"
        operator.kill()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, authority=times) as operator:
        operator.ready()
        second = until(
            "re-issued", lambda: tenant.certificate().get("caSha256") != first["caSha256"] and tenant.certificate()
        )
        assert [one["sha256"] for one in second["previous"]] == [first["sha256"]]
        assert roots(plane, system) == 2, "the old root stays while a leaf of it is valid"
        annotations = plane.must("GET", path)["metadata"]["annotations"]
        assert "authz.healthtech.dev/rotate" not in annotations
        assert operator.metric("clientpolicy_ca_rotations_total") == 1
        assert operator.stop() == 0


def roots(plane: KubernetesApi, system: str) -> int:
    data = plane.must("GET", f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust")["data"]
    lists = data["ca.crl"].count("BEGIN X509 CRL")
    certificates = data["ca.crt"].count("BEGIN CERTIFICATE")
    return int(certificates) if lists == certificates else 0


@pytest.mark.parametrize("election", ["off", "on"])
def test_two_replicas_make_one_certificate_a_revision(
    plane: KubernetesApi, tenant: Tenant, tmp_path: Path, election: str
) -> None:
    system = plane.new_namespace()
    leader = {"election": election, "lease": "3s"}
    (tmp_path / "two").mkdir()
    with (
        OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, leader=leader) as one,
        OperatorProcess(tmp_path / "two", plane.kubeconfig, system, tenant.namespace, leader=leader) as two,
    ):
        one.ready()
        two.ready()
        uids = {name: tenant.apply(name)["metadata"]["uid"] for name in map("p{}".format, range(12))}
        for name in uids:
            tenant.ready(name)
            tenant.patch(name, identity={"commonName": f"{name}-2"})
        for name, uid in uids.items():
            told = revised(tenant, name)
            rows = ledger_of(plane, system)[uid]
            assert len({row[0] for row in rows}) == len(rows), "two signings for one revision"
            assert told["sha256"] == secret_sha256(tenant, f"{name}-tls")
        signings = [sum_of(process, "clientpolicy_signings_total") for process in (one, two)]
        if election == "on":
            assert 0 in signings, "the other one only watches"
            leading = one if one.metric("clientpolicy_leading") else two
            assert leading.stop() == 0
            tenant.apply("after")
            tenant.ready("after")


def revised(tenant: Tenant, name: str) -> dict[str, Any]:
    """Return what the status tells of a second certificate, once there is one."""
    until(name, lambda: tenant.is_ready(name) and tenant.certificate(name)["revision"] >= 2)
    return tenant.certificate(name)


def sum_of(process: OperatorProcess, name: str) -> float:
    lines = process.get("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


def test_two_replicas_without_a_lease_agree_on_the_crl(plane: KubernetesApi, tenant: Tenant, tmp_path: Path) -> None:
    system = plane.new_namespace()
    (tmp_path / "two").mkdir()
    path = f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust"
    with (
        OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as one,
        OperatorProcess(tmp_path / "two", plane.kubeconfig, system, tenant.namespace) as two,
    ):
        one.ready()
        two.ready()
        tenant.apply()
        first = tenant.ready()
        tenant.patch(revocation={"fingerprints": [{"sha256": first["sha256"]}]})
        until("CRL", lambda: first["serialNumber"] in crl_of(plane, system))
        versions = {plane.must("GET", path)["metadata"]["resourceVersion"] for _ in range(2)}
        for _ in range(8):  # as many of their looks, and more
            time.sleep(1)
            versions.add(plane.must("GET", path)["metadata"]["resourceVersion"])
        assert len(versions) <= 2, "one may still have been on its way"
        assert [process.stop() for process in (one, two)] == [0, 0]


def test_what_is_changed_back_again_and_again_is_told_and_not_fought(
    gate: ApiGate, tenant: Tenant, tmp_path: Path
) -> None:
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls"
    meddling = threading.Event()

    def meddle() -> tuple[int, dict[str, Any]] | None:
        if not meddling.is_set():
            change = {"metadata": {"labels": {"team": "theirs"}}}
            tenant.plane.must("PATCH", path, change, "application/merge-patch+json")
        return None

    with OperatorProcess(tmp_path, gate.kubeconfig, tenant.plane.new_namespace(), tenant.namespace) as operator:
        operator.ready()
        gate.on(lambda asked: asked.method == "PATCH" and asked.name == "app-tls", meddle, when=AFTER)
        tenant.apply(certificate={"secretTemplate": {"labels": {"team": "ours"}}})
        tenant.ready()
        meddle()
        tenant.patch(suspended=True)  # have it looked at
        until("told", lambda: tenant.condition("Issuing") == ("True", "Refused"))
        assert sum(asked.method == "PATCH" and asked.name == "app-tls" for asked in gate.asked) <= 2
        meddling.set()
        until("put right", lambda: (tenant.secret() or {})["metadata"]["labels"]["team"] == "ours")
        assert operator.stop() == 0


def test_status_that_another_writes_over_and_over_is_written_ever_more_rarely(
    gate: ApiGate, tenant: Tenant, tmp_path: Path
) -> None:
    path = policies_in(tenant.namespace, "app")
    over = threading.Event()

    def meddle() -> None:
        """As an operator of other settings would: at once, each time."""
        while not over.wait(0.02):
            if tenant.condition("Ready")[1] != "Theirs":
                theirs = {"type": "Ready", "status": "False", "reason": "Theirs", "message": "",
                          "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
                change = {"status": {"conditions": [theirs]}}
                tenant.plane.must("PATCH", f"{path}/status", change, "application/merge-patch+json")

    def reports() -> int:
        return sum(asked.is_write and asked.path == f"{path}/status" for asked in gate.asked)

    with OperatorProcess(tmp_path, gate.kubeconfig, tenant.plane.new_namespace(), tenant.namespace) as operator:
        operator.ready()
        tenant.apply()
        tenant.ready()
        meddler = threading.Thread(target=meddle)
        meddler.start()
        until("a fight", lambda: reports() > 3)
        time.sleep(10)
        assert reports() <= 12, "1 + 2 + 4 s, and then 8"
        over.set()
        meddler.join()
        assert len(tenant.events()) < 30
        tenant.patch(mode="Shadow")
        tenant.ready()
        assert operator.stop() == 0


def test_what_others_write_beside_our_status_costs_no_visit(gate: ApiGate, tenant: Tenant, tmp_path: Path) -> None:
    path = policies_in(tenant.namespace, "app")
    with OperatorProcess(tmp_path, gate.kubeconfig, tenant.plane.new_namespace(), tenant.namespace) as operator:
        operator.ready()
        tenant.apply()
        tenant.ready()
        looks = len(gate.asked)
        for number in range(20):
            change = {"metadata": {"labels": {"turn": str(number)}}}
            tenant.plane.must("PATCH", path, change, "application/merge-patch+json")
        tenant.apply("after")
        tenant.ready("after")
        assert sum(asked.path == path for asked in gate.asked[looks:]) <= 1, "the one that was due"
        assert operator.stop() == 0


@pytest.mark.parametrize("before", ["this operator", "the one before"])
def test_secret_that_is_deleted_or_overwritten_is_put_right_within_a_minute_and_no_key_is_read_for_it(
    gate: ApiGate, tenant: Tenant, tmp_path: Path, before: str
) -> None:
    """By default a policy is verified every ten minutes only; its Secret is looked at by name."""
    system = tenant.plane.new_namespace()
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls"
    operator = OperatorProcess(tmp_path, gate.kubeconfig, system, tenant.namespace)
    with operator:
        operator.ready()
        tenant.apply()
        tenant.ready()
        if before == "the one before":
            assert operator.stop() == 0
            tenant.plane.must("DELETE", path)
            operator.start().ready()
            until("back", tenant.secret, deadline_s=60)
        tenant.plane.must("DELETE", path)
        until("back", tenant.secret, deadline_s=60)
        tenant.plane.must("PATCH", path, {"data": {"tls.crt": "AAAA"}}, "application/merge-patch+json")
        until("whole", lambda: (tenant.secret() or {})["data"]["tls.crt"] != "AAAA", deadline_s=60)
        tenant.ready()
        reads = sum(asked.path == path and asked.method == "GET" for asked in gate.asked)
        time.sleep(20)
        quiet = [asked for asked in gate.asked if asked.path == path and asked.method == "GET"][reads:]
        assert quiet
        assert all("PartialObjectMetadata" in asked.accept for asked in quiet)
        assert operator.stop() == 0


def test_lost_lease_ends_the_process(plane: KubernetesApi, tenant: Tenant, tmp_path: Path) -> None:
    system = plane.new_namespace()
    with OperatorProcess(
        tmp_path, plane.kubeconfig, system, tenant.namespace, leader={"election": "on", "lease": "3s"}
    ) as operator:
        operator.ready()
        path = f"/apis/coordination.k8s.io/v1/namespaces/{system}/leases/clientpolicy-operator"
        until("leading", lambda: operator.metric("clientpolicy_leading") == 1)
        theft = {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 600}}
        plane.must("PATCH", path, theft, "application/merge-patch+json")
        assert operator.process is not None
        assert operator.process.wait(60) == 1
        assert "another replica leads" in operator.log.read_text()


@pytest.mark.parametrize(("offset", "minutes"), [("-10m", 10), ("+10m", 10), ("+3h", 180)])
def test_wrong_clock_signs_nothing_drops_nothing_and_says_so(
    own_plane: ControlPlane, tmp_path: Path, offset: str, minutes: int
) -> None:
    """On a control plane of its own: a clock that is behind does not trust the certificate of a cluster made just now."""
    plane, tenant, system = own_plane, Tenant(own_plane, own_plane.new_namespace()), own_plane.new_namespace()
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace) as right:
        right.ready()
        tenant.apply(identity={"commonName": "one"}, certificate={"duration": "1h"})
        tenant.ready()
        tenant.apply(identity={"commonName": "two"}, certificate={"duration": "1h"})
        first = revised(tenant, "app")
        assert len(first["previous"]) == 1
        assert right.stop() == 0
    before = plane.must("GET", f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust")["data"]
    with OperatorProcess(tmp_path, plane.kubeconfig, system, tenant.namespace, environment=shifted(offset)) as wrong:
        until("up", lambda: wrong.get("/livez")[0] == 200)
        tenant.apply("late")
        until("told", lambda: tenant.condition("CertificateReady", "late") == ("False", "CAUnavailable"))
        message = next(
            one["message"] for one in tenant.status("late")["conditions"] if one["type"] == "CertificateReady"
        )
        assert f"this operator's clock is {minutes} min" in message
        tenant.patch(suspended=True)
        until("looked at", lambda: tenant.condition("Ready") == ("False", "Suspended"))
        assert tenant.certificate() == first
        after = plane.must("GET", f"/api/v1/namespaces/{system}/configmaps/clientpolicy-trust")["data"]
        assert after == before, "a CRL of another time would refuse every client"
        assert wrong.stop() == 0


def test_sigterm_finishes_what_is_being_written(gate: ApiGate, tenant: Tenant, tmp_path: Path) -> None:
    system = tenant.plane.new_namespace()
    with OperatorProcess(tmp_path, gate.kubeconfig, system, tenant.namespace) as operator:
        operator.ready()
        reached, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            reached.set()
            go_on.wait(20)

        gate.on(lambda asked: asked.path.endswith(f"{tenant.namespace}/secrets"), hold, times=1)
        tenant.apply()
        assert reached.wait(30)
        assert operator.process is not None
        operator.process.terminate()
        go_on.set()
        assert operator.process.wait(30) == 0
        assert tenant.certificate()["sha256"] == secret_sha256(tenant)


def test_policies_path_is_the_only_kind_it_watches(gate: ApiGate, tenant: Tenant, tmp_path: Path) -> None:
    with OperatorProcess(tmp_path, gate.kubeconfig, tenant.plane.new_namespace(), tenant.namespace) as operator:
        operator.ready()
        tenant.apply()
        tenant.ready()
        listed = {one.path for one in gate.asked if one.is_watch}
        assert listed == {policies_in(tenant.namespace)}
        secrets = {one.path for one in gate.asked if one.method == "GET" and one.path.endswith("/secrets")}
        assert secrets == set(), "Secrets are never listed"
        assert operator.stop() == 0
