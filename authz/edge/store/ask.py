"""What callers want of one key, and the script call that carries it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from authz.core.debts import Account, Doubt
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
    """What waits for one key: callers who each want one call of this cost, and what the key owes."""

    __slots__ = ("account", "cost", "debits", "doubt", "extra", "plan", "redirects", "since_s", "waiters", "want")

    def __init__(self, plan: Plan, cost: int, since_s: float, extra: Extra | None) -> None:
        self.plan = plan
        self.cost = cost
        self.since_s = since_s
        self.extra = extra
        self.waiters: list[asyncio.Future[Outcome]] = []
        self.want = 0
        self.redirects = 0
        self.account: Account | None = None
        self.debits: tuple[int, ...] = ()
        self.doubt: Doubt | None = None

    def prepare(self, now_s: float) -> bool:
        """Decide what is asked; return whether it is anything, once who went away before it was sent is forgotten."""
        self.waiters = [waiter for waiter in self.waiters if not waiter.done()]
        self.account = self.plan.account
        if self.account is not None:
            self.debits = self.account.send(self.plan.limits, int(now_s * 1e6))
        if not self.waiters:
            return bool(self.debits)
        self.want = len(self.waiters) + (self.extra.wants() if self.extra is not None else 0)
        return True

    def settle(self, admission: Admission, sent_s: float, now_s: float) -> None:
        self._learn(admission, now_s)
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

    def settle_late(self, admission: Admission, now_s: float) -> None:
        """Take a reply for which nobody waits any more: which calls were charged is known now."""
        self._learn(admission, now_s)
        if self.doubt is not None:
            self.doubt.settle(min(admission.admitted, len(self.waiters)), int(now_s * 1e6))

    def _learn(self, admission: Admission, now_s: float) -> None:
        self.plan.told_s = now_s
        if self.debits and self.account is not None:
            if self.plan.account is self.account:
                self.account.tell(admission, int(now_s * 1e6))
            self.account.confirm(self.plan.limits, self.debits, admission.repaid, int(now_s * 1e6))

    def fail(self, detail: str, *, in_doubt: bool = False) -> None:
        """Tell the callers that there is no answer; `in_doubt` while a reply may still come."""
        if in_doubt:
            self.doubt = Doubt()
        unknown = Unknown(detail, self.doubt)
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(unknown)
        if self.extra is not None:
            self.extra.lost()
        if not in_doubt:
            self._restore()

    def abandon(self, now_s: float) -> None:
        """Learn that no reply will come, or none that tells: the callers' calls count as not charged."""
        if self.doubt is not None:
            self.doubt.settle(0, int(now_s * 1e6))
        self._restore()

    def _restore(self) -> None:
        if self.account is not None:
            self.account.restore(self.plan.limits, self.debits)
        self.debits = ()


class Call:
    """One script call on its way, for one or several keys."""

    __slots__ = ("asked", "asking", "asks", "data", "ends_flush", "nonce", "over", "resent", "sent_s", "since_s")

    def __init__(self, asks: list[Ask], nonce: int, sent_s: float, *, ends_flush: bool, asking: bool = False) -> None:
        self.asks = asks
        self.asked = [Asked(ask.plan, ask.want, ask.cost, ask.debits) for ask in asks]
        self.nonce = nonce
        self.since_s = min([ask.since_s for ask in asks])
        self.sent_s = sent_s
        self.ends_flush = ends_flush
        self.asking = asking  # a cluster's node answers it for a slot that is on its way there
        self.data = encode(nonce, self.asked)
        self.over = False  # its callers were told that there is no answer
        self.resent = False
