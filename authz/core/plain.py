"""What a request must not carry, whoever sends it."""

from __future__ import annotations

import re
from typing import Final

from authz.model import Reason, Refused, Request

_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110 section 5.6.2


_TOKEN_IN_QUERY: Final = re.compile(r"(?:^|&)access_token=")


def require_plain(request: Request, query: str) -> None:
    """Refuse a request that asks the upstream to read it differently than it was decided.

    Raises:
        Refused: REQUEST_MALFORMED.
    """
    if not _METHOD.fullmatch(request.method):
        raise Refused(Reason.REQUEST_MALFORMED, "the method is not an RFC 9110 token")
    if request.is_overridden:
        raise Refused(Reason.REQUEST_MALFORMED, "a header asks for another method")
    if request.authorization is not None and "," in request.authorization:
        # Envoy joins repeats with a comma, and a bearer token has none (RFC 6750 section 2.1).
        raise Refused(Reason.REQUEST_MALFORMED, "more than one Authorization value", challenge=True)
    if request.authorization and _TOKEN_IN_QUERY.search(query):
        raise Refused(Reason.REQUEST_MALFORMED, "a token in the header and one in the query", challenge=True)
