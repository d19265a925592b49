"""A proxy in front of a real Redis that does to the bytes what networks do to them."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass
class Faults:
    """What happens to chunks of one direction; changed while the proxy runs, for what comes then."""

    delay_s: float = 0.0
    drop: bool = False
    cut_after: int | None = None  # bytes that still pass, then the connection is reset
    split: bool = False  # one byte at a time
    repeat: bool = False  # each chunk twice
    half_close: bool = False  # after the next chunk, no more of this direction
    passed: int = 0


@dataclass(eq=False)
class _Pair:
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        for writer in self.writers:
            sock: socket.socket | None = writer.transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0 and not writer.transport.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
            writer.transport.abort()


class FaultProxy:
    """`requests` is what goes to Redis, `replies` what comes from it."""

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self.target_host = target_host
        self.target_port = target_port
        self.port = 0
        self.requests = Faults()
        self.replies = Faults()
        self.refuse = False  # new connections are closed at once
        self.connections = 0
        self._pairs: set[_Pair] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for pair in self._pairs:
            for task in pair.tasks:
                task.cancel()
        self.cut()
        while self._handlers:
            await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    def heal(self) -> None:
        self.requests, self.replies, self.refuse = Faults(), Faults(), False

    def cut(self) -> None:
        """Reset every connection now."""
        for pair in list(self._pairs):
            pair.abort()

    def shut(self) -> None:
        """Reset every connection now, and every new one."""
        self.refuse = True
        self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        pair = _Pair(writers=[writer])
        self._pairs.add(pair)
        try:
            await self._join(reader, writer, pair)
        finally:
            pair.abort()
            self._pairs.discard(pair)
            self._handlers.discard(handler)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair) -> None:
        self.connections += 1
        if self.refuse:
            return
        try:
            upstream, onward = await asyncio.open_connection(self.target_host, self.target_port)
        except OSError:
            return
        pair.writers.append(onward)
        if writer.transport.is_closing():  # cut meanwhile
            return
        pair.tasks = [
            asyncio.create_task(self._pump(reader, onward, pair, "requests")),
            asyncio.create_task(self._pump(upstream, writer, pair, "replies")),
        ]
        await asyncio.gather(*pair.tasks, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair, direction: str
    ) -> None:
        try:
            while chunk := await reader.read(65_536):
                faults: Faults = getattr(self, direction)
                if faults.delay_s:
                    await asyncio.sleep(faults.delay_s)
                if faults.drop:
                    continue
                if faults.cut_after is not None:
                    chunk, whole = chunk[: faults.cut_after], len(chunk)
                    faults.cut_after -= len(chunk)
                    if len(chunk) < whole or not faults.cut_after:
                        writer.write(chunk)
                        await asyncio.sleep(0.005)
                        pair.abort()
                        return
                await self._pass(writer, chunk, faults)
                if faults.half_close:
                    writer.write_eof()
                    return
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            pair.abort()

    async def _pass(self, writer: asyncio.StreamWriter, chunk: bytes, faults: Faults) -> None:
        faults.passed += len(chunk)
        for _ in range(2 if faults.repeat else 1):
            if not faults.split:
                writer.write(chunk)
                continue
            for byte in chunk:
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
        await writer.drain()
