"""SMART on FHIR scopes: grammar, coverage and intersection.

Source: HL7 SMART App Launch 2.2, "Scopes and Launch Context" (v2 `.cruds?param=value`, v1 `.read .write .*`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote

SCOPE_MAX_CHARACTERS: Final = 512  # a v2 scope with one code system URL takes about 120
FILTERS_MAX: Final = 8

_V1_LETTERS: Final = {"read": "rs", "write": "cud", "*": "cruds"}
_SCOPE: Final = re.compile(
    r"(?P<context>patient|user|system)/(?P<type>\*|[A-Z][A-Za-z]{0,63})\."
    r"(?:(?P<v1>read|write|\*)|(?P<v2>c?r?u?d?s?)(?:\?(?P<filters>[^?]+))?)"
)
# For schemas, which Go and browsers read: neither knows how Python names a group.
SCOPE_PATTERN: Final = "^" + re.sub(r"\?P<\w+>", "?:", _SCOPE.pattern) + "$"
# Modifiers, chains, _filter and _has inside a scope are experimental in SMART 2.2: servers differ in what they do
_EXPERIMENTAL_NAME: Final = re.compile(r"^$|[:.%]|^_filter$|^_has$")
_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749 section 3.3: else it could be two, or a header
_ENCODING_AT_FAULT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Context(Enum):
    PATIENT = "patient"
    USER = "user"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One clinical scope: which interactions (letters of `cruds`) on which type, narrowed by filters."""

    context: Context
    resource_type: str  # "*" stands for every type, future ones included
    letters: frozenset[str]
    filters: frozenset[tuple[str, str]]
    text: str  # as it was written; what we show to people and upstreams

    def covers(self, other: Scope) -> bool:
        """Return whether everything that `other` grants is granted by this scope too."""
        return (
            self.context is other.context
            and self.resource_type in ("*", other.resource_type)
            and self.letters >= other.letters
            and self.filters <= other.filters
        )


def parse_scope(text: str) -> Scope | None:
    """Return the clinical scope that `text` spells, None if it is not one.

    Letters out of order, unknown letters, an empty suffix, and v1 with filters are none: SMART leaves them
    to the server, and what is read as something else than it was written grants too much.
    """
    if len(text) > SCOPE_MAX_CHARACTERS or not _TOKEN.fullmatch(text):
        return None
    match = _SCOPE.fullmatch(text)
    if match is None:
        return None
    letters = _V1_LETTERS[match["v1"]] if match["v1"] else match["v2"]
    filters = _parse_filters(match["filters"])
    if not letters or filters is None:
        return None
    return Scope(
        context=Context(match["context"]),
        resource_type=match["type"],
        letters=frozenset(letters),
        filters=filters,
        text=text,
    )


def _parse_filters(text: str | None) -> frozenset[tuple[str, str]] | None:
    if text is None:
        return frozenset()
    pairs = text.split("&")
    if len(pairs) > FILTERS_MAX:
        return None
    parsed: set[tuple[str, str]] = set()
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not value or _EXPERIMENTAL_NAME.search(name) or _ENCODING_AT_FAULT.search(pair):
            return None
        parsed.add((name, unquote(value)))
    return frozenset(parsed)


def intersect(granted: Scope, ceiling: Scope) -> Scope | None:
    """Return what both scopes allow, None if that is nothing; filters of both apply."""
    if granted.context is not ceiling.context or _contradict(granted.filters, ceiling.filters):
        return None
    if ceiling.covers(granted):
        return granted
    if granted.covers(ceiling):
        return ceiling
    if "*" not in (granted.resource_type, ceiling.resource_type) and granted.resource_type != ceiling.resource_type:
        return None
    letters = granted.letters & ceiling.letters
    if not letters:
        return None
    resource_type = ceiling.resource_type if granted.resource_type == "*" else granted.resource_type
    filters = granted.filters | ceiling.filters
    return Scope(
        context=granted.context,
        resource_type=resource_type,
        letters=letters,
        filters=filters,
        text=_render(granted.context, resource_type, letters, granted, ceiling),
    )


def _contradict(one: frozenset[tuple[str, str]], other: frozenset[tuple[str, str]]) -> bool:
    """Return whether both name a parameter with other values: of two, some servers take the last alone."""
    shared = {name for name, _ in one} & {name for name, _ in other}
    return any(pair in one ^ other for pair in one | other if pair[0] in shared)


def _render(context: Context, resource_type: str, letters: frozenset[str], *sources: Scope) -> str:
    """Return the v2 spelling; filters are taken over as their owners wrote them, so no re-encoding can differ."""
    written = dict.fromkeys(pair for source in sources for pair in source.text.partition("?")[2].split("&") if pair)
    suffix = "?" + "&".join(written) if written else ""
    return f"{context.value}/{resource_type}.{''.join(letter for letter in 'cruds' if letter in letters)}{suffix}"
