"""The one place where the service reads time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache


def now_us() -> int:
    """Return the wall clock, µs since the epoch."""
    return time.time_ns() // 1000


def monotonic_s() -> float:
    return time.monotonic()


def monotonic_us() -> int:
    """Return a clock that never goes back, µs."""
    return time.monotonic_ns() // 1000


def elapsed_ns() -> int:
    """Return a clock for measuring spans, ns."""
    return time.perf_counter_ns()


def rfc3339(instant_us: int) -> str:
    seconds, us = divmod(instant_us, 1_000_000)
    return f"{_second(seconds)}.{us:06d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
