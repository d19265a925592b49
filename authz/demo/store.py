"""The Redis that a person points the demonstration at: looked at before, and left as it was."""

from __future__ import annotations

import asyncio
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from authz.demo.failure import Unusable

MEMORY: Final = "memory://"
ANSWERS_WITHIN_S: Final = 3.0


async def require(url: str) -> None:
    """Find out whether the store is there.

    Raises:
        Unusable: it is not; the text says why, without the URL, which may hold a password.
    """
    if url == MEMORY:
        return
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S), Redis.from_url(url) as redis:
            await redis.ping()
    except TimeoutError:
        raise Unusable("--redis: no answer") from None
    except (RedisError, OSError, ValueError) as failed:
        raise Unusable(f"--redis: {type(failed).__name__}: is a Redis there, and the URL right?") from None


async def forget(url: str, prefix: str) -> None:
    """Delete what authz has counted under our own prefix; a Redis that is gone by now has nothing to delete."""
    if url == MEMORY:
        return
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S), Redis.from_url(url) as redis:
            async for key in redis.scan_iter(match=f"{prefix}*"):
                await redis.delete(key)
    except (RedisError, OSError, TimeoutError):
        return
