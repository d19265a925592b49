"""Pauses grow while something goes wrong again and again, and ordinary work meets none."""

from __future__ import annotations

import pytest
from clientpolicy_operator.patience import FORGIVEN_S, MAX_S, Patience

KEY, OTHER = ("n", "a"), ("n", "b")


def test_failures_pause_twice_as_long_each_time_up_to_a_minute() -> None:
    patience = Patience()
    pauses_s = [patience.failed(KEY, wished_s=0, chance=1) for _ in range(9)]
    assert pauses_s == [1, 2, 4, 8, 16, 32, MAX_S, MAX_S, MAX_S]
    assert patience.failed(OTHER, wished_s=0, chance=0) == 0.5, "each policy has its own"
    assert patience.failed(OTHER, wished_s=7, chance=0) == 7, "what the API server asks for is kept"


@pytest.mark.parametrize("forgiving", ["settled", "edited", "forget"])
def test_failures_are_forgotten(forgiving: str) -> None:
    patience = Patience()
    for _ in range(5):
        patience.failed(KEY, wished_s=0, chance=1)
    patience.settled(KEY, None, 0) if forgiving == "settled" else getattr(patience, forgiving)(KEY)
    assert patience.failed(KEY, wished_s=0, chance=1) == 1


def test_status_written_again_and_again_for_one_spec_pauses_longer_each_time() -> None:
    patience = Patience()
    assert [patience.settled(KEY, 1, now_s=second) for second in range(12)] == [
        0, 0, 0, 0, 1, 2, 4, 8, 16, 32, MAX_S, MAX_S,
    ]  # fmt: skip
    assert patience.settled(KEY, None, 13) == 0, "a visit that had nothing to write"
    assert patience.settled(KEY, 1, 14) == MAX_S, "and a fight that goes on"
    assert patience.settled(OTHER, 1, 14) == 0


@pytest.mark.parametrize("calmed", ["another spec", "time", "forget"])
def test_fights_are_forgotten(calmed: str) -> None:
    patience = Patience()
    for _ in range(9):
        patience.settled(KEY, 1, 0)
    if calmed == "forget":
        patience.forget(KEY)
    generation, now_s = (2 if calmed == "another spec" else 1), (FORGIVEN_S + 1 if calmed == "time" else 1)
    assert [patience.settled(KEY, generation, now_s) for _ in range(3)] == [0, 0, 0]
