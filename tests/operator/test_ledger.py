"""The ledger: what was written is read again, what was mangled is said to be, and what is valid stays longest."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from clientpolicy_operator.facts import Entry
from clientpolicy_operator.ledger import (
    BYTES_MAX,
    ENTRIES_MAX,
    KEPT,
    KEPT_AFTER_END,
    SHARDS,
    add,
    decode,
    encode,
    fit,
    instant,
    instant_text,
    shard_of,
)
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START

HOUR = timedelta(hours=1)


def entry(revision: int = 1, end: datetime = START + HOUR) -> Entry:
    return Entry(
        revision=revision, sha256=f"{revision:064x}", serial=f"{revision:x}", not_before=START, not_after=end,
        ca_sha256="c" * 64, recorded=START,
    )  # fmt: skip


Entries = st.builds(
    Entry,
    revision=st.integers(0, 2**31 - 1),
    sha256=st.from_regex(r"\A[0-9a-f]{64}\Z"),
    serial=st.integers(1, 2**159 - 1).map("{:x}".format),
    not_before=st.builds(
        lambda minutes, zone: (START + timedelta(minutes=minutes, microseconds=7)).astimezone(zone),
        st.integers(-40_000_000, 40_000_000), st.sampled_from([UTC, timezone(timedelta(hours=-11, minutes=-30))]),
    ),
    not_after=st.just(START),
    ca_sha256=st.from_regex(r"\A[0-9a-f]{64}\Z"),
    recorded=st.just(START),
)  # fmt: skip


@given(st.lists(Entries, max_size=5))
def test_read_is_what_was_written_but_for_fractions_of_a_second(entries: list[Entry]) -> None:
    read = decode(encode(entries))
    assert read == tuple(replace(one, not_before=one.not_before.replace(microsecond=0)) for one in entries)
    assert encode(read) == encode(entries)


def test_mark_of_what_is_gone_is_read_again_and_lives_rows_are_as_before() -> None:
    gone = replace(entry(), is_gone=True)
    assert decode(encode([entry(), gone])) == (entry(), gone)
    assert [len(row) for row in json.loads(encode([entry(), gone]))] == [9, 10]


GOOD: list[Any] = json.loads(encode([entry()]))[0]


def row(place: int, value: Any) -> str:
    return json.dumps([[*GOOD[:place], value, *GOOD[place + 1 :]]])


BAD = {
    "empty": "",
    "no JSON": "[[",
    "no list": "7",
    "a map": '{"a": 1}',
    "a row that is none": "[7]",
    "a row too short": json.dumps([GOOD[:-1]]),
    "a row too long": json.dumps([[*GOOD, 1, 1]]),
    "a mark that is none": json.dumps([[*GOOD, ""]]),
    "a mark that is zero": json.dumps([[*GOOD, 0]]),
    "a mark that is true": json.dumps([[*GOOD, True]]),
    "nested without end": "[" * 100_000,
    "revision is infinite": row(0, 0).replace("[[0,", "[[Infinity,"),
    "revision is no number": row(0, "1"),
    "revision is true": row(0, value=True),
    "revision is half": row(0, 1.5),
    "revision is negative": row(0, -1),
    "revision is beyond what a status holds": row(0, 2**31),
    "fingerprint is no text": row(1, 7),
    "serial number is zero": row(2, "0"),
    "serial number is empty": row(2, ""),
    "serial number is negative": row(2, "-1"),
    "serial number is none": row(2, "0x1"),
    "serial number is too long": row(2, "f" * 40),
    "begin has no zone": row(3, "2026-11-23T12:00:00"),
    "end is beyond all years": row(4, "9999-12-31T23:59:59-23:59"),
    "end is no instant": row(4, "tomorrow"),
    "recorded is no text": row(5, 1.0),
    "CA is null": row(6, None),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_mangled_rows_are_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected rows of the ledger"):
        decode(text)


@given(
    st.text(max_size=60) | st.recursive(st.none() | st.text() | st.floats() | st.integers(), st.lists).map(json.dumps)
)
def test_whatever_stands_there_nothing_else_is_raised(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert decode(text) == ()


def test_revision_is_taken_once() -> None:
    assert add((entry(1),), entry(1), START) is None
    assert add((entry(1),), entry(2), START) == (entry(1), entry(2))


def test_what_has_ended_is_kept_for_the_crl_a_while_and_then_goes() -> None:
    old = entry(1, START)
    assert add((old,), entry(2), START + KEPT_AFTER_END - timedelta(seconds=1)) == (old, entry(2))
    assert add((old,), entry(2), START + KEPT_AFTER_END) == (entry(2),)


def test_of_too_many_the_ended_go_before_the_valid_whatever_their_age() -> None:
    valid = [entry(number) for number in range(30)]
    ended = [entry(100 + number, START) for number in range(ENTRIES_MAX - 30)]
    assert add((*valid, *ended), entry(999), START) == (*valid, *ended[1:], entry(999))


def test_of_too_many_valid_ones_the_oldest_go() -> None:
    entries = tuple(entry(number) for number in range(ENTRIES_MAX))
    assert add(entries, entry(999), START) == (*entries[1:], entry(999))


@given(st.lists(st.integers(-100, 100), max_size=200))
def test_entries_of_one_policy_are_bounded(hours: list[int]) -> None:
    entries: tuple[Entry, ...] = ()
    for revision, end in enumerate(hours):
        entries = add(entries, entry(revision, START + end * HOUR), START) or ()
        assert entries[-1].revision == revision
    assert len(entries) <= ENTRIES_MAX
    assert len(encode(entries)) < 16_384, "a shard of some hundred policies stays below 1 MiB"


def test_shard_is_of_a_uid_alone_and_all_are_used() -> None:
    assert shard_of("uid-1") == shard_of("uid-1")
    assert {shard_of(f"uid-{number}") for number in range(2000)} == set(range(SHARDS))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z"),
        ("2026-11-23T14:00:00.999999+02:00", "2026-11-23T12:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_instants_are_written_as_kubernetes_does(text: str, same: str) -> None:
    assert instant_text(instant(text)) == same


def test_full_shard_loses_what_is_gone_first_and_of_the_others_all_but_the_newest() -> None:
    many = tuple(entry(number) for number in range(1, 65))
    rows = {f"gone-{number}": many for number in range(60)} | {f"live-{number}": many for number in range(60)}
    live = {uid for uid in rows if uid.startswith("live")}
    data = fit(rows, lambda: live, START)
    assert sum(len(uid) + len(text) for uid, text in data.items()) <= BYTES_MAX
    assert live <= data.keys()
    assert all(decode(text)[-1].revision == 64 and len(decode(text)) >= KEPT[-1] for text in data.values())
    assert {len(decode(data[uid])) for uid in live} == {64}, "there was room for them once the others had gone"
    crowded = fit({f"live-{number}": many for number in range(200)}, lambda: None, START)
    assert len(crowded) == 200, "nothing that may be there is lost whole"
    assert {len(decode(text)) for text in crowded.values()} == set(KEPT), "few lose more than a status may tell of"


def test_shard_with_room_loses_nothing() -> None:
    rows = {"gone": (entry(1), entry(2)), "live": (entry(3),)}
    assert {uid: decode(text) for uid, text in fit(rows, lambda: {"live"}, START).items()} == rows
