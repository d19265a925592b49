"""How often: a client's limits, charged all or none, in exact integers.

`spend` is the whole rule; the memory store calls it and the Redis store's Lua script repeats it, step by step.

The state of a rate is the theoretical arrival time of the next request (TAT) as whole µs and a remainder of 1/N µs; the
state of a calendar window its start and what was used. A state belongs to its limit's name, so that editing one limit
does not reset the others.

Source: GCRA, ITU-T I.371 annex A; nginx ngx_http_limit_req_module for `burst`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import gcd
from typing import NamedTuple

from authz.policy.limits import Calendar, CalendarLimit, Limit, RateLimit

SECOND_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_US = 3_600 * SECOND_US
_DAY_US = 24 * _HOUR_US


class Level(NamedTuple):
    """Where a limit stands after the call: what the RateLimit header fields tell."""

    name: str
    quota: int  # requests of the window: of a rate its capacity
    window_us: int  # of a rate the time in which its capacity refills
    remaining: int
    reset_us: int  # until there is more than `remaining`


class Within(NamedTuple):
    """Charged to every limit."""

    levels: tuple[Level, ...]


class Exceeded(NamedTuple):
    """Charged to none; `wait_us` is when the same call would pass, exactly, if nobody else spends."""

    binding: str  # the limit that takes longest
    wait_us: int
    levels: tuple[Level, ...]


class Unknown(NamedTuple):
    """The store did not answer in time; whether it charged is not known."""

    detail: str


class Mark(NamedTuple):
    """The state of one limit: TAT and remainder of a rate, window start and use of a calendar."""

    at_us: int
    amount: int


State = Mapping[str, Mark]


def spend(
    state: State, limits: tuple[Limit, ...], now_us: int, cost: int = 1
) -> tuple[Within | Exceeded, State | None]:
    """Return the outcome of one call, and the new state; None where it is unchanged because the call was refused."""
    charged: dict[str, Mark] = {}
    levels: list[Level] = []
    binding, wait_us = "", 0
    for limit in limits:
        name = limit.name
        mark, level, limit_wait_us = _charge(limit, state.get(name), now_us, cost)
        charged[name] = mark
        levels.append(level)
        if limit_wait_us > wait_us:
            binding, wait_us = name, limit_wait_us
    if not wait_us:
        return Within(tuple(levels)), charged
    held = (_charge(limit, state.get(limit.name), now_us, 0)[1] for limit in limits)
    return Exceeded(binding, wait_us, tuple(held)), None


def _charge(limit: Limit, mark: Mark | None, now_us: int, cost: int) -> tuple[Mark, Level, int]:
    """Return the state after `cost`, where that leaves the limit, and the µs to wait if there is not enough for it."""
    if isinstance(limit, RateLimit):
        return _charge_rate(limit, mark, now_us, cost)
    return _charge_calendar(limit, mark, now_us, cost)


def _charge_rate(limit: RateLimit, mark: Mark | None, now_us: int, cost: int) -> tuple[Mark, Level, int]:
    """GCRA: with debt d = TAT - now, a call passes if d + cost·P/N ≤ capacity·P/N, and leaves that as its debt."""
    count, full = limit.count, limit.capacity * limit.period_us
    after = _debt(limit, mark, now_us) + cost * limit.period_us
    whole, remainder = divmod(after, count)
    wait_us = _ceil(after - full, count) if after > full else 0
    return Mark(now_us + whole, remainder), _rate_level(limit, after), wait_us


def _debt(limit: RateLimit, mark: Mark | None, now_us: int) -> int:
    """Return the debt in 1/N µs, at most a full bucket: a clock set back or a limit that was cut owes no more.

    A remainder of another N (the limit was edited) counts up to a whole µs: never too little.
    """
    if mark is None or mark.at_us < now_us:
        return 0
    count, full = limit.count, limit.capacity * limit.period_us
    ahead_us = min(mark.at_us - now_us, full // count + 1)
    return min(ahead_us * count + min(mark.amount, count), full)


def _rate_level(limit: RateLimit, debt: int) -> Level:
    period_us, count, capacity = limit.period_us, limit.count, limit.capacity
    full = capacity * period_us
    remaining = (full - debt) // period_us if debt < full else 0
    # One more request fits when the debt has drained to full - (remaining + 1)·P; a full bucket has nothing to gain.
    reset_us = _ceil(debt - full + (remaining + 1) * period_us, count) if remaining < capacity else 0
    return Level(limit.name, capacity, full // count, remaining, reset_us)


def _charge_calendar(limit: CalendarLimit, mark: Mark | None, now_us: int, cost: int) -> tuple[Mark, Level, int]:
    start_us, end_us = window(limit.calendar, now_us)
    used = cost
    if mark is not None and mark.at_us >= start_us:
        if mark.at_us >= end_us:  # a window ahead of a clock that was set back still counts
            start_us, end_us = window(limit.calendar, mark.at_us)
        used += min(mark.amount, limit.requests)
    level = Level(limit.name, limit.requests, end_us - start_us, max(0, limit.requests - used), end_us - now_us)
    return Mark(start_us, used), level, end_us - now_us if used > limit.requests else 0


def level_of(limit: Limit, mark: Mark, now_us: int) -> Level:
    """Return where a limit in this state stands at `now_us`."""
    return _charge(limit, mark, now_us, 0)[1]


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def window(calendar: Calendar, at_us: int) -> tuple[int, int]:
    """Return start and end (exclusive), in µs since the epoch, of the UTC window that holds an instant."""
    if calendar is Calendar.HOUR:
        start_us = at_us - at_us % _HOUR_US
        return start_us, start_us + _HOUR_US
    start_us = at_us - at_us % _DAY_US
    return (start_us, start_us + _DAY_US) if calendar is Calendar.DAY else _month(start_us // _DAY_US)


@lru_cache(maxsize=64)
def _month(day: int) -> tuple[int, int]:
    first = (_EPOCH + timedelta(days=day)).replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return (first - _EPOCH).days * _DAY_US, (following - _EPOCH).days * _DAY_US


def expires_us(state: State, limits: tuple[Limit, ...]) -> int:
    """Return when every limit is as if it had never been used, so that nothing is lost by forgetting the state."""
    return max((_idle_us(limit, state[limit.name]) for limit in limits if limit.name in state), default=0)


def _idle_us(limit: Limit, mark: Mark) -> int:
    if isinstance(limit, RateLimit):
        return mark.at_us + (1 if mark.amount else 0)
    return window(limit.calendar, mark.at_us)[1]


def share(limits: tuple[Limit, ...], replicas: int) -> tuple[Limit, ...]:
    """Return what one of several replicas may admit alone: an equal part of each limit, never less than one request."""
    return tuple(_share(limit, replicas) for limit in limits) if replicas > 1 else limits


def _share(limit: Limit, replicas: int) -> Limit:
    if isinstance(limit, CalendarLimit):
        return CalendarLimit(
            name=limit.name,
            requests=max(1, limit.requests // replicas),
            calendar=limit.calendar,
            on_store_failure=limit.on_store_failure,
        )
    common = gcd(limit.period_us * replicas, limit.count)
    return RateLimit(
        name=limit.name,
        requests=limit.requests,
        per_us=limit.per_us * replicas,
        period_us=limit.period_us * replicas // common,
        count=limit.count // common,
        capacity=max(1, limit.capacity // replicas),
        on_store_failure=limit.on_store_failure,
    )
