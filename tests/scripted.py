"""The store's script as a test calls it: on a real Redis, at any instant, without the engine around it."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self
from uuid import uuid4

import hiredis
from redis import Redis
from redis_server import RedisServer

from authz.core.quota import Admission, Exceeded, Within, outcome
from authz.edge.store.script import SOURCE, Asked, Plan, command, decode, encode, redis_key
from authz.policy.limits import Limit

NONCE = 7


class Scripted:
    """Keys of its own in a shared Redis."""

    def __init__(self, server: RedisServer, *, hash_key: bytes = b"test") -> None:
        self.prefix = f"{uuid4()}:"
        self._hash_key = hash_key
        self._reader = hiredis.Reader()
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.plain = Redis.from_url(server.url)
        self.exchange(command(b"SCRIPT", b"LOAD", SOURCE))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self.plain.close()

    def exchange(self, data: bytes) -> object:
        self._socket.sendall(data)
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65_536))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def key(self, subject: str) -> bytes:
        return redis_key(self.prefix, self._hash_key, subject)

    def admit_all(
        self, asks: list[tuple[str, tuple[Limit, ...], int, int]], now_us: int | None = None
    ) -> list[Admission]:
        """Return what one call admits; an ask is (subject, limits, want, cost)."""
        asked = [Asked(Plan(self.key(subject), limits), want, cost) for subject, limits, want, cost in asks]
        return decode(NONCE, asked, self.exchange(encode(NONCE, asked, now_us)))

    def admit(
        self,
        subject: str,
        limits: tuple[Limit, ...],
        *,
        want: int = 1,
        cost: int = 1,
        now_us: int | None = None,
        debits: tuple[int, ...] = (),
    ) -> Admission:
        asked = [Asked(Plan(self.key(subject), limits), want, cost, debits)]
        return decode(NONCE, asked, self.exchange(encode(NONCE, asked, now_us)))[0]

    def spend(
        self, subject: str, limits: tuple[Limit, ...], *, cost: int = 1, now_us: int | None = None
    ) -> Within | Exceeded:
        return outcome(self.admit(subject, limits, cost=cost, now_us=now_us), limits, 0, cost)

    def value(self, subject: str) -> bytes | None:
        found = self.plain.get(self.key(subject))
        assert found is None or isinstance(found, bytes)
        return found

    def life_ms(self, subject: str) -> int:
        found = self.plain.pttl(self.key(subject))
        assert isinstance(found, int)
        return found
