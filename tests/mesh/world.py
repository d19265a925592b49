"""What stands around the proxies: a partner, its policy, a real authz whose calls are noted, and an upstream that notes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import jwt
import partner
from cryptography import x509
from mesh.envoys import CHECK, PATIENCE_S, UPSTREAM, Config, Envoy, Listening, cluster
from mesh.pki import PEM, Authority
from redis_server import free_port

from authz.demo.ask import Answer, Headers, Peer, client_tls
from authz.demo.ca import Credential
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

METHOD = "/envoy.service.auth.v3.Authorization/Check"
XFCC = "x-forwarded-client-cert"
_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,]*)([;,]|$)')


class Upstream:
    """Answers 200 and notes the headers of what it is asked."""

    def __init__(self) -> None:
        self.seen: list[list[tuple[str, str]]] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append([(name.lower(), value) for name, value in self.headers.items()])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the name of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Checks:
    """Stands between Envoy and authz: passes every Check on and notes it; may be told to wait first, or to fail."""

    def __init__(self, authz_port: int) -> None:
        self.seen: list[CheckRequest] = []
        self.delay_s = 0.0
        self.fails = False
        self._channel = grpc.insecure_channel(f"127.0.0.1:{authz_port}")
        self._ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)
        self._server = grpc.server(ThreadPoolExecutor(4))
        handlers: Any = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", handlers),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen.append(CheckRequest.FromString(request))
        if self.fails:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")
        time.sleep(self.delay_s)
        answer: bytes = self._ask(request, timeout=PATIENCE_S)
        return answer

    def stop(self) -> None:
        self._server.stop(None).wait()
        self._channel.close()


@dataclass(frozen=True)
class Seen:
    """What one request came to: for the caller, for authz, for the upstream."""

    answer: Answer
    checks: list[CheckRequest]
    upstream: list[list[tuple[str, str]]]

    @property
    def verdict(self) -> tuple[int, str | None]:
        return self.answer.status, self.answer.reason

    @property
    def elements(self) -> list[dict[str, list[str]]]:
        """The XFCC of the only Check; empty where it had none."""
        (check,) = self.checks
        return elements(check.attributes.request.http.headers.get(XFCC, ""))

    def sent_up(self, name: str) -> list[str]:
        """Return the values of a header that the upstream got in its only request, in either spelling."""
        (headers,) = self.upstream
        return [value for header, value in headers if header.replace("_", "-") == name]


def elements(header: str) -> list[dict[str, list[str]]]:
    """Return XFCC's elements, oldest first; of each the values of each key."""
    found: list[dict[str, list[str]]] = [{}] if header else []
    for key, value, end in _PAIR.findall(header):
        found[-1].setdefault(key, []).append(value.strip('"'))
        if end == ",":
            found.append({})
    return found


@dataclass
class World:
    folder: Path
    stack: ExitStack
    upstream: Upstream
    checks: Checks
    partners: Authority
    client: Credential
    stranger: Credential
    server: Credential
    fronts: dict[str, list[int]] = field(default_factory=dict)

    def front(self, *listening: Listening, clusters: list[Config] | None = None, check: int | None = None) -> list[int]:
        """Return the ports of an Envoy so configured; one that is there already is not started again."""
        found = clusters if clusters is not None else [cluster(UPSTREAM, self.upstream.port)]
        found = [*found, cluster(CHECK, check if check is not None else self.checks.port)]
        key = json.dumps([[one.http, one.tls] for one in listening] + found)
        if key not in self.fronts:
            self.fronts[key] = self.stack.enter_context(Envoy(self.folder, listening, found)).ports
        return self.fronts[key]

    def ask(
        self,
        port: int,
        who: Credential | None = None,
        *headers: tuple[str, str],
        target: str = "/fhir/Patient/123",
        peer: Callable[[int], Peer] | None = None,
    ) -> Seen:
        """Ask with a good token, by TLS as somebody unless `peer` says how to connect."""
        to = peer(port) if peer is not None else self.tls(port, who)
        before, above = len(self.checks.seen), len(self.upstream.seen)
        all_headers: Headers = (("host", "api.example.org"), ("authorization", f"Bearer {token()}"), *headers)
        answer = to.ask("GET", target, all_headers)
        return Seen(answer, self.checks.seen[before:], self.upstream.seen[above:])

    def tls(self, port: int, who: Credential | None) -> Peer:
        return Peer(host="localhost", port=port, tls=client_tls(self.partners.file, who))


def forged(who: Credential, **more: str) -> str:
    """Return the element of XFCC that a proxy would write about somebody: his certificate is no secret."""
    pem = who.certificate.public_bytes(PEM).decode()
    parts = {"Hash": who.fingerprint, "Cert": f'"{quote(pem, safe="")}"', "Subject": '""', **more}
    return ";".join(f"{key}={value}" for key, value in parts.items())


def token() -> str:
    now_s = int(datetime.now(UTC).timestamp())
    claims = partner.claims(iat=now_s, exp=now_s + 600)
    return jwt.encode(claims, partner.rsa_key(), "RS256", headers={"kid": "k1"})


@contextmanager
def world(folder: Path, identity: dict[str, Any]) -> Iterator[World]:
    """Start an authz with this part of its configuration, and all around it."""
    partners = Authority("partners", folder)
    uri = x509.UniformResourceIdentifier(f"spiffe://example.org/client/{partner.CLIENT_ID}")
    client = partners.issue("client", uri, x509.DNSName("app.partner.example"), common_name=partner.CLIENT_ID)
    stranger = partners.issue("stranger", uri, common_name=partner.CLIENT_ID)
    server = partners.issue("server", x509.DNSName("localhost"), x509.DNSName("api.example.org"), common_name="api")
    policy = partner.policy_document(certificate={"source": "External", "fingerprints": [client.fingerprint]})
    ports = {"grpc": free_port(), "ops": free_port()}
    config = partner.Site(folder).write(
        policy,
        listen={name: f"127.0.0.1:{port}" for name, port in ports.items()},
        identity=identity,
        audit={"path": str(folder / "audit.jsonl")},
    )
    with ExitStack() as stack:
        stack.enter_context(_authz(folder, config, ports["ops"]))
        checks = Checks(ports["grpc"])
        stack.callback(checks.stop)
        upstream = Upstream()
        stack.callback(upstream.stop)
        yield World(folder, stack, upstream, checks, partners, client, stranger, server)


@contextmanager
def _authz(folder: Path, config: Path, ops: int) -> Iterator[None]:
    command = [sys.executable, "-m", "authz", "serve", "--config", str(config)]
    with (folder / "authz.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _is_ready(ops):
            told = (folder / "authz.log").read_text()
            assert process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(port: int) -> bool:
    try:
        return Peer(host="127.0.0.1", port=port).ask("GET", "/readyz").status == 200
    except OSError:
        return False
