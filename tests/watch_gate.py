"""A gate in front of a real API server that answers some requests by itself and slips lines into watches."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from kubernetes_api import KubernetesApi

Query = dict[str, str]
_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "host", "accept-encoding"}


def failure(code: int, **headers: str) -> web.Response:
    """An answer as the API server words a failure."""
    body = {"kind": "Status", "status": "Failure", "code": code, "message": "by the test"}
    return web.json_response(body, status=code, headers=headers)


class WatchGate:
    """`instead` may answer a request itself; `lines` begin the next watch; who asks has the administrator's rights."""

    def __init__(self, plane: KubernetesApi, folder: Path) -> None:
        self._plane = plane
        self._folder = folder
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None
        self.instead: Callable[[Query], web.Response | None] = lambda _: None
        self.lines: list[bytes] = []
        self.asked: list[Query] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cafile=str(self._plane.ca))
        context.load_cert_chain(*map(str, self._plane.admin))
        self._session = ClientSession(connector=TCPConnector(limit=0, ssl=context), read_bufsize=2**22)
        app = web.Application()
        app.router.add_get("/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    @property
    def kubeconfig(self) -> Path:
        path = self._folder / f"watch-gate-{self.port}.kubeconfig"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "gate",
            "clusters": [{"name": "gate", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "gate", "user": {"token": "t0ken"}}],
            "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
        }))  # fmt: skip
        return path

    @property
    def watches(self) -> list[Query]:
        return [query for query in self.asked if "watch" in query]

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        query = dict(request.query)
        self.asked.append(query)
        answered = self.instead(query)
        if answered is not None:
            return answered
        url = f"{self._plane.url}{request.path_qs}"
        async with self._session.get(url, timeout=ClientTimeout(total=None)) as answer:
            if "watch" in query and answer.status == 200:
                return await self._stream(request, answer)
            body = await answer.read()
            return web.Response(status=answer.status, body=body, headers={"Content-Type": "application/json"})

    async def _stream(self, request: web.Request, answer: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(ClientError, ConnectionError, asyncio.CancelledError):
            slipped, self.lines = self.lines, []
            for line in slipped:
                await response.write(line)
            async for line in answer.content:
                await response.write(line)
        return response
