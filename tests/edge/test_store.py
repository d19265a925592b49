"""Stores: one suite for memory and a real Redis, the Lua script against the model, and what happens without Redis."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partner import NOW_US
from redis import Redis
from redis_server import RedisServer, free_port

from authz.core.quota import Exceeded, State, Unknown, Within, share, spend
from authz.edge.store import Store
from authz.edge.store.limiter import Limiter, open_store
from authz.edge.store.memory import MemoryStore
from authz.edge.store.redis import RedisStore
from authz.policy.limits import Calendar, Limit, OnStoreFailure, calendar_limit, rate_limit

SECOND = 1_000_000
STEADY = rate_limit(name="steady", requests=10, per_us=3600 * SECOND, burst=4)
MONTHLY = calendar_limit(name="monthly", requests=3, calendar=Calendar.MONTH)


@pytest.fixture(params=["memory", "redis", "unix"])
async def store(request: pytest.FixtureRequest, redis: RedisServer) -> AsyncIterator[Store]:
    urls = {"memory": "memory://", "redis": redis.url, "unix": f"unix://{redis.socket}"}
    store = open_store(urls[request.param], prefix=f"{uuid4()}:", hash_key=b"test")
    # A first call loads the script; on a busy machine that may take longer than the budget.
    while isinstance(await store.spend("warm", (STEADY,), now_us=NOW_US), Unknown):
        await asyncio.sleep(0.01)
    yield store
    await store.close()


async def spent(store: Store, key: str, limits: tuple[Limit, ...]) -> Within | Exceeded:
    outcome = await store.spend(key, limits, now_us=NOW_US)
    assert not isinstance(outcome, Unknown), outcome
    return outcome


async def test_store_admits_capacity_and_no_more(store: Store) -> None:
    outcomes = [await spent(store, "a", (STEADY,)) for _ in range(7)]
    assert [isinstance(outcome, Within) for outcome in outcomes] == [True] * 5 + [False] * 2
    assert [outcome.levels[0].remaining for outcome in outcomes] == [4, 3, 2, 1, 0, 0, 0]


async def test_keys_do_not_share(store: Store) -> None:
    for key in ("a", "b", "a:b", "b:a"):
        assert [isinstance(await spent(store, key, (MONTHLY,)), Within) for _ in range(4)] == [True] * 3 + [False]


async def test_denial_charges_nothing(store: Store) -> None:
    for _ in range(6):
        await spent(store, "a", (STEADY, MONTHLY))
    outcome = await spent(store, "a", (STEADY,))
    assert isinstance(outcome, Within)
    assert outcome.levels[0].remaining == 1


async def test_known_refusal_needs_no_store_and_ends_with_its_wait(store: Store) -> None:
    limiter = Limiter(store)
    assert limiter.known("a", (STEADY,), now_us=NOW_US) is None
    for _ in range(4):
        await limiter.spend("a", (STEADY,), now_us=NOW_US)
    assert limiter.known("a", (STEADY,), now_us=NOW_US) is None
    last = await limiter.spend("a", (STEADY,), now_us=NOW_US)
    assert isinstance(last, Within)
    known = limiter.known("a", (STEADY,), now_us=NOW_US + 1)
    assert known is not None
    assert known.binding == "steady"
    assert known.wait_us == last.levels[0].reset_us - 1
    refused = await limiter.spend("a", (STEADY,), now_us=NOW_US)
    assert isinstance(refused, Exceeded)
    assert limiter.known("a", (STEADY,), now_us=NOW_US + refused.wait_us) is None
    assert limiter.known("a", (STEADY,), now_us=NOW_US - 1) is None
    assert limiter.known("b", (STEADY,), now_us=NOW_US) is None
    wider = rate_limit(name="steady", requests=10, per_us=3600 * SECOND, burst=40)
    assert limiter.known("a", (wider,), now_us=NOW_US) is None


async def test_no_limits_is_no_call(store: Store) -> None:
    assert await store.spend("a", (), now_us=NOW_US) == Within(())


@pytest.mark.parametrize("url", ["redis+sentinel://h", "redis+cluster://h", "http://h", "x"])
def test_unknown_scheme_says_which_there_are(url: str) -> None:
    with pytest.raises(ValueError, match="redis://"):
        open_store(url, prefix="", hash_key=b"x")


# ---- the script against the model -----------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b"])
RATES = st.builds(
    lambda name, requests, per_us, burst: rate_limit(name=name, requests=requests, per_us=per_us, burst=burst),
    NAMES,
    st.integers(1, 10**6),
    st.integers(1, 86_400 * SECOND).filter(lambda per: per % 1000 == 0),
    st.none() | st.integers(0, 100),
)
CALENDARS = st.builds(
    lambda name, requests, calendar: calendar_limit(name=name, requests=requests, calendar=calendar),
    NAMES,
    st.integers(1, 5),
    st.sampled_from(Calendar),
)


@st.composite
def limit_sets(draw: st.DrawFn) -> tuple[Limit, ...]:
    try:
        limits: list[Limit] = draw(st.lists(RATES | CALENDARS, min_size=1, max_size=3))
    except ValueError:  # an inexact rate is no limit
        return (STEADY,)
    return tuple({limit.name: limit for limit in limits}.values())


CALLS = st.lists(
    st.tuples(limit_sets(), st.integers(1, 3), st.integers(-2 * SECOND, 20 * SECOND) | st.integers(-(10**13), 10**13)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150)
@given(CALLS)
def test_script_and_model_agree_call_for_call(
    redis: RedisServer, calls: list[tuple[tuple[Limit, ...], int, int]]
) -> None:
    """Any limits, edited between calls, any cost, a clock that jumps both ways: the same outcomes."""

    async def run() -> None:
        store = RedisStore(redis.url, prefix=f"{uuid4()}:")
        state: State = {}
        now_us = NOW_US
        for limits, cost, step_us in calls:
            now_us = max(10**15, min(now_us + step_us, 4 * 10**15))
            affordable = min(cost, *(getattr(limit, "capacity", limit.requests) for limit in limits))
            expected, after = spend(state, limits, now_us, affordable)
            assert await store.charge("k", limits, affordable, now_us) == expected
            state = state if after is None else after  # both forget limits that are no longer among the call's
        await store.close()

    asyncio.run(run())


def read(redis: RedisServer, key: str) -> tuple[bytes | None, int]:
    with Redis.from_url(redis.url) as plain:
        return plain.get(key), plain.pttl(key)


async def test_denial_writes_no_byte_and_extends_no_life(redis: RedisServer) -> None:
    store = RedisStore(redis.url, prefix=f"{uuid4()}:")
    for _ in range(3):
        await store.charge("k", (MONTHLY,))
    before, life_before = read(redis, store.redis_key("k"))
    assert isinstance(await store.charge("k", (MONTHLY,)), Exceeded)
    after, life_after = read(redis, store.redis_key("k"))
    assert before == after
    assert life_after <= life_before
    await store.close()


async def test_life_in_redis_ends_when_the_bucket_is_idle(redis: RedisServer) -> None:
    store = RedisStore(redis.url, prefix=f"{uuid4()}:")
    limit = rate_limit(name="r", requests=3, per_us=10 * SECOND)
    await store.charge("k", (limit,), 3)
    _, life_ms = read(redis, store.redis_key("k"))
    assert 0 < life_ms <= 10_000
    await store.close()


async def test_redis_holds_no_name_and_one_key_a_client(redis: RedisServer) -> None:
    prefix = f"{uuid4()}:"
    store = RedisStore(redis.url, prefix=prefix, hash_key=b"one")
    other = RedisStore(redis.url, prefix=prefix, hash_key=b"two")
    await store.charge("client:trusted-partner-app", (STEADY, MONTHLY))
    with Redis.from_url(redis.url) as plain:
        (key,) = plain.keys(f"{prefix}*")
    assert key.decode() == store.redis_key("client:trusted-partner-app")
    assert b"partner" not in key
    assert store.redis_key("a") != other.redis_key("a")
    assert len({store.redis_key(subject) for subject in ("a", "b", "a:b", "{a}", "a}{b")}) == 5
    await store.close()
    await other.close()


async def test_flushed_script_is_loaded_again(redis: RedisServer) -> None:
    store = RedisStore(redis.url, prefix=f"{uuid4()}:")
    await store.charge("k", (STEADY,))
    with Redis.from_url(redis.url) as plain:
        plain.script_flush()
    outcome = await store.charge("k", (STEADY,))
    assert outcome.levels[0].remaining == 3
    await store.close()


async def test_value_of_somebody_else_is_replaced(redis: RedisServer) -> None:
    store = RedisStore(redis.url, prefix=f"{uuid4()}:")
    with Redis.from_url(redis.url) as plain:
        plain.set(store.redis_key("k"), b"\xc1 not ours")
    assert isinstance(await store.charge("k", (STEADY,)), Within)
    await store.close()


async def test_a_thousand_calls_at_once_each_get_an_answer(redis: RedisServer) -> None:
    store = RedisStore(redis.url, prefix=f"{uuid4()}:")
    outcomes = await asyncio.gather(*(store.spend("k", (STEADY,), now_us=NOW_US) for _ in range(1000)))
    assert sum(isinstance(outcome, Within) for outcome in outcomes) <= 5
    assert {type(outcome) for outcome in outcomes} <= {Within, Exceeded, Unknown}
    await store.close()


# ---- without Redis --------------------------------------------------------------------------------------------


async def test_redis_that_is_not_there_is_unknown() -> None:
    store = RedisStore(f"redis://:secret@127.0.0.1:{free_port()}/0")
    outcome = await store.spend("k", (STEADY,), now_us=NOW_US)
    assert isinstance(outcome, Unknown)
    assert "secret" not in outcome.detail
    assert store.unknown == 1
    await store.close()


async def test_paused_redis_is_unknown_and_the_call_runs_at_most_once(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url)
    await store.charge("k", (STEADY,))
    own_redis.signal(signal.SIGSTOP)
    outcomes = [await store.spend("k", (STEADY,), now_us=NOW_US) for _ in range(2)]
    own_redis.signal(signal.SIGCONT)
    assert [type(outcome) for outcome in outcomes] == [Unknown, Unknown]
    after = await store.charge("k", (STEADY,))
    assert after.levels[0].remaining >= 1  # of 5: one before, one after, and each of the two at most once
    await store.close()


async def test_restarted_redis_is_used_again(own_redis: RedisServer) -> None:
    store = RedisStore(own_redis.url)
    await store.charge("k", (STEADY,))
    own_redis.stop()
    assert isinstance(await store.spend("k", (STEADY,), now_us=NOW_US), Unknown)
    own_redis.start()
    for _ in range(100):
        if isinstance(await store.spend("k", (STEADY,), now_us=NOW_US), Within):
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("Redis is back, and nobody noticed")
    await store.close()


class NoStore:
    """A store that never answers."""

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1) -> Unknown:
        del key, limits, now_us, cost
        return Unknown("gone")

    async def close(self) -> None:
        return


def failing(mode: OnStoreFailure, name: str = "q", requests: int = 4) -> Limit:
    return rate_limit(name=name, requests=requests, per_us=3600 * SECOND, on_store_failure=mode)


async def test_local_counts_here_with_this_replicas_share() -> None:
    limiter = Limiter(NoStore(), replicas=2)
    limits = (failing(OnStoreFailure.LOCAL),)
    outcomes = [await limiter.spend("k", limits, now_us=NOW_US) for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [Within, Within, Exceeded]
    assert limiter.local == 3


async def test_open_lets_pass_and_closed_stays_unknown() -> None:
    limiter = Limiter(NoStore())
    assert await limiter.spend("k", (failing(OnStoreFailure.OPEN),), now_us=NOW_US) == Within(())
    both = (failing(OnStoreFailure.OPEN), failing(OnStoreFailure.CLOSED, "c"))
    assert isinstance(await limiter.spend("k", both, now_us=NOW_US), Unknown)
    mixed = (failing(OnStoreFailure.OPEN), failing(OnStoreFailure.LOCAL, "l", 1))
    assert [type(await limiter.spend("m", mixed, now_us=NOW_US)) for _ in range(2)] == [Within, Exceeded]
    assert (limiter.open, limiter.closed, limiter.local) == (1, 1, 2)
    await limiter.close()


# ---- memory is bounded ----------------------------------------------------------------------------------------


async def test_memory_forgets_the_expired_first_and_never_grows() -> None:
    store = MemoryStore(keys_max=10)
    short = (rate_limit(name="s", requests=1, per_us=SECOND),)
    for number in range(10):
        store.charge(f"a{number}", short, now_us=NOW_US)
    for number in range(100):
        store.charge(f"b{number}", short, now_us=NOW_US + 2 * SECOND)
        assert len(store) <= 10
    assert store.forgotten == 90
    await store.close()
    assert len(store) == 0


def test_one_replica_has_the_whole() -> None:
    assert share((STEADY, MONTHLY), 1) == (STEADY, MONTHLY)
