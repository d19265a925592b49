"""The Redis store on Redis as people run it: URLs, users, TLS, sockets, Sentinel, Cluster."""

from __future__ import annotations

import asyncio
import gc
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import NOW_US
from quotas import SECOND
from redis import Redis
from redis_places import ClusterPlace, SentinelPlace, acl_redis, make_tls, tls_redis
from redis_server import PROGRAM, RedisServer, require

from authz.core.quota import Exceeded, Unknown, Within
from authz.edge.store.place import BadPlace, Kind, read_place
from authz.edge.store.redis import RedisStore
from authz.edge.store.script import Plan, read_state
from authz.policy.limits import Calendar, calendar_limit, rate_limit

COUNTED = (calendar_limit(name="counted", requests=10**9, calendar=Calendar.MONTH),)
PLENTY = rate_limit(name="r", requests=10**6, per_us=SECOND)
MINIMAL_ACL = ["~t:rl:2:*", "-@all", "+script|load", "+evalsha", "+get", "+set", "+time"]


@pytest.fixture(autouse=True)
def _redis_is_there() -> None:
    require(PROGRAM)


@asynccontextmanager
async def opened(url: str, *, prefix: str = "t:") -> AsyncIterator[RedisStore]:
    store = RedisStore(read_place(url), prefix=prefix)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def up(store: RedisStore, nodes: int = 1) -> None:
    for _ in range(2000):
        if len(store.nodes) >= nodes and all(node.is_up for node in store.nodes):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not up: {[(node.name, node.trouble) for node in store.nodes]}")


async def passes_again(store: RedisStore, key: str = "k") -> None:
    for _ in range(2000):
        if isinstance(await store.spend(key, COUNTED, now_us=NOW_US), Within):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"no answer: {[(node.name, node.trouble) for node in store.nodes]}")


# ---- users, TLS, sockets ----------------------------------------------------------------------------------------


async def test_documented_acl_is_enough(tmp_path: Path) -> None:
    with acl_redis(tmp_path, "quota", "p@ss word", MINIMAL_ACL) as (server, _):
        async with opened(f"redis://quota:p%40ss%20word@127.0.0.1:{server.port}") as store:
            await up(store)
            assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)


@pytest.mark.parametrize("missing", ["+script|load", "+evalsha", "+get", "+set", "+time", "~t:rl:2:*"])
async def test_documented_acl_is_minimal_and_what_is_missing_is_told(tmp_path: Path, missing: str) -> None:
    rules = [rule for rule in MINIMAL_ACL if rule != missing]
    with acl_redis(tmp_path, "quota", "pw", rules) as (server, _):
        async with opened(f"redis://quota:pw@127.0.0.1:{server.port}") as store:
            for _ in range(500):
                if re.search("NOPERM|can't run this command", store.nodes[0].trouble):
                    break
                await asyncio.sleep(0.01)
            else:
                pytest.fail(store.nodes[0].trouble)
            assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Unknown)


async def test_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    with acl_redis(tmp_path, "quota", "right", MINIMAL_ACL) as (server, _):
        async with opened(f"redis://quota:wrong@127.0.0.1:{server.port}") as store:
            while store.nodes[0].trouble.startswith("not connected"):
                await asyncio.sleep(0.01)
            assert "WRONGPASS" in store.nodes[0].trouble
            assert "right" not in store.nodes[0].trouble


async def test_password_alone_and_a_database(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--requirepass", "secret")
    server.start()
    try:
        async with opened(f"redis://:secret@127.0.0.1:{server.port}/5") as store:
            await up(store)
            assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)
            with Redis(port=server.port, password="secret", db=5) as plain:
                assert plain.get(store.redis_key("k"))
    finally:
        server.stop()


async def test_unix_socket(redis: RedisServer) -> None:
    async with opened(f"unix://{redis.socket}?db=3", prefix=f"{uuid4()}:") as store:
        await up(store)
        assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls_with_a_private_ca(tmp_path: Path, host: str) -> None:
    files = make_tls(tmp_path)
    with tls_redis(tmp_path, files) as port:
        async with opened(f"rediss://{host}:{port}?ssl_ca_certs={files.ca}") as store:
            await up(store)
            assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    files = make_tls(tmp_path)
    mine = f"ssl_ca_certs={files.ca}&ssl_certfile={files.cert}&ssl_keyfile={files.key}"
    with tls_redis(tmp_path, files, client_certificate=True) as port:
        async with opened(f"rediss://127.0.0.1:{port}?{mine}") as store:
            await up(store)
        async with opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={files.ca}") as store:
            await asyncio.sleep(0.5)
            assert not store.nodes[0].is_up


