"""What callers want of one key, and the script call that carries it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from authz.core.quota import Admission, Exceeded, Unknown, Within, outcome
from authz.edge.store.script import Asked, Plan, encode

Outcome = Within | Exceeded | Unknown


class Extra(Protocol):
    """Who buys calls beyond those that wait (a lease), and what they got."""

    def wants(self) -> int: ...

    def bought(self, admission: Admission, first: int, sent_s: float) -> None:
        """Take the calls of an admission from the place `first` on; none if it admitted fewer."""

    def lost(self) -> None:
        """Learn that nobody knows what was bought."""


class Ask:
    """What waits for one key: callers who each want one call of this cost."""

    __slots__ = ("cost", "extra", "plan", "redirects", "since_s", "waiters", "want")

    def __init__(self, plan: Plan, cost: int, since_s: float, extra: Extra | None) -> None:
        self.plan = plan
        self.cost = cost
        self.since_s = since_s
        self.extra = extra
        self.waiters: list[asyncio.Future[Outcome]] = []
        self.want = 0
        self.redirects = 0

    def settle(self, admission: Admission, sent_s: float) -> None:
        refused: Outcome | None = None  # the same for all that it concerns
        for place, waiter in enumerate(self.waiters):
            learnt = refused
            if learnt is None:
                learnt = outcome(admission, self.plan.limits, place, self.cost)
                if place >= admission.admitted:
                    refused = learnt
            if not waiter.done():
                waiter.set_result(learnt)
        if self.extra is not None:
            self.extra.bought(admission, len(self.waiters), sent_s)

    def fail(self, unknown: Unknown) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(unknown)
        if self.extra is not None:
            self.extra.lost()


class Call:
    """One script call on its way, for one or several keys."""

    __slots__ = ("asked", "asks", "data", "ends_flush", "nonce", "over", "resent", "sent_s", "since_s")

    def __init__(self, asks: list[Ask], nonce: int, sent_s: float, *, ends_flush: bool) -> None:
        self.asks = asks
        self.asked = [Asked(ask.plan, ask.want, ask.cost) for ask in asks]
        self.nonce = nonce
        self.since_s = min([ask.since_s for ask in asks])
        self.sent_s = sent_s
        self.ends_flush = ends_flush
        self.data = encode(nonce, self.asked)
        self.over = False  # its callers were told that there is no answer
        self.resent = False
