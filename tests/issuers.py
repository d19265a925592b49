"""An authorization server whose answers a test may change, and what a test of an issuer's keys asks of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from partner import Certificate, certificate, jwks, token

from authz.core import bearer
from authz.edge import clock
from authz.edge.keys import IssuerKeys, KeyRing
from authz.edge.settings import IssuerSettings
from authz.model import Claims


class Issuer:
    def __init__(self) -> None:
        self.documents: dict[str, Any] = {"/jwks": jwks()}
        self.asked: list[str] = []
        self.headers: set[str] = set()  # that it was sent
        self.url = ""
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.headers |= set(request.headers)
        found = self.documents.get(request.path)
        if found is None:
            return web.Response(status=404)
        if isinstance(found, bytes):
            return web.Response(body=found)
        if callable(found):
            answered: web.StreamResponse = await found(request)
            return answered
        return web.json_response(found)


@asynccontextmanager
async def issuing(tls: ssl.SSLContext | None = None) -> AsyncIterator[Issuer]:
    """Over TLS its name is localhost."""
    issuer = Issuer()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", issuer.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    issuer.port = runner.addresses[0][1]
    issuer.url = f"http://127.0.0.1:{issuer.port}" if tls is None else f"https://localhost:{issuer.port}"
    try:
        yield issuer
    finally:
        await runner.cleanup()


def authority(name: str) -> Certificate:
    return certificate(name, is_ca=True, **_now())


def server_tls(folder: Path, issuer: Certificate, dns: str = "localhost", **more: Any) -> ssl.SSLContext:
    """A server's TLS with a new certificate of `issuer`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certify(context, folder, issuer, dns, **more)
    return context


def certify(context: ssl.SSLContext, folder: Path, issuer: Certificate, dns: str = "localhost", **more: Any) -> None:
    """Let a server show a new certificate from the next handshake on; its issuer's comes along, root or not."""
    made = certificate(dns, dns=(dns,), issuer=issuer, **(_now() | more))
    key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file = folder / "server.pem"
    file.write_text(made.pem + issuer.pem + key)
    context.load_cert_chain(file)


def _now() -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"start": now - timedelta(days=1), "end": now + timedelta(days=1)}


def settings(at: Issuer, **more: Any) -> IssuerSettings:
    given = {"name": "a", "issuer": at.url, "audiences": ["x"], "jwksUri": f"{at.url}/jwks"}
    return IssuerSettings.model_validate({key: value for key, value in (given | more).items() if value is not None})


@asynccontextmanager
async def fetching(*issuers: IssuerSettings) -> AsyncIterator[KeyRing]:
    ring = KeyRing(issuers)
    await ring.open(lambda: None)
    try:
        yield ring
    finally:
        await ring.close()


@asynccontextmanager
async def running(ring: KeyRing) -> AsyncIterator[None]:
    """Refresh in the background, as the service does."""
    task = asyncio.create_task(ring.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def kids(keys: IssuerKeys) -> list[str | None]:
    return [key.kid for key in keys.keys.keys] if keys.keys else []


def metadata_of(at: Issuer, **more: Any) -> dict[str, Any]:
    return {"issuer": at.url, "jwks_uri": f"{at.url}/jwks"} | more


def verify(issuer: Issuer, ring: KeyRing) -> Claims:
    """Verify a token of the issuer, signed with its first key."""
    return bearer.verify(token(iss=issuer.url, aud="x"), ring.trusted, None, clock.now_us())


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    """What was logged of keys since the last look: message and reason."""
    lines = [record for record in caplog.records if record.name == "authz.edge.keys"]
    found = [(line.getMessage(), vars(line).get("error")) for line in lines]
    caplog.clear()
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
