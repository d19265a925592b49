"""Which node of Redis holds a key: the only one, the one the sentinels call master, or one of a cluster's.

redis-py asks the sentinels and the cluster; decisions go through `Node`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from redis.asyncio import Redis, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from authz.edge import chance
from authz.edge.store.ask import Ask
from authz.edge.store.counts import Counts
from authz.edge.store.link import Link, open_link
from authz.edge.store.node import PROBE_S, Node
from authz.edge.store.place import Kind, Place
from authz.edge.store.script import Plan
from authz.policy.limits import rate_limit

logger = logging.getLogger(__name__)

REFRESH_S: Final = 30.0  # a cluster's map, when nothing told of a change and all its nodes are up
ASK_S: Final = 1.0  # for an answer of a sentinel or a cluster node about the topology
_CANCELLED_AGAIN_S: Final = 0.25
_PROBE: Final = (rate_limit(name="probe", requests=1_000, per_us=1_000_000),)

NodeKey = Callable[[str], bytes]
Owned = tuple[int, int, tuple[str, int]]  # first and last slot, and whose
_Told = TypeVar("_Told")


class Topology(Protocol):
    @property
    def nodes(self) -> list[Node]: ...

    def node_of(self, plan: Plan) -> Node | None: ...

    async def run(self) -> None:
        """Keep its nodes and the knowledge of them until cancelled."""


def control(place: Place, host: str, port: int, *, sentinel: bool = False) -> dict[str, Any]:
    """Return redis-py's arguments for a connection to a node; a `retry` of none goes with them."""
    return {
        "host": host,
        "port": port,
        "username": place.sentinel_username if sentinel else place.username,
        "password": place.sentinel_password if sentinel else place.password,
        "socket_timeout": ASK_S,
        "socket_connect_timeout": ASK_S,
        "protocol": 2,
        **tls_arguments(place),
    }


def tls_arguments(place: Place) -> dict[str, Any]:
    if not place.tls:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": str(place.ca_file) if place.ca_file else None,
        "ssl_certfile": str(place.cert_file) if place.cert_file else None,
        "ssl_keyfile": str(place.key_file) if place.key_file else None,
        "ssl_check_hostname": place.check_hostname,
    }


def open_topology(place: Place, key: NodeKey, counts: Counts, timeout_s: float) -> Topology:
    """`key` returns the key under which a subject is kept."""
    if place.kind is Kind.CLUSTER:
        return Cluster(place, key, counts, timeout_s)
    return Single(place, key, counts, timeout_s)


class Single:
    """One node: of an address, or the master that the sentinels name."""

    def __init__(self, place: Place, key: NodeKey, counts: Counts, timeout_s: float) -> None:
        self._place = place
        self._master: tuple[str, int] | None = None
        name = place.service or place.path or "{}:{}".format(*place.addresses[0])
        sentinel = place.kind is Kind.SENTINEL
        self._node = Node(
            name,
            self._connect,
            Plan(key("probe"), _PROBE),
            counts,
            moved=self._has_moved if sentinel else None,
        )
        self._node.timeout_s = timeout_s
        self.nodes = [self._node]

    def node_of(self, plan: Plan) -> Node | None:
        del plan
        return self._node

    async def run(self) -> None:
        await self._node.run()

    async def _connect(self) -> Link:
        host, port = ("", 0) if self._place.path is not None else self._place.addresses[0]
        if self._place.kind is Kind.SENTINEL:
            self._master = host, port = await _apart(self._discover())
        return await open_link(self._place, host, port)

    async def _discover(self) -> tuple[str, int]:
        first, *_ = self._place.addresses
        arguments = control(self._place, *first, sentinel=True)
        arguments = {name: value for name, value in arguments.items() if name not in ("host", "port")}
        arguments["retry"] = Retry(NoBackoff(), 0)
        sentinel = Sentinel(list(self._place.addresses), sentinel_kwargs=arguments)  # type: ignore[no-untyped-call]
        try:
            host, port = await sentinel.discover_master(self._place.service)
        finally:
            for one in sentinel.sentinels:
                await one.aclose()
        return str(host), int(port)

    async def _has_moved(self) -> bool:
        try:
            return await _apart(self._discover()) != self._master
        except (RedisError, OSError):  # nobody to ask: what holds is what was known
            return False


