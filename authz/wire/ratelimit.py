"""How much is left, told to the caller.

Source: draft-ietf-httpapi-ratelimit-headers-11 (`RateLimit`, `RateLimit-Policy`); the three-field form of its draft 03,
which Envoy, Kong and others still write; RFC 9110 section 10.2.3 (`Retry-After`).
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Final

from authz.core.quota import SECOND_US, Exceeded, Level, Unknown, Within

Fields = list[tuple[str, str]]
NOBODY_KNOWS: Final[Fields] = []


class Form(Enum):
    IETF = "ietf"
    LEGACY = "legacy"
    NONE = "none"


def fields(quota: Within | Exceeded | Unknown | None, form: Form) -> Fields:
    """Return the response header fields that tell of a quota; seconds are rounded up, so never too early."""
    if quota is None or isinstance(quota, Unknown) or not quota.levels or form is Form.NONE:
        return NOBODY_KNOWS
    return _ietf(quota.levels) if form is Form.IETF else _legacy(quota.levels)


def retry_after_s(exceeded: Exceeded) -> int:
    return max(1, _seconds(exceeded.wait_us))


def _ietf(levels: tuple[Level, ...]) -> Fields:
    policies = _policies(tuple([(level.name, level.quota, level.window_us) for level in levels]))
    left = ", ".join([f'"{level.name}";r={level.remaining};t={_seconds(level.reset_us)}' for level in levels])
    return [("ratelimit-policy", policies), ("ratelimit", left)]


@lru_cache(maxsize=4_096)
def _policies(terms: tuple[tuple[str, int, int], ...]) -> str:
    """Return the part that is the same in every answer under the same limits: name, quota, window in µs."""
    return ", ".join(f'"{name}";q={quota};w={max(1, round(window_us / SECOND_US))}' for name, quota, window_us in terms)


def _legacy(levels: tuple[Level, ...]) -> Fields:
    nearest = min(levels, key=lambda level: (level.remaining, -level.reset_us))
    return [
        ("ratelimit-limit", str(nearest.quota)),
        ("ratelimit-remaining", str(nearest.remaining)),
        ("ratelimit-reset", str(_seconds(nearest.reset_us))),
    ]


def _seconds(us: int) -> int:
    return -(-us // SECOND_US)
