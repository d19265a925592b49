"""Go durations: exact in microseconds, or refused."""

from __future__ import annotations

import re

import pytest

from authz.policy.duration import DURATION_PATTERN, parse_duration

SECOND = 1_000_000
DURATIONS = {
    "90s": 90 * SECOND,
    "720h": 30 * 86_400 * SECOND,
    "1h30m": 5400 * SECOND,
    "1.5s": 1_500_000,
    "0.25m": 15 * SECOND,
    "1us": 1,
    "2µs": 2,
    "3ms": 3_000,
    "1000ns": 1,
    "0.000001000s": 1,
    "999999999999us": 999_999_999_999,
    "1h2m3s4ms5us6000ns": 3_723_004_011,
    "1s0.5s": 1_500_000,
}


@pytest.mark.parametrize(("text", "expected"), DURATIONS.items())
def test_go_durations_are_read_exactly(text: str, expected: int) -> None:
    assert parse_duration(text) == expected
    assert re.search(DURATION_PATTERN, text)


REFUSED = [
    "",
    "5",
    "s",
    "1 s",
    "-1s",
    "+1s",
    "1d",
    "0s",
    "1ns",
    "1.5us",
    ".5s",
    "1s ",
    " 1s",
    "1.s",
    "1,5s",
    "1S",
    "1H",
]
TOO_LONG = ["1" * 13 + "s", "0.0000010000s", "1s" + "1" * 13 + "s"]


@pytest.mark.parametrize(
    "text",
    [*REFUSED, *TOO_LONG, "1s\n", "1/2s", "1:2s", ":s", "1.1.1s", "1.1/2s", "1.1:2s", "1sx", "x1s", "1ss", "1m s"],
)
def test_what_is_no_positive_go_duration_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(text)


@pytest.mark.parametrize("frame", ["{}s", "1{}s", "{}1s", "1.{}s", "1.1{}s"])
def test_digits_are_the_ten_of_ascii(frame: str) -> None:
    read = set()
    for character in (*map(chr, range(33, 128)), "\u0661", "\uff11"):
        try:
            parse_duration(frame.format(character))
        except ValueError:
            continue
        read.add(character)
    units = {"{}s": "", "1{}s": "mu.", "{}1s": "", "1.{}s": "", "1.1{}s": "m"}[frame]
    assert read - set(units) == set("123456789") | ({"0"} if frame != "{}s" else set())


@pytest.mark.parametrize("text", ["x" * 70, "0." + "0" * 1_000 + "1s", "0s" * 100])
def test_error_repeats_64_characters_at_most(text: str) -> None:
    with pytest.raises(ValueError, match=f"`{text[:64]}`$"):
        parse_duration(text)
