"""The one place where the service draws chance."""

from __future__ import annotations

import os
from collections import deque
from typing import Final

_ID_BYTES: Final = 16
_DRAWN: Final = 256
_ids: deque[str] = deque()


def decision_id() -> str:
    """Return 128 random bits in hex; drawn many at a time, because each draw is a system call."""
    if not _ids:
        drawn = os.urandom(_ID_BYTES * _DRAWN).hex()
        _ids.extend(drawn[start : start + 2 * _ID_BYTES] for start in range(0, len(drawn), 2 * _ID_BYTES))
    return _ids.popleft()


def fraction() -> float:
    """Return a number from 0 up to 1, so that many replicas do not act at the same instant."""
    return int.from_bytes(os.urandom(4)) / 2**32
