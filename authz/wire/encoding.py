"""What callers and upstreams get to see → Envoy's CheckResponse, in bytes.

protobuf merges a message that comes in parts, so an answer is put together from serialised parts, and what comes again
(a client, a patient, a policy of quotas) is serialised once. Only an allow is worth that: it is what there is most of.

Source: envoy/service/auth/v3/external_auth.proto; protobuf encoding guide, "Last One Wins" (merging of messages).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from authz.core.decide import Shadowed, Verdict
from authz.model import Reason
from authz.wire.pb.envoy.config.core.v3.base_pb2 import HeaderValueOption
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from authz.wire.response import ALWAYS_REMOVED, Answered, Headers, reason_of

# gRPC codes by HTTP status (google.rpc.Code); Envoy looks only at whether it is OK.
_CODES: Final = {400: 3, 401: 16, 403: 7, 429: 8, 503: 14}
# Parts that are kept, of each kind; full of the longest they are 6 MB together.
_PARTS_MAX: Final = 4_096
_LONG_PARTS_MAX: Final = 512
_SHORT_MAX_CHARACTERS: Final = 128
_VALUE_MAX_CHARACTERS: Final = 1_024  # of a part that is kept: a token says what becomes a header, with kB of scopes
_ID: Final = "x-decision-id"
_PLACEHOLDER: Final = b"0" * 32  # as long as every decision id, so that the lengths around it stay true


def encode(answered: Answered, verdict: Verdict, decision_id: str) -> bytes:
    """Return the serialised CheckResponse; a decision id has 32 characters."""
    client = verdict.client
    frame = _frame(
        reason_of(verdict),
        client.id if client is not None else "",
        client.policy if client is not None else "",
        verdict.refused.reason.value if isinstance(verdict, Shadowed) else "",
    )
    if answered.status == 200:  # noqa: PLR2004 HTTP OK
        return b"".join((frame, _removed(answered.remove), *_allowed(answered, decision_id)))
    response = CheckResponse()
    response.dynamic_metadata.fields["decision_id"].string_value = decision_id
    response.status.code = _CODES[answered.status]
    denied = response.denied_response
    denied.status.code = answered.status  # type: ignore[assignment] # the enum's numbers are the HTTP statuses
    denied.body = answered.body
    _set_headers(denied.headers, answered.response)
    return frame + response.SerializeToString()


def _allowed(answered: Answered, decision_id: str) -> list[bytes]:
    parts = [
        _upstream_header(name, value) if len(value) <= _SHORT_MAX_CHARACTERS else _long_upstream_header(name, value)
        for name, value in answered.upstream.items()
        if name != _ID
    ]
    for name, value in answered.response.items():
        if name == _ID:
            parts.append(_IDENTIFIED.replace(_PLACEHOLDER, decision_id.encode()))
        elif name == "ratelimit":  # its values do not come again
            parts.append(_response_header.__wrapped__(name, value))
        else:
            parts.append(_response_header(name, value))
    return parts


@lru_cache(maxsize=_PARTS_MAX)
def _frame(reason: Reason, client: str, policy: str, shadow: str) -> bytes:
    """Tell Envoy's access log (`%DYNAMIC_METADATA(envoy.filters.http.ext_authz:reason)%` and so on)."""
    response = CheckResponse()
    told = {"reason": reason.value, "client": client, "policy": policy, "shadow": shadow}
    for name, value in told.items():
        if value:
            response.dynamic_metadata.fields[name].string_value = value
    return response.SerializeToString()


@lru_cache(maxsize=_PARTS_MAX)
def _removed(names: tuple[str, ...]) -> bytes:
    response = CheckResponse()
    response.ok_response.headers_to_remove.extend((*names, *ALWAYS_REMOVED))
    return response.SerializeToString()


@lru_cache(maxsize=_PARTS_MAX)
def _upstream_header(name: str, value: str) -> bytes:
    response = CheckResponse()
    _set_headers(response.ok_response.headers, {name: value})
    return response.SerializeToString()


_kept_long_upstream_header = lru_cache(maxsize=_LONG_PARTS_MAX)(_upstream_header.__wrapped__)


def _long_upstream_header(name: str, value: str) -> bytes:
    kept = len(value) <= _VALUE_MAX_CHARACTERS
    return _kept_long_upstream_header(name, value) if kept else _upstream_header.__wrapped__(name, value)


@lru_cache(maxsize=_PARTS_MAX)
def _response_header(name: str, value: str) -> bytes:
    response = CheckResponse()
    _set_headers(response.ok_response.response_headers_to_add, {name: value})
    return response.SerializeToString()


def _set_headers(options: RepeatedCompositeFieldContainer[HeaderValueOption], headers: Headers) -> None:
    for name, value in headers.items():
        option = options.add()
        # The default appends, and a caller could then supply a value beside ours.
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        option.header.key = name
        option.header.value = value


def _identified(decision_id: str) -> bytes:
    response = CheckResponse()
    response.dynamic_metadata.fields["decision_id"].string_value = decision_id
    _set_headers(response.ok_response.headers, {_ID: decision_id})
    _set_headers(response.ok_response.response_headers_to_add, {_ID: decision_id})
    return response.SerializeToString()


_IDENTIFIED: Final = _identified(_PLACEHOLDER.decode())
