"""`clientpolicy quota show|reset`: what the running service counted, read and given back on a real Redis."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from partner import CLIENT_ID, Site, policy_document
from redis_places import ClusterPlace, SentinelPlace, acl_redis
from redis_server import PROGRAM, RedisServer, free_port, require
from test_cli import run

from authz.core.quota import Within
from authz.edge.store.place import read_place
from authz.edge.store.redis import RedisStore
from authz.policy import ClientPolicy, parse
from authz.policy.limits import Limit

QUOTAS: list[dict[str, Any]] = [
    {"name": "steady", "requests": 10, "per": "1h", "burst": 20},
    {"name": "daily", "requests": 1000, "calendar": "Day", "onStoreFailure": "Closed"},
    {"name": "planned", "requests": 2, "per": "24h", "mode": "Shadow"},
]
PARSED = parse(policy_document(quotas=QUOTAS))
assert isinstance(PARSED, ClientPolicy)
LIMITS: tuple[Limit, ...] = tuple(quota.limit() for quota in PARSED.spec.quotas)


def spend(url: str, prefix: str, key: str, limits: tuple[Limit, ...], calls: int) -> int:
    """Return how many of so many calls passed."""

    async def main() -> int:
        store = RedisStore(read_place(url), prefix=prefix, hash_key=b"pepper")
        await store.open()
        passed = tried = 0
        while tried < calls:
            outcome = await store.spend(key, limits, now_us=0)
            if not store.counts.decisions:  # not connected yet
                await asyncio.sleep(0.01)
                continue
            tried += 1
            passed += isinstance(outcome, Within)
        await store.close()
        return passed

    return asyncio.run(main())


@pytest.fixture
def prefix() -> str:
    return f"{uuid4()}:"


def configure(site: Site, url: str, prefix: str) -> Path:
    return site.write(policy_document(quotas=QUOTAS), store={"url": url, "prefix": prefix, "hashKey": "pepper"})


def test_show_tells_what_was_spent_and_reset_gives_it_back(site: Site, redis: RedisServer, prefix: str) -> None:
    configure(site, redis.url, prefix)
    assert spend(redis.url, prefix, f"client:{CLIENT_ID}", LIMITS, 3) == 3
    arguments = (CLIENT_ID, "--config", site.config_file)
    shown = run("quota", "show", *arguments)
    assert shown.returncode == 0, shown.stderr
    heading, steady, daily, planned = shown.stdout.splitlines()
    assert heading.split()[:5] == ["QUOTA", "MODE", "LIMIT", "USED", "LEFT"]
    assert "Enforce  10 per 1h, 21 at once" in steady
    assert "1000 each UTC day" in daily
    assert daily.endswith("Closed")
    assert "Shadow" in planned
    entries = json.loads(run("quota", "show", *arguments, "--json").stdout)
    assert entries["client"] == CLIENT_ID
    assert [(one["used"], one["left"]) for one in entries["quotas"]] == [(3, 18), (3, 997), (2, 0)]
    again = json.loads(run("quota", "show", *arguments, "--json").stdout)
    assert [one["left"] for one in again["quotas"]] == [18, 997, 0]  # looking costs nothing
    reset = run("quota", "reset", *arguments)
    assert reset.returncode == 0
    assert reset.stdout.startswith(f"{CLIENT_ID}: cleared; ")
    after = json.loads(run("quota", "show", f"partners/{CLIENT_ID}", "--config", site.config_file, "--json").stdout)
    assert [one["used"] for one in after["quotas"]] == [0, 0, 0]
    assert json.loads(run("quota", "reset", *arguments, "--json").stdout) == {"client": CLIENT_ID, "cleared": False}


def test_address_has_the_anonymous_quota(site: Site, redis: RedisServer, prefix: str) -> None:
    configure(site, redis.url, prefix)
    shown = run("quota", "show", "address:2001:db8::1", "--config", site.config_file, "--json")
    entries = json.loads(shown.stdout)
    assert entries["client"] == "address:2001:db8::/64"
    assert [one["quota"] for one in entries["quotas"]] == ["anonymous"]


def test_sentinel_and_cluster(site: Site, tmp_path: Path, prefix: str) -> None:
    require(PROGRAM)
    for name, place in (("s", SentinelPlace), ("c", ClusterPlace)):
        (tmp_path / name).mkdir()
        with place(tmp_path / name) as started:
            configure(site, started.url, prefix)
            spend(started.url, prefix, f"client:{CLIENT_ID}", LIMITS, 2)
            arguments = (CLIENT_ID, "--config", site.config_file, "--json")
            shown = run("quota", "show", *arguments)
            assert shown.returncode == 0, shown.stderr
            assert [one["used"] for one in json.loads(shown.stdout)["quotas"]] == [2, 2, 2]
            assert json.loads(run("quota", "reset", *arguments).stdout)["cleared"] is True


def test_acl_for_reset_is_the_documented_one(site: Site, tmp_path: Path) -> None:
    rules = ["~t:rl:2:*", "-@all", "+script|load", "+evalsha", "+get", "+set", "+time"]
    for more, expected in ((), 2), (("+del",), 0):
        folder = tmp_path / str(expected)
        folder.mkdir()
        with acl_redis(folder, "quota", "pw", [*rules, *more]) as (server, _):
            configure(site, f"redis://quota:pw@127.0.0.1:{server.port}", "t:")
            assert run("quota", "show", CLIENT_ID, "--config", site.config_file).returncode == 0
            reset = run("quota", "reset", CLIENT_ID, "--config", site.config_file)
            assert reset.returncode == expected, reset.stderr


def test_mistakes_are_told_in_one_line(site: Site, redis: RedisServer, prefix: str) -> None:
    configure(site, redis.url, prefix)
    unknown = run("quota", "show", "nobody", "--config", site.config_file)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no client `nobody`; expected a client id" in unknown.stderr
    assert CLIENT_ID in unknown.stderr
    configure(site, f"redis://:hush@127.0.0.1:{free_port()}", prefix)
    for action in ("show", "reset"):
        away = run("quota", action, CLIENT_ID, "--config", site.config_file)
        assert away.returncode == 2
        assert "store.url: 127.0.0.1:" in away.stderr
        assert "hush" not in away.stderr
        assert len(away.stderr.splitlines()) == 1
    site.write(policy_document(quotas=QUOTAS))
    memory = run("quota", "show", CLIENT_ID, "--config", site.config_file)
    assert memory.returncode == 2
    assert "memory:// is each process's own" in memory.stderr
    assert run("quota", "raise", CLIENT_ID, "--config", site.config_file).returncode == 2
