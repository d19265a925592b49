"""How often: a client's limits, charged all or none, in exact integers.

`admit` is the whole rule; the memory store calls it and the Redis store's Lua script repeats it, step by step.

The state of a rate is the theoretical arrival time of the next request (TAT) as whole µs and a remainder of 1/N µs; the
state of a calendar window its start and what was used; each with the terms that it is counted in. A state belongs to
its limit's kind and name, so that editing one limit does not reset the others; what an edited limit holds is carried
over as whole requests.

Source: GCRA, ITU-T I.371 annex A; nginx ngx_http_limit_req_module for `burst`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil, gcd, inf
from typing import TYPE_CHECKING, NamedTuple

from authz.policy.limits import CALENDAR_CODES, Calendar, CalendarLimit, Limit, RateLimit

if TYPE_CHECKING:
    from authz.core.debts import Account, Doubt

SECOND_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_US = 3_600 * SECOND_US
_DAY_US = 24 * _HOUR_US
_CALENDARS = {code: calendar for calendar, code in CALENDAR_CODES.items()}


class Level(NamedTuple):
    """Where a limit stands after the call: what the RateLimit header fields tell."""

    name: str
    quota: int  # requests of the window: of a rate its capacity
    window_us: int  # of a rate the time in which its capacity refills
    remaining: int
    reset_us: int  # until there is more than `remaining`


class Within(NamedTuple):
    """Charged to every limit; `levels` are those of the enforced ones."""

    levels: tuple[Level, ...]
    shadowed: tuple[str, ...] = ()  # limits in Shadow mode that would have refused


class Exceeded(NamedTuple):
    """Charged to none; `wait_us` is when the same call would pass, exactly, if nobody else spends."""

    binding: str  # the limit that takes longest
    wait_us: int
    levels: tuple[Level, ...]


class Unknown(NamedTuple):
    """The store did not answer in time; whether it charged is not known, or may become known by `doubt`."""

    detail: str
    doubt: Doubt | None = None
    account: Account | None = None  # where it is noted if the call is admitted all the same


class Mark(NamedTuple):
    """The state of one limit: TAT and remainder of a rate, window start and use of a calendar; and their terms.

    The terms are the limit's `terms` when it was charged: a rate's period and count, a calendar's code and 0.
    """

    at_us: int
    amount: int
    terms: tuple[int, int]


class Held(NamedTuple):
    """What a limit held when it was asked, in its units: a rate's debt at that instant, a window's use."""

    from_us: int
    used: int


State = Mapping[bytes, Mark]  # by a limit's tag


class Admission(NamedTuple):
    """Of several equal calls at one instant the first `admitted` pass; `held` is each limit's before any of them."""

    now_us: int
    admitted: int
    held: tuple[Held, ...]
    repaid: tuple[int, ...] = ()  # of each limit's debit, the calls that were charged before `held`


def admit(
    state: State, limits: tuple[Limit, ...], now_us: int, want: int = 1, cost: int = 1, *, debits: tuple[int, ...] = ()
) -> tuple[Admission, State | None]:
    """Return how many of `want` calls of one cost pass, and the new state; None where nothing is to be written.

    `debits` are calls, by limit, that were admitted elsewhere: they are charged first, cannot be refused, and stop at
    full. A limit in Shadow mode is charged as it would be if it were enforced, and stops nobody. A refusal writes
    nothing but what a limit holds where that is another thing than what is stored: a debt beyond a full bucket, or
    counted in terms from before an edit, would drain by itself later than the wait that is told.
    """
    read = [_held(limit, state.get(limit.tag), now_us) for limit in limits]
    held, repaid = repay(limits, tuple([one for one, _ in read]), debits)
    admitted = want
    for limit, (_, used) in zip(limits, held, strict=True):
        if limit.enforced and used + admitted * cost * limit.unit > limit.full:
            admitted = (limit.full - used) // (cost * limit.unit)
    admission = Admission(now_us, admitted, held, repaid)
    if not admitted and not any(repaid) and not (want and any(is_stale for _, is_stale in read)):
        return admission, None
    charged = zip(limits, held, strict=True)
    return admission, {limit.tag: _mark(limit, _charge(limit, before, admitted, cost)) for limit, before in charged}


