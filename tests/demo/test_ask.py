from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from authz.demo.ask import HANDSHAKE_FAILS, HANDSHAKE_HOLDS, Answer, Peer, client_tls, handshake, server_tls
from authz.demo.ca import Authority
from authz.demo.ports import listen, serve

URI = "spiffe://example/app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A server behind mutual TLS that answers with the path as it came."""

    authority: Authority
    elsewhere: Authority
    port: int

    def peer(self, issuer: Authority | None, trusts: Authority) -> Peer:
        credential = None if issuer is None else issuer.issue_client("app", URI)
        return Peer(host="localhost", port=self.port, tls=client_tls(trusts.file, credential))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(text=request.raw_path, headers={"Retry-After": "7"})

    now, opened = datetime.now(UTC), listen(0)
    authority, elsewhere = Authority("ca", tmp_path, now), Authority("other-ca", tmp_path, now)
    app = web.Application()
    app.router.add_get("/{path:.*}", echo)
    runner = await serve(app, {opened: server_tls(authority.issue_server("server"), authority.file)})
    yield Site(authority=authority, elsewhere=elsewhere, port=opened.getsockname()[1])
    await runner.cleanup()


@contextmanager
def shaking_hands(tls: ssl.SSLContext) -> Iterator[int]:
    """Give the port of a server that shakes hands with three callers in turn; each holds on until the caller leaves."""

    def take(opened: socket.socket) -> None:
        for _ in range(3):
            caller, _ = opened.accept()
            with suppress(ssl.SSLError, OSError), caller, tls.wrap_socket(caller, server_side=True) as secured:
                secured.recv(1)

    with listen(0) as opened:
        thread = threading.Thread(target=take, args=(opened,))
        thread.start()
        yield opened.getsockname()[1]
        thread.join(timeout=60)


def test_a_handshake_holds_with_the_right_certificate_alone(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    right, wrong = Authority("ca", tmp_path, now), Authority("other-ca", tmp_path, now)
    callers = [None, wrong.issue_client("app", URI, "stranger"), right.issue_client("app", URI)]
    with shaking_hands(server_tls(right.issue_server("server"), right.file)) as port:
        peers = [Peer(host="localhost", port=port, tls=client_tls(right.file, caller)) for caller in callers]
        assert [handshake(peer) for peer in peers] == [HANDSHAKE_FAILS, HANDSHAKE_FAILS, HANDSHAKE_HOLDS]


async def test_a_server_that_we_refuse_or_that_is_not_there_has_not_refused_us(site: Site) -> None:
    came = await asyncio.to_thread(handshake, site.peer(site.authority, site.elsewhere))
    assert came == "server certificate refused"
    with listen(0) as closed:
        port = closed.getsockname()[1]
    nobody = Peer(host="127.0.0.1", port=port, tls=site.peer(None, site.authority).tls)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(handshake, nobody)


@pytest.mark.parametrize("path", ["/a/../b", "/a/%2e%2e/b", "/a%2F..%2Fb", "/a/..;/b", "//a//b", "/a/%252e?x=../y"])
async def test_a_path_is_sent_as_it_stands(site: Site, path: str) -> None:
    answer = await asyncio.to_thread(site.peer(site.authority, site.authority).ask, "GET", path)
    assert (answer.status, answer.body.decode()) == (200, path)


@pytest.mark.parametrize(("told", "wait_s"), [("7", 7), ("0", 0), ("soon", 0), ("-1", 0)])
def test_how_long_to_wait_is_what_retry_after_says(told: str, wait_s: int) -> None:
    assert Answer(status=429, headers={"retry-after": told}, body=b"").retry_after_s == wait_s


async def test_a_url_says_whom_to_ask(site: Site) -> None:
    tls = site.peer(None, site.authority).tls
    assert tls is not None
    assert Peer.of("https://localhost:8443/fhir", tls) == Peer(host="localhost", port=8443, tls=tls)
    assert Peer.of("http://127.0.0.1:80/fhir", tls) == Peer(host="127.0.0.1", port=80)
