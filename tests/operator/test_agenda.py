"""The queue of due times: in order, nobody twice, and right again when the clock is not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

import pytest
from clientpolicy_operator.agenda import SLACK, Agenda
from clientpolicy_operator.facts import Key
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START

A, B, C = (("n", name) for name in "abc")
MINUTE = timedelta(minutes=1)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def agenda() -> tuple[Agenda, Clock]:
    clock = Clock()
    return Agenda(clock), clock


async def taken(queue: Agenda) -> Key:
    async with asyncio.timeout(2):
        return await queue.take()


async def waits(taking: Coroutine[Any, Any, Key]) -> bool:
    """Tell whether nothing is there to take, after all that is ready to run has run."""
    task = asyncio.create_task(taking)
    for _ in range(5):
        await asyncio.sleep(0)
    is_done = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not is_done


@pytest.mark.parametrize("again", [None, START])
async def test_end_is_not_missed_where_news_comes_with_it(again: datetime | None) -> None:
    """A worker that is told to end in the turn in which something is due ends; what is due stays."""
    queue, _ = agenda()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.done(A, again)
    taking.cancel()
    done, _ = await asyncio.wait((taking,), timeout=2)
    assert done
    assert taking.cancelled()
    assert len(queue) == (again is not None)


async def test_due_ones_come_in_the_order_of_their_times() -> None:
    queue, clock = agenda()
    queue.at(B, START + MINUTE)
    queue.at(A, START + 2 * MINUTE)
    queue.soon(C)
    clock.now += 2 * MINUTE
    assert [await taken(queue) for _ in range(3)] == [C, B, A]
    assert await waits(queue.take())


async def test_what_rests_is_not_taken_whoever_asks_for_it() -> None:
    queue, clock = agenda()
    queue.soon(A)
    queue.rest(A, START + MINUTE)
    queue.rest(B, START + MINUTE)
    queue.soon(A)
    queue.soon(B)
    assert await waits(queue.take())
    clock.now += MINUTE
    assert {await taken(queue), await taken(queue)} == {A, B}
    queue.done(A, None)
    queue.soon(A)
    assert await taken(queue) == A, "a rest is over once it was taken"


async def test_rest_is_shortened_never_made_longer_and_ends_with_the_object() -> None:
    queue, clock = agenda()
    queue.rest(A, START + 9 * MINUTE)
    queue.shorten(A, START + MINUTE)
    queue.shorten(A, START + 5 * MINUTE)
    queue.shorten(B, START + 5 * MINUTE)
    queue.rest(C, START + 9 * MINUTE)
    queue.drop(C)
    for key in (A, B, C):
        queue.soon(key)
    assert {await taken(queue), await taken(queue)} == {B, C}
    clock.now += MINUTE
    assert await taken(queue) == A


async def test_rest_moves_with_a_clock_that_is_set_back() -> None:
    queue, clock = agenda()
    queue.rest(A, START + MINUTE)
    clock.now -= 60 * MINUTE
    assert await waits(queue.take())
    queue.soon(A)
    clock.now += MINUTE
    assert await taken(queue) == A


async def test_earlier_of_two_times_counts() -> None:
    queue, clock = agenda()
    queue.at(A, START + 2 * MINUTE)
    queue.at(A, START + MINUTE)
    queue.at(A, START + 3 * MINUTE)
    assert len(queue) == 1
    assert await waits(queue.take())
    clock.now += MINUTE
    assert queue.overdue == 1
    assert await taken(queue) == A
    clock.now += 5 * MINUTE
    assert await waits(queue.take()), "it stands once"


async def test_no_two_hands_hold_the_same_one_and_news_meanwhile_is_not_lost() -> None:
    queue, _ = agenda()
    queue.soon(A)
    assert await taken(queue) == A
    queue.soon(A)
    assert await waits(queue.take())
    queue.soon(B)
    assert await taken(queue) == B, "who waits for its hand holds up nobody else"
    queue.done(A, None)
    assert await taken(queue) == A
    queue.done(A, None)
    assert await waits(queue.take())


async def test_hand_that_waits_is_woken_by_news_and_by_done() -> None:
    queue, clock = agenda()
    hands = [asyncio.create_task(queue.take()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.soon(A)
    queue.at(B, START + MINUTE)
    await asyncio.wait(hands, return_when=asyncio.FIRST_COMPLETED)
    (waiting,) = [hand for hand in hands if not hand.done()]
    clock.now += MINUTE
    queue.done(A, None)
    assert await waiting == B


async def test_given_back_it_comes_when_it_was_said() -> None:
    queue, clock = agenda()
    queue.soon(A)
    queue.done(await taken(queue), START + MINUTE)
    assert await waits(queue.take())
    clock.now += MINUTE
    assert await taken(queue) == A


async def test_dropped_one_does_not_come() -> None:
    queue, _ = agenda()
    queue.soon(A)
    queue.drop(A)
    queue.drop(B)
    assert len(queue) == 0
    assert await waits(queue.take())
    queue.soon(A)
    assert await taken(queue) == A


async def test_clock_that_jumps_ahead_makes_due_what_it_passed() -> None:
    queue, clock = agenda()
    queue.at(A, START + timedelta(days=20))
    clock.now += timedelta(days=21)
    assert await taken(queue) == A


async def test_clock_that_is_set_back_postpones_nothing() -> None:
    """What was to come within ten minutes still does, though the clock was a year ahead when that was said."""
    queue, clock = agenda()
    clock.now += timedelta(days=365)
    queue.at(A, clock.now + 10 * MINUTE)
    queue.at(B, clock.now + 20 * MINUTE)
    assert await waits(queue.take())
    clock.now = START
    assert await waits(queue.take())
    clock.now += 10 * MINUTE
    assert await taken(queue) == A
    assert await waits(queue.take())
    clock.now += 10 * MINUTE
    assert await taken(queue) == B


async def test_clock_that_is_corrected_by_seconds_changes_nothing() -> None:
    queue, clock = agenda()
    queue.at(A, START + MINUTE)
    clock.now -= timedelta(seconds=4)
    assert await waits(queue.take())
    clock.now = START + MINUTE - timedelta(seconds=1)
    assert await waits(queue.take())
    clock.now += timedelta(seconds=1)
    assert await taken(queue) == A


async def test_object_that_is_edited_again_and_again_costs_no_memory() -> None:
    queue, clock = agenda()
    for _ in range(5 * SLACK):
        queue.soon(A)
        clock.now += timedelta(milliseconds=1)
        queue.done(await taken(queue), clock.now + timedelta(days=20))
    assert len(queue._heap) <= SLACK + 2  # noqa: SLF001 it is about what nobody sees
    assert len(queue) == 1


Acts = st.lists(
    st.tuples(st.sampled_from(["at", "soon", "drop", "take", "done"]), st.sampled_from([A, B, C]), st.integers(-3, 3)),
    max_size=60,
)


@given(Acts)
def test_it_is_what_a_plain_table_would_be(acts: list[tuple[str, Key, int]]) -> None:
    queue, clock = agenda()
    due: dict[Key, datetime] = {}
    held: set[Key] = set()
    for act, key, minutes in acts:
        when = clock.now + minutes * MINUTE
        match act:
            case "at" | "soon":
                when = clock.now if act == "soon" else when
                queue.at(key, when)
                due[key] = min(when, due.get(key, when))
            case "drop":
                queue.drop(key)
                due.pop(key, None)
            case "done":
                queue.done(key, when)
                held.discard(key)
                due[key] = min(when, due.get(key, when))
            case _:
                clock.now += MINUTE
                ready = sorted((when, key) for key, when in due.items() if when <= clock.now and key not in held)
                found, _ = queue._next()  # noqa: SLF001 what `take` waits for
                assert found == (ready[0][1] if ready else None)
                if found is not None:
                    held.add(found)
                    queue._held.add(found)  # noqa: SLF001 as `take` does
                    del due[found]
        assert len(queue) == len(due)
        assert queue.overdue == sum(when <= clock.now for when in due.values())
