"""Asking over HTTP exactly as told: a path is sent as it stands, where most clients would tidy it up first."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from authz.demo.ca import Credential

PATIENCE_S: Final = 10.0
HANDSHAKE_FAILS: Final = "tls handshake fails"
HANDSHAKE_HOLDS: Final = "tls handshake succeeds"
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # by lower-case name
    body: bytes

    @property
    def reason(self) -> str | None:
        """The reason of a refusal: FHIR's OperationOutcome and problem JSON tell it in their own ways."""
        try:
            told = json.loads(self.body)
            return str(told["reason"] if "reason" in told else told["issue"][0]["details"]["coding"][0]["code"])
        except (ValueError, TypeError, LookupError):
            return None

    @property
    def retry_after_s(self) -> int:
        """How long the answer says to wait; 0 if it does not."""
        told = self.headers.get("retry-after", "")
        return int(told) if told.isdecimal() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to ask, and with TLS as whom."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    @classmethod
    def of(cls, url: str, tls: ssl.SSLContext) -> Self:
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        return cls(host=parts.hostname or "", port=parts.port or 0, tls=tls if is_tls else None)

    def connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        return http.client.HTTPSConnection(self.host, self.port, timeout=PATIENCE_S, context=self.tls)

    def ask(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> Answer:
        connection = self.connection()
        try:
            return ask(connection, method, target, headers, body)
        finally:
            connection.close()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes | None = None,
) -> Answer:
    """Ask on a connection that stays open."""
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    received = {name.lower(): value for name, value in response.getheaders()}
    return Answer(status=response.status, headers=received, body=response.read())


def handshake(peer: Peer) -> str:
    """Return whether a TLS handshake holds.

    Under TLS 1.3 a client is done before the server has looked at its certificate, so the refusal is the first thing
    it reads; a server that is content stays silent until it is asked something.
    """
    if peer.tls is None:
        return HANDSHAKE_HOLDS
    with socket.create_connection((peer.host, peer.port), timeout=PATIENCE_S) as opened:
        try:
            with peer.tls.wrap_socket(opened, server_hostname=peer.host) as secured:
                secured.settimeout(2.0)
                secured.recv(1)
        except TimeoutError:
            return HANDSHAKE_HOLDS
        except ssl.SSLCertVerificationError:  # our doing, not the server's
            return "server certificate refused"
        except (ssl.SSLError, ConnectionResetError):
            return HANDSHAKE_FAILS
    return "connection closed without a reason"


def client_tls(authority: Path, credential: Credential | None) -> ssl.SSLContext:
    """Return the TLS of a client that trusts one authority, with its certificate if it has one."""
    context = ssl.create_default_context(cafile=str(authority))
    if credential is not None:
        context.load_cert_chain(credential.certificate_file, credential.key_file)
    return context


def server_tls(server: Credential, client_authority: Path) -> ssl.SSLContext:
    """Return the TLS of a server that demands a certificate of one authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client_authority))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(server.certificate_file, server.key_file)
    return context
