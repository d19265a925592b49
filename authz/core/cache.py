"""A map that is bounded in entries and in bytes, and forgets what was not used for longest.

Bytes, because what is kept comes from callers: ten thousand entries are little of ordinary ones, and gigabytes of those
that somebody made for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from sys import getsizeof
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
ENTRY_BYTES: Final = 512  # of any entry: its place in two maps, a digest as its key, the tuple around its parts
LARGEST_SHARE: Final = 16  # no entry is heavier than this part of all: one caller's shall not push out everybody's


class Bounded(Generic[Key, Value]):
    """Who puts an entry in says what it weighs, where there is a bound in bytes."""

    def __init__(self, max_entries: int, max_bytes: int | None = None) -> None:
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._weights: dict[Key, int] = {}
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: Key) -> Value | None:
        value = self._entries.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return value

    def peek(self, key: Key) -> Value | None:
        """Return the value without counting it as used."""
        return self._entries.get(key)

    def put(self, key: Key, value: Value, weight: int = 0) -> None:
        """Keep a value that weighs so many bytes, unless it is too heavy to be kept."""
        if key in self._entries:
            self._drop(key)
        if self._max_bytes is not None and weight * LARGEST_SHARE > self._max_bytes:
            return
        self._entries[key] = value
        if weight:
            self._weights[key] = weight
            self.bytes += weight
        while len(self._entries) > self._max_entries or (self._max_bytes is not None and self.bytes > self._max_bytes):
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        del self._entries[key]
        self.bytes -= self._weights.pop(key, 0)

    def clear(self) -> None:
        """Forget everything but the counts."""
        self._entries.clear()
        self._weights.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)


def weight_of(texts: Iterable[str]) -> int:
    """Return what strings take in memory, in bytes, each with its place in a tuple."""
    return sum(getsizeof(text) + 8 for text in texts)
