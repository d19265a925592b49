"""Memory that strangers, or a partner with odd tokens, try to fill: a real server process, before and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from partner import Site, check_request, xfcc
from test_serve import CERTIFICATE, Service, fresh_token, serving

from authz.core.address import BUCKETS_MAX
from authz.core.bearer import CLAIM_MAX_CHARACTERS, TOKEN_MAX_CHARACTERS
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

LONGEST = 60 * 1024  # of all headers, as Envoy lets them pass
ROUNDS = 400
TOKENS = 800  # as many as fill what is bounded
SUBJECTS = 4_000
AT_ONCE = 4
GROWTH = 1.3
GROWTH_TOGETHER = 1.6  # each has a room of its own, and all of them are full
Attack = tuple[Iterable[CheckRequest], set[str]]  # what is asked, and the reasons that may be answered


@pytest.fixture
async def service(site: Site) -> AsyncIterator[Service]:
    async with serving(site) as service:
        yield service


async def growth(service: Service, *attacks: Attack) -> float:
    """Return how many times the memory is what it was, after all these; each message is answered as expected."""
    for _ in range(ROUNDS):
        assert await service.reason() == "allowed"
    before_kib = service.resident_kib()
    for messages, reasons in attacks:
        for some in batched(messages, AT_ONCE):
            assert set(await asyncio.gather(*map(service.reason, some))) <= reasons
    return service.resident_kib() / before_kib


def batched(messages: Iterable[CheckRequest], size: int) -> Iterator[list[CheckRequest]]:
    left = iter(messages)
    while some := list(islice(left, size)):
        yield some


def stranger(number: int, key: ec.EllipticCurvePrivateKey) -> str:
    """Return XFCC with a certificate that has as many URI SANs as the header has room for."""
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"stranger {number}")])
    uris = [x509.UniformResourceIdentifier(f"a:{number:03}{place}") for place in range(3_600)]
    builder = x509.CertificateBuilder(name, name, key.public_key(), number + 1, now, now + timedelta(days=1))
    made = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False).sign(key, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    return f'Hash={made.fingerprint(hashes.SHA256()).hex()};Cert="{quote(pem, safe="")}"'


def strangers() -> Attack:
    key = ec.generate_private_key(ec.SECP256R1())
    headers = [stranger(number, key) for number in range(ROUNDS)]
    assert all(50_000 < len(header) <= LONGEST for header in headers)
    messages = (check_request(bearer=fresh_token(), forwarded=header) for header in headers)
    return messages, {"certificate_unknown"}


async def test_strangers_certificates_with_thousands_of_names_are_not_kept(service: Service) -> None:
    assert await growth(service, strangers()) < GROWTH


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


def tokens() -> Attack:
    made = [filtered(number) for number in range(TOKENS)]
    assert all(11_000 < len(token) <= TOKEN_MAX_CHARACTERS for token in made)
    return (check_request(bearer=token, forwarded=xfcc(CERTIFICATE)) for token in made), {"allowed"}


async def test_tokens_with_many_filters_are_kept_up_to_a_bound(service: Service) -> None:
    assert await growth(service, tokens()) < GROWTH


def addresses() -> Attack:
    """Ask from more networks than are remembered, each of which owes an hour's quota."""
    networks = (f"2001:db8:{number >> 8:x}:{number & 255:x}::1" for number in range(3 * BUCKETS_MAX))
    return (check_request(forwarded=None, address=one) for one in networks), {"certificate_missing", "quota_exceeded"}


def headers() -> Attack:
    """Ask with tokens of one client whose subjects are as long as what is kept of a header, each another."""
    subjects = (f"{number:0{CLAIM_MAX_CHARACTERS}}" for number in range(SUBJECTS))
    made = (fresh_token(sub=subject) for subject in subjects)
    return (check_request(bearer=token, forwarded=xfcc(CERTIFICATE)) for token in made), {"allowed"}


@pytest.fixture
async def strict(site: Site) -> AsyncIterator[Service]:
    async with serving(site, quota={"anonymous": {"requests": 1, "per": "1h"}}) as service:
        yield service


@pytest.mark.parametrize("attack", [addresses, headers])
async def test_whatever_is_made_up_is_kept_up_to_a_bound(strict: Service, attack: Callable[[], Attack]) -> None:
    assert await growth(strict, attack()) < GROWTH


async def test_all_attacks_together_have_a_bound(strict: Service) -> None:
    assert await growth(strict, addresses(), strangers(), tokens(), headers()) < GROWTH_TOGETHER
