"""The ledger: what was signed, for whom; written before the certificate leaves the operator. Pure.

It lives in ConfigMaps, a shard of the UIDs each, one key a UID, within the 1 MiB of an object.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from clientpolicy_operator.facts import Entry

SHARDS: Final = 64
BYTES_MAX: Final = 900_000  # of a shard's data; an object holds 1 MiB
KEPT: Final = (34, 6)  # of each policy where a shard is full: what a status may tell of and one on its way; then fewer
ENTRIES_MAX: Final = 64  # of one policy; it renews some dozen times a year
KEPT_AFTER_END: Final = timedelta(days=1)  # a CRL lists a certificate a little past its end (RFC 5280 section 3.3)
REVISION_MAX: Final = 2**31 - 1
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")
_SERIAL_BELOW: Final = 2**159  # RFC 5280 section 4.1.2.2: positive, in at most 20 octets


def shard_of(uid: str) -> int:
    return hashlib.blake2b(uid.encode(), digest_size=2).digest()[0] % SHARDS


def encode(entries: Iterable[Entry]) -> str:
    rows = [
        [
            one.revision,
            one.sha256,
            one.serial,
            *map(instant_text, (one.not_before, one.not_after, one.recorded)),
            one.ca_sha256,
            one.namespace,
            one.key_sha256,
            *([1] if one.is_gone else []),
        ]
        for one in entries
    ]
    return json.dumps(rows, separators=(",", ":"))


def decode(text: str) -> tuple[Entry, ...]:
    """Return the entries of one policy.

    Raises:
        ValueError: not what `encode` wrote.
    """
    try:
        return tuple(_entry(*row) for row in json.loads(text))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("expected rows of the ledger") from None


def _entry(  # noqa: PLR0913, PLR0917 a row
    revision: object, sha256: object, serial: object, begin: object, end: object, recorded: object, ca_sha256: object,
    namespace: object, key_sha256: object, *gone: object,
) -> Entry:  # fmt: skip
    if type(revision) is not int or not 0 <= revision <= REVISION_MAX:
        raise ValueError("no revision")
    texts = (sha256, serial, begin, end, recorded, ca_sha256, namespace, key_sha256)
    if not all(isinstance(one, str) for one in texts):
        raise ValueError("no text")
    if gone not in ((), (1,)) or any(type(one) is not int for one in gone):
        raise ValueError("no mark")
    if not is_serial(str(serial)):
        raise ValueError("no serial number")  # a CRL could not list it
    return Entry(
        revision=revision,
        sha256=str(sha256),
        serial=str(serial),
        not_before=instant(str(begin)),
        not_after=instant(str(end)),
        ca_sha256=str(ca_sha256),
        recorded=instant(str(recorded)),
        namespace=str(namespace),
        key_sha256=str(key_sha256),
        is_gone=bool(gone),
    )


def is_serial(text: str) -> bool:
    return bool(_SERIAL.fullmatch(text)) and 0 < int(text, 16) < _SERIAL_BELOW


def add(entries: tuple[Entry, ...], new: Entry, now: datetime) -> tuple[Entry, ...] | None:
    """Return the entries with a new one and without those long over; None if its revision is taken already.

    Where there are too many, what has ended goes first: what is valid may have to stand in a CRL.
    """
    if any(one.revision == new.revision for one in entries):
        return None
    kept = [one for one in entries if one.not_after > now - KEPT_AFTER_END]
    ended_first = sorted(kept, key=lambda one: one.not_after > now)
    dropped = ended_first[: max(0, len(kept) + 1 - ENTRIES_MAX)]
    return (*(one for one in kept if one not in dropped), new)


def fit(
    rows: Mapping[str, tuple[Entry, ...]], live: Callable[[], Container[str] | None], now: datetime
) -> dict[str, str]:
    """Return a shard's data, of at most `BYTES_MAX`: else one tenant could keep all others in it from being signed for.

    First to go is what objects that are gone left behind (`live` returns those that are there; None: not known), then
    all but the newest of each other one: the CRL, which is depth, loses them; who may call is told by statuses.
    """
    texts = {uid: encode(entries) for uid, entries in rows.items()}
    size = sum(len(uid) + len(text) for uid, text in texts.items())
    if size <= BYTES_MAX:
        return texts
    there = live()
    ends = {uid: max((one.not_after for one in entries), default=now) for uid, entries in rows.items()}
    gone = sorted((uid for uid in rows if there is not None and uid not in there), key=ends.__getitem__)
    for uid in gone:
        if size <= BYTES_MAX:
            break
        size -= len(uid) + len(texts.pop(uid))
    for kept, uid in [(kept, uid) for kept in KEPT for uid in sorted(texts, key=lambda uid: -len(texts[uid]))]:
        if size <= BYTES_MAX:
            break
        short = encode(sorted(rows[uid], key=lambda one: one.revision)[-kept:])
        size -= len(texts[uid]) - len(short)
        texts[uid] = short
    return texts


def instant(text: str) -> datetime:
    """Return an instant of RFC 3339; ValueError where it is none or names no time zone."""
    read = datetime.fromisoformat(text)
    if read.tzinfo is None:
        raise ValueError("no time zone")
    try:
        return read.astimezone(UTC)
    except OverflowError:  # before the year 1 or after 9999 in UTC
        raise ValueError("out of range") from None


def instant_text(when: datetime) -> str:
    """Return an instant as Kubernetes writes it; a fraction of a second is cut off."""
    return when.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"
