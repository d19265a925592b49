"""Documents from a real server: what is no answer is no document, and its reason can be read alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import partner
import pytest
from aiohttp import ClientTimeout, web
from issuers import Issuer, fetching, issuing, settings

from authz.core import jwks
from authz.edge import fetch


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as issuer:
        yield issuer


async def trouble(issuer: Issuer, **more: Any) -> str:
    """Why the issuer's keys could not be read; "" if they were."""
    async with fetching(settings(issuer, **more)) as ring:
        await ring.load_once()
        return ring.by_name["a"].trouble


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def failing(_: web.Request) -> web.StreamResponse:
    return web.json_response({"keys": []}, status=503)


async def redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(str(request.url.with_path("/other")))


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(64):
        await response.write(b" " * 65_536)
    return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def nonsense(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"220 mail.example.org ESMTP\r\n")
    return web.Response()


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"keys":')
    return await hang_up(request)


TOO_LONG = f"longer than {jwks.DOCUMENT_MAX_BYTES} bytes"
OUTAGES: dict[str, tuple[Any, str]] = {
    "gone": (None, "answered with HTTP status 404"),
    "failing": (failing, "answered with HTTP status 503"),
    "redirect": (redirect, "answered with HTTP status 302"),
    "cut": (cut, "the connection ended before the answer did"),
    "hung up": (hang_up, "the connection ended before the answer did"),
    "not HTTP": (nonsense, "the answer is not HTTP"),
    "endless": (endless, TOO_LONG),
    "too long": (b'{"keys":[' + b" " * jwks.DOCUMENT_MAX_BYTES + b"]}", TOO_LONG),
    "HTML": (b"<html>", "not a JSON Web Key Set: Expecting value: line 1 column 1 (char 0)"),
    "empty": (b"", "not a JSON Web Key Set: Expecting value: line 1 column 1 (char 0)"),
    "without keys": ({}, "not a JSON Web Key Set: `keys` is not a list of at most 64 keys"),
    "repeated key": (b'{"keys":[],"keys":[]}', "not a JSON Web Key Set: a key stands twice in one object"),
}


@pytest.mark.parametrize(("document", "reason"), OUTAGES.values(), ids=OUTAGES.keys())
async def test_what_is_no_key_set_is_told_with_its_reason(issuer: Issuer, document: Any, reason: str) -> None:
    issuer.documents |= {"/jwks": document, "/other": partner.jwks()}
    assert await trouble(issuer) == f"{issuer.url}/jwks: {reason}"
    assert set(issuer.asked) == {"/jwks"}


async def test_no_answer_is_waited_for_no_longer_than_the_bound(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch._TIMEOUT.total == fetch.TIMEOUT_S  # noqa: SLF001 the bound itself
    monkeypatch.setattr(fetch, "_TIMEOUT", ClientTimeout(total=0.3))
    issuer.documents["/jwks"] = hang
    assert await trouble(issuer) == f"{issuer.url}/jwks: no answer within 5 s"


UNREACHABLE = {
    "nobody listens": ("http://127.0.0.1:1/jwks", "connection refused"),
    "nobody listens, https": ("https://127.0.0.1:1/jwks", "connection refused"),
    "no such name": ("https://keys.invalid/jwks", "the name keys.invalid cannot be resolved"),
    "query": ("http://127.0.0.1:1/jwks?code=secret", "connection refused"),
}


@pytest.mark.parametrize(("url", "reason"), UNREACHABLE.values(), ids=UNREACHABLE.keys())
async def test_issuer_that_cannot_be_reached_is_told_in_words(issuer: Issuer, url: str, reason: str) -> None:
    assert await trouble(issuer, jwksUri=url) == f"{url.partition('?')[0]}: {reason}"


async def test_plain_http_server_where_tls_is_expected_is_told(issuer: Issuer) -> None:
    found = await trouble(issuer, jwksUri=f"https://127.0.0.1:{issuer.port}/jwks")
    assert found.startswith(f"https://127.0.0.1:{issuer.port}/jwks: TLS handshake failed: ")
