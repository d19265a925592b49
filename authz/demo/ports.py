"""Ports on 127.0.0.1: free ones unless given."""

from __future__ import annotations

import os
import random
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from aiohttp import web

from authz.demo.failure import Unusable

# Below the range from which Linux, macOS and Windows pick ports for outgoing connections: nobody gets one of these by
# chance between our choice and the moment that the program we start listens there.
_FREE: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 100
SHUTDOWN_S: Final = 1.0


def listen(port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as failed:
        raise Unusable(f"port {port} on 127.0.0.1: {os.strerror(failed.errno or 0)}") from None


def choose(asked: Sequence[int]) -> tuple[int, ...]:
    """Return ports for programs that we start: the given ones, and free ones in place of 0."""
    with ExitStack() as held:  # until all are chosen, so that no two are the same
        return tuple(held.enter_context(listen(port) if port else _free()).getsockname()[1] for port in asked)


def _free() -> socket.socket:
    for _ in range(_ATTEMPTS):
        try:
            return listen(random.choice(_FREE))  # noqa: S311 spreads, hides nothing
        except Unusable:
            continue
    raise Unusable(f"no free port found between {_FREE.start} and {_FREE.stop}")


async def serve(app: web.Application, sockets: Mapping[socket.socket, ssl.SSLContext | None]) -> web.AppRunner:
    """Serve on sockets that listen already; `cleanup` of what is returned closes them."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    for opened, tls in sockets.items():
        await web.SockSite(runner, opened, ssl_context=tls).start()
    return runner
