"""Digests that tell keys, tokens and certificates apart without holding them."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Final

# In the order of their names, as the thumbprint wants them.
_REQUIRED: Final = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


def of_jwk(jwk: Mapping[str, object]) -> str:
    """Return the RFC 7638 thumbprint (SHA-256, base64url) of a public key of type RSA, EC or OKP."""
    members = {name: jwk[name] for name in _REQUIRED[str(jwk["kty"])]}
    canonical = json.dumps(members, separators=(",", ":")).encode()
    return urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
