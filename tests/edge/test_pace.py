"""When a busy process waits for more decisions to send together."""

from __future__ import annotations

import pytest

from authz.edge.store.pace import APART_S, BUSY_PER_S, ENOUGH, WINDOW_S, Pace


def run(pace: Pace, per_s: float, seconds: float, start_s: float = 100.0) -> list[float]:
    """Return what each decision of an even load, sent one by one, would have waited."""
    waits = []
    for number in range(int(per_s * seconds)):
        now_s = start_s + number / per_s
        pace.asked()
        waits.append(pace.wait_s(now_s))
        if not waits[-1]:
            pace.flushed(now_s, 0)
    return waits


@pytest.mark.parametrize("per_s", [1, 100, BUSY_PER_S - 200])
def test_ordinary_load_never_waits(per_s: float) -> None:
    assert not any(run(Pace(), per_s, 3))


def test_busy_process_waits_a_little() -> None:
    waits = run(Pace(), 4 * BUSY_PER_S, 1)
    assert 0.5 < sum(wait > 0 for wait in waits) / len(waits) < 1
    assert max(waits) <= APART_S


def test_enough_is_sent_at_once() -> None:
    pace = Pace()
    run(pace, 4 * BUSY_PER_S, 1)
    now_s = 101.0
    pace.flushed(now_s, 0)
    assert [pace.asked() for _ in range(ENOUGH)] == [False] * (ENOUGH - 1) + [True]
    assert pace.wait_s(now_s) == 0


def test_what_had_no_room_does_not_wait() -> None:
    pace = Pace()
    run(pace, 4 * BUSY_PER_S, 1)
    pace.flushed(101.0, ENOUGH)
    assert pace.wait_s(101.0) == 0
    pace.flushed(101.0, 1)
    assert pace.wait_s(101.0) > 0


def test_end_of_the_load_ends_the_waiting() -> None:
    pace = Pace()
    run(pace, 4 * BUSY_PER_S, 1)
    assert not any(run(pace, 100, 1, start_s=101.0 + WINDOW_S)[1:])
