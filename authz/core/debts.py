"""Calls that were admitted without the store, and are owed to it: charged there when it answers, twice at worst.

A replica that gets no answer in time decides alone, from its share of each limit: capacity C/P and rate r/P, starting
from what the store last told. Each call that it admits is owed, and the key's next call carries the debit. The store
charges it before it admits anything; it cannot refuse it, and stops at full; what found no room stays owed. A late
reply that shows the call charged cancels it. A debit without an answer is owed again.

The bound. In any interval t the store charges, admissions and debits together, at most C + r·t. What was admitted
beside it is in that sum as soon as its debit is charged; until then it is still owed, or was forgotten. A replica never
owes more than C/P + r·GRACE/P, for then it admits nothing. It forgets r/P of what it owes, the share that its own
bucket drains, and only for the time beyond GRACE in which none of its debits was confirmed. So all replicas together
admit at most C + r·t, and C + r·GRACE that is owed, and r·(that time beyond GRACE): 2·C + r·(t + d), where d is the
time for which no debit was confirmed, GRACE at least. (A share is never less than one request: C is at least P here.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from authz.core.quota import Admission, Mark, State, charged_by, window
from authz.policy.limits import Limit, RateLimit

GRACE_US: Final = 250_000


class Doubt:
    """Calls of one key whose callers were told that there is no answer, while a reply may still come."""

    __slots__ = ("_account", "_admitted", "_charged", "is_open")

    def __init__(self) -> None:
        self.is_open = True
        self._account: Account | None = None
        self._admitted = 0
        self._charged = 0  # calls that the store charged, and whose callers have not said yet what became of them

    def admit(self, account: Account) -> bool:
        """Note that one of the calls was admitted all the same; return whether it is owed already."""
        if self.is_open:
            self._account = account
            self._admitted += 1
            return False
        if not self._charged:
            return True
        self._charged -= 1
        return False

    def settle(self, charged: int, now_us: int) -> None:
        """Learn how many of the calls the store charged; as many that were admitted here are owed no more."""
        self.is_open = False
        paid = min(charged, self._admitted)
        self._charged = charged - paid
        if self._account is not None:
            self._account.resolve(self._admitted, self._admitted - paid, now_us)


@dataclass(slots=True)
class _Owed:
    """Of one limit: calls to be debited, those on their way, and since when none was confirmed."""

    limit: Limit  # this replica's share
    due: int = 0
    sent: int = 0
    since_us: int = 0
    ends_us: int = 0  # of a calendar: when its window is over, and nobody asks any more what was used in it

    def is_too_much(self, doubted: int) -> bool:
        """Return whether nothing more is admitted here; of a calendar its share alone says that."""
        limit = self.limit
        if not isinstance(limit, RateLimit) or not limit.enforced:
            return False
        most = limit.capacity - (-GRACE_US * limit.count // limit.period_us)
        return self.due + self.sent + doubted >= most

    def owe(self, calls: int, now_us: int) -> None:
        if not self.due and not self.sent:
            self.since_us = now_us
        self.due += calls

    def forget(self, now_us: int) -> None:
        """Forget what this replica's share of the rate makes good in the time for which nothing was confirmed."""
        if not isinstance(self.limit, RateLimit):
            if now_us >= self.ends_us:
                self.due = 0
            return
        period_us, count = self.limit.terms
        drained = (now_us - self.since_us - GRACE_US) * count // period_us
        if drained > 0:
            self.due = max(0, self.due - drained)
            self.since_us -= -drained * period_us // count


