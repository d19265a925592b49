"""The ledger: what was signed, for whom; written before the certificate leaves the operator. Pure.

It lives in ConfigMaps, a shard of the UIDs each, one key a UID, so that a shard stays far below the 1 MiB of an object.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from clientpolicy_operator.facts import Entry

SHARDS: Final = 64
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
    namespace: object,
) -> Entry:  # fmt: skip
    if type(revision) is not int or not 0 <= revision <= REVISION_MAX:
        raise ValueError("no revision")
    texts = (sha256, serial, begin, end, recorded, ca_sha256, namespace)
    if not all(isinstance(one, str) for one in texts):
        raise ValueError("no text")
    if not _SERIAL.fullmatch(str(serial)) or not 0 < int(str(serial), 16) < _SERIAL_BELOW:
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
    )


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
