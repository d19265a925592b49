"""Limits and traces for tests of quotas: strategies, and two limits that everybody knows."""

from __future__ import annotations

from hypothesis import strategies as st

from authz.policy.limits import Calendar, Limit, RateLimit, calendar_limit, rate_limit

SECOND = 1_000_000
NGINX = rate_limit(name="steady", requests=10, per_us=SECOND, burst=20)
DAILY = calendar_limit(name="daily", requests=3, calendar=Calendar.DAY)
SLOW = rate_limit(name="steady", requests=10, per_us=3600 * SECOND, burst=4)
MONTHLY = calendar_limit(name="monthly", requests=3, calendar=Calendar.MONTH)

NAMES = st.sampled_from(["a", "b", "c"])


@st.composite
def any_rate(draw: st.DrawFn) -> RateLimit | None:
    try:
        return rate_limit(
            name=draw(NAMES),
            requests=draw(st.integers(1, 10**6) | st.integers(1, 10**9)),
            per_us=draw(st.integers(1, 86_400).map(lambda s: s * SECOND) | st.integers(1, 60 * SECOND)),
            burst=draw(st.none() | st.integers(0, 100) | st.integers(0, 10**6)),
            enforced=draw(st.sampled_from([True, True, True, False])),
        )
    except ValueError:  # an inexact rate is no limit
        return None


ANY_RATES = any_rate().filter(bool)
ANY_CALENDARS = st.builds(
    lambda name, requests, calendar, enforced: calendar_limit(
        name=name, requests=requests, calendar=calendar, enforced=enforced
    ),
    NAMES,
    st.integers(1, 6) | st.integers(1, 10**9),
    st.sampled_from(Calendar),
    st.sampled_from([True, True, True, False]),
)
LIMIT_SETS: st.SearchStrategy[tuple[Limit, ...]] = st.lists(ANY_RATES | ANY_CALENDARS, min_size=1, max_size=4).map(
    lambda limits: tuple({limit.name: limit for limit in limits if limit is not None}.values())
)


def affordable(limits: tuple[Limit, ...], cost: int) -> int:
    return min([cost, *(limit.full // limit.unit for limit in limits)])
