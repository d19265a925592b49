"""What a caller reads of its quotas: never that it may come sooner than it may."""

from __future__ import annotations

import pytest

from authz.core.quota import Exceeded, Level, Within
from authz.wire.ratelimit import Form, fields, retry_after_s


def level(remaining: int = 3, reset_us: int = 1, window_us: int = 60_000_000) -> Level:
    return Level("a", 10, window_us, remaining, reset_us)


def test_forms_have_the_names_of_the_configuration() -> None:
    assert [form.value for form in Form] == ["ietf", "legacy", "none"]


@pytest.mark.parametrize(
    ("wait_us", "seconds"), [(0, "1"), (1, "1"), (1_000_000, "1"), (1_000_001, "2"), (2_000_000, "2")]
)
def test_wait_is_rounded_up_and_never_none(wait_us: int, seconds: str) -> None:
    assert str(retry_after_s(Exceeded("a", wait_us, ()))) == seconds


@pytest.mark.parametrize(
    ("reset_us", "seconds"), [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2), (86_400_000_000, 86_400)]
)
def test_reset_is_rounded_up(reset_us: int, seconds: int) -> None:
    assert dict(fields(Within((level(reset_us=reset_us),)), Form.IETF))["ratelimit"] == f'"a";r=3;t={seconds}'


@pytest.mark.parametrize(
    ("window_us", "seconds"), [(1, 1), (1_000_000, 1), (1_400_000, 1), (1_600_000, 2), (3_600_000_000, 3_600)]
)
def test_window_is_the_nearest_second_and_at_least_one(window_us: int, seconds: int) -> None:
    told = dict(fields(Within((level(window_us=window_us),)), Form.IETF))
    assert told["ratelimit-policy"] == f'"a";q=10;w={seconds}'


@pytest.mark.parametrize(
    ("levels", "reset"),
    [
        ([level(3, 5_000_000), level(4, 9_000_000)], "5"),
        ([level(4, 9_000_000), level(3, 5_000_000)], "5"),
        ([level(3, 5_000_000), level(3, 9_000_000)], "9"),
        ([level(3, 9_000_000), level(3, 5_000_000)], "9"),
    ],
)
def test_three_fields_tell_of_the_quota_that_ends_first_and_returns_last(levels: list[Level], reset: str) -> None:
    assert fields(Within(tuple(levels)), Form.LEGACY) == [
        ("ratelimit-limit", "10"),
        ("ratelimit-remaining", "3"),
        ("ratelimit-reset", reset),
    ]


def test_several_quotas_are_a_list() -> None:
    assert fields(Within((level(3), Level("b", 5, 1_000_000, 0, 2))), Form.IETF) == [
        ("ratelimit-policy", '"a";q=10;w=60, "b";q=5;w=1'),
        ("ratelimit", '"a";r=3;t=1, "b";r=0;t=1'),
    ]
    assert fields(Within((level(3),)), Form.NONE) == []
