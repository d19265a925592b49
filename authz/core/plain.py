"""What a request must not carry, whoever sends it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

from authz.core.path import folded
from authz.model import Reason, Refused, Request

# RFC 9110 section 5.6.2, without lower case: methods differ by case, but Django, Werkzeug and others overlook it.
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]{1,32}")
_DECODINGS: Final = 3  # a proxy and a framework decode once each; one more than any two do
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")  # HAPI deletes them from names
# PHP reads ` `, `.` and an unclosed `[` within as `_`, and drops spaces before it; PHP and qs take `name[]` for `name`.
_CARRIER: Final = re.compile(r"(?:^|&) *\[?(?:(?P<method>[_.]method)|(?P<token>access[_ .\[]token)) *(?=$|[&=\[\]])")


def require_plain(request: Request, query: str) -> None:
    """Refuse a request that asks the upstream to read it differently than it was decided.

    Raises:
        Refused: REQUEST_MALFORMED.
    """
    if not _METHOD.fullmatch(request.method):
        raise Refused(Reason.REQUEST_MALFORMED, "the method is not an RFC 9110 token in upper case")
    if request.is_overridden:
        raise Refused(Reason.REQUEST_MALFORMED, "a header asks for another method")
    if request.authorization is not None and "," in request.authorization:
        # Envoy joins repeats with a comma, and a bearer token has none (RFC 6750 section 2.1).
        raise Refused(Reason.REQUEST_MALFORMED, "more than one Authorization value", challenge=True)
    if query:
        _require_plain_parameters(query, request.authorization, "query")


def require_plain_form(request: Request) -> None:
    """Refuse a form that asks for another method, or brings a token besides that of the header.

    Raises:
        Refused: REQUEST_MALFORMED.
    """
    if request.form:
        _require_plain_parameters(_text(request.form), request.authorization, "form")


def carries_token(request: Request, query: str) -> bool:
    """Return whether query or form bring an access token (RFC 6750 sections 2.2 and 2.3), however it is spelt."""
    return "token" in _carried(query) or (request.form is not None and "token" in _carried(_text(request.form)))


def _text(form: bytes) -> str:
    return _CONTROL.sub("", form.decode(errors="replace"))  # what is no UTF-8 is no name that we look for


def _require_plain_parameters(text: str, authorization: str | None, where: str) -> None:
    carried = _carried(text)
    if "method" in carried:
        raise Refused(Reason.REQUEST_MALFORMED, f"`_method` in the {where} asks for another method")
    if authorization and "token" in carried:
        raise Refused(Reason.REQUEST_MALFORMED, f"a token in the header and one in the {where}", challenge=True)


def _carried(text: str) -> frozenset[str]:
    """Return which of `_method` (as "method") and `access_token` (as "token") are among the names of parameters."""
    if not _is_suspect(text):
        return frozenset()
    names = "&".join(pair.partition("=")[0] for pair in text.replace(";", "&").split("&"))
    if not _is_suspect(names):
        return frozenset()
    for _ in range(_DECODINGS):
        names = unquote_plus(names)
        if "%" not in names and "+" not in names:
            break
    return frozenset(match.lastgroup or "" for match in _CARRIER.finditer(folded(_CONTROL.sub("", names))))


def _is_suspect(text: str) -> bool:
    lowered = text.lower()
    return "%" in text or "ethod" in lowered or "oken" in lowered or not text.isascii()
