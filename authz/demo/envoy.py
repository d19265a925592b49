"""Envoy's bootstrap, built from typed messages: mutual TLS in front, every request asked of authz, then the FHIR API.

Source: the field documentation of envoy.config.bootstrap.v3.Bootstrap and of the messages below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as http
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google import protobuf

from authz.demo.ca import Credential

CHECK_TIMEOUT: Final = timedelta(milliseconds=200)
CONNECT_TIMEOUT: Final = timedelta(seconds=1)
# Of TLS 1.2 only forward secrecy with authenticated encryption (RFC 9325 section 4.2); TLS 1.3 has nothing else.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
)
ACCESS_LOG: Final = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "authz": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%",
}
packed = protobuf.Any.pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an Envoy of the demonstration is told; every port is on 127.0.0.1."""

    port: int
    authz_port: int
    upstream_port: int
    server: Credential
    client_authority: Path
    access_log: Path


def bootstrap(plan: Plan) -> str:
    """Return the JSON that `envoy -c` reads; without an admin port, because nothing here needs one."""
    manager = Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(_http(plan)))
    socket = core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(_tls(plan)))
    listener = Listener(
        name="https",
        address=_address(plan.port),
        enable_reuse_port=False,  # two demonstrations on one port would share its connections without a word
        filter_chains=[FilterChain(transport_socket=socket, filters=[manager])],
    )
    authz = _cluster("authz", plan.authz_port)
    http2 = HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=core.Http2ProtocolOptions())
    authz.typed_extension_protocol_options = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(
            HttpProtocolOptions(explicit_http_config=http2)
        )
    }
    resources = BootstrapStaticResources(listeners=[listener], clusters=[authz, _cluster("fhir", plan.upstream_port)])
    return Bootstrap(static_resources=resources).to_json(indent=2)


def _tls(plan: Plan) -> tls.DownstreamTlsContext:
    certificate = tls.TlsCertificate(
        certificate_chain=core.DataSource(filename=str(plan.server.certificate_file)),
        private_key=core.DataSource(filename=str(plan.server.key_file)),
    )
    return tls.DownstreamTlsContext(
        require_client_certificate=True,
        common_tls_context=tls.CommonTlsContext(
            tls_params=tls.TlsParameters(
                tls_minimum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_2,
                tls_maximum_protocol_version=tls.TlsParametersTlsProtocol.TLSv1_3,
                cipher_suites=list(CIPHERS),
            ),
            tls_certificates=[certificate],
            validation_context=tls.CertificateValidationContext(
                trusted_ca=core.DataSource(filename=str(plan.client_authority))
            ),
            alpn_protocols=["h2", "http/1.1"],
        ),
    )


def _http(plan: Plan) -> http.HttpConnectionManager:
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster="fhir"))
    return http.HttpConnectionManager(
        stat_prefix="https",
        use_remote_address=True,
        # Whatever x-forwarded-client-cert a caller sends is replaced by one element about the caller's certificate.
        forward_client_cert_details=http.HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET,
        set_current_client_cert_details=http.HttpConnectionManagerSetCurrentClientCertDetails(
            subject=True, cert=True, dns=True, uri=True
        ),
        # Paths go to authz as they were sent, so that the walk-through shows authz refusing the ambiguous ones.
        # A listener in production may well normalise too: authz then judges what the upstream will see.
        normalize_path=False,
        merge_slashes=False,
        path_with_escaped_slashes_action=http.HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED,
        http_filters=[
            http.HttpFilter(name="envoy.filters.http.ext_authz", typed_config=packed(_authorization())),
            http.HttpFilter(name="envoy.filters.http.router", typed_config=packed(Router())),
        ],
        route_config=RouteConfiguration(
            name="fhir", virtual_hosts=[VirtualHost(name="fhir", domains=["*"], routes=[route])]
        ),
        access_log=[AccessLog(name="envoy.access_loggers.file", typed_config=packed(_access_log(plan.access_log)))],
    )


def _authorization() -> ExtAuthz:
    service = core.GrpcServiceEnvoyGrpc(cluster_name="authz")
    return ExtAuthz(
        grpc_service=core.GrpcService(envoy_grpc=service, timeout=CHECK_TIMEOUT),
        transport_api_version=core.ApiVersion.V3,
        failure_mode_allow=False,
        # An outage of authz is no verdict on the caller: 503, where the default 403 would read as one.
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        include_peer_certificate=True,
    )


def _access_log(path: Path) -> FileAccessLog:
    line = core.SubstitutionFormatString(json_format=protobuf.Struct.from_dict(ACCESS_LOG))
    return FileAccessLog(path=str(path), log_format=line)


def _cluster(name: str, port: int) -> Cluster:
    endpoint = LbEndpoint(endpoint=Endpoint(address=_address(port)))
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=CONNECT_TIMEOUT,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )


def _address(port: int) -> core.Address:
    return core.Address(socket_address=core.SocketAddress(address="127.0.0.1", port_value=port))
