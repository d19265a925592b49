"""install_*: what helm leaves in a cluster, and what it takes away again."""

from __future__ import annotations

import json
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import kube
import pytest
from caller import a_partner, answers, gateway
from cryptography import x509
from kube import CHART, RELEASE, ROOT, SYSTEM, VALUES, Tenant, get, helm, install, kubectl, pods, run, until
from mesh.pki import Authority

ACCOUNT = f"system:serviceaccount:{SYSTEM}:{RELEASE}-operator"
POLICIES = "clientpolicies.authz.healthtech.dev"
EXAMPLE = ROOT / "examples" / "kubernetes" / "trusted-partner-app.yaml"


def test_install_example_and_first_call(release: bool) -> None:
    begun, steps = time.monotonic(), dict(kube.FIRST_INSTALL)
    kubectl("apply", "-f", "-", stdin='{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "partners"}}')
    kubectl("apply", "-f", str(EXAMPLE))
    kubectl("-n", "partners", "wait", "clientpolicy/trusted-partner-app", "--for=condition=Ready", "--timeout=120s")
    steps["apply until Ready"] = time.monotonic() - begun
    begun = time.monotonic()
    said = run(str(ROOT / "examples" / "kubernetes" / "first-call"))
    steps["first call"] = time.monotonic() - begun
    for name, length_s in steps.items():
        print(f"{name}: {length_s:.1f} s")
    print(f"from helm install to the first allowed call: {sum(steps.values()):.1f} s")
    assert "GET /fhir/Patient/123: 200" in said
    refused = subprocess.run(
        [str(ROOT / "examples" / "kubernetes" / "first-call"), "/fhir/Patient/124"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "patient_mismatch" in refused.stdout


def test_install_uninstalled_and_again_keeps_what_partners_have(
    release: bool, tenant: Tenant, place: tuple[str, int]
) -> None:
    if not release:
        pytest.skip("the release was here before the suite: not ours to uninstall")
    partner = a_partner(tenant, place)
    before, ca = partner.fingerprint, get("secret", "clientpolicy-ca")
    helm("uninstall", RELEASE, "--wait")
    assert get("clientpolicy", "app", tenant.namespace) is not None
    assert tenant.secret("app")["tls.crt"] == partner.certificate
    assert get("configmap", "clientpolicy-trust") is not None
    assert kubectl("-n", SYSTEM, "get", "configmaps", "-o", "name").count("clientpolicy-ledger-") > 0
    assert pods("authz") == []
    install()
    assert gateway() == place
    assert ca is not None
    assert (get("secret", "clientpolicy-ca") or {})["metadata"]["uid"] == ca["metadata"]["uid"]
    partner.refresh()
    assert partner.fingerprint == before
    assert partner.read(partner.patient_token()).status == 200


def test_install_helm_test_passes(release: bool) -> None:
    said = helm("test", RELEASE, "--logs")
    assert "16 of 16 as they should be" in said


def test_install_helm_test_fails_where_authz_allows_too_much(release: bool) -> None:
    install("--set", "authz.config.public={GET /fhir/*}")
    try:
        done = subprocess.run(
            ["helm", "-n", SYSTEM, "test", RELEASE, "--logs"], capture_output=True, text=True, check=False
        )
    finally:
        install()
    assert done.returncode != 0
    assert "FAILED  no certificate, no token: allowed, expected certificate_missing" in done.stdout + done.stderr


def test_install_refuses_a_misspelt_key_and_replaces_nothing(release: bool) -> None:
    def generations() -> list[int]:
        found = (get("deployment", f"{RELEASE}-{part}") for part in ("authz", "operator"))
        return [deployment["metadata"]["generation"] for deployment in found if deployment is not None]

    before = generations()
    for misspelt in ("authz.config.isuers={a}", "operator.config.certificates.worker=4", "ceilings[0].namespace={a}"):
        command = ["helm", "-n", SYSTEM, "upgrade", RELEASE, str(CHART), "-f", str(VALUES), "--set", misspelt]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert misspelt.partition("=")[0].rpartition(".")[2] in done.stderr
    assert generations() == before


def test_install_mistake_that_no_schema_tells_leaves_the_operator_at_work(release: bool, tenant: Tenant) -> None:
    """Its new pod tells in its status what is wrong; the one before goes on issuing."""
    (before,) = pods("operator")
    try:
        helm("upgrade", RELEASE, str(CHART), "-f", str(VALUES), "--set", "operator.config.authority.life=1h")
        told = until("the new pod has ended", lambda: [message for pod in pods("operator") for message in ends(pod)])
        assert "authority: life is at least 2h" in told[0]
        assert before["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in pods("operator")}
        tenant.apply("app")
        tenant.ready("app")
    finally:
        install()
    until("one operator is left", lambda: len(pods("operator")) == 1)


def ends(pod: dict[str, Any]) -> list[str]:
    """Return what the pod's containers said when they ended last."""
    states = (one.get(key, {}) for one in pod["status"].get("containerStatuses", ()) for key in ("state", "lastState"))
    return [state["terminated"].get("message", "") for state in states if "terminated" in state]


def test_install_viewers_may_read_policies_and_editors_may_not_write_them(release: bool, tenant: Tenant) -> None:
    for role in ("view", "edit", "admin"):
        kubectl("-n", tenant.namespace, "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}")

    def can(user: str, verb: str, *more: str) -> bool:
        asked = ("auth", "can-i", verb, POLICIES, f"--as={user}", "-n", tenant.namespace, *more)
        return kubectl(*asked, check=False).strip() == "yes"

    for user in ("view", "edit", "admin"):
        assert until(f"{user} may read", partial(can, user, "get"))
        assert not can(user, "create")
    ceiling = "ceilings[0].namespaces={*}"
    install("--set", "rbac.aggregateToEdit=true", "--set", ceiling)
    try:
        for user in ("edit", "admin"):
            assert until(f"{user} may write", partial(can, user, "create"))
            assert not can(user, "patch", "--subresource=status")
        assert not can("view", "create")
    finally:
        install()


def test_install_mutual_tls_between_envoy_and_authz(
    release: bool, tenant: Tenant, place: tuple[str, int], tmp_path: Path
) -> None:
    authority = Authority("infrastructure", tmp_path)
    made = authority.issue("authz", x509.DNSName(f"{RELEASE}-authz.{SYSTEM}.svc"), common_name="authz")
    files = {"tls.crt": made.certificate_file, "tls.key": made.key_file, "ca.crt": authority.file}
    kubectl("-n", SYSTEM, "create", "secret", "generic", "authz-tls",
            *(f"--from-file={name}={file}" for name, file in files.items()))  # fmt: skip
    try:
        install("--set", "authz.tls.existingSecret=authz-tls")
        partner = a_partner(tenant, place)
        assert partner.read(partner.patient_token()).status == 200
        assert "16 of 16 as they should be" in helm("test", RELEASE, "--logs")
    finally:
        install()
        kubectl("-n", SYSTEM, "delete", "secret", "authz-tls")


def test_install_for_named_namespaces_has_roles_there_alone(
    release: bool, tenant: Tenant, place: tuple[str, int]
) -> None:
    named = f"{{{tenant.namespace}}}"
    install("--set", f"authz.namespaces={named}", "--set", f"operator.namespaces={named}")
    elsewhere = Tenant()
    try:
        partner = a_partner(tenant, place)
        token = partner.system_token()
        answers("served in its namespace", lambda: partner.read(token), 200)
        for account, verb, what in (("operator", "get", "secrets"), ("authz", "list", POLICIES)):
            assert may(f"{SYSTEM}:clientpolicy-{account}", verb, what, "-n", tenant.namespace)
            assert not may(f"{SYSTEM}:clientpolicy-{account}", verb, what, "-n", elsewhere.namespace)
        assert "11 of 11 as they should be" in helm("test", RELEASE, "--logs")
    finally:
        elsewhere.delete()
        install()


ASK = """
import pathlib, ssl, sys, urllib.error, urllib.request
account = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
tls = ssl.create_default_context(cafile=account / "ca.crt")
for path in sys.argv[1:]:
    asked = urllib.request.Request("https://kubernetes.default.svc" + path)
    asked.add_header("authorization", "Bearer " + (account / "token").read_text())
    try:
        print(urllib.request.urlopen(asked, context=tls).status)
    except urllib.error.HTTPError as refused:
        print(refused.code)
"""


def may(account: str, verb: str, what: str, *more: str) -> bool:
    said = kubectl("auth", "can-i", verb, what, f"--as=system:serviceaccount:{account}", *more, check=False)
    return said.strip() == "yes"


@pytest.mark.parametrize("what", ["secrets", "configmaps", "pods"])
@pytest.mark.parametrize("verb", ["get", "list", "create", "patch", "delete"])
def test_install_authz_may_only_read_policies(release: bool, verb: str, what: str) -> None:
    assert not may(f"{SYSTEM}:clientpolicy-authz", verb, what, "-A")
    assert may(f"{SYSTEM}:clientpolicy-authz", "watch", POLICIES, "-A")


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete"])
def test_install_authz_may_write_no_policy(release: bool, verb: str) -> None:
    for more in (["-A"], ["-A", "--subresource=status"]):
        assert not may(f"{SYSTEM}:clientpolicy-authz", verb, POLICIES, *more)


def test_install_authz_pod_is_refused_a_secret(tenant: Tenant, place: tuple[str, int]) -> None:
    """By a real request, with the token that the pod has; what it needs is answered to the same."""
    a_partner(tenant, place)
    name = pods("authz")[0]["metadata"]["name"]
    said = kubectl("-n", SYSTEM, "exec", name, "--", "python", "-c", ASK,
                   f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls", f"/api/v1/namespaces/{SYSTEM}/secrets/clientpolicy-ca",
                   f"/apis/authz.healthtech.dev/v1alpha1/namespaces/{tenant.namespace}/clientpolicies/app")  # fmt: skip
    assert said.split() == ["403", "403", "200"]


def test_install_operator_may_not_list_secrets(release: bool) -> None:
    assert not may(f"{SYSTEM}:clientpolicy-operator", "list", "secrets", "-A")
    assert not may(f"{SYSTEM}:clientpolicy-operator", "patch", POLICIES, "-A")
    assert may(f"{SYSTEM}:clientpolicy-operator", "patch", POLICIES, "-A", "--subresource=status")


def test_install_operator_may_make_no_token_of_another_account(release: bool, tenant: Tenant) -> None:
    """Else whoever has the operator's account has every account of the cluster."""
    note = {"kubernetes.io/service-account.name": "default"}
    theft = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
             "metadata": {"name": "theft", "namespace": tenant.namespace, "annotations": note}}  # fmt: skip
    command = ("kubectl", f"--as={ACCOUNT}", "create", "-f", "-")

    def refused() -> str:
        done = subprocess.run(command, input=json.dumps(theft), capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else kubectl("-n", tenant.namespace, "delete", "secret", "theft") and ""

    assert "never a Secret of another type" in until("the policy holds", refused)
    run(*command, stdin=json.dumps(theft | {"type": "Opaque"}))


def test_install_tenant_cannot_write_status(release: bool, tenant: Tenant, place: tuple[str, int]) -> None:
    a_partner(tenant, place)
    rules = ["create", "role", "partner", "--verb=*", f"--resource={POLICIES}"]
    kubectl("-n", tenant.namespace, *rules)
    # kubectl reads before it writes; what is to be refused is the write.
    reading = ["create", "role", "reader", "--verb=get", f"--resource={POLICIES}/status"]
    kubectl("-n", tenant.namespace, *reading)
    kubectl("-n", tenant.namespace, "create", "rolebinding", "reader", "--role=reader", "--user=partner")
    kubectl("-n", tenant.namespace, "create", "rolebinding", "partner", "--role=partner", "--user=partner")
    forged = json.dumps({"status": {"certificate": {"fingerprint": "ab" * 32}}})
    patch = ["patch", "clientpolicy", "app", "--type=merge", "-p", forged, "--as=partner"]
    done = subprocess.run(
        ["kubectl", "-n", tenant.namespace, *patch, "--subresource=status"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "cannot patch resource" in done.stderr
    before = (get("clientpolicy", "app", tenant.namespace) or {})["status"]
    kubectl("-n", tenant.namespace, *patch)  # the whole object: the API server drops the status in it
    assert (get("clientpolicy", "app", tenant.namespace) or {})["status"] == before
