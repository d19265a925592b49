"""A JSON Web Key Set, read down to the keys that may verify an access token.

Source: RFC 7517; RFC 7518 section 6; RFC 8725 sections 3.1 and 3.2 (one algorithm family a key).
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from authz.core import thumbprint
from authz.core.strict_json import read_object
from authz.model import KeySet, VerificationKey

DOCUMENT_MAX_BYTES: Final = 262_144
KEYS_MAX: Final = 64
RSA_MIN_BITS: Final = 2048  # NIST SP 800-131A; RFC 7518 section 3.3
_KID_MAX_CHARACTERS: Final = 512

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_FAMILIES: Final[dict[object, type[Algorithm]]] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


def read_keys(document: bytes, stale_at_us: int) -> tuple[KeySet, tuple[str, ...]]:
    """Return the usable keys of a JWKS document, be there none, and a warning for each key left out (by position).

    Raises:
        ValueError: not a JWKS: no JSON object of one reading, no list of keys, or longer than any issuer's.
    """
    if len(document) > DOCUMENT_MAX_BYTES:
        raise ValueError(f"longer than {DOCUMENT_MAX_BYTES} bytes")
    entries = read_object(document).get("keys")
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise ValueError(f"`keys` is not a list of at most {KEYS_MAX} keys")
    keys: list[VerificationKey] = []
    warnings: list[str] = []
    for position, entry in enumerate(entries):
        try:
            keys.append(_read_key(entry))
        except ValueError as unusable:
            warnings.append(f"keys[{position}] left out: {unusable}")
    return KeySet(keys=tuple(keys), stale_at_us=stale_at_us), tuple(warnings)


def without_usable_key(warnings: tuple[str, ...]) -> str:
    """Return what to tell of a set of which no key was kept."""
    return f"no usable key: {'; '.join(warnings) or 'the set is empty'}"


def _read_key(entry: object) -> VerificationKey:
    if not isinstance(entry, dict):
        raise ValueError("not an object")  # noqa: TRY004 counted with the other unusable keys
    family = _FAMILIES.get(entry.get("kty")) if isinstance(entry.get("kty"), str) else None
    if family is None:
        raise ValueError("key type is not one of RSA, EC, OKP")
    if "d" in entry:
        raise ValueError("it is a private key; whoever could read this document can sign")
    if entry.get("use") not in (None, "sig"):
        raise ValueError("`use` is not `sig`")
    operations = entry.get("key_ops")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        raise ValueError("`key_ops` does not allow `verify`")
    kid = entry.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > _KID_MAX_CHARACTERS):
        raise ValueError(f"`kid` is not a string of at most {_KID_MAX_CHARACTERS} characters")
    try:
        key = family.from_jwk(entry)
    except (TypeError, KeyError, AttributeError, OverflowError, InvalidKeyError):  # whose texts quote the document
        raise ValueError("a member is missing or of the wrong form") from None
    algorithms = _algorithms(key)
    declared = entry.get("alg")
    if declared is not None:
        algorithms &= {declared} if isinstance(declared, str) else frozenset()
    if not algorithms:
        raise ValueError("`alg` does not go with the key")
    return VerificationKey(kid, _thumbprint(family, key), algorithms, key)


def _thumbprint(family: type[Algorithm], key: object) -> str:
    """Return the key's thumbprint however its numbers were written: some issuers put a zero byte in front."""
    return thumbprint.of_jwk(family.to_jwk(key, as_dict=True))


def _algorithms(key: object) -> frozenset[str]:
    match key:
        case RSAPublicKey():
            if key.key_size < RSA_MIN_BITS:
                raise ValueError(f"RSA below {RSA_MIN_BITS} bits")
            return _RSA
        case EllipticCurvePublicKey():
            return frozenset({_CURVES[key.curve.name]} if key.curve.name in _CURVES else ())
        case Ed25519PublicKey():
            return frozenset({"EdDSA"})
        case _:
            return frozenset()
