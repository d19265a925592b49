"""Issuers' keys from a real HTTP server: rotation, outages, hostile documents, discovery, and no fetch in a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from partner import jwk, rsa_key
from partner import jwks as jwks_document

from authz.core import jwks
from authz.edge import keys as edge_keys
from authz.edge.keys import IssuerKeys, KeyRing
from authz.edge.settings import IssuerSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Issuer:
    """An authorization server whose answers a test may change."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {"/jwks": jwks_document()}
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        found = self.documents.get(request.path)
        if found is None:
            return web.Response(status=404)
        if isinstance(found, bytes):
            return web.Response(body=found)
        if callable(found):
            answered: web.StreamResponse = await found(request)
            return answered
        return web.json_response(found)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", issuer.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield issuer
    await runner.cleanup()


def settings(at: Issuer, **more: Any) -> IssuerSettings:
    given = {"name": "a", "issuer": at.url, "audiences": ["x"], "jwksUri": f"{at.url}/jwks"}
    return IssuerSettings.model_validate({key: value for key, value in (given | more).items() if value is not None})


@pytest.fixture
async def ring(issuer: Issuer) -> AsyncIterator[KeyRing]:
    ring = KeyRing((settings(issuer),))
    await ring.open(lambda: None)
    yield ring
    await ring.close()


def kids(keys: IssuerKeys) -> list[str | None]:
    return [key.kid for key in keys.keys.keys] if keys.keys else []


async def test_keys_are_fetched_and_swapped_whole(issuer: Issuer, ring: KeyRing) -> None:
    assert ring.missing == ("a",)
    before = ring.trusted
    await ring.load_once()
    assert ring.missing == ()
    assert ring.trusted is not before
    assert kids(ring.by_name["a"]) == ["k1"]
    issuer.documents["/jwks"] = jwks_document(jwk(rsa_key("next"), "k2"))
    await ring.load_once()
    assert kids(ring.by_name["a"]) == ["k2"]


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(str(request.url.with_path("/other")))


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(64):
        await response.write(b" " * 65_536)
    return response


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"keys":')
    assert request.transport is not None
    request.transport.close()
    return response


OUTAGES: dict[str, Any] = {
    "gone": None,
    "redirect": redirect,
    "cut": cut,
    "endless": endless,
    "too long": b'{"keys":[' + b" " * jwks.DOCUMENT_MAX_BYTES + b"]}",
    "HTML": b"<html>",
    "empty": b"",
    "no keys": {"keys": []},
    "no usable keys": {"keys": [{"kty": "oct", "k": "x"}]},
    "repeated key": b'{"keys":[],"keys":[]}',
    "slow": hang,
}


@pytest.mark.parametrize("document", OUTAGES.values(), ids=OUTAGES.keys())
async def test_last_good_keys_outlive_an_outage(
    issuer: Issuer, ring: KeyRing, document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "FETCH_TIMEOUT_S", 0.3)
    await ring.close()
    await ring.open(lambda: None)
    issuer.documents["/other"] = jwks_document(jwk(rsa_key("evil"), "evil"))
    await ring.load_once()
    issuer.documents["/jwks"] = document
    keys = ring.by_name["a"]
    assert await keys.refresh() is False
    assert kids(keys) == ["k1"]
    assert keys.failures == 1
    assert "/other" not in issuer.asked
    issuer.documents["/jwks"] = jwks_document()
    assert await keys.refresh()
    assert keys.failures == 0


async def test_good_keys_beside_bad_ones_are_kept(issuer: Issuer, ring: KeyRing) -> None:
    issuer.documents["/jwks"] = {"keys": [jwk(rsa_key(), "k1"), jwk(rsa_key("x"), "k2", use="enc"), {"kty": "oct"}]}
    await ring.load_once()
    assert kids(ring.by_name["a"]) == ["k1"]


