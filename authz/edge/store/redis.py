"""Quotas that all replicas share, in Redis: one key a client, one script a call, never a retry.

A consume that timed out may have happened, so it is not repeated: at worst a client is charged once too often, never
admitted once too often. NOSCRIPT alone is sent again, because it says that nothing ran.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b, sha1
from importlib.resources import files
from typing import Final, cast
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from authz.core.quota import Exceeded, Mark, Unknown, Within, level_of
from authz.policy.limits import Limit, RateLimit

SCHEMES: Final = ("redis", "rediss", "unix")
BUDGET_S: Final = 0.025  # of the 200 ms that Envoy waits for the whole decision
CONNECTIONS_MAX: Final = 64
_SCRIPT: Final = files("authz.edge.store").joinpath("spend.lua").read_bytes()
_SHA: Final = sha1(_SCRIPT, usedforsecurity=False).hexdigest()

Reply = tuple[int, int, int, list[int]]


class RedisStore:
    """Charges limits in one Redis; `hash_key` keeps client names out of its keys."""

    def __init__(self, url: str, *, prefix: str = "", hash_key: bytes = b"clientpolicy") -> None:
        if urlsplit(url).scheme not in SCHEMES:
            raise ValueError(f"expected a URL that begins with one of {', '.join(f'{one}://' for one in SCHEMES)}")
        self._redis = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS_MAX,
                timeout=None,  # the budget bounds the wait for a connection, too
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=1,
                protocol=2,
            )
        )
        self._prefix = prefix
        self._hash_key = hash_key
        self.unknown = 0  # calls without an answer in time: charged or not, nobody knows

    async def spend(
        self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1
    ) -> Within | Exceeded | Unknown:
        del now_us  # Redis has a clock of its own, the same for all replicas
        if not limits:
            return Within(())
        try:
            async with asyncio.timeout(BUDGET_S):
                return await self.charge(key, limits, cost)
        except TimeoutError:
            self.unknown += 1
            return Unknown("no answer in time")
        except (RedisError, OSError) as failed:
            self.unknown += 1
            return Unknown(type(failed).__name__)

    async def charge(
        self, key: str, limits: tuple[Limit, ...], cost: int = 1, now_us: int | None = None
    ) -> Within | Exceeded:
        """Run the script; `now_us` replaces Redis's clock in tests. Raises what redis-py raises."""
        arguments = [self.redis_key(key), cost, "" if now_us is None else now_us, *_arguments(limits)]
        try:
            reply = await self._redis.evalsha(_SHA, 1, *arguments)
        except NoScriptError:
            await self._redis.script_load(_SCRIPT)
            reply = await self._redis.evalsha(_SHA, 1, *arguments)
        return _outcome(cast(Reply, reply), limits)

    def redis_key(self, key: str) -> str:
        digest = blake2b(key.encode(), digest_size=16, key=self._hash_key).hexdigest()
        return f"{self._prefix}rl:1:{{{digest}}}"

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()


def _arguments(limits: tuple[Limit, ...]) -> list[str | int]:
    arguments: list[str | int] = []
    for limit in limits:
        if isinstance(limit, RateLimit):
            arguments += ("r", limit.name, limit.period_us, limit.count, limit.capacity)
        else:
            arguments += ("c", limit.name, limit.calendar.value, limit.requests, 0)
    return arguments


def _outcome(reply: Reply, limits: tuple[Limit, ...]) -> Within | Exceeded:
    wait_us, binding, now_us, numbers = reply
    levels = tuple(
        level_of(limit, Mark(numbers[2 * place], numbers[2 * place + 1]), now_us) for place, limit in enumerate(limits)
    )
    return Exceeded(limits[binding - 1].name, wait_us, levels) if wait_us else Within(levels)
