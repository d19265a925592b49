"""Which node of Redis holds a key: the only one, the one the sentinels call master, or one of a cluster's.

redis-py asks the sentinels and the cluster; decisions go through `Node`.
"""

from __future__ import annotations

from typing import Protocol

from authz.edge.store.cluster import Cluster
from authz.edge.store.counts import Counts
from authz.edge.store.node import Node
from authz.edge.store.place import Kind, Place
from authz.edge.store.script import NodeKey, Plan
from authz.edge.store.single import Single


class Topology(Protocol):
    @property
    def nodes(self) -> list[Node]: ...

    def node_of(self, plan: Plan) -> Node | None: ...

    async def run(self) -> None:
        """Keep its nodes and the knowledge of them until cancelled."""


def open_topology(place: Place, key: NodeKey, counts: Counts, timeout_s: float) -> Topology:
    """`key` returns the key under which a subject is kept."""
    if place.kind is Kind.CLUSTER:
        return Cluster(place, key, counts, timeout_s)
    return Single(place, key, counts, timeout_s)
