"""Every manifest under examples/istio and examples/envoy-gateway against the real schemas of what it is applied to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kubernetes_api import DEFINITIONS, KubernetesApi
from mesh import schemas
from mesh.examples import EXAMPLES, MANIFESTS, VALUES, documents, manifest, values

ROOT = EXAMPLES.parent
SYSTEM, AUTHZ = "clientpolicy-system", "clientpolicy-authz"
FOLDERS = ("istio", "envoy-gateway")
ALL = [(file, document) for file in MANIFESTS for document in documents(file)]
NAMES = [f"{file.parent.name}/{file.stem}:{one['kind']}/{one['metadata']['name']}" for file, one in ALL]
Document = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(plane: KubernetesApi) -> Iterator[tuple[KubernetesApi, str]]:
    """The session's control plane with the CRDs of these manifests, which leave again, and a namespace."""
    installed = schemas.install(plane, {schemas.place(document) for _, document in ALL})
    yield plane, plane.new_namespace()
    for name in installed:
        plane.must("DELETE", f"{DEFINITIONS}/{name}")


@pytest.mark.parametrize("document", [document for _, document in ALL], ids=NAMES)
def test_the_api_server_takes_every_manifest(cluster: tuple[KubernetesApi, str], document: Document) -> None:
    status, answer = schemas.create(*cluster, document)
    assert status == 201, answer


@pytest.mark.parametrize("document", [document for _, document in ALL], ids=NAMES)
def test_and_none_with_a_field_that_there_is_not(cluster: tuple[KubernetesApi, str], document: Document) -> None:
    wrong = deepcopy(document)
    wrong["spec"]["mistake"] = True
    status, answer = schemas.create(*cluster, wrong)
    assert (status, "mistake" in answer["message"]) == (400, True), answer


def spoil(document: Document, at: str, value: object) -> None:
    """Set what a dotted path names; None takes it away."""
    *way, last = at.split(".")
    inner: Any = document
    for step in way:
        inner = inner[int(step) if step.isdecimal() else step]
    if value is None:
        del inner[last]
    else:
        inner[last] = value


@pytest.mark.parametrize(
    ("where", "at", "value", "told"),
    [
        ("envoy-gateway/security-policy:SecurityPolicy", "spec.extAuth.failopen", False, "failopen"),
        ("envoy-gateway/security-policy:SecurityPolicy", "spec.extAuth.timeout", "0,2s", "timeout"),
        ("envoy-gateway/security-policy:SecurityPolicy", "spec.extAuth.statusOnError", 200, "statusOnError"),
        ("envoy-gateway/security-policy:SecurityPolicy", "spec.extAuth.grpc", None, "one of grpc or http"),  # in CEL
        (
            "envoy-gateway/client-traffic-policy:ClientTrafficPolicy",
            "spec.headers.xForwardedClientCert.mode",
            "SANITIZE_SET",
            "mode",
        ),
        (
            "envoy-gateway/client-traffic-policy:ClientTrafficPolicy",
            "spec.tls.clientValidation.mode",
            "Require",
            "mode",
        ),
        ("istio/ask-at-sidecar:AuthorizationPolicy", "spec.action", "ASK", "action"),
        ("istio/ask-at-sidecar:AuthorizationPolicy", "spec.provider.names", "clientpolicy", "names"),
        ("istio/gateway:Gateway", "spec.servers.0.tls.mode", "MTLS", "mode"),
    ],
)
def test_mistakes_are_told(cluster: tuple[KubernetesApi, str], where: str, at: str, value: object, told: str) -> None:
    mesh, file, kind = re.split("[/:]", where)
    wrong = manifest(mesh, f"{file}.yaml", kind)
    spoil(wrong, at, value)
    status, answer = schemas.create(*cluster, wrong)
    assert (status >= 400, told in answer["message"]) == (True, True), answer


def provider() -> Document:
    """Return istiod's values, and beneath them what a test may spoil."""
    return deepcopy(values("istio", "istiod-values.yaml")["meshConfig"])


def test_istiod_reads_the_provider(tmp_path: Path) -> None:
    config = schemas.mesh_config(provider(), tmp_path)
    (found,) = config.extension_providers
    grpc = found.envoy_ext_authz_grpc
    assert (grpc.service, grpc.port) == (f"{AUTHZ}.{SYSTEM}.svc.cluster.local", 9191)
    assert grpc.timeout.ToMilliseconds() == 200
    assert (grpc.fail_open, grpc.status_on_error) == (False, "503")
    assert not grpc.HasField("include_request_body_in_check")  # authz decides without it


@pytest.mark.parametrize(
    "spoiled",
    [
        {"failopen": False},
        {"timeout": "200ms"},  # protobuf's durations are seconds
        {"statusOnError": 503},
        {"headersToUpstreamOnAllow": ["x-client-id"]},  # of the HTTP provider
        {"includePeerCertificate": True},  # there is no such thing
    ],
    ids=lambda spoiled: next(iter(spoiled)),
)
def test_istiod_would_not_read(spoiled: Document, tmp_path: Path) -> None:
    config = provider()
    config["extensionProviders"][0]["envoyExtAuthzGrpc"].update(spoiled)
    with pytest.raises(json_format.ParseError):
        schemas.mesh_config(config, tmp_path)


def test_the_manifests_are_about_one_thing() -> None:
    """What one names, another must have: names that no schema compares."""
    (named,) = provider()["extensionProviders"]
    custom = [one for _, one in ALL if one["kind"] == "AuthorizationPolicy" and one["spec"]["action"] == "CUSTOM"]
    assert [one["spec"]["provider"]["name"] for one in custom] == [named["name"]] * 2
    (backend,) = manifest("envoy-gateway", "security-policy.yaml", "SecurityPolicy")["spec"]["extAuth"]["grpc"][
        "backendRefs"
    ]
    assert backend == {"name": AUTHZ, "namespace": SYSTEM, "port": 9191}
    for mesh, kind, file in (("istio", "Gateway", "gateway"), ("envoy-gateway", "Gateway", "gateway")):
        namespace = manifest(mesh, f"{file}.yaml", kind)["metadata"]["namespace"]
        assert values(mesh)["operator"]["config"]["trust"]["namespaces"] == [namespace]


def test_the_policy_with_the_crl_differs_by_the_crl_alone() -> None:
    plain, more = (
        manifest("envoy-gateway", f"client-traffic-policy{ending}.yaml", "ClientTrafficPolicy")
        for ending in ("", "-crl")
    )
    crl = more["spec"]["tls"]["clientValidation"].pop("crl")
    assert more == plain
    assert crl["refs"] == plain["spec"]["tls"]["clientValidation"]["caCertificateRefs"]


@pytest.mark.parametrize("page", FOLDERS)
def test_the_page_names_every_file_and_no_other(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    there = {file.name for file in (EXAMPLES / page).glob("*.yaml")}
    assert {name for name in there if f"`{name}`" in text or f"examples/{page}/{name}" in text} == there


def test_every_file_is_a_manifest_or_values() -> None:
    for file in (file for folder in FOLDERS for file in (EXAMPLES / folder).iterdir()):
        assert (file in MANIFESTS) is not (file.name in VALUES)