async def test_tls_of_another_ca_or_none_is_refused(tmp_path: Path) -> None:
    files = make_tls(tmp_path)
    with tls_redis(tmp_path, files) as port:
        for url in (f"rediss://127.0.0.1:{port}?ssl_ca_certs={files.other_ca}", f"rediss://127.0.0.1:{port}"):
            async with opened(url) as store:
                for _ in range(500):
                    if "certificate verify failed" in store.nodes[0].trouble.lower():
                        break
                    await asyncio.sleep(0.01)
                else:
                    pytest.fail(store.nodes[0].trouble)


PROGRAMS = [program for program in (PROGRAM, "valkey-server") if shutil.which(program)]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_every_step_of_a_quota_on(tmp_path: Path, program: str) -> None:
    """Charge, refuse, lose the script, lose the server: on Redis, and on Valkey where it is installed."""
    server = RedisServer(tmp_path, program=program)
    server.start()
    try:
        three = (calendar_limit(name="three", requests=3, calendar=Calendar.MONTH), PLENTY)
        async with opened(server.url) as store:
            await up(store)
            answers = [await store.spend("k", three, now_us=NOW_US) for _ in range(4)]
            assert [type(one) for one in answers] == [Within] * 3 + [Exceeded]
            with Redis.from_url(server.url) as plain:
                plain.script_flush()
            assert isinstance(await store.spend("j", three, now_us=NOW_US), Within)
            server.stop()
            server.start()
            await passes_again(store)
    finally:
        server.stop()


@pytest.mark.parametrize("extra", [["+cluster|slots"], ["+cluster|slots", "+cluster|info"]])
async def test_acl_of_a_cluster(cluster: ClusterPlace, extra: list[str]) -> None:
    """Without CLUSTER INFO a map is taken from whoever tells it first, as it was before epochs were looked at."""
    prefix = f"{uuid4()}:"
    rules = [*MINIMAL_ACL[1:], f"~{prefix}rl:2:*", *extra]
    for server in cluster.servers:
        cluster.ask(server.port, "ACL", "SETUSER", "quota", "reset", "on", ">pw", *rules)
    async with opened(cluster.url.replace("://", "://quota:pw@"), prefix=prefix) as store:
        await up(store, 3)
        assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)


async def test_prefix_keeps_two_installations_apart(redis: RedisServer) -> None:
    one = (calendar_limit(name="one", requests=1, calendar=Calendar.MONTH),)
    for prefix in (f"{uuid4()}:", f"{uuid4()}:"):
        async with opened(redis.url, prefix=prefix) as store:
            await up(store)
            assert isinstance(await store.spend("k", one, now_us=NOW_US), Within)


# ---- Sentinel ---------------------------------------------------------------------------------------------------


async def test_sentinel_failover_is_followed_both_ways(tmp_path: Path) -> None:
    """A planned failover, then a killed master: each time the store ends on the new one, by itself."""
    place = await asyncio.to_thread(SentinelPlace(tmp_path).__enter__)
    try:
        async with opened(place.url) as store:
            await up(store)
            assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)
            for change in (place.fail_over, place.kill_master):
                await asyncio.to_thread(change)
                await passes_again(store)
                assert await on_master(store, place)
    finally:
        place.__exit__(None, None, None)


async def closes_at_any_step(url: str) -> None:
    """Open a store and close it so many steps of the event loop later; the test fails where it does not end."""
    for steps in range(200):
        store = RedisStore(read_place(url), prefix="t:")
        await store.open()
        for _ in range(steps):
            await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        done, _ = await asyncio.wait((closing,), timeout=20)
        assert done, f"{steps} steps after it was opened it does not close"
    gc.collect()  # redis-py leaves a connection that is cancelled while it opens to the collector, which warns


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_store_closes_at_whatever_step_of_asking_the_sentinels(tmp_path: Path) -> None:
    with SentinelPlace(tmp_path) as place:
        await closes_at_any_step(place.url)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_store_closes_at_whatever_step_of_asking_a_cluster(cluster: ClusterPlace) -> None:
    await closes_at_any_step(cluster.url)


