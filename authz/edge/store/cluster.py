"""A cluster of Redis: which master has which slots, learnt from the nodes themselves."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import NoPermissionError

from authz.edge import chance
from authz.edge.store.access import ASK_S, apart, control
from authz.edge.store.ask import Ask
from authz.edge.store.counts import Counts
from authz.edge.store.link import open_link
from authz.edge.store.node import PROBE_S, PROBED, Node
from authz.edge.store.place import Place
from authz.edge.store.script import NodeKey, Plan

logger = logging.getLogger(__name__)

REFRESH_S: Final = 30.0  # when nothing told of a change and all nodes are up

Owned = tuple[int, int, tuple[str, int]]  # first and last slot, and whose


class Told(NamedTuple):
    """What a node knows of its cluster; the epoch rises with each failover that it heard of."""

    epoch: int
    ranges: list[Owned]


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
        self._epoch = 0
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
        """Learn the map from a node that is not behind what is known; what was known holds until then.

        A master that was cut off does not know that it was replaced, and tells its old map: nodes that are up are asked
        first, and the highest epoch counts. A lower one is taken only from a cluster of which all nodes tell it: it was
        made anew.
        """
        self._stale.clear()
        behind: list[Told] = []
        silent = False
        for address in self._in_order():
            try:
                told = await apart(self._ask(*address))
            except Exception as failed:  # noqa: BLE001 whatever it is, another node or a later attempt may tell
                self._note(f"{'{}:{}'.format(*address)}: {type(failed).__name__}")
                silent = True
                continue
            if told.epoch >= self._epoch:
                self._take(told)
                return
            behind.append(told)
        if behind and not silent:
            self._take(max(behind, key=_epoch_of))
        else:
            self._stale.set()

    def _in_order(self) -> list[tuple[str, int]]:
        """Return whom to ask: who is up, then who was not heard of yet, and who is down last."""
        nodes = self._by_address
        up = [address for address, node in nodes.items() if node.is_up]
        new = [address for address in self._place.addresses if address not in nodes]
        return list(dict.fromkeys([*up, *new, *nodes]))

    def _take(self, told: Told) -> None:
        self._apply(told.ranges)
        self._epoch = told.epoch
        self._trouble = ""

    def _note(self, trouble: str) -> None:
        """Tell of trouble once, not at each attempt."""
        if trouble not in self._trouble:
            self._trouble += trouble
            logger.warning("store's cluster not known", extra={"error": trouble})

    async def _ask(self, host: str, port: int) -> Told:
        client = Redis(retry=Retry(NoBackoff(), 0), **control(self._place, host, port))
        try:
            found: list[list[Any]] = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
            epoch = 0
            with suppress(NoPermissionError):  # an ACL from before it was asked: the first answer counts
                epoch = int((await client.execute_command("CLUSTER INFO"))["cluster_current_epoch"])  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()
        if not found:
            raise LookupError("knows no slots")
        ranges = [(first, last, (_host(master, host), master[1])) for first, last, master, *_ in found]
        return Told(epoch, ranges)

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
                redirect=partial(self._redirect, address[0]),
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
        return Plan(key, PROBED)

    def _redirect(self, answered: str, ask: Ask, error: str) -> bool:
        """Place an ask where Redis says: for good (MOVED), for this call (ASK), or key by key (TRYAGAIN).

        Without a host (cluster-preferred-endpoint-type unknown-endpoint) that is the one which `answered`.
        """
        code, _, where = error.partition(" ")
        if code == "TRYAGAIN":
            node = self._slots[ask.plan.slot]
            return node is not None and node.take(ask, asking=False)
        _, _, address = where.partition(" ")
        host, _, port = address.partition(" ")[0].rpartition(":")
        if not port.isdecimal():
            return False
        node = self._at(host or answered, int(port))
        if code == "MOVED":
            self._stale.set()
            if node is not None:
                self._slots[ask.plan.slot] = node
        return node is not None and node.take(ask, asking=code == "ASK")

    def _at(self, host: str, port: int) -> Node | None:
        """Return the node of an address; without a host name that was set (`?`), the only one of that port."""
        if host != "?":
            return self._by_address.get((host, port))
        found = [node for (_, its_port), node in self._by_address.items() if its_port == port]
        return found[0] if len(found) == 1 else None


def _host(master: list[Any], answered: str) -> str:
    """Return where a master is: unknown (null), or not told to itself (empty), it is where the answer came from.

    Source: CLUSTER SLOTS, "Nested result array"; a host name that was not set is `?`, and its address is beside it.
    """
    name, _, _, *more = master
    if name == b"?" and more:
        beside = dict(zip(more[0][::2], more[0][1::2], strict=True))
        name = beside.get(b"ip")
    return name.decode() if name else answered


def _epoch_of(told: Told) -> int:
    return told.epoch


def _width(owned: Owned) -> int:
    first, last, _ = owned
    return last - first
