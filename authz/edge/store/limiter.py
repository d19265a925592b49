"""The store as a decision uses it: what becomes of a limit while its store does not answer is the policy's word."""

from __future__ import annotations

from typing import Final, NamedTuple

from authz.core.quota import Exceeded, Level, Unknown, Within, share
from authz.edge.cache import Bounded
from authz.edge.store import Store
from authz.edge.store.memory import MemoryStore
from authz.policy.limits import Limit, OnStoreFailure

DENIED_MAX: Final = 50_000


class _Denied(NamedTuple):
    """Until when a key is certainly refused, and why."""

    limits: tuple[Limit, ...]
    since_us: int
    until_us: int
    exceeded: Exceeded


class Limiter:
    """Asks the store; when that does not answer, `Closed` refuses, `Local` counts here, `Open` lets pass.

    It also remembers who certainly has nothing left. Without a refund or an edit of the limits the earliest pass never
    moves forward, so that is exact, and a flood costs neither the store nor cryptography.
    """

    def __init__(self, store: Store, *, replicas: int = 1) -> None:
        self._store = store
        self._local = MemoryStore()
        self._replicas = replicas
        self._denied: Bounded[str, _Denied] = Bounded(DENIED_MAX)
        self.closed = 0
        self.local = 0
        self.open = 0

    def known(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Exceeded | None:
        """Return the refusal that `spend` would certainly answer, without any I/O; None if that is not known."""
        found = self._denied.peek(key)
        if found is None or found.limits != limits or not found.since_us <= now_us < found.until_us:
            return None
        return found.exceeded._replace(wait_us=found.until_us - now_us)

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Within | Exceeded | Unknown:
        outcome = await self._store.spend(key, limits, now_us=now_us)
        if isinstance(outcome, Unknown):
            return self._without_store(outcome, key, limits, now_us)
        self._remember(key, limits, now_us, outcome)
        return outcome

    def _remember(self, key: str, limits: tuple[Limit, ...], now_us: int, outcome: Within | Exceeded) -> None:
        if isinstance(outcome, Within):
            empty = [level for level in outcome.levels if not level.remaining]
            if not empty:
                return
            last = max(empty, key=_reset_us)
            outcome = Exceeded(last.name, last.reset_us, outcome.levels)
        # Anchored to the instant before the call was sent: earlier than the store decided, so never too late.
        self._denied.put(key, _Denied(limits, now_us, now_us + outcome.wait_us, outcome))

    def _without_store(
        self, unknown: Unknown, key: str, limits: tuple[Limit, ...], now_us: int
    ) -> Within | Exceeded | Unknown:
        if any(limit.on_store_failure is OnStoreFailure.CLOSED for limit in limits):
            self.closed += 1
            return unknown
        counted = tuple(limit for limit in limits if limit.on_store_failure is OnStoreFailure.LOCAL)
        if not counted:
            self.open += 1
            return Within(())
        self.local += 1
        return self._local.charge(key, share(counted, self._replicas), now_us=now_us)

    async def close(self) -> None:
        await self._store.close()


def _reset_us(level: Level) -> int:
    return level.reset_us


def open_store(url: str, *, prefix: str, hash_key: bytes) -> Store:
    """Return the store that a URL names.

    Raises:
        ValueError: which schemes there are.
    """
    if url == "memory://":
        return MemoryStore()
    from authz.edge.store.redis import RedisStore  # noqa: PLC0415 a memory store needs no Redis client

    return RedisStore(url, prefix=prefix, hash_key=hash_key)
