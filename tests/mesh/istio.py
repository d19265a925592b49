"""Envoy as istiod configures it, taking from our examples what they decide.

Source: istio 1.31.0-rc.0, pilot/pkg/networking/core/gateway.go (buildGatewayConnectionManager), listener_inbound.go
(buildSidecarInboundHTTPOpts), listener_builder.go (buildHTTPConnectionManager), pilot/pkg/networking/util/proxy_headers.go,
pilot/pkg/security/authz/builder/extauthz.go (generateGRPCConfig) and builder.go (buildHTTP).
"""

from __future__ import annotations

from typing import Any

from mesh.envoys import CHECK, FILTERS, LONG, Config, http_filter, routes, typed
from mesh.examples import values

GATEWAY = "spiffe://cluster.local/ns/istio-ingress/sa/istio-ingressgateway"
FHIR = "spiffe://cluster.local/ns/fhir/sa/fhir-server"
SETTING = ("APPEND_FORWARD", "SANITIZE_SET")  # the modes in which istiod says what to tell of a certificate


def provider() -> dict[str, Any]:
    """Return the provider of examples/istio/istiod-values.yaml."""
    (found,) = values("istio", "istiod-values.yaml")["meshConfig"]["extensionProviders"]
    return dict(found)


def filters(*, dry_run: bool = False, hurried: bool = False) -> list[Config]:
    """Return what an AuthorizationPolicy of action CUSTOM with one empty rule becomes.

    RBAC only notes which rule matched: in its shadow rules, or, under the dry-run annotation, in those that it enforces. `hurried`: with the
    example's own timeout.
    """
    name, grpc = provider()["name"], provider()["envoyExtAuthzGrpc"]
    rule = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    policies = {f"istio-ext-authz-{name}-ns[istio-ingress]-policy[clientpolicy]-rule[0]": rule}
    rules = {"action": "DENY", "policies": policies}
    empty = {"action": "DENY"}
    rbac = {"shadow_rules": empty, "rules": rules} if dry_run else {"shadow_rules": rules}
    matched = {
        "filter": "envoy.filters.http.rbac",
        "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
        "value": {"string_match": {"prefix": f"istio-ext-authz-{name}"}},
    }
    envoy_grpc = {"cluster_name": CHECK, "authority": grpc["service"]}
    return [
        http_filter("envoy.filters.http.rbac", "rbac.v3.RBAC", **rbac, shadow_rules_stat_prefix="istio_ext_authz_"),
        http_filter(
            "envoy.filters.http.ext_authz",
            "ext_authz.v3.ExtAuthz",
            transport_api_version="V3",
            failure_mode_allow=grpc["failOpen"],
            status_on_error={"code": int(grpc["statusOnError"])},
            grpc_service={"envoy_grpc": envoy_grpc, "timeout": grpc["timeout"] if hurried else LONG},
            filter_enabled_metadata=matched,
        ),
        {"name": "envoy.filters.http.router", "typed_config": typed(f"{FILTERS}.router.v3.Router")},
    ]


def gateway(forward: str = "SANITIZE_SET", *, asks: bool = True, **more: bool) -> Config:
    """`forward` is `gatewayTopology.forwardClientCertDetails`; left out, SANITIZE_SET. `more` is for the filters."""
    details = {"subject": True, "cert": True, "dns": True, "uri": True}
    return {
        "use_remote_address": True,
        "forward_client_cert_details": forward,
        **({"set_current_client_cert_details": details} if forward in SETTING else {}),
        **_both(filters(**more) if asks else filters()[-1:]),
    }


def sidecar(forward: str = "APPEND_FORWARD") -> Config:
    """`forward` is `proxyHeaders.forwardedClientCert`; left out, APPEND_FORWARD. Of the gateway no certificate is told."""
    return {
        "use_remote_address": False,
        "forward_client_cert_details": forward,
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
        **_both(filters()),
    }


def _both(http_filters: list[Config]) -> Config:
    """Path normalization is BASE: dot segments, and nothing else."""
    return {
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "server_name": "istio-envoy",
        "http_filters": http_filters,
        "route_config": routes(),
    }
