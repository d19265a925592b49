"""Memory that strangers, or a partner with odd tokens, try to fill: a real server process, before and after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from itertools import product
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from partner import Site, check_request, xfcc
from test_serve import CERTIFICATE, Service, fresh_token, serving

from authz.core.bearer import TOKEN_MAX_CHARACTERS
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

LONGEST = 60 * 1024  # of all headers, as Envoy lets them pass
ROUNDS = 400
TOKENS = 800  # as many as fill what is bounded
GROWTH = 1.3


@pytest.fixture
async def service(site: Site) -> AsyncIterator[Service]:
    async with serving(site) as service:
        yield service


async def growth(service: Service, messages: Iterable[CheckRequest], reason: str) -> float:
    """Return how many times the memory is what it was, after all these; each is answered so."""
    for _ in range(ROUNDS):
        assert await service.reason() == "allowed"
    before_kib = service.resident_kib()
    for message in messages:
        assert await service.reason(message) == reason
    return service.resident_kib() / before_kib


def stranger(number: int, key: ec.EllipticCurvePrivateKey) -> str:
    """Return XFCC with a certificate that has as many URI SANs as the header has room for."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"stranger {number}")])
    uris = [x509.UniformResourceIdentifier(f"a:{number:03}{place}") for place in range(3_600)]
    builder = x509.CertificateBuilder(name, name, key.public_key(), number + 1, now, now + timedelta(days=1))
    made = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False).sign(key, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    return f'Hash={made.fingerprint(hashes.SHA256()).hex()};Cert="{quote(pem, safe="")}"'


async def test_strangers_certificates_with_thousands_of_names_are_not_kept(service: Service) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    headers = [stranger(number, key) for number in range(ROUNDS)]
    assert all(50_000 < len(header) <= LONGEST for header in headers)
    messages = (check_request(bearer=fresh_token(), forwarded=header) for header in headers)
    assert await growth(service, messages, "certificate_unknown") < GROWTH


def filtered(number: int) -> str:
    """Return a valid token with as many scopes and filters as one may have."""
    names = [f"{first}{second}" for first, second in product("abcdefghijklmnop", repeat=2)]
    scopes = []
    length = 0
    for name in names:
        scope = "patient/Observation.rs?" + "&".join(f"{name}{place}={number}" for place in range(8))
        length += len(scope) + 1
        if length > 8_500:
            break
        scopes.append(scope)
    return fresh_token(scope=" ".join(["patient/Patient.read", *scopes]))


async def test_tokens_with_many_filters_are_kept_up_to_a_bound(service: Service) -> None:
    tokens = [filtered(number) for number in range(TOKENS)]
    assert all(11_000 < len(token) <= TOKEN_MAX_CHARACTERS for token in tokens)
    messages = (check_request(bearer=token, forwarded=xfcc(CERTIFICATE)) for token in tokens)
    assert await growth(service, messages, "allowed") < GROWTH
