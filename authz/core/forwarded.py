r"""x-forwarded-client-cert, strictly by Envoy's grammar.

Elements are joined by `,`, newest last; pairs inside one by `;`; keys ignore case; a value may be double-quoted, and a
backslash there escapes the next character (subjects come escaped by RFC 2253, too).
Envoy writes By, URI and DNS bare and unescaped, so a certificate's SAN that holds `,` or `;` can
forge a pair or an element: what matters is the *number* of elements, which the caller of this module demands.

Where a proxy appends, a caller may also leave a quote open, for a SAN to close it: what the proxy wrote would be text
inside of the caller's element. All of it, from its `Hash` to its SANs, is held together by `;`, and no value that Envoy
quotes has one: RFC 2253 escapes it in a subject, and URL-encoded PEM has none.

Source: Envoy, docs/root/configuration/http/http_conn_man/headers.rst (x-forwarded-client-cert).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from authz.model import Reason, Refused

HEADER_MAX_CHARACTERS: Final = 65_536  # Envoy's default limit for all headers together is 60 KiB
ELEMENTS_MAX: Final = 16
REPEATED_MAX: Final = 64  # SANs of one certificate

# Possessive, run by run: no part can be read in two ways, and a header full of escapes costs 1 ms instead of 13.
_QUOTED: Final = r'[^"\\;]*+(?:(?:\\.)++[^"\\;]*+)*+'
_PAIR: Final = re.compile(rf'([A-Za-z]+)=(?:"({_QUOTED})"|([^",;\\]*))(?=([,;])|\Z)')
_ONCE: Final = frozenset({"hash", "cert", "chain", "subject", "issuer"})
_REPEATED: Final = frozenset({"by", "uri", "dns"})
_VISIBLE: Final = re.compile(r"[\x20-\x7e]*")


class Element(NamedTuple):
    """What one proxy says of its peer: the certificate's hash, itself where forwarded, and its URI SANs."""

    hash: str | None
    cert: str | None  # URL-encoded PEM
    uris: tuple[str, ...]
    ends_with_uri: bool = False  # nothing follows the last URI, which a SAN could have written


def parse(header: str) -> tuple[Element, ...]:
    """Return the elements in the order of the header, oldest first.

    Raises:
        Refused: REQUEST_MALFORMED, at anything that Envoy does not write.
    """
    if len(header) > HEADER_MAX_CHARACTERS or not _VISIBLE.fullmatch(header):
        raise _malformed("too long, or not visible ASCII")
    elements: list[Element] = []
    position = 0
    while True:
        element, position, ended = _element(header, position)
        elements.append(element)
        if len(elements) > ELEMENTS_MAX:
            raise _malformed(f"more than {ELEMENTS_MAX} elements")
        if ended:
            return tuple(elements)


def _element(header: str, position: int) -> tuple[Element, int, bool]:
    once: dict[str, str] = {}
    uris: list[str] = []
    repeated = 0
    while True:
        match = _PAIR.match(header, position)
        if match is None:
            raise _malformed(f"no pair at character {position}")
        key = match[1].lower()
        value = match[3] if match[2] is None else _unescaped(match[2])
        if key in _ONCE:
            if key in once:
                raise _malformed(f"`{key}` twice in one element")
            once[key] = value
        elif key in _REPEATED:
            repeated += 1
            if repeated > REPEATED_MAX:
                raise _malformed(f"more than {REPEATED_MAX} of By, URI and DNS in one element")
            if key == "uri":
                uris.append(value)
        else:
            raise _malformed("a key that Envoy does not write")
        position = match.end() + 1
        if match[4] != ";":
            element = Element(once.get("hash"), once.get("cert"), tuple(uris), ends_with_uri=key == "uri")
            return element, position, match[4] is None


def _unescaped(quoted: str) -> str:
    """Return what a quoted value says; of thousands of escapes, too, in microseconds."""
    return quoted.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\")  # no header holds a NUL


def _malformed(why: str) -> Refused:
    return Refused(Reason.REQUEST_MALFORMED, f"x-forwarded-client-cert: {why}")
