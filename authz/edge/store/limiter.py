"""The store as a decision uses it: what becomes of a limit while its store does not answer is the policy's word."""

from __future__ import annotations

from authz.core.quota import Exceeded, Unknown, Within, share
from authz.edge.store import Store
from authz.edge.store.memory import MemoryStore
from authz.policy.limits import Limit, OnStoreFailure


class Limiter:
    """Asks the store; when that does not answer, `Closed` refuses, `Local` counts here, `Open` lets pass."""

    def __init__(self, store: Store, *, replicas: int = 1) -> None:
        self._store = store
        self._local = MemoryStore()
        self._replicas = replicas
        self.closed = 0
        self.local = 0
        self.open = 0

    def known(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Exceeded | None:
        return self._store.known(key, limits, now_us=now_us)

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Within | Exceeded | Unknown:
        outcome = await self._store.spend(key, limits, now_us=now_us)
        return self._without_store(outcome, key, limits, now_us) if isinstance(outcome, Unknown) else outcome

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


def open_store(url: str, *, prefix: str, hash_key: bytes) -> Store:
    """Return the store that a URL names.

    Raises:
        ValueError: which schemes there are.
    """
    if url == "memory://":
        return MemoryStore()
    from authz.edge.store.redis import RedisStore  # noqa: PLC0415 a memory store needs no Redis client

    return RedisStore(url, prefix=prefix, hash_key=hash_key)
