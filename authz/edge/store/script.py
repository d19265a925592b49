"""What the Lua script is sent and what it answers, in bytes: one plan a client, made once and used for every call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b, sha1
from importlib.resources import files
from struct import Struct
from typing import Final, NamedTuple

from redis.crc import key_slot

from authz.core.quota import Admission, Held, Mark, State
from authz.policy.limits import CALENDAR_CODES, TAG_BYTES, Limit, RateLimit

SOURCE: Final = files("authz.edge.store").joinpath("spend.lua").read_bytes()
NONCE: Final = Struct(">Q")
_SHA: Final = sha1(SOURCE, usedforsecurity=False).hexdigest().encode()
_ASKED: Final = Struct(">II")
_LIMIT: Final = Struct(f">{TAG_BYTES}sBQQI")
_STORED: Final = Struct(f">{TAG_BYTES}sQIQI")
_HEAD: Final = Struct(">QQ")
_SHADOW: Final = 128


class Garbled(Exception):  # noqa: N818 a property of the reply
    """A reply that is not the one to the call that was sent."""


class Plan:
    """How one key is asked: everything about it that is the same in each call."""

    __slots__ = ("_terms", "answer", "argument", "key", "limits", "slot")

    def __init__(self, key: bytes, limits: tuple[Limit, ...]) -> None:
        self.key = bulk(key)
        self.slot: int = key_slot(key)
        self.limits = limits
        self.answer = _answer(len(limits))
        self._terms = b"".join(_terms(limit) for limit in limits)
        self.argument = self.asked(1, 1)

    def asked(self, want: int, cost: int) -> bytes:
        return bulk(_ASKED.pack(want, cost) + self._terms)


class Asked(NamedTuple):
    plan: Plan
    want: int
    cost: int


def redis_key(prefix: str, hash_key: bytes, subject: str) -> bytes:
    """Return the key of a client or an address: of one length, and it tells nobody whose it is."""
    digest = blake2b(subject.encode(), digest_size=16, key=hash_key).hexdigest()
    return f"{prefix}rl:2:{{{digest}}}".encode()


def command(*words: bytes) -> bytes:
    """Return a command in RESP."""
    return b"*%d\r\n%b" % (len(words), b"".join(map(bulk, words)))


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def encode(nonce: int, asked: Sequence[Asked], now_us: int | None = None) -> bytes:
    """Return one script call for all of these keys; `now_us` replaces Redis's clock in tests."""
    first = NONCE.pack(nonce) if now_us is None else _HEAD.pack(nonce, now_us)
    parts = [_evalsha(len(asked))]
    parts += [plan.key for plan, _, _ in asked]
    parts.append(bulk(first))
    parts += [plan.argument if want == cost == 1 else plan.asked(want, cost) for plan, want, cost in asked]
    return b"".join(parts)


def decode(nonce: int, asked: Sequence[Asked], reply: object) -> list[Admission]:
    """Return what each key admitted.

    Raises:
        Garbled: this is not the reply to that call.
    """
    size = _HEAD.size + sum([one.plan.answer.size for one in asked])
    if not isinstance(reply, bytes) or len(reply) != size:
        raise Garbled
    got, now_us = _HEAD.unpack_from(reply)
    if got != nonce:
        raise Garbled
    admissions = []
    offset = _HEAD.size
    for plan, _, _ in asked:
        admitted, *numbers = plan.answer.unpack_from(reply, offset)
        offset += plan.answer.size
        held = tuple(map(Held._make, zip(numbers[::2], numbers[1::2], strict=True)))
        admissions.append(Admission(now_us, admitted, held))
    return admissions


def read_state(raw: bytes) -> State:
    """Return the state that Redis holds of a client; empty if it is not one of ours."""
    if len(raw) % _STORED.size:
        return {}
    return {tag: Mark(at_us, amount, (unit, count)) for tag, at_us, amount, unit, count in _STORED.iter_unpack(raw)}


@cache
def _evalsha(keys: int) -> bytes:
    return b"*%d\r\n%b%b%b" % (2 * keys + 4, bulk(b"EVALSHA"), bulk(_SHA), bulk(b"%d" % keys))


@cache
def _answer(limits: int) -> Struct:
    return Struct(">I" + "QQ" * limits)


def _terms(limit: Limit) -> bytes:
    kind, count = (0, limit.count) if isinstance(limit, RateLimit) else (CALENDAR_CODES[limit.calendar], 0)
    return _LIMIT.pack(limit.tag, kind if limit.enforced else kind + _SHADOW, limit.unit, limit.full, count)
