"""A Lease that one replica holds: it alone acts, the others watch. Correctness does not depend on it.

Source: coordination.k8s.io/v1; the rules are client-go's (`tools/leaderelection`): a holder counts as gone once its
record has not changed for its own duration, by our monotonic clock, whatever its times say.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, Final

from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, ApiError, Conflict
from clientpolicy_operator.facts import Document
from clientpolicy_operator.told import int_of, map_of

logger = logging.getLogger(__name__)

RENEWALS: Final = 3  # in the time that a Lease lasts


class Lease:
    def __init__(self, api: Api, *, namespace: str, name: str, identity: str, duration: timedelta) -> None:
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._name = name
        self._identity = identity
        self._duration_s = duration.total_seconds()
        self._seen: tuple[str, float] = ("", 0.0)  # the record's version, and since when it has not changed
        self._record: Document | None = None
        self.is_held = False
        self.trouble = ""  # why it was lost

    @property
    def _pause_s(self) -> float:
        return self._duration_s / RENEWALS

    async def acquire(self) -> None:
        """Return once it is ours."""
        told = ""
        while True:
            try:
                if await self._try():
                    self.is_held = True
                    return
                holder = str(map_of((self._record or {}).get("spec")).get("holderIdentity"))
                if holder != told:
                    logger.info("another replica leads", extra={"holder": holder})
                    told = holder
            except ApiError as failed:
                logger.warning("no Lease yet", extra={"error": str(failed)})
            await asyncio.sleep(self._pause_s * (0.5 + clock.share() / 2))

    async def keep(self) -> None:
        """Renew it; return when it is lost, early enough that nobody else can hold it yet."""
        renewed_s = clock.monotonic_s()
        while True:
            await asyncio.sleep(self._pause_s)
            try:
                async with asyncio.timeout(self._pause_s):
                    if not await self._try():
                        self._lose("another replica leads")
                        return
                renewed_s = clock.monotonic_s()
            except (ApiError, TimeoutError) as failed:
                last = str(failed) or "no answer"
                logger.warning("Lease not renewed", extra={"error": last})
                if clock.monotonic_s() - renewed_s + self._pause_s >= self._duration_s:
                    self._lose(f"it could not be renewed in time: {last}")
                    return

    def _lose(self, trouble: str) -> None:
        self.is_held, self.trouble = False, trouble

    async def release(self) -> None:
        """Give it up, so that another replica need not wait."""
        if not self.is_held or self._record is None:
            return
        self.is_held = False
        spec = {**map_of(self._record.get("spec")), "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._api.replace(self._path, {**self._record, "spec": spec})
        except ApiError as failed:
            logger.warning("Lease not released; it runs out", extra={"error": str(failed)})

    async def _try(self) -> bool:
        found = await self._api.get(self._path)
        now = clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration_s)),
            "renewTime": now,
        }
        if found is None:
            body: dict[str, Any] = {
                "metadata": {"name": self._name},
                "spec": ours | {"acquireTime": now, "leaseTransitions": 0},
            }
            self._record = await self._create(body)
            return self._record is not None
        self._record = found
        spec = map_of(found.get("spec"))
        holder = str(spec.get("holderIdentity") or "")
        if holder not in ("", self._identity) and not self._is_over(found, spec):
            return False
        changed = ours if holder == self._identity else ours | {"acquireTime": now, "leaseTransitions": _next(spec)}
        self._record = await self._api.replace(self._path, {**found, "spec": {**spec, **changed}})
        return True

    async def _create(self, body: Document) -> Document | None:
        try:
            return await self._api.create(self._collection, body)
        except Conflict:
            return None

    def _is_over(self, found: Document, spec: Document) -> bool:
        version = str(map_of(found.get("metadata")).get("resourceVersion"))
        now_s = clock.monotonic_s()
        if self._seen[0] != version:
            self._seen = version, now_s
        return now_s - self._seen[1] > max(1, int_of(spec.get("leaseDurationSeconds")))


def _next(spec: Document) -> int:
    return int_of(spec.get("leaseTransitions")) + 1