class Account:
    """What is owed of one key. Instants are in µs of a clock that never goes back."""

    __slots__ = ("_doubted", "_owed", "_shares", "again_us", "seeded", "told", "told_us")

    def __init__(self) -> None:
        self._shares: tuple[Limit, ...] = ()
        self._owed: dict[bytes, _Owed] = {}
        self._doubted = 0
        self.again_us = 0  # when to send debits without a call that carries them
        self.told: Admission | None = None  # the last that the store told, and when
        self.told_us = 0
        self.seeded: Admission | None = None  # the one that this replica's bucket started from

    def share(self, shares: tuple[Limit, ...]) -> None:
        """Take the limits that count here, this replica's shares; after an edit what is owed stays owed."""
        if shares is not self._shares:
            self._shares = shares
            before = self._owed
            self._owed = {share.tag: before.get(share.tag, _Owed(share)) for share in shares}
            for share in shares:
                self._owed[share.tag].limit = share

    def tell(self, told: Admission, now_us: int) -> None:
        """Note what the store told last."""
        self.told, self.told_us = told, now_us

    def pending(self, share: Limit) -> int:
        owed = self._owed[share.tag]
        return owed.due + owed.sent + self._doubted

    def binding(self, now_us: int) -> Limit | None:
        """Return a limit of which so much is owed that this replica admits nothing more; None: there is none."""
        for owed in self._owed.values():
            owed.forget(now_us)
            if owed.is_too_much(self._doubted):
                return owed.limit
        return None

    def admit(self, doubt: Doubt | None, now_us: int, wall_us: int) -> None:
        """Note a call that was admitted without the store."""
        for owed in self._owed.values():
            owed.forget(now_us)
            if not isinstance(owed.limit, RateLimit):
                owed.ends_us = now_us + window(owed.limit.calendar, wall_us)[1] - wall_us
        if doubt is None or doubt.admit(self):
            self._owe(1, now_us)
        elif doubt.is_open:
            self._doubted += 1

    def resolve(self, doubted: int, due: int, now_us: int) -> None:
        """Learn what became of calls in doubt: so many are due."""
        self._doubted -= doubted
        if due:
            self._owe(due, now_us)

    def _owe(self, calls: int, now_us: int) -> None:
        for owed in self._owed.values():
            owed.owe(calls, now_us)

    def is_due(self, now_us: int) -> bool:
        return now_us >= self.again_us and any(owed.due for owed in self._owed.values())

    def is_settled(self, now_us: int) -> bool:
        for owed in self._owed.values():
            owed.forget(now_us)
        return not self._doubted and not any(owed.due or owed.sent for owed in self._owed.values())

    def send(self, limits: tuple[Limit, ...], now_us: int) -> tuple[int, ...]:
        """Return the debits of these limits that go with a call now; none where nothing is due."""
        debits = tuple([self._send(limit, now_us) for limit in limits])
        return debits if any(debits) else ()

    def _send(self, limit: Limit, now_us: int) -> int:
        owed = self._owed.get(limit.tag)
        if owed is None:
            return 0
        owed.forget(now_us)
        debit = min(owed.due, limit.full // limit.unit)
        owed.due -= debit
        owed.sent += debit
        return debit

    def confirm(self, limits: tuple[Limit, ...], debits: tuple[int, ...], repaid: tuple[int, ...], now_us: int) -> None:
        """Learn how much of the debits was charged; of a rate the rest stays due, a calendar's window is used up."""
        for limit, debit, calls in zip(limits, debits, repaid, strict=False):
            owed = self._owed.get(limit.tag)
            if owed is None:
                continue
            owed.sent = max(0, owed.sent - debit)
            owed.since_us = now_us
            if isinstance(limit, RateLimit) and calls < debit:
                owed.due += debit - calls
                self.again_us = max(self.again_us, now_us + limit.period_us // limit.count)

    def restore(self, limits: tuple[Limit, ...], debits: tuple[int, ...]) -> None:
        """Learn that debits got no answer: charged or not, they are due again."""
        for limit, debit in zip(limits, debits, strict=False):  # no debits at all are ()
            owed = self._owed.get(limit.tag)
            if owed is not None:
                owed.sent = max(0, owed.sent - debit)
                owed.due += debit

    def seed(self, limits: tuple[Limit, ...], now_us: int, wall_us: int) -> State | None:
        """Return what this replica's bucket starts from; None where the store told nothing new since it started.

        A rate's debt takes as long to drain at a replica's share of the rate as it does at the whole of it.
        """
        told = self.told
        if told is None or told is self.seeded:
            return None
        self.seeded = told
        after = {limit.tag: held for limit, held in zip(limits, charged_by(told, limits), strict=True)}
        full = {limit.tag: limit for limit in limits}
        state: dict[bytes, Mark] = {}
        for share in self._shares:
            held, limit, pending = after[share.tag], full[share.tag], self.pending(share)
            if isinstance(share, RateLimit):
                owed_us = -(-held.used // limit.terms[1]) - (-pending * share.period_us // share.count)
                state[share.tag] = Mark(wall_us - (now_us - self.told_us) + owed_us, 0, share.terms)
            else:
                used = -(-held.used * share.full // limit.full) + pending
                state[share.tag] = Mark(held.from_us, used, share.terms)
        return state
