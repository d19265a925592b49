"""rotate_*: certificates and the CA change under traffic, and nobody is refused for it."""

from __future__ import annotations

import json
import time
from functools import partial

import pytest
from caller import Partner, Traffic, a_partner, answers
from kube import RELEASE, SYSTEM, Tenant, get, helm, install, kubectl, pods, until


def mounted_roots() -> list[int]:
    """Return how many client CAs each gateway and authz pod sees; touched pods are synced by the kubelet at once."""
    found = []
    for component, path in (("gateway", "/etc/envoy/trust/ca.crt"), ("authz", "/etc/clientpolicy/trust/ca.crt")):
        for pod in pods(component):
            name = pod["metadata"]["name"]
            kubectl("-n", SYSTEM, "annotate", "--overwrite", "pod", name, f"e2e/touched={time.monotonic_ns()}")
            found.append(kubectl("-n", SYSTEM, "exec", name, "--", "cat", path, check=False).count("BEGIN CERTIFICATE"))
    return found


# A revoked certificate is unknown once the operator has issued another in its place.
GONE = ("certificate_revoked", "certificate_unknown")


def published() -> str:
    """Return what is published as `ca.crt`."""
    found = get("configmap", "clientpolicy-trust")
    return str((found or {"data": {"ca.crt": ""}})["data"]["ca.crt"])


def differs(tenant: Tenant, certificate: str) -> bool:
    return tenant.secret("app")["tls.crt"] != certificate


def test_rotate_certificate_under_traffic(tenant: Tenant, place: tuple[str, int]) -> None:
    partner = a_partner(tenant, place)
    old = Partner(tenant, "app", partner.client_id, place)
    with Traffic(partner) as traffic:
        for turn in range(2):
            before = tenant.secret("app")["tls.crt"]
            tenant.patch("app", certificate={"duration": f"{700 + turn}h"})  # other terms: another certificate
            until("a new certificate", partial(differs, tenant, before))
            tenant.ready("app")
            traffic.more(50)  # still with the certificate of before
            traffic.refresh()
            traffic.more(50)
        assert old.fingerprint != partner.fingerprint
        assert old.read(old.system_token()).status == 200, "the previous certificate holds until it expires"
    assert traffic.wrong == []
    assert traffic.lost == 0


def test_rotate_ca_under_traffic(tenant: Tenant, place: tuple[str, int]) -> None:
    # A root stays until the last leaf of it has ended, and only then may another rotation begin: days, not a test's minutes.
    if published().count("BEGIN CERTIFICATE") > 1:
        pytest.skip("this cluster's CA was rotated before: the suite wants a fresh one")
    partner = a_partner(tenant, place)
    before = partner.tenant.secret("app")
    with Traffic(partner) as traffic:
        roots = before["ca.crt"].count("BEGIN CERTIFICATE")
        kubectl("-n", SYSTEM, "annotate", "--overwrite", "secret", "clientpolicy-ca",
                f"authz.healthtech.dev/rotate={time.time_ns()}")  # fmt: skip
        until("every proxy trusts both roots", lambda: min(mounted_roots()) > roots)
        until("a certificate of the new CA", lambda: tenant.secret("app")["tls.crt"] != before["tls.crt"])
        tenant.ready("app")
        traffic.more(50)
        traffic.refresh()
        traffic.more(100)
    assert traffic.wrong == []
    assert traffic.lost == 0


def test_rotate_revoked_suspended_deleted_act_at_once(tenant: Tenant, place: tuple[str, int]) -> None:
    partner = a_partner(tenant, place)
    token = partner.system_token()

    steps = {}
    tenant.patch("app", suspended=True)
    steps["suspend"] = answers("suspended", lambda: partner.read(token), 403, "client_suspended")
    tenant.patch("app", suspended=False)
    steps["resume"] = answers("resumed", lambda: partner.read(token), 200)
    tenant.patch("app", revocation={"fingerprints": [{"sha256": partner.fingerprint, "reason": "KeyCompromise"}]})
    steps["revoke"] = answers("revoked", lambda: partner.read(token), 403, *GONE)
    kubectl("-n", tenant.namespace, "delete", "clientpolicy", "app")
    steps["delete"] = answers("deleted", lambda: partner.read(token), 403, *GONE)
    print({step: f"{length_s:.2f} s" for step, length_s in steps.items()})


def test_rotate_release_upgraded_and_rolled_back_under_traffic(tenant: Tenant, place: tuple[str, int]) -> None:
    partner = a_partner(tenant, place)
    counted = a_partner(tenant, place, "counted", quotas=[{"name": "day", "requests": 5, "per": "24h"}])
    token = counted.system_token()
    assert [counted.read(token).status for _ in range(3)] == [200] * 3
    first = [pod["metadata"]["name"] for pod in pods("authz")]
    with Traffic(partner) as traffic:
        install("--set", "authz.podAnnotations.e2e=upgraded")
        second = [pod["metadata"]["name"] for pod in pods("authz")]
        assert not set(first) & set(second)
        traffic.more(50)
        helm("rollback", RELEASE, "--wait", "--timeout", "180s")
        traffic.more(50)
    assert traffic.wrong == []
    assert traffic.lost == 0
    counted.refresh()
    assert [counted.read(token).status for _ in range(3)] == [200, 200, 429], "counts are kept"
    found = get("clientpolicy", "app", tenant.namespace)
    assert partner.fingerprint in json.dumps((found or {})["status"])


@pytest.fixture(scope="module", autouse=True)
def in_a_hurry(release: bool) -> None:
    """By default a CA is rotated over days, so a release that was here before the suite is given the suite's values."""
    if not release:
        install()


@pytest.fixture(autouse=True)
def two_pods(release: bool) -> None:
    until("two authz pods", lambda: len(pods("authz")) >= 2)
