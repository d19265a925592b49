"""A gate in front of a real API server: it forwards each request, and does at chosen ones what clusters do.

Who asks through it has the administrator's rights, unless a rule refuses.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from kubernetes_api import KubernetesApi

BEFORE, AFTER = "before", "after"
_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "host"}


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    name: str  # of the object, also where it is made
    accept: str = ""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def is_write(self) -> bool:
        return self.method not in ("GET", "HEAD")


@dataclass
class Rule:
    """`act` is called before the request is forwarded or after it was answered; what it returns is answered instead."""

    when: str
    match: Callable[[Asked], bool]
    act: Callable[[], tuple[int, dict[str, Any]] | None]
    times: int = 1_000_000
    hits: int = 0


def status_of(code: int, reason: str, message: str = "by the test") -> tuple[int, dict[str, Any]]:
    """Return an answer as the API server words a failure."""
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


@dataclass
class ApiGate:
    plane: KubernetesApi
    folder: Path
    rules: list[Rule] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    streams: int = 0  # watches that were opened
    silenced: int = 0  # so many of them, the first ones, bring nothing any more
    port: int = 0

    def on(
        self,
        match: Callable[[Asked], bool],
        act: Callable[[], tuple[int, dict[str, Any]] | None],
        *,
        when: str = BEFORE,
        times: int = 1_000_000,
    ) -> Rule:
        rule = Rule(when, match, act, times)
        self.rules.append(rule)
        return rule

    def silence(self) -> None:
        """Hold back for good what the watches bring that are open now; later ones work."""
        self.silenced = self.streams

    @property
    def writes(self) -> list[Asked]:
        return [one for one in self.asked if one.is_write]

    @property
    def kubeconfig(self) -> Path:
        path = self.folder / f"gate-{self.port}.kubeconfig"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "gate",
            "clusters": [{"name": "gate", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "gate", "user": {}}],
            "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
        }))  # fmt: skip
        return path

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        assert started.wait(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        context = ssl.create_default_context(cafile=str(self.plane.ca))
        context.load_cert_chain(*map(str, self.plane.admin))
        async with ClientSession(connector=TCPConnector(limit=0, ssl=context), read_bufsize=2**22) as session:
            app = web.Application(client_max_size=2**24)

            async def forward(request: web.Request) -> web.StreamResponse:
                return await self._forward(session, request)

            app.router.add_route("*", "/{path:.*}", forward)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            started.set()
            await self._stop.wait()
            await runner.cleanup()
        await asyncio.sleep(0.1)  # TLS connections end a turn of the loop later

    async def _rule(self, when: str, asked: Asked) -> web.Response | None:
        for rule in self.rules:
            if rule.when == when and rule.hits < rule.times and rule.match(asked):
                rule.hits += 1
                answered = await asyncio.to_thread(rule.act)
                if answered is not None:
                    code, body = answered
                    headers = {"Retry-After": "1"} if code == 429 else {}
                    return web.json_response(body, status=code, headers=headers)
        return None

    async def _forward(self, session: ClientSession, request: web.Request) -> web.StreamResponse:
        sent = await request.read()
        asked = Asked(
            request.method, request.path, dict(request.query), _name(request, sent), request.headers.get("Accept", "")
        )
        self.asked.append(asked)
        refused = await self._rule(BEFORE, asked)
        if refused is not None:
            return refused
        try:
            async with session.request(
                request.method, f"{self.plane.url}{request.path_qs}", data=sent or None,
                headers={name: value for name, value in request.headers.items() if name.lower() not in _HOP},
                timeout=ClientTimeout(total=None, sock_connect=5),
            ) as answer:  # fmt: skip
                headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
                if asked.is_watch and answer.status == 200:
                    return await self._stream(request, answer, headers)
                body = await answer.read()
        except (ClientError, OSError):
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=502)
        refused = await self._rule(AFTER, asked)
        return refused or web.Response(status=answer.status, body=body, headers=headers)

    async def _stream(self, request: web.Request, answer: Any, headers: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers=headers)
        await response.prepare(request)
        self.streams += 1
        number = self.streams
        with suppress(ClientError, ConnectionError):
            async for line in answer.content:
                if number > self.silenced:
                    await response.write(line)
        return response


def _name(request: web.Request, sent: bytes) -> str:
    if request.method != "POST":
        return request.path.rpartition("/")[2]
    return str(json.loads(sent).get("metadata", {}).get("name", ""))


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a log."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
