"""The map of a Redis Cluster: whom to believe when nodes tell different ones, and nodes that do not say where they are."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Self
from uuid import uuid4

import hiredis
import pytest
from partner import NOW_US
from redis_places import ClusterPlace
from redis_server import PROGRAM, require

from authz.core.quota import Within
from authz.edge.store.place import read_place
from authz.edge.store.redis import RedisStore
from authz.edge.store.script import Plan
from authz.policy.limits import Calendar, calendar_limit

COUNTED = (calendar_limit(name="counted", requests=10**9, calendar=Calendar.MONTH),)
KEYS = [f"k{number}" for number in range(30)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterPlace]:
    require(PROGRAM)
    with ClusterPlace(tmp_path_factory.mktemp("cluster")) as place:
        yield place


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(read_place(url), prefix=f"{uuid4()}:", timeout_s=0.1)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def every_key_passes(store: RedisStore, keys: list[str] = KEYS) -> None:
    for key in keys:
        for _ in range(1500):
            if isinstance(await store.spend(key, COUNTED, now_us=NOW_US), Within):
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail(f"{key}: {[(node.name, node.trouble) for node in store.nodes]}")


class CutOff:
    """A master that does not know that it was replaced: it claims all slots, at an epoch that is over."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.asked = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = hiredis.Reader()
        while chunk := await reader.read(65_536):
            requests.feed(chunk)
            while (words := requests.gets()) is not False:
                writer.write(self._answer([word.upper() for word in words]))
        writer.close()

    def _answer(self, words: list[bytes]) -> bytes:
        if words[:2] == [b"CLUSTER", b"SLOTS"]:
            self.asked += 1
            master = b"*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$4\r\nself\r\n" % self.port
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n" + master
        if words[:2] == [b"CLUSTER", b"INFO"]:
            told = b"cluster_state:fail\r\ncluster_current_epoch:%d\r\n" % self._epoch
            return b"$%d\r\n%b\r\n" % (len(told), told)
        if words[0] == b"EVALSHA":
            return b"-CLUSTERDOWN The cluster is down\r\n"
        return b"+OK\r\n"


async def test_master_that_was_cut_off_does_not_hide_the_failover(cluster: ClusterPlace) -> None:
    """Asked first, it is believed until a node tells of a later epoch; then never again, though it is asked."""
    async with CutOff(epoch=0) as gone:
        url = cluster.url.replace("redis+cluster://", f"redis+cluster://127.0.0.1:{gone.port},")
        async with opened(url) as store:
            await every_key_passes(store)
            assert gone.asked
            for node in store.nodes:
                assert not node.name.endswith(f":{gone.port}")
            await asyncio.sleep(1.5)  # it is asked again, and stays what it is
            await every_key_passes(store)


async def test_master_that_hangs_is_asked_last(tmp_path: Path) -> None:
    """The first of the list is frozen; its replica takes over, and its keys have a store again within seconds."""
    place = await asyncio.to_thread(ClusterPlace(tmp_path, replicas=True).__enter__)
    try:
        async with opened(place.url) as store:
            await every_key_passes(store)
            place.servers[0].signal(signal.SIGSTOP)
            try:
                await every_key_passes(store)
            finally:
                place.servers[0].signal(signal.SIGCONT)
            await every_key_passes(store)
    finally:
        await asyncio.to_thread(place.__exit__, None, None, None)


@contextmanager
def endpoints(cluster: ClusterPlace, kind: str) -> Iterator[None]:
    def prefer(what: str) -> None:
        for server in cluster.servers:
            cluster.ask(server.port, "CONFIG", "SET", "cluster-preferred-endpoint-type", what)

    prefer(kind)
    try:
        yield
    finally:
        prefer("ip")


@pytest.mark.parametrize("kind", ["unknown-endpoint", "hostname"])
async def test_node_without_a_name_is_where_the_answer_came_from(cluster: ClusterPlace, kind: str) -> None:
    """Of the map (null, or `?` where a host name was not set), and of MOVED and ASK."""
    with endpoints(cluster, kind):
        async with opened(cluster.url) as store:
            await every_key_passes(store)
            assert {node.name for node in store.nodes} == {f"127.0.0.1:{server.port}" for server in cluster.servers}
            slot = Plan(store.redis_key("k0"), COUNTED).slot
            source = await asyncio.to_thread(cluster.owner, slot)
            target = cluster.other_than(source)
            for step in (
                lambda: cluster.begin_move(slot, source, target),
                lambda: cluster.move_keys(slot, source, target),
                lambda: cluster.finish_move(slot, target),
            ):
                await asyncio.to_thread(step)
                await every_key_passes(store, ["k0"] * 3)
            if kind == "unknown-endpoint":
                assert not store.counts.failures


async def test_script_that_is_missing_after_ask_is_loaded_and_the_call_sent_with_asking_again(
    cluster: ClusterPlace,
) -> None:
    """ASKING holds for one command: without it the call that follows SCRIPT LOAD would be told MOVED, back and forth."""
    async with opened(cluster.url) as store:
        await every_key_passes(store, ["k1"])
        slot = Plan(store.redis_key("k1"), COUNTED).slot
        source = cluster.owner(slot)
        target = cluster.other_than(source)
        await asyncio.to_thread(cluster.begin_move, slot, source, target)
        await asyncio.to_thread(cluster.move_keys, slot, source, target)
        await asyncio.to_thread(cluster.ask, target.port, "SCRIPT", "FLUSH")
        assert isinstance(await store.spend("k1", COUNTED, now_us=NOW_US), Within)
        assert not store.counts.failures
        await asyncio.to_thread(cluster.finish_move, slot, target)
