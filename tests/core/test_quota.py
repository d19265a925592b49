"""Quotas in exact integers: the properties that make a limit a promise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from partner import NOW_US

from authz.core.quota import (
    Exceeded,
    Level,
    Mark,
    State,
    Within,
    admit,
    expires_us,
    levels_at,
    require_affordable,
    share,
    spend,
    window,
    window_ends_us,
)
from authz.policy.limits import Calendar, CalendarLimit, Limit, RateLimit, calendar_limit, rate_limit

SECOND = 1_000_000
NGINX = rate_limit(name="steady", requests=10, per_us=SECOND, burst=20)
DAILY = calendar_limit(name="daily", requests=3, calendar=Calendar.DAY)


def run(limits: tuple[Limit, ...], instants: list[int], state: State | None = None) -> tuple[list[bool], State]:
    state = state or {}
    passed = []
    for now_us in instants:
        outcome, after = spend(state, limits, now_us)
        passed.append(isinstance(outcome, Within))
        assert (after is None) is isinstance(outcome, Exceeded)
        state = state if after is None else after
    return passed, state


def test_rate_10_burst_20_admits_21_at_once_as_nginx_does() -> None:
    passed, state = run((NGINX,), [NOW_US] * 25)
    assert passed == [True] * 21 + [False] * 4
    outcome, _ = spend(state, (NGINX,), NOW_US)
    assert outcome == Exceeded("steady", 100_000, (Level("steady", 21, 2_100_000, 0, 100_000),))


def test_levels_tell_what_is_left() -> None:
    outcome, state = spend({}, (NGINX, DAILY), NOW_US)
    assert state is not None
    midnight_us = 12 * 3600 * SECOND
    expected = (Level("steady", 21, 2_100_000, 20, 100_000), Level("daily", 3, 86_400 * SECOND, 2, midnight_us))
    assert outcome == Within(expected)
    assert levels_at(state, (NGINX,), NOW_US + 100_000) == (Level("steady", 21, 2_100_000, 21, 0),)


def test_all_or_nothing_over_limits() -> None:
    passed, state = run((NGINX, DAILY), [NOW_US] * 5)
    assert passed == [True, True, True, False, False]
    outcome, _ = spend(state, (NGINX, DAILY), NOW_US)
    assert isinstance(outcome, Exceeded)
    assert outcome.binding == "daily"
    assert outcome.levels[0].remaining == 18


def test_limit_that_is_not_exceeded_binds_nobody() -> None:
    many = calendar_limit(name="daily", requests=100, calendar=Calendar.DAY)
    for limits in ((NGINX, many), (many, NGINX)):
        _, state = run(limits, [NOW_US] * 21)
        outcome, _ = spend(state, limits, NOW_US)
        assert isinstance(outcome, Exceeded)
        assert (outcome.binding, outcome.wait_us) == ("steady", 100_000)


def test_edit_of_one_limit_leaves_the_others() -> None:
    _, state = run((NGINX, DAILY), [NOW_US] * 3)
    wider = rate_limit(name="other", requests=5, per_us=SECOND)
    outcome, _ = spend(state, (wider, DAILY), NOW_US)
    assert isinstance(outcome, Exceeded)
    assert outcome.binding == "daily"


def test_cut_limit_owes_at_most_a_full_bucket() -> None:
    _, state = run((NGINX,), [NOW_US] * 21)
    smaller = rate_limit(name="steady", requests=10, per_us=SECOND, burst=0)
    outcome, _ = spend(state, (smaller,), NOW_US)
    assert isinstance(outcome, Exceeded)
    assert outcome.wait_us == 100_000


def test_clock_set_back_costs_at_most_a_full_bucket_and_then_drains() -> None:
    _, state = run((NGINX,), [NOW_US] * 3)
    back_us = NOW_US - 60 * SECOND
    outcome, after = spend(state, (NGINX,), back_us)
    assert isinstance(outcome, Exceeded)
    assert (outcome.wait_us, outcome.levels[0].remaining) == (100_000, 0)
    assert after is not None
    assert run((NGINX,), [back_us + 100_000, back_us + 100_000], after)[0] == [True, False]


DAY_US = 86_400 * SECOND


@pytest.mark.parametrize(
    ("back_us", "used"), [(DAY_US, 3), (DAY_US + DAY_US // 2, 3), (2 * DAY_US, 0), (365 * DAY_US, 0), (0, 3)]
)
def test_window_ahead_of_a_clock_that_was_set_back_counts_if_it_is_the_next_one(back_us: int, used: int) -> None:
    _, state = run((DAILY,), [NOW_US] * 3)
    outcome, after = spend(state, (DAILY,), NOW_US - back_us)
    assert isinstance(outcome, Exceeded) is bool(used)
    assert (after is None) is bool(used)
    if isinstance(outcome, Exceeded):
        assert isinstance(spend(state, (DAILY,), NOW_US - back_us + outcome.wait_us)[0], Within)


HOUR = 3_600 * SECOND
EDITS = {
    # before, calls; after, what is left of it at once, and the wait if that is nothing
    "raised": (
        rate_limit(name="q", requests=1, per_us=HOUR, burst=5), 2, rate_limit(name="q", requests=100, per_us=HOUR), 98, 0
    ),
    "raised from nothing left": (
        rate_limit(name="q", requests=10, per_us=HOUR), 10, rate_limit(name="q", requests=1000, per_us=HOUR), 990, 0
    ),
    "shorter": (
        rate_limit(name="q", requests=60, per_us=HOUR), 60, rate_limit(name="q", requests=10, per_us=SECOND, burst=20),
        0, 100_000,
    ),
    "lowered": (
        rate_limit(name="q", requests=100, per_us=HOUR), 50, rate_limit(name="q", requests=10, per_us=HOUR), 0, HOUR // 10
    ),
    "lowered with room": (
        rate_limit(name="q", requests=100, per_us=HOUR), 4, rate_limit(name="q", requests=10, per_us=HOUR), 6, 0
    ),
    "other burst": (
        rate_limit(name="q", requests=10, per_us=HOUR, burst=20), 12, rate_limit(name="q", requests=10, per_us=HOUR, burst=9),
        0, HOUR // 10,
    ),
    "calendar raised": (
        calendar_limit(name="q", requests=3, calendar=Calendar.DAY), 3,
        calendar_limit(name="q", requests=10, calendar=Calendar.DAY), 7, 0,
    ),
    "calendar lowered": (
        calendar_limit(name="q", requests=10, calendar=Calendar.DAY), 5,
        calendar_limit(name="q", requests=3, calendar=Calendar.DAY), 0, 12 * HOUR,
    ),
    "day to hour": (
        calendar_limit(name="q", requests=10, calendar=Calendar.DAY), 8,
        calendar_limit(name="q", requests=5, calendar=Calendar.HOUR), 0, HOUR,
    ),
    "hour to month": (
        calendar_limit(name="q", requests=10, calendar=Calendar.HOUR), 8,
        calendar_limit(name="q", requests=50, calendar=Calendar.MONTH), 42, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "calls", "after", "left", "wait_us"), EDITS.values(), ids=EDITS.keys())
def test_edit_carries_over_what_was_used_as_requests(
    before: Limit, calls: int, after: Limit, left: int, wait_us: int
) -> None:
    _, state = run((before,), [NOW_US] * calls)
    assert levels_at(state, (after,), NOW_US)[0].remaining == left
    outcome, written = spend(state, (after,), NOW_US)
    assert isinstance(outcome, Within) is bool(left)
    if isinstance(outcome, Exceeded):
        assert outcome.wait_us == wait_us
        assert isinstance(spend(written or state, (after,), NOW_US + wait_us)[0], Within)


def test_use_of_a_window_that_is_over_is_not_carried_over() -> None:
    hourly = calendar_limit(name="q", requests=3, calendar=Calendar.HOUR)
    daily = calendar_limit(name="q", requests=3, calendar=Calendar.DAY)
    _, state = run((daily,), [NOW_US] * 3)
    assert levels_at(state, (hourly,), NOW_US + DAY_US)[0].remaining == 3
    assert levels_at(state, (hourly,), NOW_US + HOUR)[0].remaining == 0
    assert levels_at({daily.tag: Mark(NOW_US - DAY_US, 3, (9, 0))}, (daily,), NOW_US)[0].remaining == 3
    assert levels_at({NGINX.tag: Mark(NOW_US + 1, 0, (0, 0))}, (NGINX,), NOW_US)[0].remaining == 0


def test_refusal_writes_nothing_where_it_holds_what_is_stored() -> None:
    _, state = run((NGINX, DAILY), [NOW_US] * 3)
    assert spend(state, (NGINX, DAILY), NOW_US)[1] is None
    assert admit(state, (replace(DAILY, requests=1),), NOW_US, want=0)[1] is None


@pytest.mark.parametrize(
    ("calendar", "at", "start", "end"),
    [
        (Calendar.HOUR, "2026-11-23T12:59:59", "2026-11-23T12:00", "2026-11-23T13:00"),
        (Calendar.DAY, "2026-11-23T23:59:59", "2026-11-23T00:00", "2026-11-24T00:00"),
        (Calendar.MONTH, "2026-02-28T23:59:59", "2026-02-01T00:00", "2026-03-01T00:00"),
        (Calendar.MONTH, "2024-02-29T12:00:00", "2024-02-01T00:00", "2024-03-01T00:00"),
        (Calendar.MONTH, "2100-02-28T12:00:00", "2100-02-01T00:00", "2100-03-01T00:00"),
        (Calendar.MONTH, "2026-12-31T23:59:59", "2026-12-01T00:00", "2027-01-01T00:00"),
        (Calendar.MONTH, "1970-01-01T00:00:00", "1970-01-01T00:00", "1970-02-01T00:00"),
    ],
)
def test_windows_are_those_of_the_utc_calendar(calendar: Calendar, at: str, start: str, end: str) -> None:
    def us(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND

    assert window(calendar, us(at)) == (us(start), us(end))


RATES = st.builds(
    lambda requests, per_us, burst: rate_limit(name="r", requests=requests, per_us=per_us, burst=burst),
    st.integers(1, 1000),
    st.integers(1, 60 * SECOND),
    st.none() | st.integers(0, 50),
)
CALENDARS = st.builds(
    lambda requests, calendar: calendar_limit(name="c", requests=requests, calendar=calendar),
    st.integers(1, 20),
    st.sampled_from(Calendar),
)
LIMITS = st.tuples(RATES) | st.tuples(CALENDARS) | st.tuples(RATES, CALENDARS)
STEPS = st.lists(st.integers(0, 2 * SECOND), max_size=60)


def instants(steps: list[int]) -> list[int]:
    now_us, found = NOW_US, []
    for step in steps:
        now_us += step
        found.append(now_us)
    return found


@given(RATES, STEPS)
def test_any_interval_admits_at_most_capacity_and_rate(limit: RateLimit, steps: list[int]) -> None:
    passed, _ = run((limit,), instants(steps))
    admitted = [at for at, ok in zip(instants(steps), passed, strict=True) if ok]
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            allowed = limit.capacity + Fraction((admitted[last] - admitted[first]) * limit.count, limit.period_us)
            assert last - first + 1 <= allowed


@given(RATES)
def test_saturating_load_reaches_the_bound(limit: RateLimit) -> None:
    passed, state = run((limit,), [NOW_US] * (limit.capacity + 1))
    assert passed == [True] * limit.capacity + [False]
    outcome, _ = spend(state, (limit,), NOW_US)
    assert isinstance(outcome, Exceeded)
    assert run((limit,), [NOW_US + outcome.wait_us], state)[0] == [True]


@given(LIMITS, STEPS)
def test_wait_is_exact_to_the_microsecond(limits: tuple[Limit, ...], steps: list[int]) -> None:
    _, state = run(limits, instants(steps))
    now_us = (instants(steps) or [NOW_US])[-1]
    for _ in range(1500):
        outcome, after = spend(state, limits, now_us)
        if isinstance(outcome, Exceeded):
            assert isinstance(spend(state, limits, now_us + outcome.wait_us)[0], Within)
            assert isinstance(spend(state, limits, now_us + outcome.wait_us - 1)[0], Exceeded)
            return
        assert after is not None
        state = after
    raise AssertionError("a limit that never denies")


@given(LIMITS, STEPS, st.integers(0, 10 * SECOND))
def test_more_time_never_turns_pass_into_deny(limits: tuple[Limit, ...], steps: list[int], later_us: int) -> None:
    _, state = run(limits, instants(steps))
    now_us = (instants(steps) or [NOW_US])[-1]
    if isinstance(spend(state, limits, now_us)[0], Within):
        assert isinstance(spend(state, limits, now_us + later_us)[0], Within)


@given(RATES, STEPS, st.integers(0, 50), st.integers(1, 3), st.integers(1, 5))
def test_more_capacity_or_less_cost_never_turns_pass_into_deny(
    limit: RateLimit, steps: list[int], more: int, cost: int, dearer: int
) -> None:
    _, state = run((limit,), instants(steps))
    now_us = (instants(steps) or [NOW_US])[-1]
    wider = replace(limit, capacity=limit.capacity + more)
    if isinstance(spend(state, (limit,), now_us, cost)[0], Within):
        assert isinstance(spend(state, (wider,), now_us, cost)[0], Within)
    if isinstance(spend(state, (limit,), now_us, cost + dearer)[0], Within):
        assert isinstance(spend(state, (limit,), now_us, cost)[0], Within)


@given(RATES, CALENDARS, STEPS)
def test_verdict_is_the_and_of_single_verdicts(rate: RateLimit, calendar: CalendarLimit, steps: list[int]) -> None:
    _, state = run((rate, calendar), instants(steps))
    now_us = (instants(steps) or [NOW_US])[-1]
    single = [isinstance(spend(state, (limit,), now_us)[0], Within) for limit in (rate, calendar)]
    assert isinstance(spend(state, (rate, calendar), now_us)[0], Within) is all(single)


@given(LIMITS, STEPS, st.integers(1, 5))
def test_cost_is_that_many_calls_at_once(limits: tuple[Limit, ...], steps: list[int], cost: int) -> None:
    _, state = run(limits, instants(steps))
    now_us = (instants(steps) or [NOW_US])[-1]
    whole, after = spend(state, limits, now_us, cost)
    passed, one_by_one = run(limits, [now_us] * cost, state)
    assert isinstance(whole, Within) is all(passed)
    if after is not None:
        assert after == one_by_one


@given(LIMITS, STEPS, st.integers(0, 40 * 86_400 * SECOND))
def test_forgetting_an_idle_state_loses_nothing(limits: tuple[Limit, ...], steps: list[int], later_us: int) -> None:
    _, state = run(limits, instants(steps))
    assume(state)
    now_us = expires_us(state, limits) + later_us
    assert spend(state, limits, now_us)[0] == spend({}, limits, now_us)[0]


def test_no_drift_over_a_million_operations() -> None:
    """7 in 3 s has no whole interval in µs; after a million admitted calls the debt is exact to the fraction."""
    limit = rate_limit(name="r", requests=7, per_us=3 * SECOND, burst=0)
    state: State = {}
    now_us, exact = NOW_US, Fraction(NOW_US)
    for _ in range(1_000_000):
        outcome, after = spend(state, (limit,), now_us)
        assert after is not None, outcome
        state = after
        exact = max(exact, Fraction(now_us)) + Fraction(3 * SECOND, 7)
        now_us = -(-exact.numerator // exact.denominator)
        mark = state[limit.tag]
        assert mark.at_us + Fraction(mark.amount, limit.count) == exact
        exact = Fraction(now_us)  # the next call comes at a whole microsecond, and then the bucket is full again


@given(st.lists(st.integers(0, 400), max_size=200))
def test_nginx_equivalence_on_millisecond_traces(steps_ms: list[int]) -> None:
    """ngx_http_limit_req_module, nodelay: excess in 1/1000 request, denied above burst, refusals add nothing."""
    excess, last_ms, expected, now_ms = -1, 0, [], NOW_US // 1000
    trace = []
    for step in steps_ms:
        now_ms += step
        trace.append(now_ms * 1000)
        drained = 0 if excess < 0 else max(0, excess - 10 * (now_ms - last_ms) + 1000)
        passes = drained <= 20_000
        expected.append(passes)
        if passes:
            excess, last_ms = drained, now_ms
    assert run((NGINX,), trace)[0] == expected


@given(LIMITS, st.integers(1, 20))
def test_shares_of_replicas_stay_within_the_whole(limits: tuple[Limit, ...], replicas: int) -> None:
    for limit, part in zip(limits, share(limits, replicas), strict=True):
        if isinstance(limit, RateLimit) and isinstance(part, RateLimit):
            assert Fraction(part.count, part.period_us) * replicas == Fraction(limit.count, limit.period_us)
            assert part.capacity == max(1, limit.capacity // replicas)
        elif isinstance(limit, CalendarLimit) and isinstance(part, CalendarLimit):
            assert part.requests == max(1, limit.requests // replicas)


def test_cost_of_nothing_changes_nothing() -> None:
    assert spend({}, (), NOW_US) == (Within(()), {})
    assert expires_us({}, (NGINX,)) == 0


@pytest.mark.parametrize(("cost", "fits"), [(0, False), (1, True), (3, True), (4, False), (-1, False)])
def test_cost_that_no_wait_makes_affordable_is_refused(cost: int, fits: bool) -> None:  # noqa: FBT001 a table
    if fits:
        require_affordable((NGINX, DAILY), cost)
        return
    with pytest.raises(ValueError, match=rf"cost is from 1 to \d+ under the quota \w+, not {cost}"):
        require_affordable((NGINX, DAILY), cost)


def test_shadow_limit_is_charged_what_fits_and_named_where_it_would_refuse() -> None:
    tight = replace(DAILY, name="tight", requests=2, enforced=False)
    state: State = {}
    told = []
    for _ in range(4):
        outcome, after = spend(state, (NGINX, tight), NOW_US)
        assert isinstance(outcome, Within)
        assert [level.name for level in outcome.levels] == ["steady"]
        told.append(outcome.shadowed)
        state = after or state
    assert told == [(), (), ("tight",), ("tight",)]
    assert [level.remaining for level in levels_at(state, (NGINX, tight), NOW_US)] == [17, 0]


def test_windows_of_an_admission_end_with_their_calendar() -> None:
    admission, _ = admit({}, (NGINX, DAILY), NOW_US)
    assert window_ends_us(admission, (NGINX, DAILY)) == [window(Calendar.DAY, NOW_US)[1]]


@pytest.mark.parametrize("first", [0, 1])
def test_binding_limit_is_the_one_that_takes_longest(first: int) -> None:
    slow = rate_limit(name="slow", requests=1, per_us=3600 * SECOND, burst=2)
    limits = (slow, DAILY) if first else (DAILY, slow)
    _, state = run(limits, [NOW_US] * 3)
    outcome, _ = spend(state, limits, NOW_US)
    assert isinstance(outcome, Exceeded)
    assert (outcome.binding, outcome.wait_us) == ("daily", 12 * 3600 * SECOND)


CHANGES = st.lists(
    st.tuples(
        LIMITS, st.integers(1, 60), st.integers(-400 * DAY_US, 400 * DAY_US) | st.integers(-2 * SECOND, 2 * SECOND)
    ),
    min_size=1,
    max_size=6,
)


@given(CHANGES)
def test_whoever_obeys_the_wait_passes_through_edits_and_clock_steps(
    changes: list[tuple[tuple[Limit, ...], int, int]],
) -> None:
    state: State = {}
    now_us = NOW_US
    for limits, calls, step_us in changes:
        now_us += step_us
        for _ in range(calls):
            outcome, after = spend(state, limits, now_us)
            state = state if after is None else after
            if isinstance(outcome, Exceeded):
                now_us += outcome.wait_us
                outcome, after = spend(state, limits, now_us)
                assert isinstance(outcome, Within)
                assert after is not None
                state = after


def test_what_was_admitted_elsewhere_is_charged_first_and_stops_at_full() -> None:
    admission, after = admit({}, (NGINX, DAILY), NOW_US, debits=(2, 2))
    assert after is not None
    assert [level.remaining for level in levels_at(after, (NGINX, DAILY), NOW_US)] == [18, 0]
    assert admission.repaid == (2, 2)
    admission, _ = admit({}, (NGINX, DAILY), NOW_US, debits=(2, 9))
    assert (admission.admitted, admission.repaid) == (0, (2, 3))
