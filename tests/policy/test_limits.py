"""Limits: exact or refused."""

from __future__ import annotations

from math import gcd
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.policy.duration import parse_duration
from authz.policy.limits import EXACT_BELOW, Calendar, calendar_limit, rate_limit

SECOND = 1_000_000
DAY = 86_400 * SECOND


def test_rate_is_nginxs() -> None:
    limit = rate_limit(name="a", requests=10, per_us=SECOND, burst=20)
    assert (limit.period_us, limit.count, limit.capacity) == (100_000, 1, 21)


def test_without_burst_all_requests_pass_at_once() -> None:
    assert rate_limit(name="a", requests=7, per_us=SECOND).capacity == 7
    assert rate_limit(name="a", requests=7, per_us=SECOND, burst=0).capacity == 1


def test_billions_a_second_are_exact() -> None:
    limit = rate_limit(name="a", requests=10**9, per_us=SECOND)
    assert (limit.period_us, limit.count) == (1, 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"requests": 0, "per_us": 1}, "from 1 to"),
        ({"requests": 10**9 + 1, "per_us": 1}, "from 1 to"),
        ({"requests": 1, "per_us": 0}, "at least one microsecond"),
        ({"requests": 1, "per_us": 1, "burst": -1}, "burst is from 0"),
        ({"requests": 1, "per_us": 1, "burst": 10**9}, "burst is from 0"),
        ({"requests": 999_999_937, "per_us": DAY}, "cannot be computed exactly"),
        ({"requests": 1, "per_us": DAY, "burst": 366}, "366 days"),
    ],
)
def test_limit_out_of_bounds_says_so(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate_limit(name="a", **arguments)


def test_calendar_limit_is_bounded() -> None:
    assert calendar_limit(name="a", requests=1, calendar=Calendar.DAY).requests == 1
    with pytest.raises(ValueError, match="from 1 to"):
        calendar_limit(name="a", requests=0, calendar=Calendar.DAY)


@given(st.integers(1, 10**9), st.integers(1, 31 * DAY), st.none() | st.integers(0, 10**9 - 1))
def test_accepted_limit_stays_below_53_bits(requests: int, per_us: int, burst: int | None) -> None:
    try:
        limit = rate_limit(name="a", requests=requests, per_us=per_us, burst=burst)
    except ValueError:
        return
    assert limit.period_us * requests == limit.count * per_us
    assert gcd(limit.period_us, limit.count) == 1
    full = limit.capacity * limit.period_us
    assert full + full + limit.count < EXACT_BELOW


DURATIONS = {
    "90s": 90 * SECOND,
    "720h": 30 * DAY,
    "1h30m": 5400 * SECOND,
    "1.5s": 1_500_000,
    "1us": 1,
    "2µs": 2,
    "1000ns": 1,
}


@pytest.mark.parametrize(("text", "expected"), DURATIONS.items())
def test_go_durations_are_read_exactly(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "s", "1 s", "-1s", "+1s", "1d", "0s", "1ns", "1.5us", ".5s", "1s ", "1" * 13 + "s", "1.s"]
)
def test_what_is_no_positive_go_duration_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(text)
