"""Go duration strings (`90s`, `720h`, `1h30m`), as Kubernetes APIs write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_UNIT_US: Final = {
    "ns": Fraction(1, 1000),
    "us": Fraction(1),
    "µs": Fraction(1),
    "ms": Fraction(1000),
    "s": Fraction(1_000_000),
    "m": Fraction(60_000_000),
    "h": Fraction(3_600_000_000),
}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
DURATION_PATTERN: Final = f"^{_WHOLE.pattern}$"  # for schemas; Go and browsers read it alike


def parse_duration(text: str) -> int:
    """Return the length in whole microseconds, more than zero.

    Raises:
        ValueError: not a Go duration, zero, or finer than a microsecond.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"expected a duration such as 90s, 15m or 720h, not `{text[:64]}`")
    length_us = sum(Fraction(number) * _UNIT_US[unit] for number, unit in _PART.findall(text))
    if length_us.denominator != 1 or length_us <= 0:
        raise ValueError(f"expected at least one microsecond and whole microseconds, not `{text[:64]}`")
    return int(length_us)
