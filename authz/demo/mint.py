"""Access tokens: JWTs as RFC 9068 has them, with SMART's patient and RFC 8705's binding to a certificate."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

KEY_ID: Final = "demo-1"
TOKEN_LIFETIME: Final = timedelta(hours=8)  # hours too long for a real server; `--keep` prints tokens to be pasted


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a token says, besides who issued it and when."""

    client_id: str
    subject: str
    audience: str
    scopes: tuple[str, ...]
    patient: str | None = None
    thumbprint: str | None = None  # of the one certificate that may use it


class Mint:
    """A signing key. The walk-through also makes its bad tokens here, which no server would ever hand out."""

    def __init__(self, issuer: str) -> None:
        self.issuer: Final = issuer
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def key_set(self) -> dict[str, object]:
        key: dict[str, object] = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [key | {"kid": KEY_ID, "use": "sig", "alg": "ES256"}]}

    def token(self, terms: Terms, now: datetime) -> str:
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": terms.subject,
            "aud": terms.audience,
            "client_id": terms.client_id,
            "scope": " ".join(terms.scopes),
            "iat": now,
            "exp": now + TOKEN_LIFETIME,
            "jti": secrets.token_urlsafe(16),
        }
        if terms.patient is not None:
            claims["patient"] = terms.patient
        if terms.thumbprint is not None:
            claims["cnf"] = {"x5t#S256": terms.thumbprint}
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": KEY_ID, "typ": "at+jwt"})
