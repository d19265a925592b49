"""The only place where the operator reads the time or draws chance."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the wall clock's instant."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    return time.monotonic()


def share() -> float:
    """Return a number in [0, 1), another each time: spreads what would otherwise happen at once."""
    return random.random()  # noqa: S311 it protects nothing
