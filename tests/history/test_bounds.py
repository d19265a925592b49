"""Whatever happens to Redis, its network and its script, no window of the history exceeds the bound that is promised.

Short here; `make history` runs each for a minute.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fault_proxy import FaultProxy, Faults
from histories import Fleet, History
from redis import Redis
from redis_server import RedisServer

from authz.policy.limits import rate_limit

SECONDS = float(os.environ.get("HISTORY_SECONDS", "2"))
SPEC = {"name": "q", "requests": 40, "per_us": 1_000_000, "burst": 19}
LIMIT = rate_limit(name="q", requests=40, per_us=1_000_000, burst=19)


class Site:
    """One Redis, and two replicas that reach it each through a network of its own."""

    def __init__(self, server: RedisServer, proxies: list[FaultProxy], fleet: Fleet) -> None:
        self.server = server
        self.proxies = proxies
        self.fleet = fleet


@asynccontextmanager
async def site(server: RedisServer, **task: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultProxy(server.port)) for _ in range(2)]
        fleet = await stack.enter_async_context(Fleet([proxy.url for proxy in proxies], [SPEC], **task))
        yield Site(server, proxies, fleet)


async def slow_link(site: Site) -> None:
    """A round trip of 20 ms, and the time-out at 25: some calls are answered in time, others are not."""
    for proxy in site.proxies:
        proxy.replies = Faults(delay_s=0.018)
    await asyncio.sleep(SECONDS)


async def freezing(site: Site) -> None:
    """Frozen for 40 of every 100 ms."""
    for _ in range(int(SECONDS * 10)):
        site.server.signal(signal.SIGSTOP)
        await asyncio.sleep(0.04)
        site.server.signal(signal.SIGCONT)
        await asyncio.sleep(0.06)


async def one_slow(site: Site) -> None:
    """One replica is never answered in time, the other always is."""
    site.proxies[0].replies = Faults(delay_s=0.04)
    await asyncio.sleep(SECONDS)


async def cut_often(site: Site) -> None:
    for _ in range(int(SECONDS * 2)):
        for proxy in site.proxies:
            proxy.cut()
        await asyncio.sleep(0.5)


async def replies_dropped(site: Site) -> None:
    """What was asked ran, and nobody learns of it; the connection is given up after 250 ms."""
    for _ in range(int(SECONDS)):
        for proxy in site.proxies:
            proxy.replies = Faults(drop=True)
        await asyncio.sleep(0.1)
        for proxy in site.proxies:
            proxy.heal()
        await asyncio.sleep(0.9)


async def away(site: Site) -> None:
    for proxy in site.proxies:
        proxy.shut()
    await asyncio.sleep(SECONDS * 0.6)
    for proxy in site.proxies:
        proxy.heal()
    await asyncio.sleep(SECONDS * 0.4)


async def script_forgotten(site: Site) -> None:
    for _ in range(int(SECONDS * 10)):
        with Redis.from_url(site.server.url) as plain:
            plain.script_flush()
        await asyncio.sleep(0.1)


async def nothing(site: Site) -> None:
    del site
    await asyncio.sleep(SECONDS)


async def after(server: RedisServer, fault: Callable[[Site], Awaitable[None]], **task: Any) -> History:
    async with site(server, **task) as place:
        await asyncio.sleep(0.3)
        await fault(place)
        for proxy in place.proxies:
            proxy.heal()
        await asyncio.sleep(1.0)
        return await place.fleet.history()


@pytest.mark.parametrize(
    "fault",
    [slow_link, freezing, one_slow, cut_often, replies_dropped, away, script_forgotten],
    ids=lambda one: one.__name__,
)
async def test_no_window_exceeds_two_capacities_and_the_rate(
    own_redis: RedisServer, fault: Callable[[Site], Awaitable[None]]
) -> None:
    """2·C + r·(t + d), d the time for which no debit was confirmed; and the replicas are back on Redis afterwards."""
    history = await after(own_redis, fault)
    assert history.excess(LIMIT) <= 0, history.unconfirmed_us
    assert len(history.passed["k"]) > LIMIT.capacity
    assert history.answered


async def test_without_faults_the_bound_is_one_capacity(own_redis: RedisServer) -> None:
    history = await after(own_redis, nothing)
    assert history.excess(LIMIT, capacities=1) <= 0


@pytest.mark.parametrize("fault", [slow_link, one_slow], ids=lambda one: one.__name__)
async def test_client_within_its_quota_is_not_refused_by_a_slow_redis(
    own_redis: RedisServer, fault: Callable[[Site], Awaitable[None]]
) -> None:
    """A tenth of its rate: a debit that was paid twice at times leaves room enough."""
    async with site(own_redis, callers=1, pause_us=500_000) as place:
        await fault(place)
        history = await place.fleet.history()
    calls = 2 * SECONDS / 0.55
    assert len(history.passed["k"]) >= calls - 3
