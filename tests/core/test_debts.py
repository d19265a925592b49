"""What is owed to the store: under any schedule of answers, no more is admitted than the bound that `debts` proves.

Replicas share one exact store (the integer model) that answers in time, late, never, or is not reached; each decides
alone from its share where it gets no answer, by the same steps as the engine (`edge/store/limiter.py`, `ask.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partner import NOW_US
from quotas import DAILY, MONTHLY, NGINX, SECOND

from authz.core.debts import GRACE_US, Account, Doubt
from authz.core.quota import Admission, State, Within, admit, charged_by, share, spend
from authz.policy.limits import Limit, RateLimit, rate_limit

LATE_US = 30_000
EPOCH_US = 10**9  # what the replicas' monotonic clocks show less than the time


@dataclass
class Shared:
    """The store, and what all replicas admitted: the instants of calls, and the spans in which none was confirmed."""

    limits: tuple[Limit, ...]
    state: State = field(default_factory=dict)
    now_us: int = NOW_US
    admitted_us: list[int] = field(default_factory=list)

    def admit(self, want: int, debits: tuple[int, ...]) -> Admission:
        admission, after = admit(self.state, self.limits, self.now_us, want, debits=debits)
        self.state = self.state if after is None else after
        return admission


@dataclass
class Replica:
    shared: Shared
    replicas: int
    account: Account = field(default_factory=Account)
    local: State = field(default_factory=dict)
    late: list[tuple[int, Admission, tuple[int, ...], Doubt]] = field(default_factory=list)
    confirmed_us: int = NOW_US
    silent_us: int = 0  # beyond GRACE, without a confirmation while something was owed

    @property
    def at_us(self) -> int:
        return self.shared.now_us - EPOCH_US

    def call(self, fate: str) -> None:
        limits = self.shared.limits
        if fate == "away":
            self.alone(None)
            return
        debits = self.account.send(limits, self.at_us)
        if fate == "unheard":
            self.account.restore(limits, debits)
            self.alone(None)
            return
        admission = self.shared.admit(1, debits)
        if fate == "answered":
            self.learn(admission, debits)
            self.shared.admitted_us += [self.shared.now_us] * admission.admitted
        elif fate == "lost":
            self.account.restore(limits, debits)
            self.alone(None)
        else:
            doubt = Doubt()
            self.late.append((self.shared.now_us + LATE_US, admission, debits, doubt))
            self.alone(doubt)

    def learn(self, admission: Admission, debits: tuple[int, ...]) -> None:
        self.account.tell(admission, self.at_us)
        self.account.confirm(self.shared.limits, debits, admission.repaid, self.at_us)
        self.confirmed()

    def confirmed(self) -> None:
        self.silent_us += max(0, self.shared.now_us - self.confirmed_us - GRACE_US)
        self.confirmed_us = self.shared.now_us

    def alone(self, doubt: Doubt | None) -> None:
        limits, shares = self.shared.limits, share(self.shared.limits, self.replicas)
        self.account.share(shares)
        seeded = self.account.seed(limits, self.at_us, self.shared.now_us)
        self.local = self.local if seeded is None else seeded
        if self.account.binding(self.at_us) is not None:
            return
        outcome, after = spend(self.local, shares, self.shared.now_us)
        self.local = self.local if after is None else after
        if isinstance(outcome, Within):
            self.account.admit(doubt, self.at_us, self.shared.now_us)
            self.shared.admitted_us.append(self.shared.now_us)

    def receive(self) -> None:
        while self.late and self.late[0][0] <= self.shared.now_us:
            _, admission, debits, doubt = self.late.pop(0)
            self.learn(admission, debits)
            doubt.settle(admission.admitted, self.at_us)


FATES = st.sampled_from(["answered", "answered", "late", "late", "lost", "unheard", "away"])
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which replica
        FATES,
        st.integers(1, 12),  # calls
        st.sampled_from([0, 1_000, 20_000]) | st.integers(0, 400_000),  # µs between two
    ),
    min_size=1,
    max_size=40,
)
RATES = st.builds(
    lambda requests, burst: rate_limit(name="r", requests=requests, per_us=SECOND, burst=burst),
    st.integers(1, 60),
    st.integers(2, 40),
)


def run(
    limits: tuple[Limit, ...], steps: list[tuple[int, str, int, int]], replicas: int
) -> tuple[Shared, list[Replica]]:
    shared = Shared(limits)
    fleet = [Replica(shared, replicas) for _ in range(replicas)]
    for which, fate, count, apart_us in steps:
        for _ in range(count):
            shared.now_us += apart_us
            for one in fleet:
                one.receive()
            fleet[which % replicas].call(fate)
    for one in fleet:
        one.confirmed()
    return shared, fleet


@settings(max_examples=300)
@given(RATES, STEPS, st.integers(1, 3))
def test_any_schedule_admits_at_most_two_capacities_and_the_rate(
    limit: RateLimit, steps: list[tuple[int, str, int, int]], replicas: int
) -> None:
    """2·C + r·(t + d): d is GRACE, and what goes beyond it of the time without a confirmation, of the replicas' mean."""
    shared, fleet = run((limit,), steps, replicas)
    silent_us = sum(one.silent_us for one in fleet)
    at = shared.admitted_us
    for first in range(0, len(at), 5):
        span_us = at[-1] - at[first] + LATE_US + GRACE_US + Fraction(silent_us, replicas)
        bound = 2 * limit.capacity + span_us * limit.count / limit.period_us
        assert len(at) - first <= bound + replicas  # each rounds its share of GRACE up to a whole call


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("fates", [("late",), ("answered", "late"), ("late", "late", "lost"), ("answered", "unheard")])
def test_store_that_is_up_but_slow_never_admits_more_with_time(fates: tuple[str, ...], replicas: int) -> None:
    """A saturating client for a minute: the excess is bounded by what may be owed, however long it goes on."""
    steps = [(number, fates[number // replicas % len(fates)], 1, 15_000) for number in range(4_000)]
    shared, _ = run((NGINX,), steps, replicas)
    span_s = (shared.now_us - NOW_US) / SECOND
    assert len(shared.admitted_us) <= 2 * NGINX.capacity + 10 * (span_s + GRACE_US / SECOND) + replicas


def test_late_reply_that_shows_the_call_charged_cancels_its_debit() -> None:
    shared, (replica,) = run((NGINX,), [(0, "late", 5, 1_000), (0, "answered", 1, LATE_US)], 1)
    assert len(shared.admitted_us) == 6
    (held,) = charged_by(shared.admit(0, ()), (NGINX,))
    assert held.used <= 6 * NGINX.unit  # no call of them was paid twice
    assert replica.account.is_settled(replica.at_us)


@pytest.mark.parametrize(("fate", "paid"), [("lost", 10), ("unheard", 4)])
def test_call_without_an_answer_is_debited_once_more_and_never_less(fate: str, paid: int) -> None:
    shared, _ = run((NGINX,), [(0, fate, 3, 0), (0, "answered", 1, 0)], 1)
    assert len(shared.admitted_us) == 4
    (held,) = charged_by(shared.admit(0, ()), (NGINX,))
    assert held.used == paid * NGINX.unit  # each lost call carried the debits of those before it


def owing(limits: tuple[Limit, ...], calls: int, doubt: Doubt | None = None) -> Account:
    account = Account()
    account.share(limits)
    for _ in range(calls):
        account.admit(doubt, 0, NOW_US)
    return account


def test_call_in_doubt_is_not_sent_before_its_fate_is_known() -> None:
    doubt = Doubt()
    account = owing((NGINX, DAILY), 3, doubt)
    assert account.pending(NGINX) == 3
    assert account.send((NGINX, DAILY), 0) == ()
    doubt.settle(1, 0)
    assert account.send((NGINX, DAILY), 0) == (2, 2)
    assert not account.is_settled(0)


def test_caller_that_learns_of_no_answer_after_the_reply_owes_only_what_was_not_charged() -> None:
    doubt = Doubt()
    doubt.settle(2, 0)
    assert owing((NGINX,), 3, doubt).send((NGINX,), 0) == (1,)


def test_debit_that_found_no_room_stays_due_and_a_calendars_is_over() -> None:
    account = owing((NGINX, MONTHLY), 3)
    sent = account.send((NGINX, MONTHLY), 0)
    assert sent == (3, 3)
    assert not account.is_due(0)
    account.confirm((NGINX, MONTHLY), sent, (1, 1), 0)
    assert not account.is_due(0)  # not before there may be room again
    assert account.is_due(100_000)
    assert account.send((NGINX, MONTHLY), 100_000) == (2, 0)


def test_debit_is_at_most_what_the_limit_has() -> None:
    assert owing((NGINX,), 30).send((NGINX,), 0) == (21,)


def test_replica_that_owes_too_much_admits_nothing_more() -> None:
    assert owing((NGINX,), 23).binding(0) is None
    account = owing((NGINX,), 24)  # 21, and 2.5 that 250 ms are worth, rounded up
    assert account.binding(0) is NGINX
    assert account.binding(GRACE_US + 100_000) is None
    shadow = rate_limit(name="s", requests=1, per_us=SECOND, enforced=False)
    assert owing((shadow, DAILY), 50).binding(0) is None


def test_what_the_share_makes_good_without_a_confirmation_is_forgotten_exactly() -> None:
    account = owing((NGINX,), 10)
    for at_us in range(0, GRACE_US + 1_000_000, 33_333):  # however often somebody looks
        account.binding(at_us)
    assert account.pending(NGINX) == 1
    assert not account.is_settled(GRACE_US + 999_999)
    assert account.is_settled(GRACE_US + 1_000_000)


def test_what_was_used_of_a_calendar_window_that_is_over_is_owed_no_more() -> None:
    account = owing((DAILY,), 2)
    day_us = 24 * 3600 * SECOND
    left_us = day_us - NOW_US % day_us
    assert not account.is_settled(left_us - 1)
    assert account.is_settled(left_us)


def test_edit_keeps_what_is_owed_of_limits_that_stay() -> None:
    account = owing((NGINX, DAILY), 3)
    sent = account.send((NGINX,), 0)
    edited = rate_limit(name="steady", requests=5, per_us=SECOND)
    account.share((edited,))
    account.restore((NGINX, DAILY), (sent[0], 0))
    assert account.send((edited, DAILY, MONTHLY), 0) == (3, 0, 0)
    account.confirm((NGINX, DAILY), (3, 3), (3, 3), 0)
    assert account.is_settled(0)


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_bucket_starts_from_what_the_store_told(replicas: int) -> None:
    """Used up there is used up here; half of it left is half of the share."""
    limits = (NGINX, MONTHLY)
    for used, left in ((21, 0), (11, 10 // replicas), (0, 21 // replicas)):
        account = Account()
        account.share(share((NGINX,), replicas))
        account.tell(admit({}, limits, NOW_US, 0, debits=(used, 0))[0], 0)
        state = account.seed(limits, 0, NOW_US)
        assert state is not None
        assert admit(state, share((NGINX,), replicas), NOW_US, 100)[0].admitted in {left, max(0, left - 1)}
        assert account.seed(limits, 0, NOW_US) is None  # told nothing new


def test_calendars_bucket_starts_from_what_the_store_told_and_what_is_owed() -> None:
    limits = (MONTHLY,)
    account = owing(limits, 1)
    account.tell(admit({}, limits, NOW_US, 1)[0], 0)
    state = account.seed(limits, 0, NOW_US)
    assert state is not None
    assert admit(state, limits, NOW_US, 100)[0].admitted == 1
