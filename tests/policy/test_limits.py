"""Limits: exact or refused."""

from __future__ import annotations

from hashlib import blake2b
from math import gcd
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.policy.limits import EXACT_BELOW, Calendar, OnStoreFailure, calendar_limit, rate_limit

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


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"requests": 10**9, "per_us": SECOND}, True),
        ({"requests": 1, "per_us": 1, "burst": 10**9 - 1}, True),
        ({"requests": 1, "per_us": 1, "max_overshoot": 10**9}, True),
        ({"requests": 1, "per_us": 1, "max_overshoot": 10**9 + 1}, False),
        ({"requests": 1, "per_us": 1, "max_overshoot": -1}, False),
        ({"requests": 1, "per_us": 366 * DAY}, True),
        ({"requests": 1, "per_us": 366 * DAY + 1}, False),
        ({"requests": 2, "per_us": 366 * DAY + 1, "burst": 1}, False),
        ({"requests": 1, "per_us": 183 * DAY, "burst": 1}, True),
    ],
)
def test_bounds_of_a_rate_are_exact(arguments: dict[str, Any], fits: bool) -> None:  # noqa: FBT001 a table
    try:
        rate_limit(name="a", **arguments)
    except ValueError:
        assert not fits
    else:
        assert fits


def test_exactness_ends_where_doubles_do() -> None:
    count, period_us, capacity = 1_024, 905_040_953, 4_976_128
    assert 2 * capacity * period_us + count == EXACT_BELOW
    with pytest.raises(ValueError, match="exactly"):
        rate_limit(name="a", requests=count, per_us=period_us, burst=capacity - 1)
    assert rate_limit(name="a", requests=count, per_us=period_us, burst=capacity - 2).capacity == capacity - 1


def test_tag_is_of_the_kind_and_the_name() -> None:
    """Known values, since replicas of two versions share a Redis."""
    rate = rate_limit(name="a", requests=1, per_us=SECOND)
    calendar = calendar_limit(name="a", requests=1, calendar=Calendar.DAY)
    assert rate.tag == blake2b(b"rate\0a", digest_size=6).digest()
    assert calendar.tag == blake2b(b"calendar\0a", digest_size=6).digest()


def test_fields_are_those_that_were_given() -> None:
    rate = rate_limit(
        name="a", requests=6, per_us=4, burst=1, on_store_failure=OnStoreFailure.CLOSED, enforced=False, max_overshoot=3
    )
    assert (rate.name, rate.requests, rate.per_us, rate.period_us, rate.count) == ("a", 6, 4, 2, 3)
    assert (rate.capacity, rate.unit, rate.full, rate.max_overshoot) == (2, 2, 4, 3)
    assert (rate.on_store_failure, rate.enforced) == (OnStoreFailure.CLOSED, False)
    calendar = calendar_limit(
        name="b", requests=6, calendar=Calendar.HOUR, on_store_failure=OnStoreFailure.OPEN, enforced=False
    )
    assert (calendar.name, calendar.requests, calendar.calendar) == ("b", 6, Calendar.HOUR)
    assert (calendar.unit, calendar.full) == (1, 6)
    assert (calendar.on_store_failure, calendar.enforced) == (OnStoreFailure.OPEN, False)


def test_limit_is_exact_and_enforced_and_local_unless_it_is_said() -> None:
    rate = rate_limit(name="a", requests=1, per_us=1)
    calendar = calendar_limit(name="a", requests=1, calendar=Calendar.DAY)
    assert (rate.enforced, rate.max_overshoot, rate.on_store_failure) == (True, 0, OnStoreFailure.LOCAL)
    assert (calendar.enforced, calendar.on_store_failure) == (True, OnStoreFailure.LOCAL)


def test_terms_in_the_store_are_fixed() -> None:
    terms = [calendar_limit(name="c", requests=1, calendar=calendar).terms for calendar in Calendar]
    assert terms == [(1, 0), (2, 0), (3, 0)]