def repay(
    limits: tuple[Limit, ...], held: tuple[Held, ...], debits: tuple[int, ...]
) -> tuple[tuple[Held, ...], tuple[int, ...]]:
    """Return what limits hold once debits were charged, and how many calls of each found room."""
    if not debits:
        return held, ()
    repaid = tuple(
        min(debit, (limit.full - used) // limit.unit)
        for limit, (_, used), debit in zip(limits, held, debits, strict=True)
    )
    charged = zip(limits, held, repaid, strict=True)
    return tuple(Held(from_us, used + calls * limit.unit) for limit, (from_us, used), calls in charged), repaid


def outcome(admission: Admission, limits: tuple[Limit, ...], place: int = 0, cost: int = 1) -> Within | Exceeded:
    """Return what the call in this place (from 0) of an admission learns."""
    now_us, admitted, held, _ = admission
    passes = place < admitted
    calls = place + 1 if passes else admitted
    levels, shadowed = [], []
    binding, wait_us = "", 0
    for limit, before in zip(limits, held, strict=True):
        after = _charge(limit, before, calls, cost)
        if not limit.enforced:
            if after.used != before.used + calls * cost * limit.unit:
                shadowed.append(limit.name)
            continue
        levels.append(_level(limit, after, now_us))
        if not passes and after.used + cost * limit.unit > limit.full:
            limit_wait_us = _wait_us(limit, after, now_us, cost)
            if limit_wait_us > wait_us:
                binding, wait_us = limit.name, limit_wait_us
    return Within(tuple(levels), tuple(shadowed)) if passes else Exceeded(binding, wait_us, tuple(levels))


def charged_by(admission: Admission, limits: tuple[Limit, ...]) -> tuple[Held, ...]:
    """Return what each limit held after an admission of calls of cost 1."""
    held = zip(limits, admission.held, strict=True)
    return tuple(_charge(limit, before, admission.admitted, 1) for limit, before in held)


def window_ends_us(admission: Admission, limits: tuple[Limit, ...]) -> list[int]:
    """Return when the calendar windows end that an admission was charged to."""
    charged = zip(limits, admission.held, strict=True)
    return [window(limit.calendar, held.from_us)[1] for limit, held in charged if isinstance(limit, CalendarLimit)]


def spend(
    state: State, limits: tuple[Limit, ...], now_us: int, cost: int = 1
) -> tuple[Within | Exceeded, State | None]:
    """Return the outcome of one call, and the new state; None where nothing is to be written."""
    admission, after = admit(state, limits, now_us, 1, cost)
    return outcome(admission, limits, 0, cost), after


def require_affordable(limits: tuple[Limit, ...], cost: int) -> None:
    """Refuse a cost that no wait makes affordable.

    Raises:
        ValueError: with the limit that it exceeds.
    """
    for limit in limits:
        if not limit.unit <= cost * limit.unit <= limit.full:
            raise ValueError(f"cost is from 1 to {limit.full // limit.unit} under the quota {limit.name}, not {cost}")


def _held(limit: Limit, mark: Mark | None, now_us: int) -> tuple[Held, bool]:
    """Return what a limit holds at `now_us`, at most all that it has, and whether that is not what is stored."""
    if isinstance(limit, RateLimit):
        if mark is None or mark.at_us < now_us:
            return Held(now_us, 0), False
        return _debt(limit, mark, now_us)
    return _use(limit, mark, now_us)


def _debt(limit: RateLimit, mark: Mark, now_us: int) -> tuple[Held, bool]:
    """Return a rate's debt; a clock that was set back makes no more of it than a full bucket."""
    ahead_us, count = mark.at_us - now_us, limit.count
    if mark.terms != limit.terms:
        return Held(now_us, int(min(_requests(ahead_us, mark), limit.capacity)) * limit.unit), True
    owed = min(ahead_us, limit.full // count + 1) * count + min(mark.amount, count)
    return Held(now_us, min(owed, limit.full)), owed > limit.full


def _requests(ahead_us: int, mark: Mark) -> float:
    """Return how many requests a debt is worth in the terms that it was charged in, rounded up.

    In doubles, as the Lua script computes them: off by less than a millionth of a request.
    """
    period_us, count = mark.terms
    if not period_us:  # nothing of ours
        return inf
    part = (float(ahead_us % period_us) * count + mark.amount) / period_us
    return float(ahead_us // period_us) * count + ceil(part)


def _use(limit: CalendarLimit, mark: Mark | None, now_us: int) -> tuple[Held, bool]:
    """Return what was used of a calendar window.

    A window ahead of a clock that was set back still counts if it is the next one; further ahead only a clock that was
    wrong has been. A limit that was edited to another calendar keeps what was used in a window that is not over.
    """
    start_us, end_us = window(limit.calendar, now_us)
    if mark is None or mark.at_us > end_us:
        return Held(start_us, 0), False
    used = min(mark.amount, limit.requests)
    if mark.terms == limit.terms:
        if mark.at_us < start_us:
            return Held(start_us, 0), False
        return Held(end_us if mark.at_us == end_us else start_us, used), False
    before = _CALENDARS.get(mark.terms[0])
    if mark.at_us < start_us and (before is None or window(before, mark.at_us)[1] <= now_us):
        return Held(start_us, 0), False
    return Held(start_us, used), True


def _charge(limit: Limit, before: Held, calls: int, cost: int) -> Held:
    """Return what a limit holds after that many admitted calls; one in Shadow mode takes those that fit."""
    used = before.used + calls * cost * limit.unit
    if used > limit.full:
        used -= -(-(used - limit.full) // (cost * limit.unit)) * cost * limit.unit
    return Held(before.from_us, used)


def _mark(limit: Limit, held: Held) -> Mark:
    if isinstance(limit, RateLimit):
        ahead_us, remainder = divmod(held.used, limit.count)
        return Mark(held.from_us + ahead_us, remainder, limit.terms)
    return Mark(held.from_us, held.used, limit.terms)


def _level(limit: Limit, held: Held, now_us: int) -> Level:
    remaining = (limit.full - held.used) // limit.unit
    if isinstance(limit, RateLimit):
        count, capacity = limit.count, limit.capacity
        # One more request fits when the debt has drained to full - (remaining + 1)·P; a full bucket gains nothing.
        reset_us = -((limit.full - held.used - (remaining + 1) * limit.unit) // count) if remaining < capacity else 0
        return Level(limit.name, capacity, limit.full // count, remaining, reset_us)
    start_us, end_us = window(limit.calendar, held.from_us)
    return Level(limit.name, limit.requests, end_us - start_us, remaining, end_us - now_us)


def _wait_us(limit: Limit, held: Held, now_us: int, cost: int) -> int:
    """Return the µs until one more call fits into a limit where it does not fit now."""
    if isinstance(limit, RateLimit):
        return -((limit.full - held.used - cost * limit.unit) // limit.count)
    return window(limit.calendar, held.from_us)[1] - now_us


def levels_at(state: State, limits: tuple[Limit, ...], now_us: int) -> tuple[Level, ...]:
    """Return where every limit in this state stands at `now_us`, those in Shadow mode too; nothing is charged."""
    return tuple(_level(limit, _held(limit, state.get(limit.tag), now_us)[0], now_us) for limit in limits)


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
    return max((_idle_us(limit, state[limit.tag]) for limit in limits if limit.tag in state), default=0)


def _idle_us(limit: Limit, mark: Mark) -> int:
    if isinstance(limit, RateLimit):
        return mark.at_us + (1 if mark.amount else 0)
    return window(limit.calendar, mark.at_us)[1]


def share(limits: tuple[Limit, ...], replicas: int) -> tuple[Limit, ...]:
    """Return what one of several replicas may admit alone: an equal part of each limit, never less than one request."""
    return tuple(_share(limit, replicas) for limit in limits) if replicas > 1 else limits


def _share(limit: Limit, replicas: int) -> Limit:
    if isinstance(limit, CalendarLimit):
        return replace(limit, requests=max(1, limit.requests // replicas))
    common = gcd(limit.period_us * replicas, limit.count)
    return replace(
        limit,
        per_us=limit.per_us * replicas,
        period_us=limit.period_us * replicas // common,
        count=limit.count // common,
        capacity=max(1, limit.capacity // replicas),
    )