async def on_master(store: RedisStore, place: SentinelPlace) -> bool:
    """Return whether, before long, what the store charges is at the master."""
    for _ in range(1000):
        with Redis(port=place.master_port()) as plain:
            before = plain.get(store.redis_key("k"))
            await store.spend("k", COUNTED, now_us=NOW_US)
            if plain.get(store.redis_key("k")) != before:
                return True
        await asyncio.sleep(0.01)
    return False


# ---- Cluster ----------------------------------------------------------------------------------------------------


def counted(place: ClusterPlace, store: RedisStore, key: str) -> int:
    """Return what the key's master has counted."""
    redis_key = store.redis_key(key)
    server = place.owner(Plan(redis_key, COUNTED).slot)
    raw = place.ask(server.port, "GET", redis_key)
    return sum(mark.amount for mark in read_state(raw or b"").values())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterPlace]:
    require(PROGRAM)
    with ClusterPlace(tmp_path_factory.mktemp("cluster")) as place:
        yield place


async def test_cluster_of_three_masters_is_used_whole(cluster: ClusterPlace) -> None:
    async with opened(cluster.url, prefix=f"{uuid4()}:") as store:
        await up(store, 3)
        keys = [f"k{number}" for number in range(60)]
        answers = await asyncio.gather(*(store.spend(key, COUNTED, now_us=NOW_US) for key in keys * 5))
        assert all(isinstance(one, Within) for one in answers), answers
        assert [counted(cluster, store, key) for key in keys] == [5] * 60
        owners = {cluster.owner(Plan(store.redis_key(key), COUNTED).slot).port for key in keys}
        assert len(owners) == 3


async def test_slot_that_moves_loses_no_call_and_no_count(cluster: ClusterPlace) -> None:
    """Through ASK while it moves and MOVED after it; each of these says that nothing ran."""
    async with opened(cluster.url, prefix=f"{uuid4()}:") as store:
        await up(store, 3)
        assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)
        slot = Plan(store.redis_key("k"), COUNTED).slot
        source = cluster.owner(slot)
        target = cluster.other_than(source)
        steps = (
            lambda: None,
            lambda: cluster.begin_move(slot, source, target),
            lambda: cluster.move_keys(slot, source, target),
            lambda: cluster.finish_move(slot, target),
            lambda: None,
        )
        for step in steps:
            await asyncio.to_thread(step)
            for _ in range(5):
                assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within)
        assert counted(cluster, store, "k") == 26
        assert not store.counts.failures


async def test_node_whose_probe_moved_away_comes_up_again(cluster: ClusterPlace) -> None:
    """Its probe's key follows its slots; otherwise no connection to it would ever be found usable again."""
    async with opened(cluster.url, prefix=f"{uuid4()}:") as store:
        await up(store, 3)
        node = store.nodes[0]
        slot = node.probe.slot
        source = cluster.owner(slot)
        target = cluster.other_than(source)

        def move() -> None:
            cluster.begin_move(slot, source, target)
            cluster.move_keys(slot, source, target)
            cluster.finish_move(slot, target)
            cluster.ask(source.port, "CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")

        await asyncio.to_thread(move)
        for _ in range(1000):
            if node.probe.slot != slot and node.is_up:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail(f"{node.trouble}; {node.probe.slot} of {slot}")


async def test_cluster_failover_is_followed(tmp_path: Path) -> None:
    """A planned failover and a killed master; the other masters' keys are never concerned by the second."""
    place = await asyncio.to_thread(ClusterPlace(tmp_path, replicas=True).__enter__)
    try:
        async with opened(place.url) as store:
            await up(store, 3)
            keys = [f"k{number}" for number in range(30)]
            for change in (lambda: place.fail_over(0), lambda: place.kill_master(1)):
                await asyncio.to_thread(change)
                for key in keys:
                    await passes_again(store, key)
    finally:
        place.__exit__(None, None, None)


async def test_cluster_that_is_away_is_found_when_it_comes() -> None:
    async with opened("redis+cluster://127.0.0.1:1,127.0.0.1:2") as store:
        assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Unknown)
        await asyncio.sleep(0.3)
        assert isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Unknown)


