"""Limits in the form the arithmetic needs: exact, and proven to stay so.

A rate is a GCRA (equal to a token bucket, and to nginx's `limit_req ... nodelay`). Its emission interval is the
fraction P/N of a microsecond count in lowest terms. Redis scripts compute in doubles, which hold integers exactly up
to 2^53. The largest values that arise are `now + capacity·P/N` (2^53 µs is the year 2255), and a stored debt read
under an edited limit, at most `capacity·P + 2·N` before it is cut to a full bucket; `2·capacity·P + N < 2^53` proves
them all, with N at most 10^9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from math import gcd
from typing import Final

REQUESTS_MAX: Final = 10**9
EXACT_BELOW: Final = 2**53
TAG_BYTES: Final = 6
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


CALENDAR_CODES: Final = {Calendar.HOUR: 1, Calendar.DAY: 2, Calendar.MONTH: 3}  # in Redis; 0 is a rate


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """`requests` per `per_us` µs, `capacity` of them at once; one request is worth `period_us`/`count` µs.

    `unit` and `full` are the worth of one request and of all of them in whole numbers (here 1/`count` µs); `terms` tell
    what a stored debt is counted in.
    """

    name: str
    requests: int
    per_us: int
    period_us: int
    count: int
    capacity: int
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL
    enforced: bool = True
    max_overshoot: int = 0  # what leases may admit beyond the bound; 0: exact
    tag: bytes = field(init=False)
    unit: int = field(init=False)
    full: int = field(init=False)
    terms: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", _tag("rate", self.name))
        object.__setattr__(self, "unit", self.period_us)
        object.__setattr__(self, "full", self.capacity * self.period_us)
        object.__setattr__(self, "terms", (self.period_us, self.count))


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarLimit:
    """`requests` in each UTC hour, day or month; `unit` and `full` as in RateLimit, counted in requests."""

    name: str
    requests: int
    calendar: Calendar
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL
    enforced: bool = True
    tag: bytes = field(init=False)
    unit: int = field(init=False, default=1)
    full: int = field(init=False)
    terms: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", _tag("calendar", self.name))
        object.__setattr__(self, "full", self.requests)
        object.__setattr__(self, "terms", (CALENDAR_CODES[self.calendar], 0))


Limit = RateLimit | CalendarLimit


def _tag(kind: str, name: str) -> bytes:
    """Return what a limit's state is filed under: of one length, and another one when a quota changes its kind."""
    return blake2b(f"{kind}\0{name}".encode(), digest_size=TAG_BYTES).digest()


def rate_limit(
    *,
    name: str,
    requests: int,
    per_us: int,
    burst: int | None = None,
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL,
    enforced: bool = True,
    max_overshoot: int = 0,
) -> RateLimit:
    """Return the limit; `burst` is what passes at once beyond the first (as nginx counts it).

    Raises:
        ValueError: out of bounds, or not exact in 53 bits.
    """
    _require_requests(requests)
    if burst is not None and not 0 <= burst < REQUESTS_MAX:
        raise ValueError(f"burst is from 0 to {REQUESTS_MAX - 1}, not {burst}")
    if not 0 <= max_overshoot <= REQUESTS_MAX:
        raise ValueError(f"maxOvershoot is from 0 to {REQUESTS_MAX}, not {max_overshoot}")
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
        enforced=enforced,
        max_overshoot=max_overshoot,
    )


def calendar_limit(
    *,
    name: str,
    requests: int,
    calendar: Calendar,
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL,
    enforced: bool = True,
) -> CalendarLimit:
    """Return the limit.

    Raises:
        ValueError: out of bounds.
    """
    _require_requests(requests)
    return CalendarLimit(
        name=name, requests=requests, calendar=calendar, on_store_failure=on_store_failure, enforced=enforced
    )


def _require_requests(requests: int) -> None:
    if not 1 <= requests <= REQUESTS_MAX:
        raise ValueError(f"requests is from 1 to {REQUESTS_MAX}, not {requests}")
