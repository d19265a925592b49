"""Thumbprints of keys, by the examples of the RFCs."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

import pytest

from authz.core.thumbprint import of_jwk

RSA = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n"
    "3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
    "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJz"
    "KnqDKgw",
    "e": "AQAB",
}
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
EC_CANONICAL = f'{{"crv":"P-256","kty":"EC","x":"{EC["x"]}","y":"{EC["y"]}"}}'


@pytest.mark.parametrize(
    ("jwk", "thumbprint"),
    [
        (RSA, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),  # RFC 7638 section 3.1
        (ED25519, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),  # RFC 8037 appendix A.3
        (EC, urlsafe_b64encode(hashlib.sha256(EC_CANONICAL.encode()).digest()).decode().rstrip("=")),
    ],
)
def test_thumbprint_is_that_of_the_rfcs(jwk: dict[str, str], thumbprint: str) -> None:
    assert of_jwk(jwk) == thumbprint
    assert of_jwk({**jwk, "kid": "a", "use": "sig", "alg": "x"}) == thumbprint
    assert of_jwk(dict(reversed(jwk.items()))) == thumbprint
