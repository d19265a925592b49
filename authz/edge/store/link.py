"""One connection to one Redis: commands out, replies in, each to the call that it answers.

redis-py costs some 100 µs of CPU a call and 30 µs pipelined, this protocol 6 to 8 (`make bench-quota`), so decisions
take this path; redis-py finds the nodes and serves the command line.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

import hiredis

from authz.edge.store.place import Place
from authz.edge.store.script import command

Receive = Callable[[object], None]  # a reply: bytes, int, None, hiredis.ReplyError, or Lost
_NAME: Final = (b"CLIENT", b"SETNAME", b"clientpolicy")


class Lost(Exception):  # noqa: N818 a state of the connection
    """The connection ended before the reply."""


class Refusal(Exception):  # noqa: N818 it is what Redis says
    """Redis answered a command of the handshake with an error."""


class Link(asyncio.Protocol):
    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._expected: deque[Receive] = deque()
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes, receive: Receive) -> None:
        """Send one command; `receive` gets its reply, or Lost, exactly once."""
        if self._transport is None or self.lost.done():
            receive(Lost())
            return
        self._expected.append(receive)
        self._transport.write(data)

    async def call(self, *words: bytes) -> object:
        """Return the reply to a command.

        Raises:
            Refusal: Redis says no.
            Lost: no reply will come.
        """
        return await self.ask(command(*words))

    async def ask(self, data: bytes) -> object:
        replied: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def receive(reply: object) -> None:
            if not replied.done():
                replied.set_result(reply)

        self.send(data, receive)
        reply = await replied
        if isinstance(reply, Lost):
            raise reply
        if isinstance(reply, hiredis.ReplyError):
            raise Refusal(str(reply))
        return reply

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if not self._expected:
                    self.close("a reply that nobody asked for")
                    return
                self._expected.popleft()(reply)
        except hiredis.ProtocolError:
            self.close("not the protocol of Redis")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(type(error).__name__ if error is not None else "closed by Redis")

    def close(self, why: str) -> None:
        """End it now; whoever still waits gets Lost."""
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    def _end(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        while self._expected:
            self._expected.popleft()(Lost())


async def open_link(place: Place, host: str, port: int) -> Link:
    """Return a connection that is authenticated and in its database.

    Raises:
        OSError, Refusal, Lost: what kept it from that.
    """
    loop = asyncio.get_running_loop()
    if place.path is not None:
        _, link = await loop.create_unix_connection(Link, place.path)
    else:
        tls = place.tls_context()
        name = host if tls is not None else None
        _, link = await loop.create_connection(Link, host, port, ssl=tls, server_hostname=name)
    try:
        password = place.secret()
        if password is not None:
            words = (place.username, password) if place.username else (password,)
            await link.call(b"AUTH", *(word.encode() for word in words))
        if place.database:
            await link.call(b"SELECT", b"%d" % place.database)
        with suppress(Refusal):  # an ACL need not allow it
            await link.call(*_NAME)
    except BaseException:
        link.close("handshake")
        raise
    return link
