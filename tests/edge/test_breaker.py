"""When a node is given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from authz.edge.store.breaker import IN_A_ROW, OF_AT_LEAST, Breaker


def test_five_failures_in_a_row() -> None:
    breaker = Breaker()
    assert [breaker.failed(float(second)) for second in range(5)] == [False] * 4 + [True]


def test_success_ends_the_row() -> None:
    breaker = Breaker()
    for second in range(50):
        assert not any(breaker.failed(second + part / 10) for part in range(4))
        breaker.succeeded(second + 0.5)


def test_half_of_twenty_within_a_second() -> None:
    breaker = Breaker()
    told = []
    for _ in range(10):
        breaker.succeeded(0.5)
        told.append(breaker.failed(0.5))
    assert told == [False] * 9 + [True]


def test_a_second_later_it_counts_anew() -> None:
    breaker = Breaker()
    for number in range(100):
        breaker.succeeded(number * 0.3)
        assert not breaker.failed(number * 0.3)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.5)), max_size=80))
def test_is_tripped_exactly_by_its_rule(calls: list[tuple[bool, float]]) -> None:
    breaker = Breaker()
    now_s, since_s, row, count, failures = 0.0, 0.0, 0, 0, 0
    for good, step_s in calls:
        now_s += step_s
        if now_s - since_s >= 1.0:
            since_s, count, failures = now_s, 0, 0
        count += 1
        if good:
            breaker.succeeded(now_s)
            row = 0
        else:
            row, failures = row + 1, failures + 1
            expected = row >= IN_A_ROW or (count >= OF_AT_LEAST and 2 * failures >= count)
            assert breaker.failed(now_s) is expected
