"""The ports that a pod listens on: reached by either family of addresses, where the machine has both."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.registry import CollectorRegistry

from authz.edge.ops import OpsServer, Unbindable, every_address
from authz.edge.transport import GrpcServer

V4, V6 = "127.0.0.1", "[::1]"
WHO_REACHES = {
    "127.0.0.1:0": (V4,),
    "0.0.0.0:0": (V4,),
    "[::1]:0": (V6,),
    "[::]:0": (V4, V6),
}


@pytest.fixture
def both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")


@asynccontextmanager
async def listening(address: str) -> AsyncIterator[str]:
    """Yield the port, of the address that was taken."""
    server = OpsServer(CollectorRegistry(), lambda: ())
    try:
        yield (await server.start(address)).rpartition(":")[2]
    finally:
        await server.stop()


async def reached(host: str, port: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}/livez") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize(("address", "hosts"), WHO_REACHES.items())
@pytest.mark.usefixtures("both_families")
async def test_ops_port_is_reached_where_it_listens(address: str, hosts: tuple[str, ...]) -> None:
    async with listening(address) as port:
        assert tuple([host for host in (V4, V6) if await reached(host, port)]) == hosts


async def test_ops_port_for_both_families_is_there_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    async with listening("[::]:0") as port:
        assert await reached(V4, port)


async def test_taken_port_is_told() -> None:
    with every_address(0) as taken, pytest.raises(Unbindable, match="cannot listen on"):
        async with listening(f"[::]:{taken.getsockname()[1]}"):
            pass


@pytest.mark.usefixtures("both_families")
async def test_grpc_port_is_reached_by_both_families() -> None:
    async def check(data: bytes) -> bytes:
        return data

    server = GrpcServer(check)
    port = (await server.start("[::]:0", None)).rpartition(":")[2]
    try:
        for host in (V4, V6):
            async with aio.insecure_channel(f"{host}:{port}") as channel:
                stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)
                assert answer.status != health_pb2.HealthCheckResponse.UNKNOWN
    finally:
        await server.drain()
