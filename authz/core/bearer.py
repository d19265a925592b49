"""With what right: an access token, verified in two steps.

`verify` is what stays true while the key does (signature, issuer, audience, type): its result may be cached.
`admit` is what each request decides anew (time, client, binding), also on a cached token.

Source: RFC 7515, RFC 7519 section 4.1, RFC 8725, RFC 9068, RFC 8705 section 3.1.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Final, NamedTuple

from jwt.algorithms import Algorithm, get_default_algorithms

from authz.core.strict_json import read_object
from authz.model import (
    Claims,
    Client,
    Confirmation,
    Issuer,
    KeySet,
    KeysWanted,
    Reason,
    Refused,
    Trusted,
    VerificationKey,
)
from authz.policy import Binding

TOKEN_MAX_CHARACTERS: Final = 16_384
KEYS_TRIED_MAX: Final = 4  # issuers publish two or three at a time; each costs a forger's token 100 to 700 µs more
SCOPES_MAX: Final = 512
CLAIM_MAX_CHARACTERS: Final = 1_024  # of a claim that becomes a header
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]*")
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_PATIENT: Final = re.compile(r"(?:Patient/)?([A-Za-z0-9.-]{1,64})")
_X5T_S256: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_BEARER: Final = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_INSTANT_MAX_S: Final = 253_402_300_800  # year 10000: further is no date that anybody meant
_ALGORITHMS: Final[dict[str, Algorithm]] = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name[:2] in ("RS", "PS") or name in ("ES256", "ES384", "ES512", "EdDSA")
}
SUPPORTED_ALGORITHMS: Final = frozenset(_ALGORITHMS)


def credentials(authorization: str | None) -> str | None:
    """Return the bearer token of an Authorization value, None if it carries none (RFC 6750 section 2.1).

    Raises:
        Refused: TOKEN_MALFORMED for the scheme without exactly one token after spaces.
    """
    value = (authorization or "").strip(" \t")
    match = _BEARER.fullmatch(value)
    if match is not None:
        return match[1]
    if value.split(None, 1)[:1] and value.split(None, 1)[0].lower() == "bearer":
        raise _malformed("not exactly one token after the scheme")
    return None


class _Parsed(NamedTuple):
    algorithm: str
    kid: str | None
    claims: dict[str, object]
    signed: bytes
    signature: bytes


def verify(token: str, trusted: Mapping[str, Trusted], allowed: frozenset[str] | None, now_us: int) -> Claims:
    """Return the claims of a token signed by a trusted issuer for one of its audiences.

    `trusted` maps `iss` to the issuer; `allowed` names those that the client may use, None for all.

    Raises:
        Refused: TOKEN_MALFORMED, TOKEN_ISSUER, TOKEN_TYPE, TOKEN_ALGORITHM, ISSUER_UNAVAILABLE, TOKEN_KEY_UNKNOWN,
            TOKEN_SIGNATURE, TOKEN_AUDIENCE; as KeysWanted where newer keys may mend it.
    """
    parsed = _parse(token)
    issuer, keys = require_issuer(parsed.claims.get("iss"), trusted, allowed)
    if parsed.algorithm not in issuer.algorithms:
        raise Refused(Reason.TOKEN_ALGORITHM, f"issuer {issuer.name} does not sign with this algorithm")
    if keys is None or keys.is_stale(now_us):
        raise Refused(Reason.ISSUER_UNAVAILABLE, f"no current keys of issuer {issuer.name}")
    return _claims(parsed.claims, issuer, _signer(parsed, issuer.name, keys))


def _signer(parsed: _Parsed, issuer: str, keys: KeySet) -> VerificationKey:
    """Return the key that made the signature.

    An issuer may reuse a `kid`, or name none: a signature that no fitting key made may be a newer key's.
    """
    fitting = keys.fitting(parsed.kid, parsed.algorithm)
    if not fitting:
        raise KeysWanted(Reason.TOKEN_KEY_UNKNOWN, f"no key of issuer {issuer} fits", issuer)
    if len(fitting) > KEYS_TRIED_MAX:
        raise Refused(Reason.TOKEN_KEY_UNKNOWN, f"{len(fitting)} keys of issuer {issuer} fit: too many to try")
    algorithm = _ALGORITHMS[parsed.algorithm]
    for key in fitting:
        if algorithm.verify(parsed.signed, key.key, parsed.signature):
            return key
    raise KeysWanted(Reason.TOKEN_SIGNATURE, "the signature does not verify", issuer)


def require_issuer(name: object, trusted: Mapping[str, Trusted], allowed: frozenset[str] | None) -> Trusted:
    """Return the issuer with exactly this `iss`; TOKEN_ISSUER if there is none or the client may not use it."""
    found = trusted.get(name) if isinstance(name, str) else None
    if found is None or (allowed is not None and found.issuer.name not in allowed):
        raise Refused(Reason.TOKEN_ISSUER, "not an issuer that this client may use")
    return found


def _parse(token: str) -> _Parsed:
    if len(token) > TOKEN_MAX_CHARACTERS:
        raise _malformed(f"longer than {TOKEN_MAX_CHARACTERS} characters")
    segments = token.split(".")
    if len(segments) != 3:  # noqa: PLR2004 RFC 7515 section 3.1
        raise _malformed("not a signed JWT in compact form")
    header = _object(segments[0], "header")
    claims = _object(segments[1], "claims")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise _malformed("`alg` or `kid` is not a string")
    if "crit" in header or "b64" in header:
        raise _malformed("`crit` demands an extension that is not implemented")
    if not (kind is None or isinstance(kind, str)):
        raise _malformed("`typ` is not a string")
    if kind is not None and kind.lower() not in _TYPES:
        raise Refused(Reason.TOKEN_TYPE, "`typ` is not that of an access token")
    signed = f"{segments[0]}.{segments[1]}".encode()
    return _Parsed(algorithm, kid, claims, signed, _decode(segments[2], "signature"))


def _object(segment: str, what: str) -> dict[str, object]:
    try:
        return read_object(_decode(segment, what))
    except ValueError:
        raise _malformed(f"{what}: not one JSON object without repeated keys") from None


def _decode(segment: str, what: str) -> bytes:
    if not _SEGMENT.fullmatch(segment) or len(segment) % 4 == 1:
        raise _malformed(f"{what}: not base64url without padding")
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _claims(claims: dict[str, object], issuer: Issuer, key: VerificationKey) -> Claims:
    _require_audience(claims.get("aud"), issuer)
    expires_us = _instant_us(claims, "exp")
    if expires_us is None:
        raise _malformed("no `exp`")
    not_before_us = _instant_us(claims, "nbf")
    _instant_us(claims, "iat")
    client_id = _text(claims, issuer.client_claim)
    if client_id is None:
        raise Refused(Reason.TOKEN_CLIENT, "no client claim")
    return Claims(
        issuer=issuer.issuer,
        key_thumbprint=key.thumbprint,
        subject=_text(claims, "sub"),
        client_id=client_id,
        scopes=_scopes(claims, issuer.scope_claims),
        patient=_patient(claims, issuer.patient_claim),
        expires_us=expires_us,
        not_before_us=not_before_us,
        confirmation=_confirmation(claims.get("cnf")),
    )


def _require_audience(audience: object, issuer: Issuer) -> None:
    named = [audience] if isinstance(audience, str) else audience
    if named is None:
        raise Refused(Reason.TOKEN_AUDIENCE, "no `aud`")
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise _malformed("`aud` is neither a string nor a list of strings")
    if issuer.audiences.isdisjoint(named):
        raise Refused(Reason.TOKEN_AUDIENCE, "meant for somebody else")


def _instant_us(claims: dict[str, object], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _malformed(f"`{name}` is not a number")
    if not -_INSTANT_MAX_S <= value <= _INSTANT_MAX_S:  # neither is a NaN
        raise _malformed(f"`{name}` is out of range")
    return int(value * 1_000_000)


def _text(claims: dict[str, object], name: str) -> str | None:
    """Return a claim that may travel on in a header."""
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > CLAIM_MAX_CHARACTERS or not _HEADER_VALUE.fullmatch(value):
        raise _malformed(f"`{name}` is not a string that a header can hold")
    return value


def _scopes(claims: dict[str, object], names: tuple[str, ...]) -> tuple[str, ...]:
    scopes: dict[str, None] = {}
    for name in names:
        value = claims.get(name)
        if isinstance(value, str):
            value = [scope for scope in value.split(" ") if scope]
        if value is None:
            continue
        if not isinstance(value, list) or not all(
            isinstance(one, str) and _SCOPE_TOKEN.fullmatch(one) for one in value
        ):
            raise _malformed(f"`{name}` is neither a scope string nor a list of scopes")
        scopes.update(dict.fromkeys(value))
    if len(scopes) > SCOPES_MAX:
        raise _malformed(f"more than {SCOPES_MAX} scopes")
    return tuple(scopes)


def _patient(claims: dict[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    match = _PATIENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] in (".", ".."):
        raise _malformed(f"`{name}` is not a FHIR id or `Patient/` and one")
    return match[1]


def _confirmation(cnf: object) -> str | Confirmation:
    if cnf is None:
        return Confirmation.NONE
    value = cnf.get("x5t#S256") if isinstance(cnf, dict) and len(cnf) == 1 else None
    if not isinstance(value, str) or not _X5T_S256.fullmatch(value):
        return Confirmation.UNSUPPORTED
    return urlsafe_b64decode(value + "=").hex()


def admit(claims: Claims, issuer: Issuer, client: Client, fingerprint: str | None, now_us: int) -> None:
    """Refuse a verified token that this client may not use now; `fingerprint` is of the presented certificate.

    Raises:
        Refused: TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, TOKEN_CLIENT, TOKEN_BINDING.
    """
    if now_us >= claims.expires_us + issuer.leeway_us:
        raise Refused(Reason.TOKEN_EXPIRED, "`exp` has passed")
    if claims.not_before_us is not None and now_us < claims.not_before_us - issuer.leeway_us:
        raise Refused(Reason.TOKEN_NOT_YET_VALID, "`nbf` is ahead")
    if claims.client_id != client.id:
        raise Refused(Reason.TOKEN_CLIENT, "issued to another client than the certificate's")
    if claims.confirmation is Confirmation.NONE:
        if client.binding is Binding.REQUIRED:
            raise Refused(Reason.TOKEN_BINDING, "not bound to a certificate, and the policy requires it")
    elif fingerprint is None or claims.confirmation != fingerprint:
        raise Refused(Reason.TOKEN_BINDING, "bound to another certificate, or by a method that is not supported")


def _malformed(why: str) -> Refused:
    return Refused(Reason.TOKEN_MALFORMED, why)
