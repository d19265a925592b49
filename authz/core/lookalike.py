"""Paths that a lenient upstream takes for others: in another case or width, with a slash, space, dot or suffix more.

Frameworks differ in all of these (ASP.NET and IIS overlook case and trailing dots, Spring, Rails and Django a trailing
slash, Spring and Rails a format suffix, Java and Windows width), and we cannot know which one is behind us.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from authz.core.path import folded
from authz.model import Reason, Refused

_PATTERNS_MAX: Final = 4_096  # of policies and the configuration, at most 1,024 characters each
_SUFFIX: Final = re.compile(r"[a-z][a-z0-9]{0,15} *")  # .json, .xml.gz; not the .2 of v1.2


class Shape(NamedTuple):
    """What is left of a path: all that a lenient upstream may go by."""

    whole: str  # folded, without spaces and dots at the ends of segments, without a slash at the end
    stem: str  # and without a suffix


def shape(path: str) -> Shape:
    """Return the shape of a path; two of the same shape may be one to the upstream."""
    segments = (segment.rstrip(" .") for segment in folded(path).split("/"))
    whole = "".join(f"/{segment}" for segment in segments if segment)
    return Shape(whole, _stem(whole))


def _stem(whole: str) -> str:
    folder, slash, name = whole.rpartition("/")
    parts = name.split(".")
    kept = 1 if parts[0] else 2  # .well-known is no suffix of nothing
    while len(parts) > kept and _SUFFIX.fullmatch(parts[-1]):
        parts.pop()
    return f"{folder}{slash}{'.'.join(parts).rstrip(' .')}"


shape_of_pattern = lru_cache(maxsize=_PATTERNS_MAX)(shape)


def is_below(path: Shape, pattern: Shape) -> bool:
    """Return whether a lenient upstream may find `path` at or below `pattern`."""
    return pattern.whole in path or path.whole.startswith(pattern.whole + "/")


def is_at(path: Shape, pattern: Shape) -> bool:
    """Return whether a lenient upstream may take `path` for `pattern`, perhaps in another format.

    Rails takes whatever follows the last dot for one, Spring once did.
    """
    return path.stem == pattern.stem or (
        path.whole.startswith(f"{pattern.whole}.") and "/" not in path.whole[len(pattern.whole) :]
    )


def require_apart(path: str, base_path: str) -> None:
    """Refuse a path, not at or below the FHIR base, that a lenient upstream would find there.

    Raises:
        Refused: PATH_AMBIGUOUS.
    """
    if is_below(shape(path), shape_of_pattern(base_path)):
        raise Refused(Reason.PATH_AMBIGUOUS, "to a lenient upstream it is the FHIR base, or below it")
