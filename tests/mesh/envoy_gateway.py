"""Envoy as Envoy Gateway configures it, from the manifests under examples/.

Source: gateway v1.9.1, internal/xds/translator/listener.go (addHCMToXDSListener), extauth.go (extAuthConfig, patchRoute),
oidc.go (buildNonRouteRetryPolicy), and their expected results in testdata/out/xds-ir.
"""

from __future__ import annotations

from typing import Any

from mesh.envoys import CHECK, FILTERS, LONG, Config, Listening, http_filter, routes, server_tls, typed
from mesh.examples import manifest
from mesh.world import World

MODES = {
    "Sanitize": "SANITIZE",
    "ForwardOnly": "FORWARD_ONLY",
    "AppendForward": "APPEND_FORWARD",
    "SanitizeSet": "SANITIZE_SET",
    "AlwaysForwardOnly": "ALWAYS_FORWARD_ONLY",
}
FILTER = "envoy.filters.http.ext_authz/securitypolicy/gateways/clientpolicy"


def traffic_policy() -> dict[str, Any]:
    found: dict[str, Any] = manifest("envoy-gateway", "client-traffic-policy.yaml", "ClientTrafficPolicy")["spec"]
    return found


def security_policy() -> dict[str, Any]:
    found: dict[str, Any] = manifest("envoy-gateway", "security-policy.yaml", "SecurityPolicy")["spec"]
    return found


def listening(
    world: World,
    traffic: dict[str, Any],
    *,
    retries: int = 0,
    asks: bool = True,
    fail_open: bool | None = None,
    hurried: bool = False,
) -> Listening:
    """Return a listener of a Gateway with a ClientTrafficPolicy.

    `asks`: whether the SecurityPolicy is on the route; `hurried`: with the example's own timeout.
    """
    config = security_policy()["extAuth"]
    (backend,) = config["grpc"]["backendRefs"]
    authority = f"{backend['name']}.{backend['namespace']}:{backend['port']}"
    service: Config = {
        "envoy_grpc": {"cluster_name": CHECK, "authority": authority},
        "timeout": _seconds(config) if hurried else LONG,
    }
    if retries:
        on = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
        soon = {"base_interval": "0.005s", "max_interval": "0.01s"}  # left out: 1 s, and the timeout is over before
        service["retry_policy"] = {"num_retries": retries, "retry_on": on, "retry_back_off": soon}
    authorization = http_filter(
        FILTER,
        "ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        failure_mode_allow=config["failOpen"] if fail_open is None else fail_open,
        status_on_error={"code": config["statusOnError"]},
        grpc_service=service,
    )
    per_route = {FILTER: typed(f"{FILTERS}.ext_authz.v3.ExtAuthzPerRoute", check_settings={})} if asks else {}
    router = typed(f"{FILTERS}.router.v3.Router", suppress_envoy_headers=True)
    http = {
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "server_header_transformation": "PASS_THROUGH",
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        **_forwarded(traffic.get("headers", {}).get("xForwardedClientCert", {})),
        "http_filters": [
            {**authorization, "disabled": True},  # until a route says otherwise
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        "route_config": routes(typed_per_filter_config=per_route),
    }
    mode = traffic["tls"]["clientValidation"].get("mode", "RequireAndVerify")
    validation = {"trust_chain_verification": "ACCEPT_UNTRUSTED"} if mode in ("Request", "RequireAny") else {}
    required = mode in ("RequireAny", "RequireAndVerify")
    return Listening(http, server_tls(world.server, world.partners.file, required=required, **validation))


def _seconds(config: dict[str, Any]) -> str:
    return f"{int(config['timeout'].removesuffix('ms')) / 1000}s"


def _forwarded(wanted: dict[str, Any]) -> Config:
    mode = MODES[wanted.get("mode", "Sanitize")]
    details = {name.lower(): True for name in wanted.get("certDetailsToAdd", [])}
    tells = mode in ("APPEND_FORWARD", "SANITIZE_SET") and details
    return {"forward_client_cert_details": mode, **({"set_current_client_cert_details": details} if tells else {})}
