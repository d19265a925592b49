"""The ledger: what was signed, for whom; written before the certificate leaves the operator. Pure.

It lives in ConfigMaps, a shard of the UIDs each, one key a UID, so that a shard stays far below the 1 MiB of an object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from clientpolicy_operator.facts import Entry

SHARDS: Final = 64
ENTRIES_MAX: Final = 64  # of one policy; it renews some dozen times a year
KEPT_AFTER_END: Final = timedelta(days=1)  # a CRL lists a certificate a little past its end (RFC 5280 section 3.3)
REVISION_MAX: Final = 2**31


def shard_of(uid: str) -> int:
    return hashlib.blake2b(uid.encode(), digest_size=2).digest()[0] % SHARDS


def encode(entries: Iterable[Entry]) -> str:
    rows = [
        [
            one.revision,
            one.sha256,
            one.serial,
            *map(_text, (one.not_before, one.not_after, one.recorded)),
            one.ca_sha256,
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
        return tuple(
            Entry(
                revision=int(revision),
                sha256=str(sha256),
                serial=str(serial),
                not_before=instant(begin),
                not_after=instant(end),
                ca_sha256=str(ca_sha256),
                recorded=instant(recorded),
            )
            for revision, sha256, serial, begin, end, recorded, ca_sha256 in json.loads(text)
        )
    except (TypeError, ValueError):
        raise ValueError("expected rows of the ledger") from None


def add(entries: tuple[Entry, ...], new: Entry, now: datetime) -> tuple[Entry, ...] | None:
    """Return the entries with a new one and without those long over; None if its revision is taken already."""
    if any(one.revision == new.revision for one in entries):
        return None
    kept = [one for one in entries if one.not_after + KEPT_AFTER_END > now]
    return (*kept[-(ENTRIES_MAX - 1) :], new)


def instant(text: str) -> datetime:
    """Return an instant of RFC 3339; ValueError where it is none or names no time zone."""
    read = datetime.fromisoformat(text)
    if read.tzinfo is None:
        raise ValueError("no time zone")
    return read.astimezone(UTC)


def _text(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
