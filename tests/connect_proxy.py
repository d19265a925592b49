"""A forward proxy that knows CONNECT alone, and where on this machine the names are that it is asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus


@dataclass
class ConnectProxy:
    ports: dict[str, int]  # HOST:PORT → a port of this machine
    status: HTTPStatus = HTTPStatus.OK
    asked: list[tuple[str, str]] = field(default_factory=list)  # HOST:PORT, Proxy-Authorization
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split(" ", 2)
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
            sent = [
                line.split(": ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("proxy-authorization:")
            ]
            assert method == "CONNECT"
            assert headers["host"]
            self.asked.append((target, sent[0] if sent else ""))
            status = self.status if target in self.ports else HTTPStatus.BAD_GATEWAY
            writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n\r\n".encode())
            if status is HTTPStatus.OK:
                await self._relay(reader, writer, self.ports[target])
        writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        upstream, onward = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, onward))
            both.create_task(_pump(upstream, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(ports: dict[str, int], tls: ssl.SSLContext | None = None) -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy(ports)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
