"""call_*: what a partner is answered, from outside and from a pod."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from caller import Partner, a_partner, gateway_ca
from kube import Tenant, counted_by_pod, kubectl, pods, until

from authz.demo.ask import Answer

DECISIONS, FALLBACKS = "clientpolicy_decisions_total", "clientpolicy_store_fallbacks_total"
# Name, path, headers, status, reason; TOKEN is the partner's own, with patient 123.
CALLS = [
    ("own patient", "/fhir/Patient/123", {"authorization": "TOKEN"}, 200, ""),
    ("public", "/fhir/metadata", {}, 200, ""),
    ("no token", "/fhir/Patient/123", {}, 401, "token_missing"),
    ("another patient", "/fhir/Patient/124", {"authorization": "TOKEN"}, 403, "patient_mismatch"),
    ("no scope", "/fhir/Encounter/1", {"authorization": "TOKEN"}, 403, "scope_missing"),
    ("outside FHIR", "/admin", {"authorization": "TOKEN"}, 403, "route_not_allowed"),
    ("ambiguous path", "/fhir/Patient/..%2f124", {"authorization": "TOKEN"}, 400, "path_ambiguous"),
    (
        "hidden method",
        "/fhir/Patient/123",
        {"authorization": "TOKEN", "x-http-method-override": "PUT"},
        400,
        "request_malformed",
    ),
    ("unsigned", "/fhir/Patient/123", {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, 401, "token_issuer"),
]


@pytest.fixture(scope="module")
def partner(release: bool, place: tuple[str, int]) -> Iterator[Partner]:
    tenant = Tenant()
    yield a_partner(tenant, place)
    tenant.delete()


@pytest.fixture(scope="module")
def token(partner: Partner) -> str:
    return partner.patient_token()


@pytest.mark.parametrize(
    ("path", "headers", "status", "reason"), [call[1:] for call in CALLS], ids=[call[0] for call in CALLS]
)
def test_call_from_outside(
    partner: Partner, token: str, path: str, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = partner.ask(path, {name: value.replace("TOKEN", f"Bearer {token}") for name, value in headers.items()})
    assert (answer.status, answer.reason or "") == (status, reason), answer


def test_call_headers_of_a_caller_do_not_arrive(partner: Partner, token: str) -> None:
    forged = {
        "x-client-id": "admin",
        "x_client_id": "admin",
        "x-patient-id": "124",
        "x-forwarded-client-cert": "Hash=00",
    }
    answer = partner.ask("/fhir/Patient/123", {**forged, "authorization": f"Bearer {token}"})
    saw = json.loads(answer.headers["x-upstream-saw"])
    assert answer.status == 200
    assert saw["x-client-id"] == partner.client_id
    assert saw["x-patient-id"] == "123"
    assert "admin" not in answer.headers["x-upstream-saw"]


def test_call_with_the_token_of_another(partner: Partner, token: str, tenant: Tenant, place: tuple[str, int]) -> None:
    other = a_partner(tenant, place, "other")
    answer = other.read(token)
    assert (answer.status, answer.reason) in {(401, "token_client"), (401, "token_binding")}


def test_call_without_certificate_ends_in_the_handshake(partner: Partner) -> None:
    partner = Partner(partner.tenant, partner.name, partner.client_id, partner.place)
    partner.tls = ssl.create_default_context(cadata=gateway_ca())
    with pytest.raises((OSError, ssl.SSLError)):
        partner.ask("/fhir/metadata")


POD = """
import http.client, json, ssl, sys
tls = ssl.create_default_context(cafile="/server/ca.crt")
tls.load_cert_chain("/client/tls.crt", "/client/tls.key")
for path, headers in json.load(sys.stdin):
    c = http.client.HTTPSConnection("clientpolicy-gateway.clientpolicy-system.svc", 443, context=tls, timeout=20)
    c.request("GET", path, headers=headers)
    print(c.getresponse().status)
"""


def test_call_from_a_pod(partner: Partner, token: str) -> None:
    namespace = partner.tenant.namespace
    kubectl("-n", namespace, "create", "configmap", "server", f"--from-literal=ca.crt={gateway_ca()}")
    image = pods("trial")[0]["spec"]["containers"][0]["image"]
    bearer = {"authorization": f"Bearer {token}"}
    calls = [["/fhir/Patient/123", bearer], ["/fhir/Patient/124", bearer], ["/fhir/Patient/123", {}]]
    spec = {
        "containers": [{
            "name": "call", "image": image, "imagePullPolicy": "IfNotPresent", "stdin": True, "stdinOnce": True,
            "command": ["python", "-c", POD],
            "volumeMounts": [{"name": "client", "mountPath": "/client"}, {"name": "server", "mountPath": "/server"}],
        }],
        "volumes": [{"name": "client", "secret": {"secretName": "app-tls"}}, {"name": "server", "configMap": {"name": "server"}}],
    }  # fmt: skip
    said = kubectl("-n", namespace, "run", "call", f"--image={image}", "--restart=Never", "--rm", "-i", "--quiet",
                   "--overrides", json.dumps({"spec": spec}), stdin=json.dumps(calls))  # fmt: skip
    assert said.split()[:3] == ["200", "403", "401"]


def test_call_two_replicas_share_one_quota_exactly(tenant: Tenant, place: tuple[str, int]) -> None:
    partner = a_partner(tenant, place, quotas=[{"name": "day", "requests": 60, "per": "24h"}])
    token = partner.system_token()
    until("two authz pods", lambda: len(pods("authz")) >= 2)
    decided, alone = counted_by_pod(DECISIONS), counted_by_pod(FALLBACKS)

    def ask(_: int) -> Answer:
        return partner.read(token)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(100)))
    # A call that Redis answered too late, on a machine that stood still, was counted by its pod alone (docs/quotas.md).
    late = sum(counted_by_pod(FALLBACKS).values()) - sum(alone.values())
    assert late <= 5, "Redis was hardly there"
    counts = Counter(answer.status for answer in answers)
    assert 60 <= counts[200] <= 60 + late
    assert counts[200] + counts[429] == 100
    over = next(answer for answer in answers if answer.status == 429)
    assert over.reason == "quota_exceeded"
    assert int(over.headers["retry-after"]) > 0
    after = counted_by_pod(DECISIONS)
    assert all(after[name] > decided[name] for name in decided), "one pod decided alone"
