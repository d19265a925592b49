"""Limits in the form the arithmetic needs: exact, and proven to stay so.

A rate is a GCRA (equal to a token bucket, and to nginx's `limit_req ... nodelay`). Its emission interval is the
fraction P/N of a microsecond count in lowest terms. Redis scripts compute in doubles, which hold integers exactly up
to 2^53. The largest values that arise are `now + capacity·P/N` (2^53 µs is the year 2255), the remainder, below N, and
`cost·P` for a cost up to capacity, plus a remainder; so `capacity·P + N < 2^53` and a bounded debt prove them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import gcd
from typing import Final

REQUESTS_MAX: Final = 10**9
EXACT_BELOW: Final = 2**53
DEBT_MAX_US: Final = 366 * 86_400 * 1_000_000  # a bucket that takes longer than a year to drain is a mistake


class OnStoreFailure(Enum):
    """What a limit does while its store does not answer."""

    LOCAL = "Local"
    OPEN = "Open"
    CLOSED = "Closed"


class Calendar(Enum):
    """UTC calendar windows."""

    HOUR = "Hour"
    DAY = "Day"
    MONTH = "Month"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """`requests` per `per_us` µs, `capacity` of them at once; one request is worth `period_us`/`count` µs."""

    name: str
    requests: int
    per_us: int
    period_us: int
    count: int
    capacity: int
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarLimit:
    """`requests` in each UTC hour, day or month."""

    name: str
    requests: int
    calendar: Calendar
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL


Limit = RateLimit | CalendarLimit


def rate_limit(
    *,
    name: str,
    requests: int,
    per_us: int,
    burst: int | None = None,
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL,
) -> RateLimit:
    """Return the limit; `burst` is what passes at once beyond the first (as nginx counts it).

    Raises:
        ValueError: out of bounds, or not exact in 53 bits.
    """
    _require_requests(requests)
    if burst is not None and not 0 <= burst < REQUESTS_MAX:
        raise ValueError(f"burst is from 0 to {REQUESTS_MAX - 1}, not {burst}")
    if per_us < 1:
        raise ValueError("per is at least one microsecond")
    common = gcd(per_us, requests)
    period_us, count = per_us // common, requests // common
    capacity = requests if burst is None else burst + 1
    if 2 * capacity * period_us + count >= EXACT_BELOW:
        raise ValueError(
            "cannot be computed exactly: choose a per and requests with a larger common divisor, or a smaller burst"
        )
    if capacity * period_us // count > DEBT_MAX_US:
        raise ValueError("takes more than 366 days to refill: choose a smaller burst or a shorter per")
    return RateLimit(
        name=name,
        requests=requests,
        per_us=per_us,
        period_us=period_us,
        count=count,
        capacity=capacity,
        on_store_failure=on_store_failure,
    )


def calendar_limit(
    *,
    name: str,
    requests: int,
    calendar: Calendar,
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL,
) -> CalendarLimit:
    """Return the limit.

    Raises:
        ValueError: out of bounds.
    """
    _require_requests(requests)
    return CalendarLimit(name=name, requests=requests, calendar=calendar, on_store_failure=on_store_failure)


def _require_requests(requests: int) -> None:
    if not 1 <= requests <= REQUESTS_MAX:
        raise ValueError(f"requests is from 1 to {REQUESTS_MAX}, not {requests}")
