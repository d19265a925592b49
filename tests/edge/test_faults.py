"""The Redis store behind a network that delays, drops, cuts, half-closes, repeats and splits: a real Redis behind it.

Whatever happens, no call runs twice, every caller gets its own answer, and nobody waits for longer than the budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fault_proxy import FaultProxy, Faults
from hypothesis import given, settings
from hypothesis import strategies as st
from partner import NOW_US
from quotas import SECOND
from redis import Redis
from redis.exceptions import OutOfMemoryError
from redis_server import RedisServer, free_port

from authz.core.quota import Exceeded, Unknown, Within
from authz.edge import clock
from authz.edge.store import redis
from authz.edge.store.limiter import Limiter
from authz.edge.store.node import TIMEOUT_S
from authz.edge.store.place import read_place
from authz.edge.store.redis import RedisStore
from authz.edge.store.script import read_state
from authz.policy.limits import Calendar, Limit, OnStoreFailure, calendar_limit, rate_limit

COUNTED = (calendar_limit(name="counted", requests=10**9, calendar=Calendar.MONTH),)
LOCAL = (rate_limit(name="local", requests=1_000_000, per_us=SECOND),)


async def until(true: Callable[[], bool], told: str) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail(told)


async def ready(store: RedisStore) -> None:
    await until(lambda: bool(store.nodes) and all(node.is_up for node in store.nodes), "the store does not come up")


@dataclass
class Place:
    server: RedisServer
    proxy: FaultProxy
    store: RedisStore

    def charged(self, key: str) -> int:
        """Return how many calls of a key Redis has counted."""
        with Redis.from_url(self.server.url) as plain:
            raw = plain.get(self.store.redis_key(key))
        assert raw is None or isinstance(raw, bytes)
        return sum(mark.amount for mark in read_state(raw or b"").values())


@pytest.fixture
async def place(own_redis: RedisServer) -> AsyncIterator[Place]:
    async with FaultProxy(own_redis.port) as proxy:
        store = RedisStore(read_place(proxy.url), prefix="t:")
        await store.open()
        await ready(store)
        yield Place(own_redis, proxy, store)
        await store.close()


@contextlib.contextmanager
def patient(store: RedisStore) -> Iterator[None]:
    """What is not about time must not fail where this machine, not Redis, is slow."""
    with pytest.MonkeyPatch.context() as patch:
        for one in store.nodes:
            patch.setattr(one, "timeout_s", 2.0)
        yield


Answers = list[Within | Exceeded | Unknown]


async def ask(store: RedisStore, count: int, *, keys: int = 1, spread_s: float = 0.0) -> Answers:
    """Return the answers to `count` calls that begin within `spread_s`."""

    async def one(number: int) -> Within | Exceeded | Unknown:
        await asyncio.sleep(spread_s * number / count)
        return await store.spend(f"k{number % keys}", COUNTED, now_us=NOW_US)

    return await asyncio.gather(*(one(number) for number in range(count)))


def passed(answers: Answers) -> int:
    return sum(isinstance(one, Within) for one in answers)


async def all_pass(store: RedisStore, count: int, *, keys: int = 1) -> None:
    with patient(store):
        assert passed(await ask(store, count, keys=keys)) == count


FAULTS: dict[str, Callable[[FaultProxy], Any]] = {
    "slow replies": lambda proxy: setattr(proxy, "replies", Faults(delay_s=0.1)),
    "slow requests": lambda proxy: setattr(proxy, "requests", Faults(delay_s=0.1)),
    "replies dropped": lambda proxy: setattr(proxy, "replies", Faults(drop=True)),
    "requests dropped": lambda proxy: setattr(proxy, "requests", Faults(drop=True)),
    "reply cut": lambda proxy: setattr(proxy, "replies", Faults(cut_after=20)),
    "request cut": lambda proxy: setattr(proxy, "requests", Faults(cut_after=150)),
    "replies end": lambda proxy: setattr(proxy, "replies", Faults(half_close=True)),
    "requests end": lambda proxy: setattr(proxy, "requests", Faults(half_close=True)),
    "replies repeated": lambda proxy: setattr(proxy, "replies", Faults(repeat=True)),
    "replies split": lambda proxy: setattr(proxy, "replies", Faults(split=True)),
    "connection cut": lambda proxy: proxy.cut(),
    "connections refused": lambda proxy: proxy.shut(),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_no_call_runs_twice_and_who_passed_was_charged(place: Place, name: str) -> None:
    """Redis has counted each call that was allowed, and at most those that were made."""
    await all_pass(place.store, 50, keys=5)
    FAULTS[name](place.proxy)
    during = await ask(place.store, 300, keys=5, spread_s=0.3)
    place.proxy.heal()
    place.proxy.cut()  # what was delayed or half said is over
    await asyncio.sleep(0.2)
    await ready(place.store)
    await all_pass(place.store, 50, keys=5)
    charged = sum(place.charged(f"k{number}") for number in range(5))
    assert passed(during) + 100 <= charged <= 400
    assert {type(one) for one in during} <= {Within, Unknown}


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "replies split"])
async def test_fault_is_noticed(place: Place, name: str) -> None:
    """The test above would also hold if a fault did nothing."""
    FAULTS[name](place.proxy)
    answers = await ask(place.store, 60, keys=5, spread_s=0.06)
    assert passed(answers) < 60 or place.store.counts.connections > 1 or place.store.counts.failures


@pytest.mark.parametrize("name", [*FAULTS, "redis stopped", "redis killed", "redis paused"])
async def test_decisions_go_on_during_the_fault(place: Place, name: str) -> None:
    """Every caller is answered, and 99 of 100 within twice the budget as this very machine measures it just then."""
    limiter = Limiter(place.store)
    waited: list[float] = []
    budgets: list[float] = []
    over: list[bool] = []

    async def decide(number: int) -> Within | Exceeded | Unknown:
        await asyncio.sleep(number / 1000)
        started = time.perf_counter()
        answered = await limiter.spend(f"k{number % 7}", LOCAL, now_us=NOW_US)
        waited.append(time.perf_counter() - started)
        return answered

    async def measure() -> None:
        while not over:
            started = time.perf_counter()
            await asyncio.sleep(TIMEOUT_S)
            budgets.append(time.perf_counter() - started)

    yardstick = asyncio.create_task(measure())
    if name == "redis stopped":
        place.server.signal(signal.SIGSTOP)
    elif name == "redis paused":
        with Redis.from_url(place.server.url) as plain:
            plain.client_pause(400)
    elif name == "redis killed":
        place.server.stop()
    else:
        FAULTS[name](place.proxy)
    try:
        answers = await asyncio.gather(*(decide(number) for number in range(1000)))
    finally:
        over.append(True)
        await yardstick  # a halt of this machine in its last measure counts, too
        if name == "redis stopped":
            place.server.signal(signal.SIGCONT)
    assert all(isinstance(one, Within) for one in answers)
    assert statistics.quantiles(waited, n=100)[98] < 2 * max(*budgets, TIMEOUT_S)


async def test_own_reply_for_every_caller(place: Place) -> None:
    """Each key has a limit of its own size, so a reply to another call would show."""
    limits = [(calendar_limit(name="q", requests=1000 + number, calendar=Calendar.MONTH),) for number in range(200)]
    place.proxy.replies.split = True

    async def one(number: int, attempt: int) -> Within | Exceeded | Unknown:
        await asyncio.sleep(number % 7 / 1000)
        return await place.store.spend(f"own{attempt}-{number}", limits[number], now_us=NOW_US)

    answered: dict[int, Within | Exceeded] = {}
    for attempt in range(20):  # a busy machine does not get so many bytes through, one by one, in 25 ms
        callers = max(4, 200 >> attempt)
        answers = await asyncio.gather(*(one(number, attempt) for number in range(callers)))
        answered = {number: one for number, one in enumerate(answers) if not isinstance(one, Unknown)}
        if answered:
            break
        await ready(place.store)
    assert answered
    for number, within in answered.items():
        assert (within.levels[0].quota, within.levels[0].remaining) == (1000 + number, 999 + number)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "cancel", "flush script", "cut", "split", "repeat", "heal"]),
        st.integers(1, 40),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25)
@given(ACTS)
def test_every_caller_gets_its_own_answer_once(redis: RedisServer, acts: list[tuple[str, int, int]]) -> None:
    """Whatever is cancelled, cut, repeated or forgotten between and during calls."""
    limits = [(calendar_limit(name="q", requests=10**6 + number, calendar=Calendar.MONTH),) for number in range(5)]

    async def run() -> None:
        async with FaultProxy(redis.port) as proxy:
            store = RedisStore(read_place(proxy.url), prefix=f"{free_port()}:{time.perf_counter_ns()}:")
            await store.open()
            await ready(store)
            asked, passed_of = [0] * 5, [0] * 5
            for act, count, wait_ms in acts:
                numbers = [number % 5 for number in range(count)]
                tasks = [asyncio.create_task(store.spend(f"k{n}", limits[n], now_us=NOW_US)) for n in numbers]
                for number in numbers:
                    asked[number] += 1
                await asyncio.sleep(wait_ms / 1000)
                disturb(proxy, redis, act, tasks)
                for number, answer in zip(numbers, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
                    if isinstance(answer, Within):
                        assert answer.levels[0].quota == 10**6 + number
                        passed_of[number] += 1
                    else:
                        assert isinstance(answer, Unknown | asyncio.CancelledError)
            proxy.cut()
            await store.close()
            await asyncio.sleep(0.02)  # what was sent has arrived
            place = Place(redis, proxy, store)
            for number in range(5):
                assert passed_of[number] <= place.charged(f"k{number}") <= asked[number]

    asyncio.run(run())


def disturb(proxy: FaultProxy, redis: RedisServer, act: str, tasks: list[asyncio.Task[Any]]) -> None:
    match act:
        case "cancel":
            for task in tasks[::2]:
                task.cancel()
        case "flush script":
            with Redis.from_url(redis.url) as plain:
                plain.script_flush()
        case "cut":
            proxy.cut()
        case "split":
            proxy.replies.split = True
        case "repeat":
            proxy.replies.repeat = True
        case "heal":
            proxy.heal()
        case _:
            pass


async def test_caller_that_goes_away_disturbs_nobody(place: Place) -> None:
    place.proxy.replies.delay_s = 0.005
    with patient(place.store):
        tasks = [asyncio.create_task(place.store.spend(f"c{n % 3}", COUNTED, now_us=NOW_US)) for n in range(300)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0.002)
        for task in tasks[1::4]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(one) for one in results} <= {Within, Unknown, asyncio.CancelledError}
    assert all(isinstance(one, Within) for one in results[3::4])
    assert place.store.counts.connections == 1
    assert sum(place.charged(f"c{n}") for n in range(3)) <= 300
    await all_pass(place.store, 20)


async def test_caller_that_went_away_before_it_was_sent_is_not_charged(place: Place) -> None:
    tasks = [asyncio.create_task(place.store.spend("gone", COUNTED, now_us=NOW_US)) for _ in range(10)]
    await asyncio.sleep(0)  # they ask; nothing is sent before the next turn
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await all_pass(place.store, 1)
    assert place.charged("gone") == 0


async def test_equal_keys_are_merged_and_many_keys_share_a_call(place: Place) -> None:
    for keys, calls_max in ((1, 5), (500, 30)):
        calls = place.store.counts.calls
        await all_pass(place.store, 500, keys=keys)
        assert place.store.counts.calls - calls <= calls_max


async def test_merged_callers_are_granted_in_the_order_they_came(place: Place) -> None:
    three = (calendar_limit(name="three", requests=3, calendar=Calendar.MONTH),)
    with patient(place.store):
        answers = await asyncio.gather(*(place.store.spend("fifo", three, now_us=NOW_US) for _ in range(6)))
    assert [type(one) for one in answers] == [Within] * 3 + [Exceeded] * 3
    assert [one.levels[0].remaining for one in answers if not isinstance(one, Unknown)] == [2, 1, 0, 0, 0, 0]


async def test_flood_of_refused_requests_costs_no_redis(place: Place) -> None:
    limiter = Limiter(place.store, clock=lambda: time.monotonic_ns() // 1000)
    one = (calendar_limit(name="one", requests=1, calendar=Calendar.MONTH),)
    assert isinstance(await limiter.spend("f", one, now_us=NOW_US), Within)
    decisions = place.store.counts.decisions
    refused = [limiter.known("f", one, now_us=NOW_US) for _ in range(10_000)]
    assert all(isinstance(answer, Exceeded) for answer in refused)
    assert place.store.counts.decisions == decisions


async def test_plans_of_clients_are_bounded_and_the_oldest_go_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "PLANS_MAX", 10)
    for number in range(25):
        await place.store.spend(f"k{number}", COUNTED, now_us=NOW_US)
    assert list(place.store.plans) == [f"k{number}" for number in range(15, 25)]
    monkeypatch.setattr(redis, "BUCKETS_MAX", 5)
    for number in range(25):
        await place.store.spend(f"address:{number}", COUNTED, now_us=NOW_US)
    assert list(place.store.address_plans) == [f"address:{number}" for number in range(20, 25)]
    assert len(place.store.plans) == 10, "no address pushes out a client"


# ---- what is owed -----------------------------------------------------------------------------------------------

OWED = (calendar_limit(name="counted", requests=100, calendar=Calendar.MONTH),)


async def admit_alone(limiter: Limiter, count: int) -> None:
    for _ in range(count):
        assert isinstance(await limiter.spend("k0", OWED, now_us=clock.now_us()), Within)
    assert limiter.local


@pytest.mark.parametrize("away", ["late", "unheard", "gone"])
async def test_what_was_admitted_without_redis_is_charged_there_without_traffic(place: Place, away: str) -> None:
    """Once where Redis tells late that it charged the call, or was not reached; nobody else asks meanwhile."""
    limiter = Limiter(place.store)
    if away == "late":
        place.proxy.replies = Faults(delay_s=0.06)
    elif away == "unheard":
        place.proxy.requests = Faults(drop=True)
    else:
        place.proxy.shut()
        await until(lambda: not place.store.nodes[0].is_up, "nobody noticed")
    await admit_alone(limiter, 3)
    await asyncio.sleep(0.3)
    place.proxy.heal()
    await until(lambda: place.charged("k0") >= 3, "the debits are not sent")
    await until(lambda: not len(place.store.ledger), "the account is not closed")
    assert place.charged("k0") == 3


async def test_bucket_of_a_replica_starts_from_what_redis_told(place: Place) -> None:
    """Used up there, nothing passes here when Redis goes away; before, a whole capacity did."""
    three = (rate_limit(name="three", requests=3, per_us=3600 * SECOND),)
    limiter = Limiter(place.store)
    with patient(place.store):
        answers = [await limiter.spend("k", three, now_us=clock.now_us()) for _ in range(4)]
    place.proxy.shut()
    await until(lambda: not place.store.nodes[0].is_up, "nobody noticed")
    answers += [await limiter.spend("k", three, now_us=clock.now_us()) for _ in range(3)]
    assert [isinstance(one, Within) for one in answers] == [True] * 3 + [False] * 4
    assert limiter.local == 3


async def test_edited_limit_is_owed_and_starts_anew_from_what_redis_tells_of_it(place: Place) -> None:
    """What was told of the limits before is not taken for the new ones."""
    limiter = Limiter(place.store)
    place.proxy.shut()
    await until(lambda: not place.store.nodes[0].is_up, "nobody noticed")
    await admit_alone(limiter, 3)
    edited = (
        rate_limit(name="other", requests=5, per_us=SECOND),
        calendar_limit(name="counted", requests=50, calendar=Calendar.MONTH),
    )
    for _ in range(2):
        assert isinstance(await limiter.spend("k0", edited, now_us=clock.now_us()), Within)
    place.proxy.heal()
    await ready(place.store)
    await until(lambda: place.charged("k0") >= 5, "the debits are not sent")


# ---- Redis itself -----------------------------------------------------------------------------------------------


async def test_started_before_redis_serves_and_then_uses_it(own_redis: RedisServer) -> None:
    own_redis.stop()
    store = RedisStore(read_place(own_redis.url))
    limiter = Limiter(store)
    await limiter.open()
    assert isinstance(await limiter.spend("k", LOCAL, now_us=NOW_US), Within)
    assert limiter.local == 1
    own_redis.start()
    await ready(store)
    assert isinstance(await store.spend("k", LOCAL, now_us=NOW_US), Within)
    await limiter.close()


async def test_killed_and_restarted_redis_is_used_again_without_traffic(place: Place) -> None:
    place.server.stop()
    await until(lambda: not place.store.nodes[0].is_up, "nobody noticed that Redis is gone")
    place.server.start()
    await ready(place.store)
    await all_pass(place.store, 10)


async def test_script_flush_loses_no_call(place: Place) -> None:
    with Redis.from_url(place.server.url) as plain:
        for _ in range(5):
            plain.script_flush()
            await all_pass(place.store, 40, keys=4)
    assert sum(place.charged(f"k{number}") for number in range(4)) == 200
    assert place.store.counts.connections == 1


async def test_flushall_forgets_and_goes_on(place: Place) -> None:
    await ask(place.store, 10)
    with Redis.from_url(place.server.url) as plain:
        plain.flushall()
    await all_pass(place.store, 4)
    assert place.charged("k0") == 4


@pytest.mark.parametrize("command", [("CLIENT", "PAUSE", "400", "ALL"), ("DEBUG", "SLEEP", "0.4")])
async def test_pause_is_bridged_and_ends(place: Place, command: tuple[str, ...]) -> None:
    """What was on its way may have run, so it is counted as unknown and nothing is sent after it in vain."""
    with Redis.from_url(place.server.url, socket_timeout=5) as plain:
        plain.config_set("save", "")
        pausing = asyncio.create_task(asyncio.to_thread(plain.execute_command, *command))
        await asyncio.sleep(0.05)
        during = await ask(place.store, 200, keys=3, spread_s=0.2)
        assert passed(during) < 200
        await pausing
    await asyncio.sleep(0.4)
    await ready(place.store)
    await all_pass(place.store, 20, keys=3)
    assert sum(place.charged(f"k{number}") for number in range(3)) <= 220


async def test_stalled_redis_costs_few_calls_of_unknown_fate(place: Place) -> None:
    """At most what was on its way when it stalled, and a probe now and then, not each call of the flood."""
    place.server.signal(signal.SIGSTOP)
    try:
        await ask(place.store, 2000, keys=300, spread_s=0.5)
        assert place.store.counts.failures["timeout"] + place.store.counts.failures["lost"] <= 8
    finally:
        place.server.signal(signal.SIGCONT)


def fill(plain: Redis) -> None:
    """Write until there is no room left."""
    with contextlib.suppress(OutOfMemoryError):
        for number in range(10_000):
            plain.set(f"x{number}", b"x" * 1000)
        pytest.fail("the memory of Redis has no end")


async def test_full_redis_is_not_a_refusal(tmp_path: Any) -> None:
    server = RedisServer(tmp_path, "--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
    server.start()
    store = RedisStore(read_place(server.url))
    limiter = Limiter(store)
    await limiter.open()
    try:
        with Redis.from_url(server.url) as plain:
            fill(plain)
            await asyncio.sleep(0.1)
            closed = (rate_limit(name="c", requests=10, per_us=SECOND, on_store_failure=OnStoreFailure.CLOSED),)
            assert isinstance(await limiter.spend("k", LOCAL, now_us=NOW_US), Within)
            assert isinstance(await limiter.spend("c", closed, now_us=NOW_US), Unknown)
            await until(lambda: "OOM" in store.nodes[0].trouble, "the trouble is not told")
            plain.flushall()
        await ready(store)
        assert isinstance(await limiter.spend("c", closed, now_us=NOW_US), Within)
    finally:
        await limiter.close()
        server.stop()


async def test_eviction_forgets_and_never_denies(tmp_path: Any) -> None:
    server = RedisServer(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "volatile-ttl")
    server.start()
    store = RedisStore(read_place(server.url))
    await store.open()
    await ready(store)
    try:
        with Redis.from_url(server.url) as plain:
            for batch in range(200):
                keys = [f"e{batch}.{number}" for number in range(200)]
                answers = await asyncio.gather(*(store.spend(key, COUNTED, now_us=NOW_US) for key in keys))
                assert not any(isinstance(one, Exceeded) for one in answers)
                if plain.info("stats")["evicted_keys"] > 100:
                    break
            else:
                pytest.fail("nothing was evicted")
        await all_pass(store, 20)
    finally:
        await store.close()
        server.stop()


async def test_replica_is_left_alone(tmp_path: Any, own_redis: RedisServer) -> None:
    (tmp_path / "replica").mkdir()
    replica = RedisServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(own_redis.port))
    replica.start()
    store = RedisStore(read_place(replica.url))
    await store.open()
    try:
        with Redis.from_url(replica.url) as plain:
            await until(
                lambda: "READONLY" in store.nodes[0].trouble or "MASTERDOWN" in store.nodes[0].trouble, "not told"
            )
            assert isinstance(await store.spend("k", LOCAL, now_us=NOW_US), Unknown)
            plain.replicaof("NO", "ONE")
            await ready(store)
            assert isinstance(await store.spend("k", LOCAL, now_us=NOW_US), Within)
            plain.replicaof("127.0.0.1", own_redis.port)  # demoted while it is used
            answers = [await store.spend("k", LOCAL, now_us=NOW_US) for _ in range(10)]
            assert isinstance(answers[-1], Unknown)
            assert not store.nodes[0].is_up
    finally:
        await store.close()
        replica.stop()


# ---- what a failure costs ---------------------------------------------------------------------------------------


async def test_probes_are_few_and_spread(place: Place) -> None:
    """However many ask, a node that is away is tried every 125 to 250 ms, and by one connection."""
    place.proxy.refuse = True
    place.proxy.cut()
    before, started = place.proxy.connections, time.perf_counter()
    await ask(place.store, 3000, keys=50, spread_s=1.0)
    elapsed_s = time.perf_counter() - started
    assert place.proxy.connections - before <= elapsed_s / 0.125 + 2
    place.proxy.heal()
    before = place.proxy.connections
    await ready(place.store)
    await ask(place.store, 3000, keys=50)
    assert place.proxy.connections - before <= 2


STEPS = st.lists(
    st.tuples(st.sampled_from(["calls", "cut", "heal", "drop"]), st.integers(1, 12)), min_size=2, max_size=8
)


@settings(max_examples=10)
@given(STEPS, st.integers(1, 4))
def test_partition_and_heal_admit_no_more_than_both_bounds(
    redis: RedisServer, steps: list[tuple[str, int]], replicas: int
) -> None:
    """However the network comes and goes: at most the capacity from Redis and this replica's share from memory."""
    limits: tuple[Limit, ...] = (rate_limit(name="q", requests=12, per_us=24 * 3600 * SECOND),)

    async def run() -> int:
        admitted = 0
        async with FaultProxy(redis.port) as proxy:
            store = RedisStore(read_place(proxy.url), prefix=f"{free_port()}:{time.perf_counter_ns()}:")
            limiter = Limiter(store, replicas=replicas)
            await limiter.open()
            await ready(store)
            for step, count in steps:
                if step == "cut":
                    proxy.refuse = True
                    proxy.cut()
                elif step == "drop":
                    proxy.replies.drop = True
                elif step == "heal":
                    proxy.heal()
                    proxy.cut()
                    await ready(store)
                else:
                    answers = await asyncio.gather(*(limiter.spend("k", limits, now_us=NOW_US) for _ in range(count)))
                    admitted += sum(isinstance(one, Within) for one in answers)
            await limiter.close()
        return admitted

    assert asyncio.run(run()) <= 12 + max(1, 12 // replicas)


async def test_closed_port_is_unknown_and_the_password_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    store = RedisStore(read_place(f"redis://:secret@127.0.0.1:{free_port()}/0"))
    await store.open()
    await until(lambda: "not connected" not in store.nodes[0].trouble, "no attempt was made")
    outcome = await store.spend("k", COUNTED, now_us=NOW_US)
    assert isinstance(outcome, Unknown)
    assert "secret" not in outcome.detail + caplog.text + repr(read_place("redis://:secret@127.0.0.1:1/0"))
    await store.close()


async def test_busy_client_that_may_overshoot_leases_and_asks_less(place: Place) -> None:
    """One at a time, so that nothing is merged; what Redis charged is what passed, is held, or expired."""
    limits = (rate_limit(name="fast", requests=100_000, per_us=SECOND, max_overshoot=20_000),)
    with patient(place.store):
        for _ in range(3000):
            assert isinstance(await place.store.spend("busy", limits, now_us=NOW_US), Within)
    leases, counts = place.store.leases, place.store.counts
    assert counts.decisions < 2000
    assert leases.spent + counts.decisions >= 3000
    assert leases.granted >= leases.spent + leases.expired


async def test_one_call_without_any_answer_is_enough_to_give_a_node_up(place: Place) -> None:
    """A server that is gone without a word costs one caller its budget, not five."""
    place.proxy.replies.drop = True
    assert isinstance(await place.store.spend("k", COUNTED, now_us=NOW_US), Unknown)
    await until(lambda: not place.store.nodes[0].is_up, "nobody noticed")
    assert place.store.counts.failures["timeout"] + place.store.counts.failures["unsent"] <= 2
