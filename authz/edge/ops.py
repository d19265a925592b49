"""The port for those who run the service: /livez, /readyz and /metrics."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class Unbindable(Exception):  # noqa: N818 a property of the address
    """Nothing can listen there."""


def every_address(port: int) -> socket.socket:
    """Return a socket that listens on all addresses of this machine, of both families where it has both.

    Raises:
        OSError: the port is taken.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


class OpsServer:
    """`missing` returns what readiness still waits for, nothing means ready; `remarks` what is told beside it.

    `is_large`: the page is long enough to hold the loop up, and what it reads may be read from another thread.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        missing: Callable[[], tuple[str, ...]],
        *,
        remarks: Callable[[], tuple[str, ...]] = tuple,
        is_large: bool = False,
    ) -> None:
        async def live(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def ready(_: web.Request) -> web.Response:
            waiting = missing()
            if waiting:
                return web.Response(status=503, text="\n".join(waiting))
            return web.Response(text="\n".join(("ready", *remarks(), "")))

        async def metrics(_: web.Request) -> web.Response:
            page = await asyncio.to_thread(generate_latest, registry) if is_large else generate_latest(registry)
            return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})

        app = web.Application()
        app.add_routes([web.get("/livez", live), web.get("/readyz", ready), web.get("/metrics", metrics)])
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, address: str) -> str:
        """Listen, and return the address with the port that was taken.

        Raises:
            Unbindable: with the reason.
        """
        await self._runner.setup()
        try:
            if address.startswith("unix:"):
                await web.UnixSite(self._runner, address.removeprefix("unix:")).start()
                return address
            host, _, port = address.rpartition(":")
            await self._site(host.strip("[]"), int(port)).start()
        except OSError as failed:
            raise Unbindable(f"cannot listen on {address}: {failed.strerror}") from None
        return f"{host}:{self._runner.addresses[0][1]}"

    def _site(self, host: str, port: int) -> web.BaseSite:
        """Return what listens; `::` is every address, as gRPC understands it, too."""
        if host == "::":
            return web.SockSite(self._runner, every_address(port))
        return web.TCPSite(self._runner, host, port)

    async def stop(self) -> None:
        await self._runner.cleanup()
