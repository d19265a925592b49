"""Redis as a person looks after it: redis-py on the node that holds a key, for commands and never for decisions."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final, NamedTuple, cast

from redis import Redis, RedisCluster, Sentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from authz.core.quota import SECOND_US, State
from authz.edge.store.access import control
from authz.edge.store.place import Kind, Place
from authz.edge.store.script import read_state

_ADDRESS: Final = ("host", "port")
_ONCE: Final[dict[str, Any]] = {"retry": Retry(NoBackoff(), 0)}


class Counted(NamedTuple):
    """What Redis holds of a key, and its clock, µs since the epoch."""

    state: State
    now_us: int


def open_control(place: Place) -> Redis | RedisCluster:
    """Return a client of the node, the master or the cluster.

    Raises:
        RedisError, OSError: it is not there.
    """
    if place.kind is Kind.CLUSTER:
        nodes = [ClusterNode(*address) for address in place.addresses]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **_without_address(control(place, "", 0)))
    if place.path is not None:
        arguments = _without_address(control(place, "", 0))
        return Redis(unix_socket_path=place.path, db=place.database, **arguments)
    host, port = place.addresses[0]
    if place.kind is Kind.SENTINEL:
        asked = _without_address(control(place, "", 0, sentinel=True))
        sentinel = Sentinel(list(place.addresses), sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        host, port = sentinel.discover_master(place.service)  # type: ignore[no-untyped-call]
        for one in sentinel.sentinels:
            one.close()
    return Redis(db=place.database, **control(place, host, port), **_ONCE)


def _without_address(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in _ADDRESS} | _ONCE


def read_counters(place: Place, key: bytes) -> Counted:
    """Return what a key holds now; nothing is charged.

    Raises:
        RedisError, OSError: Redis does not tell.
    """
    with closing(open_control(place)) as redis:
        raw = redis.get(key)
        seconds, us = _time(redis, key)
    return Counted(read_state(raw if isinstance(raw, bytes) else b""), int(seconds) * SECOND_US + int(us))


def _time(redis: Redis | RedisCluster, key: bytes) -> tuple[int, int]:
    """Return the clock of the node that holds a key."""
    if isinstance(redis, Redis):
        return redis.time()
    node = redis.get_node_from_key(key)  # type: ignore[no-untyped-call]
    return cast("tuple[int, int]", redis.execute_command("TIME", target_nodes=node))  # type: ignore[no-untyped-call]


def clear_counters(place: Place, key: bytes) -> bool:
    """Forget what a key holds; return whether there was anything.

    Raises:
        RedisError, OSError: Redis does not do it.
    """
    with closing(open_control(place)) as redis:
        return bool(redis.delete(key))