# ---- URLs -------------------------------------------------------------------------------------------------------

GOOD = {
    "redis://h": (Kind.SINGLE, (("h", 6379),), 0),
    "redis://u:p@h:1/2": (Kind.SINGLE, (("h", 1),), 2),
    "redis://[::1]:7/0": (Kind.SINGLE, (("::1", 7),), 0),
    "rediss://h?ssl_check_hostname=false": (Kind.SINGLE, (("h", 6379),), 0),
    "unix:///run/r.sock": (Kind.SINGLE, (), 0),
    "unix://u:p@/run/r.sock?db=4": (Kind.SINGLE, (), 4),
    "redis+sentinel://a,b:1/m": (Kind.SENTINEL, (("a", 26379), ("b", 1)), 0),
    "redis+sentinel://:p@a/m/3?tls=true&sentinel_password=x": (Kind.SENTINEL, (("a", 26379),), 3),
    "redis+cluster://a,b": (Kind.CLUSTER, (("a", 6379), ("b", 6379)), 0),
}
BAD = {
    "http://h": ["expected a URL that begins with one of memory://, redis://"],
    "redis://": ["expected host:port"],
    "redis://h:x": ["expected host:port"],
    "redis://h:70000": ["expected host:port"],
    "redis://a,b": ["one host only"],
    "redis://h/x": ["/x: expected the number of a database"],
    "redis://u@h": ["a user without a password"],
    "redis://h#x": ["after #"],
    "redis://h?retry=3&x=1": ["retry: no such option; there are db,", "x: no such option"],
    "redis://h?db=-1&db=2": ["db: expected the number of a database"],
    "redis://h?db=1&db=2": ["db: given twice"],
    "redis://h?ssl_ca_certs=ca.pem": ["ca.pem: no such file", "ssl_ options go with rediss://"],
    "rediss://h?ssl_check_hostname=yes&ssl_certfile=c": ["true or false", "no such file", "go together"],
    "unix://host/x": ["unix:///path"],
    "unix://": ["unix:///path"],
    "redis+sentinel://a": ["SERVICE"],
    "redis+cluster://a/1": ["no databases"],
    "redis+cluster://a?db=1": ["db: no such option"],
    "redis://[": ["not a URL"],
}


@pytest.mark.parametrize("url", GOOD)
def test_url_is_read(url: str) -> None:
    place = read_place(url)
    assert (place.kind, place.addresses, place.database) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_every_mistake_in_a_url_is_told(url: str) -> None:
    with pytest.raises(BadPlace) as raised:
        read_place(url)
    for expected in BAD[url]:
        assert expected in str(raised.value)


def test_files_of_a_url_are_found_beside_the_configuration_and_checked(tmp_path: Path) -> None:
    files = make_tls(tmp_path)
    assert read_place("rediss://h?ssl_ca_certs=ca.pem", tmp_path).ca_file == files.ca
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(BadPlace, match="cannot be used"):
        read_place("rediss://h?ssl_ca_certs=empty.pem", tmp_path)


@given(st.sampled_from(["redis://", "redis+sentinel://", "redis+cluster://", "unix://", ""]), st.text(max_size=40))
def test_any_text_is_read_or_refused(scheme: str, text: str) -> None:
    try:
        read_place(scheme + text)
    except BadPlace as bad:
        assert str(bad)


def test_password_is_never_shown() -> None:
    place = read_place("redis+sentinel://u:hush@h/m?sentinel_password=hush")
    assert "hush" not in repr(place)
    with pytest.raises(BadPlace) as raised:
        read_place("redis://u:hush@h:x/y?z=1")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:a/SECRETpw@cache.internal:6379",
        "redis://u:a?SECRETpw@h:6379",
        "redis://u:a#SECRETpw@h:6379",
        "redis:/u:SECRETpw@h",
        "redis:///u:SECRETpw@h",
        "redis://u:a/SECRETpw?x=1@h",
        "unix://u:a/SECRETpw@/run/redis.sock",
    ],
)
def test_password_that_is_not_encoded_is_not_told(url: str) -> None:
    with pytest.raises(BadPlace, match="percent-encode") as raised:
        read_place(url)
    assert "SECRET" not in str(raised.value)
