"""A connection to the Kubernetes API: credentials as kubectl and pods have them, requests in plain JSON.

The client library finds and renews credentials; its generated models are left out, because a watch of thousands of
objects is cheaper as dictionaries.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import yaml
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, TCPConnector, TraceConfig
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

LINE_MAX_BYTES: Final = 2**22  # an object is at most 1.5 MiB in etcd, and a watch sends one a line
CONNECTIONS_MAX: Final = 32


class NoCluster(Exception):  # noqa: N818 it is what was found
    """Why there is nothing to connect to; safe to show."""


@dataclass(frozen=True, slots=True)
class Connection:
    """An API server (its URL without a final slash) and a session that is authorized there; close the session."""

    server: str
    session: ClientSession


def is_in_cluster() -> bool:
    """Return whether this process runs in a pod that speaks to its own cluster."""
    return not os.environ.get("KUBECONFIG") and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


async def connect(traces: Sequence[TraceConfig] = (), connections_max: int = CONNECTIONS_MAX) -> Connection:
    """Return a connection by `KUBECONFIG`, else the pod's service account, else ~/.kube/config.

    Each watch holds one of `connections_max` for as long as it is open; 0: no bound.

    Raises:
        NoCluster: there are no credentials, or they cannot be read.
    """
    configuration = Configuration()
    try:
        if is_in_cluster():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # the library has none
        else:
            # The library looks at the variable once, when it is loaded.
            config = os.environ.get("KUBECONFIG") or None
            await load_kube_config(config_file=config, client_configuration=configuration, persist_config=False)
        context = _tls(configuration)
    except (ConfigException, OSError, ssl.SSLError, yaml.YAMLError, ValueError, TypeError, KeyError) as failed:
        told = " ".join(str(failed).split())[:300]
        raise NoCluster(f"no credentials for a Kubernetes API: {told} (set KUBECONFIG, or run in a pod)") from None
    session = ClientSession(
        connector=TCPConnector(limit=connections_max, ssl=context),
        proxy=configuration.proxy,
        read_bufsize=LINE_MAX_BYTES,
        trace_configs=list(traces),
        middlewares=(_Credentials(configuration),),
        headers={"User-Agent": "clientpolicy"},
    )
    return Connection(str(configuration.host).rstrip("/"), session)


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.disable_strict_ssl_verification:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class _Credentials:
    """Puts the bearer token on each request, as new as its source has it (a pod's token lives an hour)."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        if token:
            request.headers["Authorization"] = token
        if self._configuration.tls_server_name:
            request.server_hostname = self._configuration.tls_server_name
        return await handler(request)
