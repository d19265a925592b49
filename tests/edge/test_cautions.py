"""Configuration that opens more than it seems: told by key, and nothing is told of an ordinary one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.edge.cautions import cautions_of
from authz.edge.settings import load

ORDINARY: dict[str, Any] = {
    "policies": {"path": "policies"},
    "issuers": [{"name": "a", "issuer": "https://a.example.org/", "audiences": ["x"]}],
}
PROXIES: dict[str, Any] = {"trustedHops": 2, "trustedProxies": ["spiffe://a"], "proxiesVerified": True}
TLS = {"cert": "a.crt", "key": "a.key"}
KUBERNETES: dict[str, Any] = {"source": "kubernetes"}
BOUND: dict[str, Any] = {"namespaces": ["partner-*"], "scopes": ["patient/*.rs"]}


def told(folder: Path, **config: Any) -> list[str]:
    file = folder / "authz.yaml"
    file.write_text(yaml.safe_dump(ORDINARY | config))
    return [str(caution) for caution in cautions_of(load(file, {}))]


HARMLESS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "this machine": {"listen": {"grpc": "localhost:9191"}},
    "this machine by IPv6": {"listen": {"grpc": "[::1]:9191"}},
    "a socket": {"listen": {"grpc": "unix:/run/authz.sock"}},
    "mutual TLS": {"listen": {"grpc": "0.0.0.0:9191", "tls": TLS | {"clientCa": "ca.pem"}}},
    "metrics for all": {"listen": {"ops": "0.0.0.0:9192"}},
    "hops": {"identity": PROXIES | {"clientAddress": {"from": "x-forwarded-for", "trustedHops": 2}}},
    "fewer hops than proxies": {"identity": PROXIES | {"clientAddress": {"from": "x-forwarded-for"}}},
    "the source said": {"identity": {"clientAddress": {"from": "source"}}},
    "public elsewhere": {"public": ["GET /health", "GET /docs/*", "GET /fhirs/*", "POST /"]},
    "what FHIR wants public": {"public": ["GET /fhir/metadata", "GET /fhir/.well-known/*", "GET /FHIR/metadata"]},
    "public where all is FHIR": {"fhir": {"basePath": "/"}, "public": ["GET /health", "GET /docs/*", "GET /metadata"]},
    "replicas with a Redis": {"store": {"url": "redis://h"}, "quota": {"replicas": 3}},
    "a cluster with ceilings": {"policies": KUBERNETES, "ceilings": [BOUND]},
    "a cluster with namespaces": {"policies": KUBERNETES | {"namespaces": ["a"]}},
    "a ceiling of other scopes": {"ceilings": [BOUND | {"scopes": ["export.run"]}]},
    "a ceiling of no scope": {"ceilings": [{"namespaces": ["*"], "scopes": []}]},
    "Shadow that is forbidden": {"ceilings": [BOUND | {"modes": ["Enforce", "Shadow"]}], "shadow": "forbid"},
}


@pytest.mark.parametrize("config", HARMLESS.values(), ids=HARMLESS.keys())
def test_nothing_is_told_of_an_ordinary_configuration(tmp_path: Path, config: dict[str, Any]) -> None:
    assert told(tmp_path, **config) == []


OPEN: dict[str, tuple[dict[str, Any], str]] = {
    "every address without TLS": ({"listen": {"grpc": "0.0.0.0:9191"}}, "listen.grpc: 0.0.0.0:9191 without listen.tls"),
    "every IPv6 address": ({"listen": {"grpc": "[::]:9191"}}, "listen.grpc: [::]:9191 without listen.tls"),
    "an address of the network": ({"listen": {"grpc": "10.0.0.1:9191"}}, "listen.grpc: 10.0.0.1:9191 without"),
    "TLS that asks nobody": ({"listen": {"grpc": "0.0.0.0:9191", "tls": TLS}}, "listen.tls: 0.0.0.0:9191 asks nobody"),
    "no issuer": ({"issuers": []}, "issuers: none: every token is refused"),
    "a proxy's address": ({"identity": PROXIES}, "identity.clientAddress: with 2 trustedHops the source is a proxy"),
    "hops of the source": (
        {"identity": {"clientAddress": {"from": "source", "trustedHops": 2}}},
        "identity.clientAddress.trustedHops: has no effect",
    ),
    "more hops than proxies": (
        {"identity": {"clientAddress": {"from": "x-forwarded-for", "trustedHops": 2}}},
        "identity.clientAddress.trustedHops: more than identity.trustedHops (1)",
    ),
    "proxies without hops": ({"identity": {"trustedProxies": ["spiffe://a"]}}, "identity.trustedProxies: has no effect"),
    "proof without hops": ({"identity": {"proxiesVerified": True}}, "identity.proxiesVerified: has no effect"),
    "a proxy's CA without hops": ({"identity": {"proxyCa": "ca.pem"}}, "identity.proxyCa: has no effect"),
    "a proxy's fingerprint without hops": (
        {"identity": {"proxyFingerprints": ["a" * 64]}},
        "identity.proxyFingerprints: has no effect",
    ),
    "everything": ({"public": ["GET /health", "GET /*"]}, "public[1]: `GET /*` opens every path below /, all of FHIR"),
    "all of FHIR": ({"public": ["GET /fhir/*"]}, "public[0]: `GET /fhir/*` opens every path below /fhir, all of FHIR"),
    "all around FHIR": (
        {"fhir": {"basePath": "/api/fhir"}, "public": ["GET /API/*"]},
        "public[0]: `GET /API/*` opens every path below /API, all of FHIR at /api/fhir included",
    ),
    "a type": ({"public": ["GET /fhir/Patient/*"]}, "public[0]: `GET /fhir/Patient/*` opens FHIR at /fhir/Patient/*"),
    "one resource": ({"public": ["GET /FHIR/Patient/1"]}, "public[0]: `GET /FHIR/Patient/1` opens FHIR"),
    "the base": ({"public": ["POST /fhir"]}, "public[0]: `POST /fhir` opens FHIR at /fhir"),
    "everything where all is FHIR": ({"fhir": {"basePath": "/"}, "public": ["GET /*"]}, "public[0]: `GET /*` opens every"),
    "a type where all is FHIR": ({"fhir": {"basePath": "/"}, "public": ["GET /Patient"]}, "public[0]: `GET /Patient`"),
    "an operation where all is FHIR": ({"fhir": {"basePath": "/"}, "public": ["GET /$export"]}, "public[0]: `GET /$exp"),
    "history where all is FHIR": ({"fhir": {"basePath": "/"}, "public": ["GET /_history"]}, "public[0]: `GET /_hist"),
    "replicas in memory": ({"quota": {"replicas": 3}}, "store.url: each of 3 replicas counts alone in memory"),
    "a cluster without ceilings": ({"policies": KUBERNETES}, "ceilings: none: whoever may write a ClientPolicy"),
    "a ceiling that bounds nothing": ({"ceilings": [BOUND, {"namespaces": ["a", "b"]}]}, "ceilings[1]: bounds nothing but the mode in a, b"),
    "Shadow beside other bounds": (
        {"ceilings": [BOUND | {"modes": ["Enforce", "Shadow"]}]},
        "ceilings[0].modes: what is in Shadow mode passes every other bound",
    ),
    "a ceiling of no type": (
        {"ceilings": [BOUND | {"scopes": ["patient/*.rs", "patient/Pateint.rs"]}]},
        "ceilings[0].scopes[1]: FHIR R4 has no resource type `Pateint`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), OPEN.values(), ids=OPEN.keys())
def test_what_opens_more_than_it_seems_is_told_by_its_key(
    tmp_path: Path, config: dict[str, Any], expected: str
) -> None:
    (found,) = told(tmp_path, **config)
    assert found.startswith(expected)


def test_all_is_told_at_once(tmp_path: Path) -> None:
    found = told(tmp_path, issuers=[], public=["GET /*"], listen={"grpc": "0.0.0.0:0"}, quota={"replicas": 2})
    assert [one.partition(":")[0] for one in found] == ["listen.grpc", "issuers", "public[0]", "store.url"]
