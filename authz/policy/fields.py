"""Kinds of values in a ClientPolicy document: each with its bounds, parsed to what the rest of the code uses."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Final, Protocol, TypeVar

from pydantic import AfterValidator, Field, PlainValidator, StringConstraints, WithJsonSchema

from authz.policy.duration import DURATION_PATTERN, parse_duration
from authz.policy.smart import SCOPE_MAX_CHARACTERS, SCOPE_PATTERN, Scope, parse_scope

COMMON_NAME_MAX: Final = 64  # X.520 ub-common-name
DNS_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,256}")  # RFC 6749 section 3.3
# RFC 3339 as the API server's schema and its CEL both read it: they differ on lower-case letters and on odd offsets.
_INSTANT: Final = re.compile(
    r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
INSTANT_PATTERN: Final = f"^{_INSTANT.pattern}$"
_ROUTE_PATH: Final = re.compile(r"/(?!/)(?:[A-Za-z0-9_~!$&'()*+,=:@-]|\.(?!\.?(?:/|$))|/(?!/))*")

DnsName = Annotated[str, StringConstraints(pattern=rf"^(?:\*\.)?{DNS_LABEL}(?:\.{DNS_LABEL})*$", max_length=253)]
ObjectName = Annotated[str, StringConstraints(pattern=rf"^{DNS_LABEL}(?:\.{DNS_LABEL})*$", max_length=253)]
EntryName = Annotated[str, StringConstraints(pattern=rf"^{DNS_LABEL}$", max_length=63)]
_SEGMENT: Final = r"(?:\.*[A-Za-z0-9_-][A-Za-z0-9._-]*|\.{3,})"  # neither empty nor a dot segment
SPIFFE_ID: Final = rf"^spiffe://[a-z0-9._-]{{1,255}}(?:/{_SEGMENT})+$"  # SPIFFE-ID section 2; X509-SVID needs a path
TWO_READINGS: Final = r"[:/]\.\.?(?:[/?]|$)|%(?:2[EeFf]|5[Cc])"  # of a URI that somebody resolves, and somebody not
OPERATORS_SECRETS: Final = ("clientpolicy-ca", "clientpolicy-trust")

_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
_SHA256_SHOWN: Final = 512  # characters; openssl prints some 114


def _fingerprint(value: str) -> str:
    """Return it in lower case; what openssl and sha256sum print is told in the right spelling."""
    if _SHA256.fullmatch(value):
        return value.lower()
    printed = value[:_SHA256_SHOWN].rpartition("=")[2].replace(":", "").split()[:1]
    if printed and _SHA256.fullmatch(printed[0]):
        raise ValueError(f"expected 64 hexadecimal digits alone: {printed[0].lower()}")
    raise ValueError("expected 64 hexadecimal digits: the SHA-256 of the certificate in DER, without colons")


Fingerprint = Annotated[
    str,
    Field(max_length=_SHA256_SHOWN),
    AfterValidator(_fingerprint),
    WithJsonSchema({"type": "string", "pattern": f"^{_SHA256.pattern}$"}),
]
Email = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.!#$%&*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+$", max_length=254)]
# No controls, nothing that is invisible or turns the text around, nothing for private use (half characters are no JSON)
PrintableName = Annotated[str, StringConstraints(pattern=r"^[^\p{Cc}\p{Cf}\p{Co}]+$", max_length=COMMON_NAME_MAX)]
ClientId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", min_length=1, max_length=256)]


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


Item = TypeVar("Item")
Named = TypeVar("Named", bound=_HasName)


def each_once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    twice = sorted({str(item) for item in items if items.count(item) > 1})
    if twice:
        raise ValueError(f"given twice: {', '.join(twice)}")
    return items


def each_named_once(items: tuple[Named, ...]) -> tuple[Named, ...]:
    each_once(tuple(item.name for item in items))
    return items


def _duration_us(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("expected a duration such as 90s, 15m or 720h")  # noqa: TRY004 pydantic collects ValueError
    return parse_duration(value)


def _instant(value: object) -> datetime:
    try:
        if isinstance(value, str) and _INSTANT.fullmatch(value):
            return datetime.fromisoformat(value)
    except ValueError:  # no such day, or hour
        pass
    raise ValueError("expected an instant such as 2026-11-01T00:00:00Z")


_read_scope = lru_cache(maxsize=4_096)(parse_scope)  # policies of one platform say the same scopes again and again


def _scope(value: object) -> Scope | None:
    return _read_scope(value) if isinstance(value, str) and len(value) <= SCOPE_MAX_CHARACTERS else None


def _clinical_scope(value: object) -> Scope:
    scope = _scope(value)
    if scope is None:
        raise ValueError("expected a SMART clinical scope such as patient/Observation.rs or system/*.read")
    return scope


def _other_scope(value: object) -> str:
    if not isinstance(value, str) or not _SCOPE_TOKEN.fullmatch(value):
        raise ValueError("expected an OAuth scope: 1 to 256 visible ASCII characters without space, quote or backslash")
    if "/" in value and value.split("/", 1)[0] in ("patient", "user", "system"):
        raise ValueError("a clinical scope belongs into spec.scopes")
    return value


def _route_scope(value: object) -> Scope | str:
    scope = _scope(value)
    if scope is not None:
        return scope
    return _other_scope(value)


def _one_reading(uri: str) -> str:
    if uri.startswith("spiffe:"):
        if not re.fullmatch(SPIFFE_ID, uri):
            raise ValueError(
                "expected a SPIFFE ID: spiffe://, a trust domain in lower case, and a path of letters, digits and `.-_`"
            )
    elif re.search(TWO_READINGS, uri):
        raise ValueError("expected no dot segments, and none of %2E, %2F, %5C")
    return uri


def _not_the_operators(name: str) -> str:
    if name in OPERATORS_SECRETS:
        raise ValueError(f"{' and '.join(OPERATORS_SECRETS)} are the operator's own")
    return name


def _route_path(path: str) -> str:
    if not _ROUTE_PATH.fullmatch(path):
        raise ValueError("expected an absolute path without query, encoding, `;`, empty or dot segments")
    return path


# Envoy writes a URI SAN bare into x-forwarded-client-cert: quote, comma, semicolon could forge a field or an element.
SanUri = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z][a-z0-9+.-]*:[\x21\x24-\x26\x28-\x2B\x2D-\x3A\x3C-\x5B\x5D-\x7E]+$", max_length=2048
    ),
    AfterValidator(_one_reading),
]
SecretName = Annotated[ObjectName, AfterValidator(_not_the_operators)]
DurationText = Annotated[str, StringConstraints(pattern=DURATION_PATTERN)]
DurationUs = Annotated[int, PlainValidator(_duration_us, json_schema_input_type=DurationText)]
_RouteScopeText = Annotated[
    str,
    WithJsonSchema(
        {"type": "string", "anyOf": [{"pattern": SCOPE_PATTERN}, {"not": {"pattern": "^(?:patient|user|system)/"}}]}
    ),
]
Instant = Annotated[datetime, PlainValidator(_instant)]
ClinicalScope = Annotated[Scope, PlainValidator(_clinical_scope)]
OtherScope = Annotated[str, PlainValidator(_other_scope)]
RouteScope = Annotated[Scope | str, PlainValidator(_route_scope, json_schema_input_type=_RouteScopeText)]
RoutePath = Annotated[str, Field(max_length=1024), AfterValidator(_route_path)]
HttpMethod = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$")]
