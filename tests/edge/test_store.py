"""Stores: one suite for memory and a real Redis, and what the limiter makes of a store that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import NOW_US
from quotas import LIMIT_SETS, MONTHLY, SECOND
from quotas import SLOW as STEADY
from redis_server import RedisServer

from authz.core.address import ANONYMOUS, BUCKETS_MAX
from authz.core.quota import Exceeded, Unknown, Within, share
from authz.edge.settings import StoreSettings
from authz.edge.store import Store
from authz.edge.store.limiter import KNOWN_US, Limiter, open_store
from authz.edge.store.memory import MemoryStore
from authz.policy.limits import Limit, OnStoreFailure, rate_limit


@pytest.fixture(params=["memory", "redis", "unix"])
async def store(request: pytest.FixtureRequest, redis: RedisServer) -> AsyncIterator[Store]:
    urls = {"memory": "memory://", "redis": redis.url, "unix": f"unix://{redis.socket}"}
    settings = StoreSettings.model_validate({"url": urls[request.param], "prefix": f"{uuid4()}:", "timeout": "100ms"})
    store = open_store(settings, folder=Path(), replicas=1)
    await store.open()
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
    assert limiter.known("a", (STEADY,), now_us=NOW_US + KNOWN_US - 1) is not None
    assert limiter.known("a", (STEADY,), now_us=NOW_US + KNOWN_US) is None  # somebody may have reset the counters
    assert limiter.known("a", (STEADY,), now_us=NOW_US - 1) is None
    assert limiter.known("b", (STEADY,), now_us=NOW_US) is None
    wider = rate_limit(name="steady", requests=10, per_us=3600 * SECOND, burst=40)
    assert limiter.known("a", (wider,), now_us=NOW_US) is None


async def test_no_limits_is_no_call(store: Store) -> None:
    assert await store.spend("a", (), now_us=NOW_US) == Within(())


STEPS = st.lists(st.integers(0, 2 * SECOND) | st.integers(0, 10_000), max_size=80)


@given(LIMIT_SETS, STEPS)
def test_what_is_known_to_be_refused_would_be_refused(limits: tuple[Limit, ...], steps_us: list[int]) -> None:
    """At every instant at which the memory refuses, the store itself would, and until the same instant."""

    async def run() -> None:
        store = MemoryStore()
        limiter = Limiter(store)
        now_us = NOW_US
        for step_us in steps_us:
            now_us += step_us
            known = limiter.known("k", limits, now_us=now_us)
            if known is not None:
                outcome = store.charge("k", limits, now_us=now_us)
                assert isinstance(outcome, Exceeded)
                assert (known.binding, known.wait_us) == (outcome.binding, outcome.wait_us)
            await limiter.spend("k", limits, now_us=now_us)

    asyncio.run(run())


# ---- without the store -----------------------------------------------------------------------------------------


class NoStore:
    """A store that never answers."""

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1) -> Unknown:
        del key, limits, now_us, cost
        return Unknown("gone")

    async def open(self) -> None:
        return

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
    assert (limiter.open_, limiter.closed, limiter.local) == (1, 1, 2)
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


ADDRESSES = [f"{ANONYMOUS}2001:db8:{number:x}::/64" for number in range(BUCKETS_MAX + 100)]
HOURLY = (rate_limit(name="anonymous", requests=1, per_us=3_600 * SECOND),)


def test_addresses_that_anybody_can_make_up_have_a_small_room_of_their_own() -> None:
    store = MemoryStore()
    store.charge("client", HOURLY, now_us=NOW_US)
    for address in ADDRESSES:
        store.charge(address, HOURLY, now_us=NOW_US)
    assert len(store) == BUCKETS_MAX + 1
    assert isinstance(store.charge("client", HOURLY, now_us=NOW_US), Exceeded)


async def test_refusals_of_addresses_are_remembered_up_to_a_bound_and_push_out_no_client() -> None:
    limiter = Limiter(MemoryStore())
    for key in ("client", *ADDRESSES):
        await limiter.spend(key, HOURLY, now_us=NOW_US)
    remembered = [key for key in ADDRESSES if limiter.known(key, HOURLY, now_us=NOW_US)]
    assert remembered == ADDRESSES[-BUCKETS_MAX:]
    assert limiter.known("client", HOURLY, now_us=NOW_US) is not None


def test_one_replica_has_the_whole() -> None:
    assert share((STEADY, MONTHLY), 1) == (STEADY, MONTHLY)


async def test_wait_that_is_remembered_is_told_from_the_reply_on() -> None:
    """The store decided before its reply came; a wait from before the call would end too early."""
    now = [NOW_US]

    class Slow(MemoryStore):
        async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1) -> Within | Exceeded:
            del now_us
            now[0] += 10_000
            return self.charge(key, limits, now_us=now[0], cost=cost)

    one = (rate_limit(name="one", requests=1, per_us=SECOND),)
    limiter = Limiter(Slow(), clock=lambda: now[0])
    assert isinstance(await limiter.spend("k", one, now_us=NOW_US), Within)
    known = limiter.known("k", one, now_us=NOW_US)
    assert known is not None
    assert known.wait_us == SECOND
    now[0] += SECOND - 10_000  # from there on it is asked again: the memory never refuses too long
    assert limiter.known("k", one, now_us=NOW_US) is None
