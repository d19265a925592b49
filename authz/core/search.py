"""Search parameters of a request, each read once and in one way."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

PARAMETERS_MAX: Final = 256
# A `;` once separated parameters (HTML 4.01 appendix B.2.2), and some servers still split there.
_SEPARATOR: Final = ";"
# The one place where FHIR itself writes it: a media type with its version.
_FORMAT: Final = re.compile(r"_format=[A-Za-z0-9.+/%-]+;\s*fhirVersion=[0-9.]+")


class Parameter(NamedTuple):
    """One `name[:modifier]=value`; `code` is the name up to its modifier or chain."""

    name: str
    code: str
    value: str


class Parameters(NamedTuple):
    """The parameters of query and form body together, in order."""

    items: tuple[Parameter, ...]
    is_complete: bool  # false: there may be more, in a body that we did not see
    is_ambiguous: bool  # servers may disagree on what these are

    def __bool__(self) -> bool:
        return bool(self.items)

    def values(self, name: str) -> tuple[str, ...]:
        return tuple(item.value for item in self.items if item.name == name)


def read(query: str, form: str | None, *, has_body: bool) -> Parameters:
    """Return the parameters of a query and, for a search by POST (`has_body`), of its form; None: it was not seen."""
    texts = [text for text in (query, form) if text]
    pairs = [pair for text in texts for pair in text.split("&") if pair]
    ambiguous = len(pairs) > PARAMETERS_MAX or any(_SEPARATOR in pair and not _FORMAT.fullmatch(pair) for pair in pairs)
    items = tuple(_parameter(pair) for pair in pairs[:PARAMETERS_MAX])
    return Parameters(items, not has_body or form is not None, ambiguous)


def _parameter(pair: str) -> Parameter:
    if "%" in pair or "+" in pair:
        name, _, value = (unquote_plus(part) for part in pair.partition("="))
    else:
        name, _, value = pair.partition("=")
    code = name.partition(":")[0].partition(".")[0]
    return Parameter(name, code, value)
