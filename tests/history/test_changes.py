"""Edits, clocks, failovers, restarts and rotations, while replicas ask all the time: what was promised of each holds."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy
from histories import Fleet, History
from redis import Redis
from redis_places import ClusterPlace, SentinelPlace, acl_redis
from redis_server import Clock, RedisServer

from authz.policy.limits import rate_limit

SECONDS = float(os.environ.get("HISTORY_SECONDS", "2"))
HOUR_US = 3_600_000_000
SPEC = {"name": "q", "requests": 40, "per_us": 1_000_000, "burst": 19}
LIMIT = rate_limit(name="q", requests=40, per_us=1_000_000, burst=19)
SLOW = {"name": "q", "requests": 60, "per_us": HOUR_US}
QUICK = {"name": "q", "requests": 4, "per_us": 1_000_000, "burst": 1}  # one in 250 ms
OBEYS: dict[str, Any] = {"callers": 1, "obeys": True, "timeout_s": 0.2}  # a halt of this machine is no fault here
LATE_US = 1_500_000  # beyond what was told: Redis's answer, this machine's halts


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


# ---- whoever obeys Retry-After passes ---------------------------------------------------------------------------


async def test_edited_limit_lets_pass_at_the_wait_that_it_told(own_redis: RedisServer) -> None:
    """60 of 60 in an hour used, then 4 a second: it passed again after an hour, though each refusal said 250 ms."""
    async with Fleet([own_redis.url], [SLOW], **OBEYS | {"obeys": False}) as fleet:
        await asyncio.sleep(1.0)
        fleet.change(limits=[QUICK], obeys=True)
        await asyncio.sleep(SECONDS)
        history = await fleet.history()
    assert len(history.passed["k"]) >= 60 + SECONDS
    assert history.pause_us() < 2 * LATE_US
    assert not history.early


@pytest.mark.parametrize("ahead_s", [-60, 60])
async def test_step_of_rediss_clock_lets_pass_at_the_wait_that_is_told(
    tmp_path: Path, clock: Clock, ahead_s: int
) -> None:
    """Who waits when it steps is told once more how long, and then passes; never for as long as the step."""
    server = RedisServer(tmp_path, environment=clock.environment)
    server.start()
    try:
        async with Fleet([server.url], [QUICK], **OBEYS) as fleet:
            await asyncio.sleep(1.0)
            clock.set(ahead_s)
            await asyncio.sleep(SECONDS)
            history = await fleet.history()
    finally:
        server.stop()
    assert history.pause_us() < LATE_US
    assert history.early <= 1


async def test_failover_to_a_clock_that_is_behind_lets_pass_at_the_wait_that_is_told(
    tmp_path: Path, clock: Clock, own_redis: RedisServer
) -> None:
    clock.set(-60)
    (tmp_path / "behind").mkdir()
    behind = RedisServer(
        tmp_path / "behind", "--replicaof", "127.0.0.1", str(own_redis.port), environment=clock.environment
    )
    behind.start()
    try:
        async with FaultProxy(own_redis.port) as proxy, Fleet([proxy.url], [QUICK], **OBEYS) as fleet:
            await asyncio.sleep(1.5)
            await promote(behind, [proxy])
            await asyncio.sleep(SECONDS)
            history = await fleet.history()
    finally:
        behind.stop()
    assert history.pause_us() < 2 * LATE_US  # and the new connection's time
    assert history.answered


async def promote(server: RedisServer, proxies: list[FaultProxy]) -> None:
    """Have a replica take over, as sentinels do: they name it to whoever asks."""
    with Redis.from_url(server.url) as plain:
        plain.replicaof("NO", "ONE")
    for proxy in proxies:
        proxy.target_port = server.port
        proxy.cut()


# ---- edits and calendars ----------------------------------------------------------------------------------------


async def test_raised_limit_refuses_nobody_and_keeps_what_was_used(own_redis: RedisServer) -> None:
    """All 6 of 1 an hour with a burst of 5, raised to 100 an hour: 94 more pass, at once."""
    few = {"name": "q", "requests": 1, "per_us": HOUR_US, "burst": 5}
    async with Fleet([own_redis.url] * 2, [few]) as fleet:
        await asyncio.sleep(0.5)
        fleet.change(limits=[few | {"requests": 100, "burst": None}])
        await asyncio.sleep(2.0)
        history = await fleet.history()
    assert 99 <= len(history.passed["k"]) <= 101


async def test_clock_that_was_a_year_ahead_spends_no_quota_of_today(tmp_path: Path, clock: Clock) -> None:
    daily = {"name": "q", "requests": 20, "calendar": "Day"}
    clock.set(365 * 86_400)
    server = RedisServer(tmp_path, environment=clock.environment)
    server.start()
    try:
        async with Fleet([server.url], [daily], **OBEYS | {"obeys": False}) as fleet:
            await asyncio.sleep(0.7)
            clock.set(0)
            await asyncio.sleep(6.0)  # a refusal is looked up again after 5 s
            history = await fleet.history()
    finally:
        server.stop()
    assert len(history.passed["k"]) == 40  # that day's, and today's


@pytest.mark.parametrize(("options", "passes"), [((), 40), (("--appendonly", "yes", "--appendfsync", "always"), 20)])
async def test_calendar_quota_starts_anew_when_redis_does_unless_it_persists(
    tmp_path: Path, options: tuple[str, ...], passes: int
) -> None:
    daily = {"name": "q", "requests": 20, "calendar": "Day"}
    server = RedisServer(tmp_path, *options)
    server.start()
    try:
        async with Fleet([server.url] * 2, [daily]) as fleet:
            await asyncio.sleep(0.7)
            server.stop()
            await asyncio.sleep(0.5)
            server.start()
            await asyncio.sleep(6.5)
            history = await fleet.history()
    finally:
        server.stop()
    assert passes - 2 <= len(history.passed["k"]) <= passes  # a call that was charged, and whose answer was lost


# ---- failovers --------------------------------------------------------------------------------------------------


async def test_sentinels_failover_forgets_at_most_a_capacity(tmp_path: Path) -> None:
    place = await asyncio.to_thread(SentinelPlace(tmp_path).__enter__)
    try:
        async with Fleet([place.url] * 2, [SPEC]) as fleet:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(place.kill_master)
            await asyncio.sleep(SECONDS)
            history = await fleet.history()
    finally:
        await asyncio.to_thread(place.__exit__, None, None, None)
    assert history.excess(LIMIT, capacities=3) <= 0
    assert history.answered


async def test_clusters_failover_forgets_at_most_a_capacity_of_a_key(tmp_path: Path) -> None:
    """The master that is asked first is frozen, and wakes when its replica has taken over."""
    place = await asyncio.to_thread(ClusterPlace(tmp_path, replicas=True).__enter__)
    keys = [f"k{number}" for number in range(6)]
    try:
        async with Fleet([place.url] * 2, [SPEC], keys=keys, callers=1) as fleet:
            await asyncio.sleep(0.5)
            place.servers[0].signal(signal.SIGSTOP)
            await asyncio.sleep(3.5)
            place.servers[0].signal(signal.SIGCONT)
            await asyncio.sleep(SECONDS)
            history = await fleet.history()
    finally:
        place.servers[0].signal(signal.SIGCONT)
        await asyncio.to_thread(place.__exit__, None, None, None)
    assert set(history.passed) == set(keys)
    assert history.excess(LIMIT, capacities=3) <= 0


async def test_split_brain_ends_where_a_master_needs_a_replica(tmp_path: Path) -> None:
    """One replica stays with a master that was cut off: with min-replicas-to-write it stops to write within seconds.

    Until then it admits beside the new one; what it does afterwards is counted as without a store.
    """
    servers = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        servers.append(RedisServer(tmp_path / name, "--min-replicas-to-write", "1", "--min-replicas-max-lag", "1"))
    old, new = servers
    old.start()
    new.start()
    try:
        async with FaultProxy(old.port) as line, FaultProxy(old.port) as follows:
            with Redis.from_url(new.url) as plain:
                plain.replicaof("127.0.0.1", line.port)
                plain.config_set("min-replicas-to-write", 0)
                while plain.info("replication")["master_link_status"] != "up":
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.5)  # the old master hears of its replica's lag once a second
            async with Fleet([old.url, follows.url], [SPEC]) as fleet:
                await asyncio.sleep(0.5)
                line.shut()
                await promote(new, [follows])
                await asyncio.sleep(3 + SECONDS)
                history = await fleet.history()
    finally:
        old.stop()
        new.stop()
    lag_s = 3  # min-replicas-max-lag, and that Redis looks at it once a second
    assert history.silent_us[0] > history.silent_us[1]
    assert history.excess(LIMIT, capacities=3) <= LIMIT.requests * lag_s


# ---- what costs nothing, and what is rotated --------------------------------------------------------------------


async def test_flood_of_refused_calls_costs_redis_next_to_nothing(own_redis: RedisServer) -> None:
    few = {"name": "q", "requests": 2, "per_us": HOUR_US}
    with Redis.from_url(own_redis.url) as plain:
        async with Fleet([own_redis.url] * 2, [few], pause_us=500) as fleet:
            await asyncio.sleep(0.5)
            before = calls_of(plain)
            await asyncio.sleep(SECONDS)
            asked = calls_of(plain) - before
            history = await fleet.history()
    assert len(history.passed["k"]) == 2
    assert asked <= 2 * (SECONDS / 5 + 1) * 3 + 2 * SECONDS * 1.5  # looked up every 5 s by each, and idle probes


def calls_of(plain: Redis) -> int:
    told: dict[str, Any] = plain.info("commandstats")
    return int(told["cmdstat_evalsha"]["calls"])


async def test_password_is_rotated_under_load(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old")
    with acl_redis(tmp_path, "quota", "old", ["~*", "&*", "+@all"]) as (server, admin):
        url = f"redis://quota@127.0.0.1:{server.port}"
        async with Fleet([url] * 2, [SPEC], password_file=str(file)) as fleet:
            await asyncio.sleep(0.5)
            admin.acl_setuser("quota", enabled=True, reset_passwords=True, passwords=["+new"])
            admin.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(1.0)
            file.write_text("new")
            await asyncio.sleep(SECONDS)
            history: History = await fleet.history()
    assert history.answered
    assert history.excess(LIMIT) <= 0
