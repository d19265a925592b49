"""Where quotas are kept: one seam, a store in memory and one in Redis behind it."""

from __future__ import annotations

from typing import Protocol

from authz.core.quota import Exceeded, Unknown, Within
from authz.policy.limits import Limit


class Store(Protocol):
    """Charges all of a key's limits or none; instants in µs since the epoch."""

    async def spend(
        self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1
    ) -> Within | Exceeded | Unknown:
        """Return the outcome; Unknown where the store does not answer, never an exception."""

    async def open(self) -> None:
        """Begin what it does in the background; never an exception, whatever the store's health."""

    async def close(self) -> None: ...
