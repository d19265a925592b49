"""How redis-py, which asks sentinels and clusters and serves the command line, gets at Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from authz.edge.store.place import Place

ASK_S: Final = 1.0  # for an answer of a sentinel or a cluster node about the topology
_CANCELLED_AGAIN_S: Final = 0.25
_Told = TypeVar("_Told")


def control(place: Place, host: str, port: int, *, sentinel: bool = False) -> dict[str, Any]:
    """Return redis-py's arguments for a connection to a node; a `retry` of none goes with them."""
    return {
        "host": host,
        "port": port,
        "username": place.sentinel_username if sentinel else place.username,
        "password": place.sentinel_password if sentinel else place.secret(),
        "socket_timeout": ASK_S,
        "socket_connect_timeout": ASK_S,
        "protocol": 2,
        **tls_arguments(place),
    }


def tls_arguments(place: Place) -> dict[str, Any]:
    if not place.tls:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": str(place.ca_file) if place.ca_file else None,
        "ssl_certfile": str(place.cert_file) if place.cert_file else None,
        "ssl_keyfile": str(place.key_file) if place.key_file else None,
        "ssl_check_hostname": place.check_hostname,
    }


async def apart(asking: Coroutine[Any, Any, _Told]) -> _Told:
    """Return what redis-py is told; a cancel ends it even where redis-py loses the first one.

    It sends by `asyncio.wait_for`, and before Python 3.12 that drops a cancel which comes as the sending is done.
    """
    task = asyncio.create_task(asking)
    try:
        await asyncio.wait((task,))
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCELLED_AGAIN_S)
    return task.result()
