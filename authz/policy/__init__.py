"""A ClientPolicy document: read it to a value, or to every error in it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from authz.policy.document import API_VERSION, KIND, Binding, ClientPolicy, Mode, Revocation, Route, Source, Validity

__all__ = [
    "API_VERSION",
    "KIND",
    "Binding",
    "ClientPolicy",
    "FieldError",
    "Mode",
    "Path",
    "Revocation",
    "Route",
    "Source",
    "Validity",
    "field_errors",
    "parse",
]

Path = tuple[str | int, ...]

# What the caller wrote is named by its place; what pydantic adds about its own workings helps nobody.
_NAME_SHOWN: Final = 63  # characters; no field's name is longer
_WORDING: Final = {
    "missing": "required, but not given",
    "extra_forbidden": "no such field",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One thing wrong with a document: where (`spec.quotas[0].per`) and what was expected."""

    path: Path
    message: str

    @property
    def place(self) -> str:
        return re.sub(
            r"\.\[", "[", ".".join(f"[{part}]" if isinstance(part, int) else _cut(part) for part in self.path)
        )

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


def _cut(name: str) -> str:
    """Return a name as it can be shown: one that nobody knows may be a megabyte long."""
    return name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}…"


def parse(document: object) -> ClientPolicy | tuple[FieldError, ...]:
    """Return the policy that a document (decoded JSON or YAML) holds, or every error in it."""
    try:
        text = json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return (FieldError(path=(), message="expected plain maps, lists, strings, numbers and booleans"),)
    try:
        return ClientPolicy.model_validate_json(text)
    except ValidationError as invalid:
        return field_errors(invalid)


def field_errors(invalid: ValidationError) -> tuple[FieldError, ...]:
    """Return what is wrong, field by field; a list is not called too short because an item in it was bad."""
    found = invalid.errors(include_url=False, include_context=False, include_input=False)
    places = [tuple(error["loc"]) for error in found]
    return tuple(
        FieldError(path=place, message=_WORDING.get(error["type"], error["msg"].removeprefix("Value error, ")))
        for error, place in zip(found, places, strict=True)
        if error["type"] != "too_short" or not any(other[: len(place)] == place != other for other in places)
    )