@pytest.mark.parametrize("suffix", ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"])
async def test_keys_are_discovered_from_the_issuer(issuer: Issuer, suffix: str) -> None:
    issuer.documents[suffix] = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
    ring = KeyRing((settings(issuer, jwksUri=None),))
    await ring.open(lambda: None)
    await ring.load_once()
    assert kids(ring.by_name["a"]) == ["k1"]
    await ring.close()


async def test_rfc_8414_metadata_stands_between_host_and_path(issuer: Issuer) -> None:
    name = f"{issuer.url}/tenant/"
    document = {"issuer": name, "jwks_uri": f"{issuer.url}/jwks"}
    issuer.documents["/.well-known/oauth-authorization-server/tenant"] = document
    ring = KeyRing((settings(issuer, issuer=name, jwksUri=None),))
    await ring.open(lambda: None)
    await ring.load_once()
    assert kids(ring.by_name["a"]) == ["k1"]
    await ring.close()


METADATA: dict[str, Any] = {
    "of another issuer": {"issuer": "https://evil.example.org", "jwks_uri": "/jwks"},
    "without jwks_uri": {},
    "jwks_uri a number": {"jwks_uri": 5},
    "jwks_uri over http elsewhere": {"jwks_uri": "http://keys.example.org/jwks"},
    "jwks_uri a file": {"jwks_uri": "file:///etc/passwd"},
    "not an object": [],
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA.keys())
async def test_bad_metadata_gives_no_keys(issuer: Issuer, metadata: Any) -> None:
    document = {"issuer": issuer.url} | metadata if isinstance(metadata, dict) else metadata
    issuer.documents["/.well-known/openid-configuration"] = document
    ring = KeyRing((settings(issuer, jwksUri=None),))
    await ring.open(lambda: None)
    await ring.load_once()
    assert ring.missing == ("a",)
    await ring.close()


async def test_file_is_read_again_when_it_changes(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "FILE_LOOK_S", 0.05)
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks_document())
    ring = KeyRing((settings(issuer, jwksUri=None, jwksFile=str(file)),))
    await ring.open(lambda: None)
    task = asyncio.create_task(ring.run())
    await until(lambda: kids(ring.by_name["a"]) == ["k1"])
    file.write_text("{")
    await until(lambda: ring.by_name["a"].failures > 0)
    assert kids(ring.by_name["a"]) == ["k1"]
    file.write_bytes(jwks_document(jwk(rsa_key("next"), "k2")))
    await until(lambda: kids(ring.by_name["a"]) == ["k2"])
    await stop(task, ring)


async def test_unknown_kids_are_one_fetch_and_no_sooner_than_the_cool_down(
    issuer: Issuer, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "COOLDOWN_S", 0.2)
    task = asyncio.create_task(ring.run())
    await until(lambda: len(issuer.asked) == 1)
    issuer.documents["/jwks"] = jwks_document(jwk(rsa_key("next"), "k2"))
    for _ in range(1000):
        ring.want("a")
    await until(lambda: kids(ring.by_name["a"]) == ["k2"])
    assert len(issuer.asked) == 2
    await stop(task, ring)


async def test_outage_is_retried_and_a_flood_of_unknown_kids_does_not_hurry_it(
    issuer: Issuer, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "RETRY_S", (0.2, 30.0))
    issuer.documents["/jwks"] = None
    task = asyncio.create_task(ring.run())
    await until(lambda: len(issuer.asked) == 2)
    for _ in range(20):
        ring.want("a")
        await asyncio.sleep(0.005)
    assert len(issuer.asked) == 2
    await stop(task, ring)


async def test_recorded_requests_see_keys_of_their_own_time(ring: KeyRing) -> None:
    assert ring.trusted_at(5)[ring.by_name["a"].issuer.issuer].keys is None
    await ring.load_once()
    ((_, trusted),) = ring.trusted_at(5).items()
    assert trusted.keys is not None
    assert not trusted.keys.is_stale(5)


def test_scope_and_scp_count_where_nobody_chose_a_claim() -> None:
    base = {"name": "a", "issuer": "https://a", "audiences": ["x"]}
    chosen = base | {"claims": {"scope": "permissions"}}
    assert edge_keys.issuer_of(IssuerSettings.model_validate(base)).scope_claims == ("scope", "scp")
    assert edge_keys.issuer_of(IssuerSettings.model_validate(chosen)).scope_claims == ("permissions",)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[None], ring: KeyRing) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ring.close()


def test_documents_above_are_json() -> None:
    assert json.loads(jwks_document())["keys"]
