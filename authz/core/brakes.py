"""What an invalid version of a policy still does to the last good one: it may stop it, and never restart it.

What can be read of suspension, revocation and validity applies where it restricts, part by part; a suspension that is
neither true nor false is one. What an earlier invalid version stopped stays so, until a valid version says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from pydantic import AwareDatetime, TypeAdapter

from authz.core.certificate import epoch_us
from authz.core.loose import list_of, map_of
from authz.model import Client
from authz.policy.fields import Fingerprint

REVOKED_MAX: Final = 256  # eight times what one version may list: a run of invalid ones adds up, and must end somewhere
_INSTANT: Final[TypeAdapter[datetime]] = TypeAdapter(AwareDatetime)
_FINGERPRINT: Final[TypeAdapter[str]] = TypeAdapter(Fingerprint)
Value = TypeVar("Value")


def braked(good: Client, document: object) -> Client:
    """Return the client of the last good version with what an invalid version says to stop.

    Where the versions since then revoke more than REVOKED_MAX certificates, the client is suspended.
    """
    spec = map_of(map_of(document).get("spec"))
    revocation, validity = map_of(spec.get("revocation")), map_of(spec.get("validity"))
    revoked = set(good.revoked)
    for fingerprint in _revoked(revocation):
        revoked.add(fingerprint)
        if len(revoked) > REVOKED_MAX:
            return replace(good, suspended=True)
    return replace(
        good,
        suspended=good.suspended or spec.get("suspended", False) is not False,
        revoked=frozenset(revoked),
        issued_before_us=_later(good.issued_before_us, _instant(revocation.get("issuedBefore"))),
        not_before_us=_later(good.not_before_us, _instant(validity.get("notBefore"))),
        not_after_us=_earlier(good.not_after_us, _instant(validity.get("notAfter"))),
    )


def _revoked(revocation: dict[str, object]) -> Iterator[str]:
    for entry in list_of(revocation.get("fingerprints")):
        fingerprint = _read(_FINGERPRINT, map_of(entry).get("sha256"))
        if fingerprint is not None:
            yield fingerprint


def _instant(said: object) -> int | None:
    """Return an instant in µs, None where there is none or it cannot be read."""
    instant = _read(_INSTANT, said)
    return epoch_us(instant) if instant is not None else None


def _later(one: int | None, other: int | None) -> int | None:
    return max((instant for instant in (one, other) if instant is not None), default=None)


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((instant for instant in (one, other) if instant is not None), default=None)


def _read(kind: TypeAdapter[Value], said: object) -> Value | None:
    try:
        return kind.validate_json(json.dumps(said), strict=True)
    except (ValueError, TypeError, RecursionError):  # pydantic's is a ValueError
        return None
