"""Calls bought in advance, for a key that is asked so often that even merged calls are too many.

Prepaid, not written behind: a replica buys calls with the ordinary exact script and spends them within `tau` of having
sent for them; what is left then is gone. So every admission was granted at most tau earlier, and what is granted in any
span x is at most C + r·x: admissions in any interval t are at most C + r·(t + tau), however many replicas there are,
and never more than granted in total. A crash loses calls, it never makes any.

A calendar quota needs no permission: its leases end with its window, by Redis's clock.
"""

from __future__ import annotations

from typing import Final

from authz.core.quota import SECOND_US, Admission, Within, outcome, window_ends_us
from authz.policy.limits import Limit, RateLimit

ENTER_PER_S: Final = 200  # calls of this key in this replica above which it leases
ENTER_ROOM: Final = 0.5
EXIT_ROOM: Final = 0.25
FEWEST: Final = 4  # below that it is not worth it
COUNTED_US: Final = SECOND_US // 10


def tau_us(limits: tuple[Limit, ...]) -> int:
    """Return how long leased calls live, µs: the shortest that any limit's maxOvershoot allows; 0: there are none."""
    rates = [limit for limit in limits if isinstance(limit, RateLimit) and limit.enforced]
    return min((limit.max_overshoot * limit.per_us // limit.requests for limit in rates), default=0)


def most(limits: tuple[Limit, ...], replicas: int) -> int:
    """Return how many calls one lease may hold: no more than the overshoot's share, nor a quarter of a capacity's."""
    overshoots = [
        limit.max_overshoot // replicas for limit in limits if isinstance(limit, RateLimit) and limit.enforced
    ]
    return min([*overshoots, *(limit.full // limit.unit // (4 * replicas) for limit in limits)])


class Lease:
    """One replica's, of one key. Instants are in µs of a clock that never goes back."""

    def __init__(self, limits: tuple[Limit, ...], replicas: int) -> None:
        self._limits = limits
        self._tau_us = tau_us(limits)
        self._most = most(limits, replicas)
        self._size = 0  # how many to buy next; 0: none, exact
        self._room = 0.0  # what is left of the scarcest limit, as a share of it
        self._buying = False
        self._held: Admission | None = None
        self._next = 0  # the place in it of the next call to spend
        self._sent_us = self._until_us = 0
        self._since_us, self._counted, self._per_s = 0, 0, 0
        self.granted = self.spent = self.expired = 0

    @property
    def outstanding(self) -> int:
        return self._held.admitted - self._next if self._held is not None else 0

    def take(self, now_us: int) -> Within | None:
        """Return a call that was bought; None where there is none, so that the store is to be asked."""
        self._count(now_us)
        held = self._held
        if held is None:
            return None
        if now_us >= self._until_us:
            self._expire(held)
            return None
        bought = outcome(held, self._limits, self._next)
        elapsed_us = now_us - self._sent_us
        levels = tuple(level._replace(reset_us=max(0, level.reset_us - elapsed_us)) for level in bought.levels)
        self._next += 1
        self.spent += 1
        if self._next == held.admitted:
            self._held = None
            if self._until_us - now_us > self._tau_us // 2:
                self._size = min(2 * self._size, self._most)
        return Within(levels, bought.shadowed) if isinstance(bought, Within) else None

    def wants(self) -> int:
        """Return how many to buy beyond the calls that wait, and expect an answer."""
        if self._buying or self.outstanding:
            return 0
        if self._size < FEWEST:
            if self._per_s < ENTER_PER_S or self._room <= ENTER_ROOM or self._most < FEWEST:
                return 0
            self._size = FEWEST
        self._buying = True
        return self._size

    def bought(self, admission: Admission, first: int, sent_us: int) -> None:
        """Take the calls from the place `first` on, sent for at `sent_us`; none if fewer were admitted."""
        levels = outcome(admission, self._limits, max(0, admission.admitted - 1)).levels
        self._room = min((level.remaining / level.quota for level in levels), default=0.0)
        if self._room < EXIT_ROOM:
            self._size = 0  # so near the end a lease only keeps calls from other replicas
        if not self._buying:
            return
        self._buying = False
        if admission.admitted <= first:
            return
        ends = [end - admission.now_us for end in window_ends_us(admission, self._limits)]
        self._held, self._next, self._sent_us = admission, first, sent_us
        self._until_us = sent_us + min([self._tau_us, *ends])
        self.granted += self.outstanding

    def lost(self) -> None:
        """Learn that there is no answer: what it bought, if anything, nobody spends."""
        self._buying = False

    def _expire(self, held: Admission) -> None:
        left = self.outstanding
        self.expired += left
        if 2 * left > held.admitted:
            self._size //= 2
        self._held = None

    def _count(self, now_us: int) -> None:
        elapsed_us = now_us - self._since_us
        if elapsed_us >= COUNTED_US:
            self._per_s = self._counted * SECOND_US // elapsed_us
            self._since_us, self._counted = now_us, 0
        self._counted += 1
