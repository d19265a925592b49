"""The gRPC port: connections that have lived long enough are asked to end, and no call of theirs is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpc import aio

from authz.edge.transport import SERVICE, GrpcServer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and empty SETTINGS, RFC 9113 section 3.4
GOAWAY = 7


@asynccontextmanager
async def serving(max_connection_age_us: int | None) -> AsyncIterator[int]:
    async def check(data: bytes) -> bytes:
        await asyncio.sleep(0.01)
        return data

    server = GrpcServer(check, max_connection_age_us=max_connection_age_us)
    try:
        yield int((await server.start("127.0.0.1:0", None)).rpartition(":")[2])
    finally:
        await server.drain()


async def is_told_to_go(port: int, within_s: float) -> bool:
    """Return whether the server sends GOAWAY to a connection on which nothing is asked."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE)
    try:
        async with asyncio.timeout(within_s):
            while True:
                header = await reader.readexactly(9)
                if header[3] == GOAWAY:
                    return True
                await reader.readexactly(int.from_bytes(header[:3]))
    except TimeoutError:
        return False
    finally:
        writer.close()


@pytest.mark.parametrize(("age_us", "goes"), [(300_000, True), (None, False), (3_600_000_000, False)])
async def test_connection_is_told_to_go_at_its_age(age_us: int | None, *, goes: bool) -> None:
    async with serving(age_us) as port:
        assert await is_told_to_go(port, 10 if goes else 1) is goes


async def test_no_call_is_lost_while_connections_end() -> None:
    async with serving(200_000) as port, aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Check")
        for number in range(60):
            sent = [b"%d.%d" % (number, place) for place in range(20)]
            assert await asyncio.gather(*(call(one, timeout=20) for one in sent)) == sent
