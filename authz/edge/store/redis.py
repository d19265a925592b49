"""Quotas that all replicas share, in Redis: one key a client, one script a call, never a retry.

A charge that got no answer may have happened, so it is not repeated. What is admitted without an answer is noted, and
debited when Redis answers: at worst a client is charged once too often.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from authz.core.address import ANONYMOUS, BUCKETS_MAX
from authz.core.quota import Admission, Exceeded, Unknown, Within, require_affordable
from authz.edge import clock
from authz.edge.metrics import Number
from authz.edge.store import lease
from authz.edge.store.counts import Counts
from authz.edge.store.ledger import ROUND_S, Ledger
from authz.edge.store.node import TIMEOUT_S, Node
from authz.edge.store.place import Place
from authz.edge.store.script import Plan, read_told, redis_key
from authz.edge.store.topology import Topology, open_topology
from authz.policy.limits import Limit

PLANS_MAX: Final = 100_000  # of clients; about 0.7 kB each


class RedisStore:
    """Charges limits in Redis; `hash_key` keeps client names out of its keys. Opened in the event loop that uses it."""

    def __init__(
        self,
        place: Place,
        *,
        prefix: str = "",
        hash_key: bytes = b"clientpolicy",
        replicas: int = 1,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._place = place
        self._prefix = prefix
        self._hash_key = hash_key
        self._replicas = replicas
        self._timeout_s = timeout_s
        self.plans: OrderedDict[str, tuple[Plan, Leasing | None]] = OrderedDict()
        self.address_plans: OrderedDict[str, tuple[Plan, Leasing | None]] = OrderedDict()
        self._topology: Topology | None = None
        self._running: tuple[asyncio.Task[None], ...] = ()
        self.ledger = Ledger()
        self.counts = Counts()
        self.leases = LeaseCounts()

    async def open(self) -> None:
        """Begin to connect, in the background: who asks before that is over gets Unknown."""
        self._topology = open_topology(self._place, self.redis_key, self.counts, self._timeout_s)
        self._running = asyncio.create_task(self._topology.run()), asyncio.create_task(self._repay(self._topology))

    async def spend(
        self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1
    ) -> Within | Exceeded | Unknown:
        del now_us  # Redis has a clock of its own, the same for all replicas
        if not limits:
            return Within(())
        kept = self.plans.get(key) or self.address_plans.get(key)
        plan, leasing = kept if kept is not None and kept[0].limits is limits else self._plan(key, limits)
        if cost != 1:
            require_affordable(limits, cost)
            leasing = None
        elif leasing is not None:
            taken = leasing.take()
            if taken is not None:
                return taken
        node = self._topology.node_of(plan) if self._topology is not None else None
        if node is None:
            return self._unknown(key, plan, Unknown("the store is not known yet"))
        asked = node.ask(plan, cost, leasing)
        found = asked if isinstance(asked, Unknown) else await asked
        return self._unknown(key, plan, found) if isinstance(found, Unknown) else found

    def _unknown(self, key: str, plan: Plan, unknown: Unknown) -> Unknown:
        """Return that there is no answer, with the account where it is noted if the call is admitted all the same."""
        account = self.ledger.account(key, plan)
        told = read_told(plan)
        if told is not None:
            account.tell(told, int(plan.told_s * 1e6))
        return unknown._replace(account=account)

    async def _repay(self, topology: Topology) -> None:
        """Send the debits that no caller carries, a few at a time, so that no caller waits behind them."""
        while True:
            await asyncio.sleep(ROUND_S)
            for plan in self.ledger.due(clock.monotonic_us()) if len(self.ledger) else ():
                node = topology.node_of(plan)
                if node is not None:
                    node.repay(plan)

    def _plan(self, key: str, limits: tuple[Limit, ...]) -> tuple[Plan, Leasing | None]:
        is_address = key.startswith(ANONYMOUS)
        plans, most = (self.address_plans, BUCKETS_MAX) if is_address else (self.plans, PLANS_MAX)
        if len(plans) >= most and key not in plans:
            plans.popitem(last=False)  # of a plain dict, the first is found behind all that were deleted
        leasing = Leasing(limits, self._replicas, self.leases) if lease.tau_us(limits) else None
        plan = Plan(self.redis_key(key), limits)
        self.ledger.follow(key, plan)
        kept = plans[key] = plan, leasing
        return kept

    def redis_key(self, key: str) -> bytes:
        return redis_key(self._prefix, self._hash_key, key)

    @property
    def nodes(self) -> list[Node]:
        return self._topology.nodes if self._topology is not None else []

    def numbers(self) -> Iterator[Number]:
        """Return what the metrics page tells of Redis."""
        counts, leases = self.counts, self.leases
        for node in self.nodes:
            yield "gauge", "clientpolicy_store_up", "1 while a node is used.", {"node": node.name}, float(node.is_up)
        yield "counter", "clientpolicy_store_connections", "Connections that became usable.", {}, counts.connections
        yield "counter", "clientpolicy_store_decisions", "Quota decisions asked of the store.", {}, counts.decisions
        yield "counter", "clientpolicy_store_keys", "Keys in its calls; decisions less those merged.", {}, counts.keys
        yield "counter", "clientpolicy_store_calls", "Script calls.", {}, counts.calls
        told = "Calls without a usable answer; after a timeout or lost nobody knows whether they were charged."
        for kind, count in {"timeout": 0, "lost": 0, **counts.failures}.items():
            yield "counter", "clientpolicy_store_failures", told, {"kind": kind}, count
        told = "Calls bought in advance: granted = spent + expired + outstanding."
        for what, count in (("granted", leases.granted), ("spent", leases.spent), ("expired", leases.expired)):
            yield "counter", "clientpolicy_lease_calls", told, {"what": what}, count

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = ()


class LeaseCounts:
    """Of all leases: granted = spent + expired + outstanding."""

    def __init__(self) -> None:
        self.granted = self.spent = self.expired = 0


class Leasing:
    """A lease under the clock of this process, counted."""

    def __init__(self, limits: tuple[Limit, ...], replicas: int, counts: LeaseCounts) -> None:
        self._lease = lease.Lease(limits, replicas)
        self._counts = counts

    def take(self) -> Within | None:
        before = self._lease.expired
        taken = self._lease.take(clock.monotonic_us())
        self._counts.spent += taken is not None
        self._counts.expired += self._lease.expired - before
        return taken

    def wants(self) -> int:
        return self._lease.wants()

    def bought(self, admission: Admission, first: int, sent_s: float) -> None:
        before = self._lease.granted
        self._lease.bought(admission, first, int(sent_s * 1e6))
        self._counts.granted += self._lease.granted - before

    def lost(self) -> None:
        self._lease.lost()
