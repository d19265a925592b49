"""Reading a status as somebody left it: whatever is not as expected counts as absent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from authz.policy import ClientPolicy
from clientpolicy_operator.facts import Document, Entry
from clientpolicy_operator.ledger import REVISION_MAX, instant, instant_text

RENEW: Final = "authz.healthtech.dev/renew"
RENEW_MAX: Final = 256  # characters that count


def is_revoked(policy: ClientPolicy, sha256: str, begin: datetime | None) -> bool:
    revocation = policy.spec.revocation
    if sha256 in {one.sha256 for one in revocation.fingerprints}:
        return True
    return revocation.issued_before is not None and (begin is None or begin < revocation.issued_before)


def stolen_with_their_key(policy: ClientPolicy, entries: Iterable[Entry]) -> frozenset[str]:
    """Return the fingerprints of all certificates of a key that was compromised: one of them says so."""
    said = {one.sha256 for one in policy.spec.revocation.fingerprints if one.reason == "KeyCompromise"}
    if not said:
        return frozenset()
    entries = tuple(entries)
    keys = {one.key_sha256 for one in entries if one.sha256 in said} - {""}
    return frozenset(one.sha256 for one in entries if one.key_sha256 in keys)


def renew_of(metadata: Document) -> str:
    """Return the wish for another certificate: any text, another one each time."""
    return str(map_of(metadata.get("annotations")).get(RENEW, ""))[:RENEW_MAX]


def secret_name(name: str, policy: ClientPolicy) -> str:
    return policy.spec.certificate.secret_name or f"{name}-tls"


def current_sha256(status: Document) -> str | None:
    sha256 = map_of(status.get("certificate")).get("sha256")
    return sha256 if isinstance(sha256, str) else None


def current_issuer(status: Document) -> str | None:
    sha256 = map_of(status.get("certificate")).get("caSha256")
    return sha256 if isinstance(sha256, str) else None


def current_revision(status: Document) -> int:
    revision = int_of(map_of(status.get("certificate")).get("revision"))
    return revision if revision < REVISION_MAX else 0


def previous_of(status: Document) -> list[Document]:
    listed = map_of(status.get("certificate")).get("previous")
    return [one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict)]


def condition_of(status: Document, name: str) -> Document:
    listed = status.get("conditions")
    return next(
        (
            one
            for one in (listed if isinstance(listed, list) else ())
            if isinstance(one, dict) and one.get("type") == name
        ),
        {},
    )


def text(when: datetime) -> str:
    return instant_text(when)


def when_of(values: Document, name: str) -> datetime | None:
    value = values.get(name)
    try:
        return instant(value) if isinstance(value, str) else None
    except ValueError:
        return None


def map_of(value: object) -> Document:
    return value if isinstance(value, dict) else {}


def int_of(value: object) -> int:
    """Return a whole number that is not negative; in JSON true is none."""
    return value if type(value) is int and value >= 0 else 0


def is_newer(version: str, than: str) -> bool:
    """Compare resourceVersions, which rise like numbers; a list may bring what a watch has overtaken (KEP-5504)."""
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than
