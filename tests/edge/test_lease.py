"""Leases under any schedule: prepaid, so no number of replicas, delays, lost replies or crashes admits beyond the bound.

Several replicas share one exact store (the integer model); each has a monotonic clock of its own, that begins anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from partner import NOW_US
from quotas import SECOND

from authz.core.quota import Admission, State, Within, admit, window
from authz.edge.store.lease import ENTER_PER_S, FEWEST, Lease, most, tau_us
from authz.policy.limits import Calendar, Limit, RateLimit, calendar_limit, rate_limit

FAST = rate_limit(name="fast", requests=1000, per_us=SECOND, max_overshoot=100)
MIDNIGHT_US = window(Calendar.DAY, NOW_US)[1]


@dataclass
class Shared:
    """The store that replicas share, and when each admission happened."""

    limits: tuple[Limit, ...]
    state: State = field(default_factory=dict)
    now_us: int = NOW_US
    admitted_us: list[int] = field(default_factory=list)
    granted: int = 0


@dataclass
class Replica:
    shared: Shared
    epoch_us: int  # what its clock shows is the time less this
    believed: int  # replicas, by its configuration
    lease: Lease = field(init=False)
    sent_us: int = 0
    waiting: list[tuple[int, int, Admission, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lease = Lease(self.shared.limits, self.believed)

    def clock(self) -> int:
        return self.shared.now_us - self.epoch_us

    def call(self, delay_us: int, *, lost: bool) -> None:
        """Decide one request: from the lease, or by a call whose reply comes later or never."""
        if self.lease.take(self.clock()) is not None:
            assert self.clock() - self.sent_us < tau_us(self.shared.limits)
            self.shared.admitted_us.append(self.shared.now_us)
            return
        extra = self.lease.wants()
        admission, after = admit(self.shared.state, self.shared.limits, self.shared.now_us, 1 + extra)
        if after is not None:
            self.shared.state = after
        self.shared.granted += admission.admitted
        if lost:
            self.lease.lost()
        else:
            self.waiting.append((self.shared.now_us + delay_us, self.clock(), admission, 1))

    def receive(self) -> None:
        due = [reply for reply in self.waiting if reply[0] <= self.shared.now_us]
        self.waiting = [reply for reply in self.waiting if reply[0] > self.shared.now_us]
        for _, sent_us, admission, first in due:
            if admission.admitted:
                self.shared.admitted_us.append(self.shared.now_us)
            granted = self.lease.granted
            self.lease.bought(admission, first, sent_us)
            if self.lease.granted > granted:
                self.sent_us = sent_us

    def crash(self) -> None:
        self.lease = Lease(self.shared.limits, self.believed)
        self.waiting = []


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),  # which replica
        st.sampled_from(["burst", "burst", "burst", "wait", "lost", "crash"]),
        st.integers(1, 120),
        st.integers(0, 20_000),  # µs until the reply
    ),
    min_size=1,
    max_size=40,
)
RATES = st.builds(
    lambda requests, burst, overshoot: rate_limit(
        name="r", requests=requests, per_us=SECOND, burst=burst, max_overshoot=overshoot
    ),
    st.integers(100, 20_000),
    st.integers(20, 4_000),
    st.integers(4, 500),
)


def run(
    limits: tuple[Limit, ...], steps: list[tuple[int, str, int, int]], replicas: int
) -> tuple[Shared, list[Replica]]:
    shared = Shared(limits)
    # Each believes that it is alone: the bound does not rest on knowing how many there are.
    fleet = [Replica(shared, number * 10**12 + 17, 1) for number in range(replicas)]
    for which, what, count, delay_us in steps:
        replica = fleet[which % replicas]
        if what == "crash":
            replica.crash()
        for _ in range(count):
            shared.now_us += 300 if what != "wait" else 2_000
            for one in fleet:
                one.receive()
            if what != "wait":
                replica.call(delay_us, lost=what == "lost")
    return shared, fleet


@settings(max_examples=200)
@given(RATES, STEPS, st.integers(1, 4))
@example(FAST, [(0, "burst", 120, 100)] * 40, 1)
def test_any_interval_admits_at_most_capacity_rate_and_overshoot(
    limit: RateLimit, steps: list[tuple[int, str, int, int]], replicas: int
) -> None:
    """C + r·(t + τ), and the time of a reply: what Redis admits at one instant is seen when its reply comes."""
    shared, _ = run((limit,), steps, replicas)
    at = shared.admitted_us
    late_us = 20_000 + 2_000
    for first in range(0, len(at), 7):
        for last in range(first, len(at), 5):
            span_us = at[last] - at[first] + tau_us((limit,)) + late_us
            assert last - first + 1 <= limit.capacity + Fraction(span_us * limit.count, limit.period_us)
    whole_us = shared.now_us - NOW_US
    assert len(at) <= shared.granted <= limit.capacity + Fraction(whole_us * limit.count, limit.period_us)


@given(RATES, STEPS, st.integers(1, 4))
def test_what_is_granted_is_spent_outstanding_or_expired(
    limit: RateLimit, steps: list[tuple[int, str, int, int]], replicas: int
) -> None:
    _, fleet = run((limit,), steps, replicas)
    for replica in fleet:
        lease = replica.lease
        assert lease.granted == lease.spent + lease.expired + lease.outstanding
        assert lease.outstanding <= most((limit,), 1)


def warm(lease: Lease, limits: tuple[Limit, ...], now_us: int) -> State:
    """Ask often enough, exactly, that the next call leases."""
    state: State = {}
    for number in range(ENTER_PER_S):
        at_us = now_us + number * SECOND // (4 * ENTER_PER_S)
        assert lease.take(at_us) is None
        if extra := lease.wants():
            assert extra == FEWEST
            lease.lost()
        admission, after = admit(state, limits, at_us)
        state = after or state
        lease.bought(admission, 1, at_us)
    return state


def test_lease_begins_when_a_key_is_busy_and_has_room() -> None:
    lease = Lease((FAST,), 1)
    assert lease.wants() == 0
    warm(lease, (FAST,), 0)
    assert lease.wants() == FEWEST
    assert lease.wants() == 0  # one is under way


def test_lease_that_is_spent_fast_grows_and_one_that_expires_shrinks() -> None:
    lease = Lease((FAST,), 1)
    state = warm(lease, (FAST,), 0)
    now_us = SECOND
    sizes = []
    for _ in range(8):
        size = lease.wants()
        sizes.append(size)
        admission, after = admit(state, (FAST,), now_us, size + 1)
        state = after or state
        lease.bought(admission, 1, now_us)
        while lease.outstanding:
            assert isinstance(lease.take(now_us), Within)
        now_us += SECOND
    assert sizes == [4, 8, 16, 32, 64, 100, 100, 100]
    assert lease.wants() == 100
    admission, after = admit(state, (FAST,), now_us, 101)
    lease.bought(admission, 1, now_us)
    assert lease.take(now_us + tau_us((FAST,)) - 1) is not None
    assert lease.take(now_us + tau_us((FAST,))) is None
    assert lease.expired == 99
    assert lease.wants() == 50


def test_lease_ends_near_the_end_of_the_quota() -> None:
    lease = Lease((FAST,), 1)
    state = warm(lease, (FAST,), 0)
    size = lease.wants()
    admission, _ = admit(state, (FAST,), SECOND // 4, 900 + size)
    lease.bought(admission, admission.admitted, SECOND // 4)
    assert lease.wants() == 0


def test_calendar_lease_ends_with_its_window() -> None:
    """Bought just before midnight, nothing of it is left after: the new day has its own."""
    limits: tuple[Limit, ...] = (FAST, calendar_limit(name="d", requests=10**6, calendar=Calendar.DAY))
    lease = Lease(limits, 1)
    warm(lease, limits, 0)
    size = lease.wants()
    sent_us = 5 * SECOND
    admission, _ = admit({}, limits, MIDNIGHT_US - 10, size + 1)
    lease.bought(admission, 1, sent_us)
    assert lease.take(sent_us + 9) is not None
    assert lease.take(sent_us + 10) is None
    assert lease.outstanding == 0


@pytest.mark.parametrize(
    ("limits", "expected_us"),
    [
        ((FAST,), 100_000),
        ((FAST, rate_limit(name="slow", requests=10, per_us=SECOND, max_overshoot=5)), 100_000),
        ((FAST, rate_limit(name="exact", requests=10, per_us=SECOND)), 0),
        ((FAST, rate_limit(name="exact", requests=10, per_us=SECOND, enforced=False)), 100_000),
        ((FAST, calendar_limit(name="d", requests=10, calendar=Calendar.DAY)), 100_000),
        ((calendar_limit(name="d", requests=10, calendar=Calendar.DAY),), 0),
    ],
)
def test_lease_lives_as_long_as_every_rate_allows(limits: tuple[Limit, ...], expected_us: int) -> None:
    assert tau_us(limits) == expected_us


def test_replicas_share_what_a_lease_may_hold() -> None:
    assert most((FAST,), 1) == 100
    assert most((FAST,), 4) == 25
    assert most((FAST,), 100) == 1
    assert most((rate_limit(name="r", requests=1000, per_us=SECOND, burst=39, max_overshoot=100),), 1) == 10
