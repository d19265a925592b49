"""JSON objects as a verifier must read them: one reading only."""

from __future__ import annotations

import json
from typing import NoReturn


def read_object(data: bytes) -> dict[str, object]:
    """Return the object that UTF-8 JSON `data` spells.

    Raises:
        ValueError: no JSON object, a key twice at any depth, NaN or Infinity, too deep, or not UTF-8.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 one kind of error for all that is not our JSON
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
