"""The Redis that a person points the demonstration at: looked at before, and left as it was."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress
from typing import Final

from redis.exceptions import RedisError

from authz.demo.failure import Unusable
from authz.edge.store.control import open_control
from authz.edge.store.place import MEMORY, BadPlace, read_place

ANSWERS_WITHIN_S: Final = 5.0


async def require(url: str) -> None:
    """Find out whether the store is there.

    Raises:
        Unusable: it is not; the text says why, without the URL, which may hold a password.
    """
    if url == MEMORY:
        return
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            await asyncio.to_thread(_ask, url)
    except BadPlace as bad:
        raise Unusable(f"--redis: {bad}") from None
    except TimeoutError:
        raise Unusable("--redis: no answer") from None
    except (RedisError, OSError) as failed:
        raise Unusable(f"--redis: {type(failed).__name__}: is a Redis there, and the URL right?") from None


def _ask(url: str) -> None:
    with closing(open_control(read_place(url))) as redis:
        redis.get("clientpolicy")


async def forget(url: str, prefix: str) -> None:
    """Delete what authz has counted under our own prefix; a Redis that is gone by now has nothing to delete."""
    if url == MEMORY:
        return
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            await asyncio.to_thread(_forget, url, prefix)


def _forget(url: str, prefix: str) -> None:
    with closing(open_control(read_place(url))) as redis:
        for key in redis.scan_iter(match=f"{prefix}*"):
            redis.delete(key)
