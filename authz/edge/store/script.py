"""What the Lua script is sent and what it answers, in bytes: one plan a client, made once and used for every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b, sha1
from importlib.resources import files
from struct import Struct
from typing import Final, NamedTuple

from redis.crc import key_slot

from authz.core.debts import Account
from authz.core.quota import Admission, Held, Mark, State, repay
from authz.policy.limits import CALENDAR_CODES, TAG_BYTES, Limit, RateLimit

NodeKey = Callable[[str], bytes]  # a subject → the key under which it is kept
SOURCE: Final = files("authz.edge.store").joinpath("spend.lua").read_bytes()
NONCE: Final = Struct(">Q")
_SHA: Final = sha1(SOURCE, usedforsecurity=False).hexdigest().encode()
_ASKED: Final = Struct(">II")
_LIMIT: Final = Struct(f">{TAG_BYTES}sBQQI")
_STORED: Final = Struct(f">{TAG_BYTES}sQIQI")
_HEAD: Final = Struct(">QQ")
_DEBIT: Final = Struct(">I")
_DEBITED: Final = 64
_SHADOW: Final = 128


class Garbled(Exception):  # noqa: N818 a property of the reply
    """A reply that is not the one to the call that was sent."""


class Plan:
    """How one key is asked: everything about it that is the same in each call."""

    __slots__ = ("_terms", "account", "answer", "argument", "key", "limits", "slot", "told", "told_s")

    def __init__(self, key: bytes, limits: tuple[Limit, ...]) -> None:
        self.key = bulk(key)
        self.slot: int = key_slot(key)
        self.limits = limits
        self.answer = _answer(len(limits))
        self._terms = b"".join(_terms(limit) for limit in limits)
        self.argument = self.asked(1, 1, ())
        self.account: Account | None = None  # of calls that were admitted without the store, if there are any
        self.told: bytes | None = None  # of the last reply, what `read_told` reads; and when it came
        self.told_s = 0.0

    def asked(self, want: int, cost: int, debits: tuple[int, ...]) -> bytes:
        terms = b"".join(map(_terms, self.limits, debits)) if debits else self._terms
        return bulk(_ASKED.pack(want, cost) + terms)


class Asked(NamedTuple):
    plan: Plan
    want: int
    cost: int
    debits: tuple[int, ...] = ()  # calls by limit, or none at all


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
    parts += [plan.key for plan, _, _, _ in asked]
    parts.append(bulk(first))
    parts += [
        plan.argument if want == cost == 1 and not debits else plan.asked(want, cost, debits)
        for plan, want, cost, debits in asked
    ]
    return b"".join(parts)


def read_told(plan: Plan) -> Admission | None:
    """Return what the store told last of a key, once."""
    told, plan.told = plan.told, None
    return None if told is None else Admission(0, *_admitted(plan, told, 0))


def _admitted(plan: Plan, reply: bytes, offset: int) -> tuple[int, tuple[Held, ...]]:
    admitted, *numbers = plan.answer.unpack_from(reply, offset)
    return admitted, tuple(map(Held._make, zip(numbers[::2], numbers[1::2], strict=True)))


def decode(nonce: int, asked: Sequence[Asked], reply: object) -> list[Admission]:
    """Return what each key admitted, and leave with each plan what it was told.

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
    for plan, _, cost, debits in asked:
        admitted, held = _admitted(plan, reply, offset)
        end = offset + plan.answer.size
        # What is told is before a debit, or of calls of another cost: those are not kept in this form.
        plan.told = reply[offset:end] if cost == 1 and not debits else None
        offset = end
        admissions.append(Admission(now_us, admitted, *repay(plan.limits, held, debits)))
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


def _terms(limit: Limit, debit: int = 0) -> bytes:
    kind, count = (0, limit.count) if isinstance(limit, RateLimit) else (CALENDAR_CODES[limit.calendar], 0)
    kind += (0 if limit.enforced else _SHADOW) + (_DEBITED if debit else 0)
    terms = _LIMIT.pack(limit.tag, kind, limit.unit, limit.full, count)
    return terms + _DEBIT.pack(debit) if debit else terms
