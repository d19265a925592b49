"""`clientpolicy quota`: what a client has used of its quotas, and how to give it back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from authz.assembly import anonymous_of, policy_source
from authz.core import address
from authz.core.quota import SECOND_US, Level, levels_at
from authz.edge.overrides import Misconfigured
from authz.edge.settings import Settings, load
from authz.edge.store.control import clear_counters, read_counters
from authz.edge.store.limiter import KNOWN_US
from authz.edge.store.place import MEMORY, Place, read_place
from authz.edge.store.script import redis_key
from authz.policy.limits import CalendarLimit, Limit

_HEADINGS: Final = ("QUOTA", "MODE", "LIMIT", "USED", "LEFT", "MORE IN", "WITHOUT THE STORE")
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60))


class Unavailable(Exception):  # noqa: N818 a state of the store
    """The store does not answer; the text says which and why, never with a password."""


class Subject:
    """Whose quotas: a client by its id or its policy's namespace/name, or `address:IP`, that no client owns."""

    def __init__(self, config: Path, name: str) -> None:
        """Find it.

        Raises:
            Misconfigured: the configuration, or there is nothing to look at.
            LookupError: there is no such client.
            NoPolicies, OSError: the policies cannot be read.
        """
        settings = load(config, os.environ)
        if settings.store.url == MEMORY:
            raise Misconfigured((f"{config}: store.url: {MEMORY} is each process's own; there is nothing to look at",))
        self._settings = settings
        self._place: Place = read_place(settings.store.url, config.resolve().parent, settings.store.password_file)
        self.name, self._subject, self.limits = _find(settings, name)

    def show(self) -> list[dict[str, object]]:
        """Return one entry a quota, as it stands at the store's own clock.

        Raises:
            Unavailable: the store does not answer.
        """
        try:
            counted = read_counters(self._place, self._key())
        except (RedisError, OSError) as failed:
            raise self._unavailable(failed) from None
        levels = levels_at(counted.state, self.limits, counted.now_us)
        return [_entry(limit, level) for limit, level in zip(self.limits, levels, strict=True)]

    def reset(self) -> bool:
        """Clear the counters; return whether anything was counted.

        Raises:
            Unavailable: the store does not answer.
        """
        try:
            return clear_counters(self._place, self._key())
        except (RedisError, OSError) as failed:
            raise self._unavailable(failed) from None

    def _key(self) -> bytes:
        store = self._settings.store
        return redis_key(store.prefix, store.hash_key.encode(), self._subject)

    def _unavailable(self, failed: Exception) -> Unavailable:
        place = self._place
        where = place.path or ", ".join(f"{host}:{port}" for host, port in place.addresses)
        return Unavailable(f"store.url: {where}: {type(failed).__name__}: {failed}")


def _find(settings: Settings, name: str) -> tuple[str, str, tuple[Limit, ...]]:
    """Return the name to show, the subject that the key is made of, and the limits."""
    if name.startswith(address.ANONYMOUS):
        subject = address.quota_key(name.removeprefix(address.ANONYMOUS))
        return subject, subject, anonymous_of(settings)
    source = policy_source(settings)
    policies = asyncio.run(source.load())
    clients = {credential.client.id: credential.client for credential in policies.by_fingerprint.values()}
    clients |= policies.by_token
    for client in clients.values():
        if name in (client.id, client.policy):
            return client.id, client.key, client.limits
    known = ", ".join(sorted(clients)[:10]) or "none"
    expected = "expected a client id, namespace/name of its policy, or address:IP"
    raise LookupError(f"{source.where}: no client `{name}`; {expected} (clients there: {known})")


def _entry(limit: Limit, level: Level) -> dict[str, object]:
    terms = (
        f"{limit.requests} each UTC {limit.calendar.value.lower()}"
        if isinstance(limit, CalendarLimit)
        else (f"{limit.requests} per {_span(limit.per_us)}, {limit.capacity} at once")
    )
    return {
        "quota": limit.name,
        "mode": "Enforce" if limit.enforced else "Shadow",
        "limit": terms,
        "used": level.quota - level.remaining,
        "left": level.remaining,
        "more_in_seconds": round(level.reset_us / SECOND_US, 6),
        "on_store_failure": limit.on_store_failure.value,
    }


def table(entries: list[dict[str, object]]) -> list[str]:
    """Return the lines of a table that a person reads."""
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for entry in entries:
        *cells, more_in, failure = map(str, entry.values())
        rows.append((*cells, _span(int(float(more_in) * SECOND_US)), failure))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    numbers = range(3, 6)
    return [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def seen_within() -> str:
    """Return how long a replica may still refuse from memory after a reset."""
    return _span(KNOWN_US)


def _span(span_us: int) -> str:
    """Return a span as people say it: at most two units, or a fraction of seconds."""
    if span_us < SECOND_US:
        return f"{span_us / 1000:g}ms"
    seconds = span_us / SECOND_US
    if seconds < _UNITS[-1][1]:
        return f"{round(seconds, 3):g}s"
    whole, parts = int(seconds), []
    for unit, size in (*_UNITS, ("s", 1)):
        if whole >= size:
            parts.append(f"{whole // size}{unit}")
            whole %= size
    return "".join(parts[:2])
