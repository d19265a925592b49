"""The way to an issuer through a real proxy: which one, for whom, and that nobody reads its password."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web
from connect_proxy import ConnectProxy, proxying
from issuers import Issuer, authority, fetching, issuing, kids, metadata_of, server_tls, settings

from authz.edge.fetch import Fetcher, open_session
from authz.edge.log import JsonFormatter
from authz.edge.proxy import Proxy, proxy_for
from authz.edge.roots import Roots
from authz.edge.settings import IssuerSettings

NAME = "auth.example.org"  # nobody but the proxy knows where it is
CA = authority("our CA")
VARIABLES = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    async with issuing(server_tls(tmp_path, CA, NAME)) as issuer:
        issuer.url = f"https://{NAME}"
        yield issuer


@pytest.fixture
async def proxy(issuer: Issuer) -> AsyncIterator[ConnectProxy]:
    async with proxying({f"{NAME}:443": issuer.port}) as proxy:
        yield proxy


@pytest.fixture
def ca(tmp_path: Path) -> str:
    (tmp_path / "ca.pem").write_text(CA.pem)
    return str(tmp_path / "ca.pem")


async def trouble(one: IssuerSettings) -> str:
    async with fetching(one) as ring:
        await ring.load_once()
        return ring.by_name["a"].trouble


WAYS: dict[str, tuple[dict[str, str], str | None]] = {
    "of the issuer": ({}, "http://{}"),
    "of the issuer, before the environment's": ({"HTTPS_PROXY": "http://127.0.0.1:1"}, "http://{}"),
    "of the issuer, whatever NO_PROXY says": ({"NO_PROXY": "*"}, "http://{}/"),
    "of the environment": ({"HTTPS_PROXY": "http://{}"}, None),
    "of the environment, in small letters": ({"https_proxy": "http://{}/"}, None),
    "of the environment, without scheme": ({"HTTPS_PROXY": "{}"}, None),
    "of the environment, for all but others": ({"HTTPS_PROXY": "http://{}", "NO_PROXY": "example.com,10.0.0.0/8"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("environment", "own"), WAYS.values(), ids=WAYS.keys())
async def test_issuer_is_reached_through_the_proxy(
    issuer: Issuer,
    proxy: ConnectProxy,
    ca: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    environment: dict[str, str],
    own: str | None,
) -> None:
    at = f"127.0.0.1:{proxy.port}"
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(at))
    issuer.documents["/.well-known/openid-configuration"] = metadata_of(issuer)
    more = {"proxy": own.format(at)} if own is not None else {}
    async with fetching(settings(issuer, jwksUri=None, ca=ca, **more)) as ring:
        await ring.load_once()
        assert kids(ring.by_name["a"]) == ["k1"]
    assert set(proxy.asked) == {(f"{NAME}:443", "")}
    assert issuer.asked == ["/.well-known/openid-configuration", "/jwks"]


CREDENTIALS = {
    "user:pass%40word": "user:pass@word",
    "somebody": "somebody:",
    "j%C3%BCrg:%E2%82%AC": "jürg:€",
    "me:a%3Ab": "me:a:b",
}


@pytest.mark.parametrize("credentials", CREDENTIALS.items(), ids=CREDENTIALS.keys())
@pytest.mark.parametrize("named_by", ["proxy", "HTTPS_PROXY"])
async def test_password_reaches_the_proxy_and_nobody_else(
    issuer: Issuer,
    proxy: ConnectProxy,
    ca: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    credentials: tuple[str, str],
    named_by: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    written, login = credentials
    secret = f"Basic {b64encode(login.encode()).decode()}"
    url = f"http://{written}@127.0.0.1:{proxy.port}"
    if named_by == "HTTPS_PROXY":
        monkeypatch.setenv(named_by, url)
    one = settings(issuer, ca=ca, **({"proxy": url} if named_by == "proxy" else {}))
    assert await trouble(one) == ""
    assert proxy.asked == [(f"{NAME}:443", secret)]
    assert "Proxy-Authorization" not in issuer.headers
    proxy.status = HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
    through = f"(through the proxy http://127.0.0.1:{proxy.port})"
    found = await trouble(one)
    assert found == f"https://{NAME}/jwks: the proxy answered CONNECT with HTTP status 407 {through}"
    shown = "".join(JsonFormatter().format(record) for record in caplog.records)
    shown += f"{one!r} {proxy_for(f'https://{NAME}', url)!r}"
    assert not [word for word in (written, login, secret) if word in shown]


UNREACHED: dict[str, tuple[str, str]] = {
    "nobody listens": ("http://127.0.0.1:1", "connection refused"),
    "unknown name": ("http://me:secret@proxy.invalid:3128", "the name proxy.invalid cannot be resolved"),
}


@pytest.mark.parametrize(("proxy", "reason"), UNREACHED.values(), ids=UNREACHED.keys())
async def test_proxy_that_cannot_be_reached_is_told(proxy: str, reason: str) -> None:
    one = settings(Issuer(), issuer=f"https://{NAME}", jwksUri=f"https://{NAME}/jwks", proxy=proxy)
    shown = proxy.replace("me:secret@", "")
    assert await trouble(one) == f"https://{NAME}/jwks: {reason} (through the proxy {shown})"


async def test_server_behind_the_proxy_is_proven_and_may_not_redirect(
    issuer: Issuer, proxy: ConnectProxy, ca: str
) -> None:
    at = f"http://127.0.0.1:{proxy.port}"
    assert "TLS verification failed" in await trouble(settings(issuer, proxy=at))
    proxy.ports["other.example.org:443"] = issuer.port
    found = await trouble(settings(issuer, jwksUri="https://other.example.org/jwks", ca=ca, proxy=at))
    assert "TLS verification failed: Hostname mismatch" in found
    found = await trouble(settings(issuer, jwksUri="https://gone.example.org/jwks", ca=ca, proxy=at))
    assert "the proxy answered CONNECT with HTTP status 502" in found
    issuer.documents["/jwks"] = redirect
    assert "answered with HTTP status 302" in await trouble(settings(issuer, ca=ca, proxy=at))
    assert issuer.asked == ["/jwks"]


async def redirect(_: Any) -> Any:
    raise web.HTTPFound(f"https://{NAME}/other")


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_itself_may_speak_tls(tmp_path: Path, ca: str, loop: Any, scheme: str) -> None:
    async def fetch() -> tuple[bytes, bytes]:
        (tmp_path / "proxy").mkdir()
        tls = server_tls(tmp_path / "proxy", CA) if scheme == "https" else None
        async with (
            issuing(server_tls(tmp_path, CA, NAME)) as issuer,
            proxying({f"{NAME}:443": issuer.port}, tls) as proxy,
            open_session() as session,
        ):
            fetcher = Fetcher(session, Roots(Path(ca)), f"{scheme}://localhost:{proxy.port}")
            return await fetcher.get(f"https://{NAME}/jwks"), issuer.documents["/jwks"]

    with asyncio.Runner(loop_factory=loop) as runner:
        fetched, expected = runner.run(fetch())
    assert fetched == expected
    assert json.loads(fetched)["keys"]


async def test_what_is_on_this_machine_is_never_asked_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with issuing() as issuer:
        assert await trouble(settings(issuer)) == ""
        assert await trouble(settings(issuer, proxy="http://127.0.0.1:1")) == ""


PROXY = Proxy("http://proxy.example.org:3128", {})
NO_PROXY: dict[str, tuple[str, str, bool]] = {
    "empty": ("", NAME, False),
    "everything": ("*", NAME, True),
    "everything, among others": ("localhost, *", NAME, True),
    "the name": (NAME, NAME, True),
    "the name in capitals": (NAME.upper(), NAME, True),
    "the name asked in capitals": (NAME, NAME.upper(), True),
    "another name": ("auth.example.com", NAME, False),
    "its domain": ("example.org", NAME, True),
    "its domain with a dot": (".example.org", NAME, True),
    "its domain with a star": ("*.example.org", NAME, True),
    "a suffix that is no domain": ("ample.org", NAME, False),
    "a name below it": (f"x.{NAME}", NAME, False),
    "between blanks and commas": (f"a.example, {NAME} ,b.example", NAME, True),
    "between blanks": (f"a.example {NAME}", NAME, True),
    "a cluster's names": (".svc,.cluster.local", "auth.idp.svc", True),
    "its port": (f"{NAME}:443", NAME, True),
    "its other port": (f"{NAME}:8443", f"{NAME}:8443", True),
    "another port": (f"{NAME}:8443", NAME, False),
    "nothing but commas": (",, ,", NAME, False),
    "an address": ("192.0.2.7", "192.0.2.7", True),
    "a network": ("192.0.2.0/24", "192.0.2.7", True),
    "a network with a host": ("192.0.2.1/24", "192.0.2.7", True),
    "another network": ("198.51.100.0/24", "192.0.2.7", False),
    "an address and its port": ("192.0.2.7:443", "192.0.2.7", True),
    "the end of an address": ("2.7", "192.0.2.7", False),
    "an IPv6 network": ("2001:db8::/32", "[2001:db8::1]", True),
    "an IPv6 address in brackets": ("[2001:db8::1]", "[2001:db8::1]:8443", True),
    "another IPv6 network": ("2001:db9::/32", "[2001:db8::1]", False),
    "this machine": ("", "localhost:8443", True),
    "this machine by address": ("", "127.0.0.1", True),
    "this machine by IPv6": ("", "[::1]", True),
}


@pytest.mark.parametrize(("no_proxy", "host", "is_direct"), NO_PROXY.values(), ids=NO_PROXY.keys())
def test_no_proxy_is_read_as_others_read_it(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, *, is_direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY.url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(f"https://{host}/jwks", None) == (None if is_direct else PROXY)


@pytest.mark.parametrize("value", ["socks5://me:secret@proxy:1080", "http://", "http://me:secret@proxy:port", "http://me%3Ayou:secret@proxy", "http://proxy/secret"])  # fmt: skip
async def test_environment_that_names_no_proxy_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    found = await trouble(settings(Issuer(), issuer=f"https://{NAME}", jwksUri=f"https://{NAME}/jwks"))
    assert found.startswith(f"https://{NAME}/jwks: HTTPS_PROXY: ")
    assert "secret" not in found
