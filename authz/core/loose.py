"""Reading a document that nobody has judged: what is not of the wanted kind counts as empty."""

from __future__ import annotations


def map_of(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []
