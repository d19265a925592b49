"""The ledger in the cluster: what was written last is what is known, whatever arrives late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from clientpolicy_operator.api import Api, Conflict
from clientpolicy_operator.book import PREFIX, Book
from clientpolicy_operator.facts import Document, Entry
from clientpolicy_operator.ledger import shard_of
from clientpolicy_operator.told import map_of
from one_policy import START

UID = "uid-1"
SHARD = f"{PREFIX}{shard_of(UID):02x}"


def entry(revision: int) -> Entry:
    return Entry(
        revision=revision, sha256=f"{revision:064x}", serial=f"{revision:x}", not_before=START,
        not_after=START + timedelta(days=30), ca_sha256="c" * 64, recorded=START, namespace="default",
    )  # fmt: skip


class Cluster(Api):
    """ConfigMaps in memory, by compare-and-swap; `late` holds back what is read until it is set."""

    def __init__(self) -> None:
        super().__init__(lambda: pytest.fail("no cluster"))
        self.objects: dict[str, Document] = {}
        self.version = 0
        self.late: asyncio.Event | None = None

    async def pages(self, path: str, **query: str) -> AsyncIterator[list[Document]]:
        assert path.endswith("/configmaps")
        assert query["labelSelector"]
        page = list(self.objects.values())
        if self.late is not None:
            await self.late.wait()
        yield page

    async def get(self, path: str, **query: str) -> Document | None:
        assert not query
        return self.objects.get(path.rpartition("/")[2])

    async def create(self, path: str, body: Document) -> Document:
        assert path.endswith("/configmaps")
        name = str(map_of(body["metadata"])["name"])
        if name in self.objects:
            raise Conflict(name)
        return self._keep(name, body)

    async def replace(self, path: str, body: Document) -> Document:
        name = path.rpartition("/")[2]
        version = map_of(map_of(self.objects.get(name)).get("metadata")).get("resourceVersion")
        if map_of(body["metadata"])["resourceVersion"] != version:
            raise Conflict(name)
        return self._keep(name, body)

    def _keep(self, name: str, body: Document) -> Document:
        self.version += 1
        metadata = {**map_of(body["metadata"]), "resourceVersion": str(self.version)}
        self.objects[name] = {**body, "metadata": metadata}
        return self.objects[name]


def revisions(book: Book) -> list[int]:
    return [one.revision for one in book.entries(UID)]


@pytest.mark.parametrize("known", [[], [1]], ids=["the shard was not there", "the shard was there"])
async def test_what_was_read_before_a_write_and_arrives_after_it_changes_nothing(known: list[int]) -> None:
    cluster = Cluster()
    book = Book(cluster, "system")
    for revision in known:
        await book.record(UID, entry(revision))
    cluster.late = asyncio.Event()
    reading = asyncio.create_task(book.open())
    await asyncio.sleep(0)
    await book.record(UID, entry(2))
    cluster.late.set()
    await reading
    assert revisions(book) == [*known, 2]
    await book.record(UID, entry(3))
    assert revisions(book) == [*known, 2, 3]


async def test_what_another_replica_wrote_is_read() -> None:
    cluster = Cluster()
    book, other = Book(cluster, "system"), Book(cluster, "system")
    await book.record(UID, entry(1))
    await other.open()
    await other.record(UID, entry(2))
    await book.open()
    assert revisions(book) == [1, 2]


async def test_deleted_shard_that_was_read_as_gone_is_gone() -> None:
    cluster = Cluster()
    book = Book(cluster, "system")
    await book.record(UID, entry(1))
    cluster.objects.clear()
    await book.open()
    assert revisions(book) == []


async def test_ledger_of_an_older_backup_of_the_cluster_is_taken_once_a_write_shows_it() -> None:
    """Versions went back (etcd was restored): what the write met is what there is."""
    cluster = Cluster()
    book = Book(cluster, "system")
    cluster.version = 1000
    await book.record(UID, entry(1))
    older = cluster.objects[SHARD]
    await book.record(UID, entry(2))
    cluster.version = 10
    cluster.objects[SHARD] = {**older, "metadata": {**map_of(older["metadata"]), "resourceVersion": "9"}}
    await book.record(UID, entry(3))
    assert revisions(book) == [1, 3]


async def test_object_that_was_seen_to_go_is_noted_and_known_after_a_restart() -> None:
    cluster = Cluster()
    book = Book(cluster, "system")
    await book.record(UID, entry(1))
    await book.record("uid-2", entry(1))
    book.saw_go(UID)
    book.saw_go("never signed for")
    assert (book.is_gone(UID), book.is_gone("uid-2"), book.is_gone("never signed for")) == (True, False, False)
    await book.note_gone()
    version = cluster.version
    await book.note_gone()
    assert cluster.version == version, "it is written once"
    after = Book(cluster, "system")
    await after.open()
    assert (after.is_gone(UID), after.is_gone("uid-2")) == (True, False)
    assert [one.revision for one in after.entries(UID)] == [1]


async def test_object_that_went_while_another_replica_wrote_is_noted_the_next_time() -> None:
    cluster = Cluster()
    book, other = Book(cluster, "system"), Book(cluster, "system")
    await book.record(UID, entry(1))
    await other.open()
    await other.record(UID, entry(2))
    book.saw_go(UID)
    await book.note_gone()
    assert book.is_gone(UID)
    await book.note_gone()
    await other.open()
    assert other.is_gone(UID)
    assert [one.is_gone for one in other.entries(UID)] == [True, True]


async def test_revision_that_another_replica_took_is_refused() -> None:
    cluster = Cluster()
    book, other = Book(cluster, "system"), Book(cluster, "system")
    await other.record(UID, entry(1))
    with pytest.raises(Conflict):
        await book.record(UID, entry(1))
    assert revisions(book) == [1]


async def test_late_reading_of_a_sweep_loses_no_row_that_is_written_meanwhile() -> None:
    cluster = Cluster()
    book = Book(cluster, "system")
    await book.record(UID, entry(1))
    await asyncio.gather(book.sweep({UID}), book.record(UID, entry(2)))
    assert revisions(book) == [1, 2]
