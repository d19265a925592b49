"""Envoy's CheckRequest → `Request`.

Both header forms are read: `headers`, where Envoy joins repeats with a comma, and `header_map`, which keeps them.

Source: envoy/service/auth/v3/attribute_context.proto.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from authz.core import address
from authz.core.control_parameters import HEADERS
from authz.model import Reason, Refused, Request
from authz.wire.pb.envoy.service.auth.v3.attribute_context_pb2 import AttributeContext
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

_METHOD_OVERRIDES: Final = frozenset({"x-http-method-override", "x-http-method", "x-method-override", "x-method"})
_READ: Final = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "transfer-encoding",
        "if-none-exist",
        "x-envoy-auth-partial-body",
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-request-id",
        *HEADERS,
        *_METHOD_OVERRIDES,
    }
)
_DISGUISED: Final = _METHOD_OVERRIDES | {"content-encoding", "if-none-exist", *HEADERS}
_FORM_TYPE: Final = re.compile(r"application/x-www-form-urlencoded(?:\s*;\s*charset=utf-8)?", re.IGNORECASE)
_ANY_FORM_TYPE: Final = re.compile(r"(?:^|,)\s*(?:application/x-www-form-urlencoded|multipart/)", re.IGNORECASE)
FORM_MAX_BYTES: Final = 65_536  # four times what a query may hold; a longer form counts as not seen


class ClientAddress(NamedTuple):
    """Where the caller's address comes from: the peer, or the `hops`-th value from the right of X-Forwarded-For."""

    hops: int = 0  # 0: the peer


def read(data: bytes, client_address: ClientAddress) -> Request:
    """Return the request that a serialised CheckRequest describes.

    Raises:
        Refused: REQUEST_MALFORMED, if `data` is no CheckRequest.
    """
    try:
        check = CheckRequest.FromString(data)
    except DecodeError:
        raise Refused(Reason.REQUEST_MALFORMED, "not a CheckRequest") from None
    return read_message(check, client_address)


def read_message(check: CheckRequest, client_address: ClientAddress) -> Request:
    """Return the request that a CheckRequest describes."""
    attributes = check.attributes
    http = attributes.request.http
    source = attributes.source
    headers = _headers(http)
    method = http.method
    return Request(
        method,
        http.path,
        http.host,
        headers.get("x-request-id") or http.id,
        _address(source, headers.get("x-forwarded-for"), client_address),
        headers.get("authorization"),
        headers.get("x-forwarded-client-cert"),
        source.certificate or None,
        not _METHOD_OVERRIDES.isdisjoint(headers),
        headers.get("if-none-exist"),
        tuple([HEADERS[name] for name in headers if name in HEADERS]),
        _form(http, headers) if method == "POST" else None,
        has_body := _has_body(http, headers),
        _has_form_type(method, headers.get("content-type"), has_body=has_body),
    )


def _has_body(http: AttributeContext.HttpRequest, headers: dict[str, str]) -> bool:
    declared = headers.get("content-length")
    return declared not in (None, "0") or "transfer-encoding" in headers or bool(http.body or http.raw_body)


def _has_form_type(method: str, media_type: str | None, *, has_body: bool) -> bool:
    """Return whether an upstream may read a body as a form; Rack takes a POST without a media type for one."""
    if media_type is None:
        return method == "POST" and has_body
    return _ANY_FORM_TYPE.search(media_type) is not None


def _headers(http: AttributeContext.HttpRequest) -> dict[str, str]:
    """Return the headers that a decision reads; repeats, in whatever spelling, are joined as Envoy joins them."""
    found: dict[str, str] = {}
    joined = http.headers
    for name in joined:
        # Envoy writes names in lower case; the others are looked at only if they could be one of ours in disguise.
        if name in _READ and name not in found:
            found[name] = joined[name]
        elif name in _READ or "_" in name or not name.islower():
            _collect(found, name, joined[name])
    for header in http.header_map.headers:
        _collect(found, header.key, header.value or header.raw_value.decode("latin-1"))
    return found


def _collect(found: dict[str, str], name: str, value: str) -> None:
    name = name.lower()
    if name not in _READ:
        # WSGI and CGI upstreams read `_` as `-`, so a caller can spell what asks the upstream for more that way too.
        name = name.replace("_", "-")
        if name not in _DISGUISED:
            return
    found[name] = f"{found[name]},{value}" if name in found else value


def _address(source: AttributeContext.Peer, forwarded_for: str | None, client_address: ClientAddress) -> str:
    peer = source.address.socket_address.address
    if not client_address.hops:
        return peer
    values = (forwarded_for or "").split(",")
    # Fewer values than trusted hops: the request did not come through them all, so the peer answers for it.
    found = address.read(values[-client_address.hops].strip()) if len(values) >= client_address.hops else None
    return str(found) if found is not None else peer


def _form(http: AttributeContext.HttpRequest, headers: dict[str, str]) -> bytes | None:
    """Return a form body that is certainly whole and read as we would, None if it may have been cut or kept from us.

    Without `with_request_body` Envoy sends no body and `size` 0, whatever the caller sends; with it, Envoy itself says
    by `x-envoy-auth-partial-body` whether it cut anything, and drops what a caller says there. Measured, Envoy 1.40.0.
    A content coding is another body than the one here. What the form says is read once its caller is known.
    """
    body = http.raw_body or http.body
    declared = headers.get("content-length")
    if declared == "0" and not body:
        return b""
    if headers.get("x-envoy-auth-partial-body") != "false" or len(body) > FORM_MAX_BYTES:
        return None
    body = body.encode() if isinstance(body, str) else body
    if declared not in (None, str(len(body))):
        return None
    if not body:
        return b""
    if "content-encoding" in headers or not _FORM_TYPE.fullmatch(headers.get("content-type", "")):
        return None
    return body