class Cluster:
    """Slots and their masters, learnt from any node that answers, and again whenever one says that a slot moved."""

    def __init__(self, place: Place, key: NodeKey, counts: Counts, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._key = key
        self._counts = counts
        self._slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._by_address: dict[tuple[str, int], Node] = {}
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._trouble = ""
        self._stale = asyncio.Event()
        self._stale.set()

    @property
    def nodes(self) -> list[Node]:
        return list(self._by_address.values())

    def node_of(self, plan: Plan) -> Node | None:
        return self._slots[plan.slot]

    async def run(self) -> None:
        try:
            while True:
                await self._refresh()
                await asyncio.sleep(PROBE_S * (1 - chance.fraction() / 2))  # however often the cluster changes
                with suppress(TimeoutError):
                    patience_s = REFRESH_S if all(node.is_up for node in self.nodes) else ASK_S
                    async with asyncio.timeout(patience_s):
                        await self._stale.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _refresh(self) -> None:
        """Learn the map from the first node that tells it; what was known holds until then."""
        self._stale.clear()
        for address in [*self._by_address, *self._place.addresses]:
            try:
                ranges = await _apart(self._ask(*address))
            except Exception as failed:  # noqa: BLE001 whatever it is, another node or a later attempt may tell
                self._note(f"{'{}:{}'.format(*address)}: {type(failed).__name__}")
                continue
            if ranges:
                self._apply(ranges)
                self._trouble = ""
                return
            self._note("{}:{} knows no slots".format(*address))
        self._stale.set()

    def _note(self, trouble: str) -> None:
        """Tell of trouble once, not at each attempt."""
        if trouble not in self._trouble:
            self._trouble += trouble
            logger.warning("store's cluster not known", extra={"error": trouble})

    async def _ask(self, host: str, port: int) -> list[Owned]:
        client = Redis(retry=Retry(NoBackoff(), 0), **control(self._place, host, port))
        try:
            found: list[list[Any]] = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()
        # A node that was never told its own address leaves it empty: it is where it was asked.
        return [(first, last, (master[0].decode() or host, master[1])) for first, last, master, *_ in found]

    def _apply(self, ranges: list[Owned]) -> None:
        slots: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        masters = {address for _, _, address in ranges}
        widest = sorted(ranges, key=_width, reverse=True)  # there a probe's key is found soonest
        for first, last, address in widest:
            node = self._node(address, range(first, last + 1))
            slots[first : last + 1] = [node] * (last + 1 - first)
        for first, last, address in widest:
            node = self._by_address[address]
            if slots[node.probe.slot] is not node:  # its slot moved away, and no probe of it would succeed again
                node.probe = self._probe(range(first, last + 1))
        self._slots = slots
        for address in set(self._by_address) - masters:
            del self._by_address[address]
            self._tasks.pop(address).cancel()

    def _node(self, address: tuple[str, int], held: range) -> Node:
        node = self._by_address.get(address)
        if node is None:
            node = self._by_address[address] = Node(
                "{}:{}".format(*address),
                lambda: open_link(self._place, *address),
                self._probe(held),
                self._counts,
                redirect=self._redirect,
                on_down=self._stale.set,
            )
            node.timeout_s = self._timeout_s
            self._tasks[address] = asyncio.create_task(node.run())
        return node

    def _probe(self, held: range) -> Plan:
        """Return a probe whose key is in one of these slots, so that the node answers for it."""
        number = 0
        while key_slot(key := self._key(f"probe:{number}")) not in held:
            number += 1
        return Plan(key, _PROBE)

    def _redirect(self, ask: Ask, error: str) -> bool:
        """Place an ask where Redis says: for good (MOVED), for this call (ASK), or key by key (TRYAGAIN)."""
        code, _, where = error.partition(" ")
        if code == "TRYAGAIN":
            node = self._slots[ask.plan.slot]
            return node is not None and node.take(ask, asking=False)
        _, _, address = where.partition(" ")
        host, _, port = address.partition(" ")[0].rpartition(":")
        if not port.isdecimal():
            return False
        node = self._by_address.get((host, int(port)))
        if code == "MOVED":
            self._stale.set()
            if node is not None:
                self._slots[ask.plan.slot] = node
        return node is not None and node.take(ask, asking=code == "ASK")


async def _apart(asking: Coroutine[Any, Any, _Told]) -> _Told:
    """Return what redis-py is told; a cancel ends it even where redis-py loses the first one.

    It sends by `asyncio.wait_for`, and before Python 3.12 that drops a cancel which comes as the sending is done.
    """
    task = asyncio.create_task(asking)
    try:
        await asyncio.wait((task,))
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCELLED_AGAIN_S)
    return task.result()


def _width(owned: Owned) -> int:
    first, last, _ = owned
    return last - first
