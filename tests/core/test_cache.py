"""What is remembered is bounded in entries and in bytes, and nobody's entry pushes out everybody's."""

from __future__ import annotations

from sys import getsizeof

from hypothesis import given
from hypothesis import strategies as st

from authz.core.cache import LARGEST_SHARE, Bounded, weight_of


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    cache: Bounded[str, int] = Bounded(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert cache.get("b") is None
    assert (cache.peek("a"), cache.peek("c"), len(cache), cache.bytes) == (1, 3, 2, 0)
    assert [cache.get("a"), cache.get("b")] == [1, None]
    assert (cache.hits, cache.misses) == (2, 2)  # of looks alone, not of peeks


def test_no_entry_takes_more_than_a_sixteenth() -> None:
    cache: Bounded[str, int] = Bounded(10, 160)
    cache.put("a", 1, 10)
    cache.put("b", 2, 11)
    assert (cache.peek("a"), cache.peek("b")) == (1, None)


def test_bytes_are_bounded_too() -> None:
    cache: Bounded[int, int] = Bounded(1_000, 100 * LARGEST_SHARE)
    for number in range(50):
        cache.put(number, number, 100)
    assert LARGEST_SHARE == 16
    assert (len(cache), cache.bytes) == (16, 1_600)
    assert cache.peek(49) == 49
    assert cache.peek(49 - LARGEST_SHARE) is None


def test_entry_that_is_too_heavy_is_not_kept_nor_is_what_it_replaces() -> None:
    cache: Bounded[str, int] = Bounded(10, 10 * LARGEST_SHARE)
    cache.put("a", 1, 10)
    cache.put("b", 2, 10)
    cache.put("b", 3, 11)
    assert (cache.peek("a"), cache.peek("b"), cache.bytes) == (1, None, 10)


def test_put_again_weighs_once_and_cleared_weighs_nothing() -> None:
    cache: Bounded[str, int] = Bounded(10, 10 * LARGEST_SHARE)
    cache.put("a", 1, 10)
    cache.put("a", 2, 4)
    assert (cache.get("a"), cache.bytes, len(cache)) == (2, 4, 1)
    cache.clear()
    assert (cache.get("a"), cache.bytes, len(cache), cache.hits) == (None, 0, 0, 1)
    cache.put("a", 3)
    cache.put("a", 4)  # weighs nothing, and nothing is left of what it weighed before
    assert cache.bytes == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60))
def test_weight_is_that_of_what_is_kept(puts: list[tuple[int, int]]) -> None:
    cache: Bounded[int, int] = Bounded(5, 320)
    for key, weight in puts:
        cache.put(key, weight, weight)
        assert cache.bytes == sum(cache.peek(kept) or 0 for kept in range(10))
        assert cache.bytes <= 320
        assert len(cache) <= 5


def test_weight_of_texts_is_more_than_their_characters() -> None:
    assert weight_of(()) == 0
    texts = ["a" * 1_000, "b" * 1_000]
    assert weight_of(texts) == sum(map(getsizeof, texts)) + getsizeof(tuple(texts)) - getsizeof(())
