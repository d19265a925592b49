"""The Lua script against the integer model, on a real Redis: the same admissions, byte for byte, at any instant."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partner import NOW_US
from quotas import ANY_CALENDARS, DAILY, LIMIT_SETS, MONTHLY, NGINX, SECOND, affordable
from redis_server import RedisServer
from scripted import NONCE, Scripted

from authz.core.quota import Exceeded, State, Within, admit, expires_us, outcome, spend
from authz.edge.store.script import Asked, Garbled, Plan, decode, encode, read_state
from authz.policy.limits import Calendar, Limit, calendar_limit, rate_limit

Calls = list[tuple[tuple[Limit, ...], int, int, int]]
DEBITS: st.SearchStrategy[list[int]] = st.just([]) | st.lists(
    st.integers(0, 5) | st.integers(0, 2**32 - 1), min_size=4, max_size=4
)
EARLIEST_US, LATEST_US = 10**15, 4 * 10**15  # 2001 to 2096

CALLS: st.SearchStrategy[Calls] = st.lists(
    st.tuples(
        LIMIT_SETS,
        st.integers(1, 5) | st.integers(1, 10**6),
        st.integers(1, 3),
        st.integers(-2 * SECOND, 20 * SECOND) | st.integers(-(10**13), 10**13),
    ),
    min_size=1,
    max_size=12,
)


def clamp(now_us: int) -> int:
    return max(EARLIEST_US, min(now_us, LATEST_US))


@settings(max_examples=300)
@given(CALLS, st.lists(DEBITS, min_size=12, max_size=12))
def test_script_and_model_agree_call_for_call(redis: RedisServer, calls: Calls, owed: list[list[int]]) -> None:
    """Any limits, edited between calls, any number of calls and cost, any debits, a clock that jumps both ways."""
    with Scripted(redis) as scripted:
        state: State = {}
        now_us = NOW_US
        for (limits, want, cost, step_us), owing in zip(calls, owed, strict=False):
            now_us = clamp(now_us + step_us)
            paid = affordable(limits, cost)
            debits = tuple(owing[: len(limits)])
            want *= not debits or owing[-1] % 2  # noqa: PLW2901 debits also come alone
            expected, after = admit(state, limits, now_us, want, paid, debits=debits)
            assert scripted.admit("k", limits, want=want, cost=paid, now_us=now_us, debits=debits) == expected
            if after is not None:
                state = after
            value = scripted.value("k")
            assert read_state(value or b"") == state


@given(CALLS, st.data())
def test_keys_of_one_call_are_as_if_called_apart(redis: RedisServer, calls: Calls, data: st.DataObject) -> None:
    """Many keys in one call, in any order: what each admits is its own, and what a key listed twice admits adds up."""
    asks = [
        (f"k{number % 5}", limits, want, affordable(limits, cost))
        for number, (limits, want, cost, _) in enumerate(calls)
    ]
    with Scripted(redis) as together, Scripted(redis) as apart:
        order = data.draw(st.permutations(asks))
        found = together.admit_all(order, NOW_US)
        assert found == [
            apart.admit(key, limits, want=want, cost=cost, now_us=NOW_US) for key, limits, want, cost in order
        ]


@given(LIMIT_SETS, st.integers(1, 40), st.integers(1, 40))
def test_batch_of_k_is_k_calls(redis: RedisServer, limits: tuple[Limit, ...], before: int, want: int) -> None:
    with Scripted(redis) as scripted:
        for key in ("batch", "single"):
            scripted.admit(key, limits, want=before, now_us=NOW_US)
        batch = scripted.admit("batch", limits, want=want, now_us=NOW_US)
        singles = [scripted.spend("single", limits, now_us=NOW_US) for _ in range(want)]
        assert [outcome(batch, limits, place) for place in range(want)] == singles
        assert scripted.value("batch") == scripted.value("single")


@given(LIMIT_SETS, st.integers(1, 3))
def test_wait_is_exact_to_the_microsecond(redis: RedisServer, limits: tuple[Limit, ...], cost: int) -> None:
    paid = affordable(limits, cost)
    with Scripted(redis) as scripted:
        everything = scripted.admit("k", limits, want=10**9, cost=paid, now_us=NOW_US)
        refused = scripted.spend("k", limits, cost=paid, now_us=NOW_US)
        if any(limit.enforced for limit in limits):
            assert isinstance(refused, Exceeded), everything
            early = scripted.spend("k", limits, cost=paid, now_us=NOW_US + refused.wait_us - 1)
            assert isinstance(early, Exceeded)
            assert early.wait_us == 1
            assert isinstance(scripted.spend("k", limits, cost=paid, now_us=NOW_US + refused.wait_us), Within)


@given(LIMIT_SETS, st.integers(1, 30), st.integers(0, 2 * SECOND))
def test_forgetting_at_its_expiry_loses_nothing(
    redis: RedisServer, limits: tuple[Limit, ...], want: int, later_us: int
) -> None:
    with Scripted(redis) as scripted:
        scripted.admit("k", limits, want=want, now_us=NOW_US)
        now_us = expires_us(read_state(scripted.value("k") or b""), limits) + later_us
        assert scripted.admit("k", limits, want=want, now_us=now_us) == scripted.admit(
            "new", limits, want=want, now_us=now_us
        )


@given(st.lists(st.integers(0, 400), max_size=60))
def test_nginx_equivalence_on_millisecond_traces(redis: RedisServer, steps_ms: list[int]) -> None:
    """`rate=10r/s burst=20 nodelay`, as ngx_http_limit_req_module computes it: excess in 1/1000 request."""
    excess, last_ms, now_ms = -1, 0, NOW_US // 1000
    with Scripted(redis) as scripted:
        for step in steps_ms:
            now_ms += step
            drained = 0 if excess < 0 else max(0, excess - 10 * (now_ms - last_ms) + 1000)
            passes = drained <= 20_000
            if passes:
                excess, last_ms = drained, now_ms
            assert isinstance(scripted.spend("k", (NGINX,), now_us=now_ms * 1000), Within) is passes


def test_rate_10_burst_20_admits_21_at_once(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        assert scripted.admit("k", (NGINX,), want=100, now_us=NOW_US).admitted == 21
        assert scripted.admit("k", (NGINX,), want=100, now_us=NOW_US + 99_999).admitted == 0
        assert scripted.admit("k", (NGINX,), want=100, now_us=NOW_US + 100_000).admitted == 1


@pytest.mark.parametrize("year", [1972, 2000, 2024, 2026, 2100, 2255])
@given(at=st.integers(0, 365 * 86_400 * SECOND), limit=ANY_CALENDARS)
def test_calendar_of_the_script_is_that_of_utc(redis: RedisServer, year: int, at: int, limit: Limit) -> None:
    now_us = (year - 1970) * 31_556_952 * SECOND + at
    if now_us < 2**53:
        with Scripted(redis) as scripted:
            assert scripted.admit("k", (limit,), want=2, now_us=now_us) == admit({}, (limit,), now_us, 2)[0]


# ---- all or nothing ---------------------------------------------------------------------------------------------


def test_denial_writes_no_byte_and_extends_no_life(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        scripted.admit("k", (NGINX, MONTHLY), want=3)
        before, life_before_ms = scripted.value("k"), scripted.life_ms("k")
        refused = scripted.spend("k", (NGINX, MONTHLY))
        assert isinstance(refused, Exceeded)
        assert refused.binding == "monthly"
        assert scripted.value("k") == before
        assert scripted.life_ms("k") <= life_before_ms


@settings(max_examples=50)
@given(CALLS)
def test_whoever_obeys_the_wait_passes_through_edits_and_clock_steps(redis: RedisServer, calls: Calls) -> None:
    """The wait that a refusal tells is true whatever the clock has done and whichever limits were edited before it."""
    with Scripted(redis) as scripted:
        now_us = NOW_US
        for limits, want, cost, step_us in calls:
            now_us = clamp(now_us + step_us)
            paid = affordable(limits, cost)
            scripted.admit("k", limits, want=want, cost=paid, now_us=now_us)
            refused = scripted.spend("k", limits, cost=paid, now_us=now_us)
            if isinstance(refused, Exceeded):
                now_us += refused.wait_us
                assert isinstance(scripted.spend("k", limits, cost=paid, now_us=now_us), Within)


def test_limit_that_was_cut_lets_pass_at_the_wait_that_it_told(redis: RedisServer) -> None:
    slow = rate_limit(name="q", requests=60, per_us=3600 * SECOND)
    quick = rate_limit(name="q", requests=10, per_us=SECOND, burst=20)
    with Scripted(redis) as scripted:
        scripted.admit("k", (slow,), want=60, now_us=NOW_US)
        refused = scripted.spend("k", (quick,), now_us=NOW_US)
        assert isinstance(refused, Exceeded)
        assert refused.wait_us == 100_000
        assert isinstance(scripted.spend("k", (quick,), now_us=NOW_US + 100_000), Within)


def test_life_in_redis_ends_when_the_bucket_is_idle(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        scripted.admit("k", (rate_limit(name="r", requests=3, per_us=10 * SECOND),), want=3)
        assert 0 < scripted.life_ms("k") <= 10_000


def test_shadow_limit_is_charged_and_stops_nobody(redis: RedisServer) -> None:
    tight = rate_limit(name="tight", requests=2, per_us=3600 * SECOND, enforced=False)
    with Scripted(redis) as scripted:
        limits = (tight, DAILY)
        outcomes = [scripted.spend("k", limits, now_us=NOW_US) for _ in range(4)]
        assert [isinstance(one, Within) for one in outcomes] == [True, True, True, False]
        assert [one.shadowed for one in outcomes if isinstance(one, Within)] == [(), (), ("tight",)]
        assert all([level.name for level in one.levels] == ["daily"] for one in outcomes)


@given(LIMIT_SETS, st.integers(1, 60))
def test_shadow_limit_changes_no_verdict(redis: RedisServer, limits: tuple[Limit, ...], want: int) -> None:
    enforced = tuple(limit for limit in limits if limit.enforced)
    with Scripted(redis) as scripted:
        both = scripted.admit("both", limits, want=want, now_us=NOW_US)
        alone = scripted.admit("alone", enforced, want=want, now_us=NOW_US)
        assert both.admitted == alone.admitted


# ---- debits -----------------------------------------------------------------------------------------------------


def test_debit_is_charged_before_calls_and_stops_at_full(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        first = scripted.admit("k", (NGINX, MONTHLY), want=5, now_us=NOW_US, debits=(20, 2))
        assert (first.admitted, first.repaid) == (1, (20, 2))
        second = scripted.admit("k", (NGINX, MONTHLY), want=0, now_us=NOW_US, debits=(7, 7))
        assert (second.admitted, second.repaid) == (0, (0, 0))
        third = scripted.admit("k", (NGINX, MONTHLY), want=1, now_us=NOW_US + 350_000, debits=(2, 0))
        assert (third.admitted, third.repaid) == (0, (2, 0))
        assert isinstance(scripted.spend("k", (NGINX,), now_us=NOW_US + 350_000), Within)


@given(LIMIT_SETS, st.integers(1, 40), st.integers(1, 40))
def test_debit_is_what_as_many_calls_would_have_been(
    redis: RedisServer, limits: tuple[Limit, ...], before: int, owed: int
) -> None:
    """Of limits that have room for all of them; each stops at its own full."""
    with Scripted(redis) as scripted:
        for key in ("called", "debited"):
            scripted.admit(key, limits, want=before, now_us=NOW_US)
        called = scripted.admit("called", limits, want=owed, now_us=NOW_US)
        debited = scripted.admit("debited", limits, want=0, now_us=NOW_US, debits=(owed,) * len(limits))
        enforced = [place for place, limit in enumerate(limits) if limit.enforced]
        assert all(debited.repaid[place] >= called.admitted for place in enforced)
        if called.admitted == owed:
            after = [scripted.admit(key, limits, want=0, now_us=NOW_US).held for key in ("called", "debited")]
            assert [after[0][place] for place in enforced] == [after[1][place] for place in enforced]


# ---- edits ------------------------------------------------------------------------------------------------------


@given(LIMIT_SETS, LIMIT_SETS, st.integers(1, 10))
def test_edit_leaves_the_other_limits_as_they_were(
    redis: RedisServer, limits: tuple[Limit, ...], edited: tuple[Limit, ...], want: int
) -> None:
    """Whatever is added, removed or changed, a limit that stays stands where it stood."""
    kept = limits[0]
    others = tuple(limit for limit in edited if limit.name != kept.name)
    with Scripted(redis) as scripted:
        scripted.admit("k", limits, want=want, now_us=NOW_US)
        before = scripted.admit("k", (kept,), want=0, now_us=NOW_US).held
        after = scripted.admit("k", (*others, kept), want=0, now_us=NOW_US).held
        assert after[-1] == before[0]


def test_limit_that_was_cut_owes_at_most_what_it_has(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        scripted.admit("k", (NGINX,), want=21, now_us=NOW_US)
        smaller = rate_limit(name="steady", requests=10, per_us=SECOND, burst=0)
        refused = scripted.spend("k", (smaller,), now_us=NOW_US)
        assert isinstance(refused, Exceeded)
        assert refused.wait_us == 100_000


def test_quota_that_changes_its_kind_starts_anew(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        rate = rate_limit(name="q", requests=7, per_us=3 * SECOND)
        scripted.admit("k", (rate,), want=5, now_us=NOW_US)
        daily = calendar_limit(name="q", requests=3, calendar=Calendar.DAY)
        assert scripted.admit("k", (daily,), want=9, now_us=NOW_US).admitted == 3


# ---- what else may be under the key -----------------------------------------------------------------------------


@given(st.binary(max_size=80))
def test_any_value_under_the_key_is_survived(redis: RedisServer, value: bytes) -> None:
    """Whoever can write our keys can lift a quota, never break the call: at most all that a limit has is owed."""
    with Scripted(redis) as scripted:
        scripted.plain.set(scripted.key("k"), value)
        admission = scripted.admit("k", (NGINX, DAILY), now_us=NOW_US)
        assert admission == admit(read_state(value), (NGINX, DAILY), NOW_US)[0]


def test_value_of_another_type_is_replaced_and_siblings_go_on(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        scripted.plain.lpush(scripted.key("k"), "x")
        found = scripted.admit_all([("j", (DAILY,), 5, 1), ("k", (DAILY,), 5, 1), ("l", (DAILY,), 5, 1)], NOW_US)
        assert [one.admitted for one in found] == [3, 3, 3]
        assert len(read_state(scripted.value("k") or b"")) == 1


def test_redis_holds_no_name_and_one_key_a_client(redis: RedisServer) -> None:
    with Scripted(redis, hash_key=b"one") as scripted, Scripted(redis, hash_key=b"two") as other:
        scripted.admit("client:trusted-partner-app", (NGINX, MONTHLY))
        keys = scripted.plain.keys(f"{scripted.prefix}*")
        assert keys == [scripted.key("client:trusted-partner-app")]
        assert b"partner" not in keys[0]
        assert b"monthly" not in (scripted.value("client:trusted-partner-app") or b"")
        assert scripted.key("a").removeprefix(scripted.prefix.encode()) != other.key("a").removeprefix(
            other.prefix.encode()
        )


@given(st.sets(st.text(max_size=12), min_size=2, max_size=20))
def test_subjects_never_share_a_key_or_steer_its_slot(redis: RedisServer, subjects: set[str]) -> None:
    with Scripted(redis) as scripted:
        keys = {scripted.key(subject) for subject in subjects}
    assert len(keys) == len(subjects)
    assert {len(key) for key in keys} == {len(next(iter(keys)))}
    assert all(key.count(b"{") == key.count(b"}") == 1 for key in keys)


# ---- exact numbers ----------------------------------------------------------------------------------------------


def test_no_drift_over_a_hundred_thousand_calls_in_redis(redis: RedisServer) -> None:
    """7 in 3 s has no whole interval in µs: after every 7 calls the debt is 3 s to the microsecond."""
    limit = rate_limit(name="r", requests=7, per_us=3 * SECOND, burst=700_000)
    with Scripted(redis) as scripted:
        for _ in range(1000):
            scripted.admit("k", (limit,), want=100, now_us=NOW_US)
        (mark,) = read_state(scripted.value("k") or b"").values()
        debt = 100_000 * 3 * SECOND
        assert (mark.at_us - NOW_US, mark.amount) == divmod(debt, 7)


@given(st.integers(1, 10**9), st.integers(1, 31 * 86_400 * SECOND), st.integers(0, 10**9 - 1), st.integers(1, 10**9))
def test_largest_limits_stay_exact(redis: RedisServer, requests: int, per_us: int, burst: int, want: int) -> None:
    try:
        limit = rate_limit(name="r", requests=requests, per_us=per_us, burst=burst)
    except ValueError:
        return
    with Scripted(redis) as scripted:
        state: State = {}
        for _ in range(3):
            expected, after = admit(state, (limit,), NOW_US, want)
            assert scripted.admit("k", (limit,), want=want, now_us=NOW_US) == expected
            state = after if after is not None else state
            assert read_state(scripted.value("k") or b"") == state


@pytest.mark.parametrize("reply", [b"", b"x" * 200, None, 7, [b""]])
def test_reply_that_is_none_of_ours_is_told_apart(reply: object) -> None:
    with pytest.raises(Garbled):
        decode(NONCE, [Asked(Plan(b"k", (NGINX,)), 1, 1)], reply)


def test_reply_to_another_call_is_told_apart(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        asked = [Asked(Plan(scripted.key("k"), (NGINX,)), 1, 1)]
        reply = scripted.exchange(encode(NONCE, asked))
        assert decode(NONCE, asked, reply)[0].admitted == 1
        with pytest.raises(Garbled):
            decode(NONCE + 1, asked, reply)


def test_redis_reads_its_own_clock(redis: RedisServer) -> None:
    with Scripted(redis) as scripted:
        seconds, us = scripted.plain.time()
        admission = scripted.admit("k", (NGINX,))
        assert seconds * SECOND + us <= admission.now_us < (seconds + 3600) * SECOND
        assert spend({}, (NGINX,), admission.now_us)[0] == outcome(admission, (NGINX,))
