"""The ledger in the cluster: ConfigMaps written by compare-and-swap, many signings in one write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from clientpolicy_operator import clock, ledger
from clientpolicy_operator.api import Api, Conflict, NotFound, Refused, core_path
from clientpolicy_operator.facts import Document, Entry
from clientpolicy_operator.told import is_newer, map_of

logger = logging.getLogger(__name__)

PREFIX: Final = "clientpolicy-ledger-"
LABELS: Final = {"app.kubernetes.io/managed-by": "clientpolicy", "app.kubernetes.io/component": "ledger"}
Live = Callable[[], set[str] | None]
_ATTEMPTS: Final = 8


@dataclass(slots=True)
class _Shard:
    name: str
    object: Document | None = None  # as last read or written; its data left out
    rows: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    pending: list[tuple[str, Entry, asyncio.Future[None]]] = field(default_factory=list)
    writer: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return bool(self.pending) or (self.writer is not None and not self.writer.done())

    def take(self, found: Document | None) -> None:
        self.object, self.rows, self.unreadable = None, {}, {}
        if found is None:
            return
        self.object = {name: value for name, value in found.items() if name != "data"}
        for uid, text in map_of(found.get("data")).items():
            try:
                self.rows[uid] = ledger.decode(str(text))
            except ValueError:
                self.unreadable[uid] = str(text)
                logger.error(  # noqa: TRY400 where it was raised says nothing
                    "a row of the ledger cannot be read", extra={"configmap": self.name, "key": uid}
                )

    def learn(self, found: Document | None, before: Document | None) -> None:
        """Take in an answer that was asked for when the shard was `before`; what was written since may be newer."""
        if self.object is before or (found is not None and is_newer(_version(found), _version(self.object or {}))):
            self.take(found)

    def data(self, rows: dict[str, tuple[Entry, ...]], live: Live) -> dict[str, str]:
        fitting = ledger.fit(rows, live, clock.now())
        if len(fitting) < len(rows):
            lost = len(rows) - len(fitting)
            logger.warning(
                "the ledger was full: gone policies were left out", extra={"configmap": self.name, "count": lost}
            )
        return self.unreadable | fitting


class Book:
    """All that was signed, by the UID of the object that it was signed for."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._shards = [_Shard(f"{PREFIX}{number:02x}") for number in range(ledger.SHARDS)]
        self.live: Live = lambda: None  # UIDs of the objects that are there, if that is known
        self._gone: set[str] = set()  # UIDs that were seen to go; written down soon

    async def open(self) -> None:
        """Read all of it anew."""
        before = [shard.object for shard in self._shards]
        found: dict[str, Document] = {}
        selector = ",".join(f"{name}={value}" for name, value in LABELS.items())
        async for page in self._api.pages(core_path(self._namespace, "configmaps"), labelSelector=selector):
            found |= {str(map_of(one.get("metadata")).get("name")): one for one in page}
        for shard, old in zip(self._shards, before, strict=True):
            shard.learn(found.get(shard.name), old)

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        for shard in self._shards:
            for uid, entries in shard.rows.items():
                for entry in entries:
                    yield uid, entry

    @property
    def has_unreadable(self) -> bool:
        return any(shard.unreadable for shard in self._shards)

    def entries(self, uid: str) -> tuple[Entry, ...]:
        return self._shard(uid).rows.get(uid, ())

    def _shard(self, uid: str) -> _Shard:
        return self._shards[ledger.shard_of(uid)]

    async def record(self, uid: str, entry: Entry) -> None:
        """Return once the signing is in the ledger.

        Raises:
            Conflict: that revision has been signed already.
            Refused: what is there for this UID cannot be read, and is not overwritten.
            ApiError: as the API server answered.
        """
        shard = self._shard(uid)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        shard.pending.append((uid, entry, done))
        if shard.writer is None or shard.writer.done():
            shard.writer = asyncio.create_task(self._drain(shard))
        await done

    async def _drain(self, shard: _Shard) -> None:
        while shard.pending:
            batch, shard.pending = shard.pending, []
            try:
                await self._write(shard, batch)
            except Exception as failed:  # noqa: BLE001 whoever waits is told, whatever it is
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(failed)

    async def _write(self, shard: _Shard, batch: list[tuple[str, Entry, asyncio.Future[None]]]) -> None:
        for _ in range(_ATTEMPTS):
            rows = dict(shard.rows)
            added = [done for uid, entry, done in batch if not done.done() and _add(shard, rows, uid, entry, done)]
            if not added:
                return
            try:
                written = await self._put(shard, rows)
            except Conflict:  # another replica wrote this shard
                shard.take(await self._api.get(core_path(self._namespace, "configmaps", shard.name)))
                continue
            except NotFound:  # somebody deleted it: what we know of it is written again
                logger.error("the ledger was deleted; it is written again", extra={"configmap": shard.name})  # noqa: TRY400
                shard.object = None
                continue
            shard.take(written)
            for done in added:
                if not done.done():
                    done.set_result(None)
            return
        raise Conflict(f"{shard.name}: changed by others {_ATTEMPTS} times in a row")

    async def _put(self, shard: _Shard, rows: dict[str, tuple[Entry, ...]]) -> Document:
        data = shard.data(rows, self.live)
        if shard.object is None:
            body: dict[str, Any] = {"metadata": {"name": shard.name, "labels": LABELS}, "data": data}
            return await self._api.create(core_path(self._namespace, "configmaps"), body)
        path = core_path(self._namespace, "configmaps", shard.name)
        return await self._api.replace(path, {**shard.object, "data": data})

    def saw_go(self, uid: str) -> None:
        """Remember that an object went: nobody of its name inherits from it."""
        if self.entries(uid):
            self._gone.add(uid)

    def is_gone(self, uid: str) -> bool:
        return uid in self._gone or any(entry.is_gone for entry in self.entries(uid))

    async def note_gone(self) -> None:
        """Write down which objects were seen to go."""
        for shard in self._shards:
            gone = self._gone & shard.rows.keys()
            if gone and not shard.is_busy:
                marked = {uid: tuple(replace(one, is_gone=True) for one in shard.rows[uid]) for uid in gone}
                await self._rewrite(shard, shard.rows | marked)
        self._gone = {uid for uid in self._gone if not all(entry.is_gone for entry in self.entries(uid))}

    async def _rewrite(self, shard: _Shard, rows: dict[str, tuple[Entry, ...]]) -> None:
        before = shard.object
        try:
            shard.learn(await self._put(shard, rows), before)
        except NotFound:
            shard.object = None
        except Conflict:
            shard.learn(await self._api.get(core_path(self._namespace, "configmaps", shard.name)), before)

    async def sweep(self, live: set[str]) -> None:
        """Drop the rows of objects that are gone, once nothing of theirs is valid any more."""
        for shard in self._shards:
            over = clock.now() - ledger.KEPT_AFTER_END
            gone = {
                uid
                for uid, entries in shard.rows.items()
                if uid not in live and all(entry.not_after < over for entry in entries)
            }
            if gone and not shard.is_busy:
                await self._rewrite(shard, {uid: rows for uid, rows in shard.rows.items() if uid not in gone})


def _version(found: Document) -> str:
    return str(map_of(found.get("metadata")).get("resourceVersion", ""))


def _add(shard: _Shard, rows: dict[str, tuple[Entry, ...]], uid: str, entry: Entry, done: asyncio.Future[None]) -> bool:
    if uid in shard.unreadable:
        done.set_exception(Refused(f"ConfigMap {shard.name}, key {uid}: cannot be read; repair it, or delete the key"))
        return False
    added = ledger.add(rows.get(uid, ()), entry, clock.now())
    if added is None:
        done.set_exception(Conflict(f"revision {entry.revision} has been signed already"))
        return False
    rows[uid] = added
    return True
