"""What an invalid version of a policy still does to the last good one: stop it.

What can be read of suspension, revocation and validity applies; a suspension that is neither true nor false is one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from authz.core.certificate import epoch_us
from authz.model import Client
from authz.policy import Revocation, Validity
from authz.policy.document import RevokedFingerprint

Model = TypeVar("Model", bound=BaseModel)


def braked(good: Client, document: object) -> Client:
    """Return the client of the last good version with what an invalid version says to stop."""
    root = document if isinstance(document, dict) else {}
    spec = root.get("spec")
    said: dict[str, object] = spec if isinstance(spec, dict) else {}
    if "suspended" in said:
        good = replace(good, suspended=said["suspended"] is not False)
    if "revocation" in said:
        good = _revoked(good, said["revocation"])
    if "validity" in said:
        good = _bounded(good, said["validity"])
    return good


def _revoked(good: Client, said: object) -> Client:
    revocation = _read(Revocation, said)
    if revocation is not None:
        issued_before = revocation.issued_before
        return replace(
            good,
            revoked=frozenset(entry.sha256 for entry in revocation.fingerprints),
            issued_before_us=epoch_us(issued_before) if issued_before is not None else None,
        )
    listed = said.get("fingerprints") if isinstance(said, dict) else None
    entries = [_read(RevokedFingerprint, entry) for entry in (listed if isinstance(listed, list) else ())]
    return replace(good, revoked=good.revoked | {entry.sha256 for entry in entries if entry is not None})


def _bounded(good: Client, said: object) -> Client:
    validity = _read(Validity, said)
    if validity is None:
        return good
    begin, end = validity.not_before, validity.not_after
    return replace(
        good,
        not_before_us=epoch_us(begin) if begin is not None else None,
        not_after_us=epoch_us(end) if end is not None else None,
    )


def _read(model: type[Model], said: object) -> Model | None:
    try:
        return model.model_validate_json(json.dumps(said))
    except (ValueError, TypeError, RecursionError):  # pydantic's is a ValueError
        return None
