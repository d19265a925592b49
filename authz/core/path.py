"""Request targets: refuse what an upstream may read differently than we do.

We cannot rewrite what the upstream sees, so a path is never normalised and then allowed. The classes are those of
past bypasses: dot segments (CVE-2019-9901), NUL (CVE-2019-9900), encoded slashes (CVE-2021-29492), merged slashes
(CVE-2021-31920), fragments (CVE-2021-32779), path parameters (CVE-2026-73553).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

from authz.model import Reason, Refused, Target

TARGET_MAX_CHARACTERS: Final = 16_384  # nginx and Apache stop at 8 KiB; FHIR searches run long

# Visible ASCII without `#`; before the `?` also without `;` and backslash.
_TARGET: Final = re.compile(r"""(/[!"$-:<->@-\[\]-~]*)(?:\?([!"$-~]*))?""")
_SEGMENTS_AT_FAULT: Final = re.compile(r"//|/\.+(?:/|$)")
# Nothing but dots, spaces and what is not seen: Windows and others drop these at the end, and `.. ` goes up.
_HOLLOW: Final = re.compile(r"/[.\s\u00ad\u200b-\u200f\u2060\ufeff]+(?:/|$)")
_ENCODING_AT_FAULT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%[01]|%7[Ff]")
# Encoded separators, dots and percent signs: another decoder on the way may give them their meaning back.
_SEPARATOR_ENCODED: Final = re.compile(r"%(?:2[EeFf35]|5[Cc]|3[BbFf])")


def split_target(target: str) -> Target:
    """Return the decoded path and the raw query of an unambiguous request target.

    Raises:
        Refused: PATH_AMBIGUOUS.
    """
    if len(target) > TARGET_MAX_CHARACTERS:
        raise Refused(Reason.PATH_AMBIGUOUS, f"longer than {TARGET_MAX_CHARACTERS} characters")
    match = _TARGET.fullmatch(target)
    if match is None:
        raise Refused(Reason.PATH_AMBIGUOUS, "not an absolute path, or it holds a character that has no single reading")
    path, query = match[1], match[2] or ""
    if _SEGMENTS_AT_FAULT.search(path):
        raise Refused(Reason.PATH_AMBIGUOUS, "an empty or a dot segment")
    if "%" in target:
        path = _decoded(path, query)
    return Target(path, query)


def folded(text: str) -> str:
    """Return `text` as software reads it that overlooks case and width.

    Upper case comes first, as in Java, which takes a dotless i for an i; so does it an i with two dots.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", text).upper().casefold().replace("\u0307", "")


def _decoded(path: str, query: str) -> str:
    if _ENCODING_AT_FAULT.search(path) or _ENCODING_AT_FAULT.search(query):
        raise Refused(Reason.PATH_AMBIGUOUS, "bad percent-encoding or an encoded control character")
    if _SEPARATOR_ENCODED.search(path):
        raise Refused(Reason.PATH_AMBIGUOUS, "an encoded separator, dot or percent sign in the path")
    try:
        unquote_to_bytes(query).decode()  # overlong forms are no UTF-8 to a strict decoder
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise Refused(Reason.PATH_AMBIGUOUS, "percent-encoded bytes that are not UTF-8") from None
    if _HOLLOW.search(decoded):
        raise Refused(Reason.PATH_AMBIGUOUS, "a segment of nothing but dots and spaces")
    if not decoded.isascii() and _moves_by_width(decoded):
        raise Refused(Reason.PATH_AMBIGUOUS, "a full-width separator or dot segment")
    return decoded


def _moves_by_width(path: str) -> bool:
    """Return whether what overlooks width (Windows' best fit, NFKC) finds separators or dot segments that we do not."""
    narrow = unicodedata.normalize("NFKC", path)
    return narrow.count("/") != path.count("/") or "\\" in narrow or _HOLLOW.search(narrow) is not None
