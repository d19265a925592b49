"""One node of Redis: of an address, or the master that the sentinels name."""

from __future__ import annotations

from redis.asyncio import Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from authz.edge.store.access import apart, control
from authz.edge.store.counts import Counts
from authz.edge.store.link import Link, open_link
from authz.edge.store.node import PROBED, Node
from authz.edge.store.place import Kind, Place
from authz.edge.store.script import NodeKey, Plan


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
            Plan(key("probe"), PROBED),
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
            self._master = host, port = await apart(self._discover())
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
            return await apart(self._discover()) != self._master
        except (RedisError, OSError):  # nobody to ask: what holds is what was known
            return False
