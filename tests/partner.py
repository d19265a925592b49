"""What tests are made of: a partner's certificate, an issuer's keys and tokens, and the requests Envoy would send."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
ISSUER = "https://auth.example.org/"
AUDIENCE = "https://api.example.org"
CLIENT_ID = "trusted-partner-app"


@cache
def rsa_key(name: str = "main", bits: int = 2048) -> rsa.RSAPrivateKey:
    del name  # tells keys apart in the cache
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str = "main") -> ec.EllipticCurvePrivateKey:
    del name
    return ec.generate_private_key(ec.SECP256R1())


def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str | None, **more: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    document: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))  # type: ignore[arg-type]
    document.pop("key_ops", None)
    return document | ({"kid": kid} if kid is not None else {}) | more


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys) or [jwk(rsa_key(), "k1")]}).encode()


@dataclass(frozen=True)
class Certificate:
    pem: str
    fingerprint: str
    key: ec.EllipticCurvePrivateKey
    parsed: x509.Certificate

    @property
    def encoded(self) -> str:
        """As Envoy forwards it: URL-encoded PEM."""
        return quote(self.pem, safe="")

    @property
    def thumbprint(self) -> str:
        """RFC 8705 `x5t#S256`."""
        return urlsafe_b64encode(bytes.fromhex(self.fingerprint)).rstrip(b"=").decode()


def certificate(  # noqa: PLR0913 as many parts as a certificate has
    name: str = CLIENT_ID,
    *,
    uris: tuple[str, ...] = (),
    dns: tuple[str, ...] = (),
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=30),
    issuer: Certificate | None = None,
    is_ca: bool | None = False,
    more: Iterable[x509.ExtensionType] = (),
) -> Certificate:
    """Return a certificate; `is_ca` None leaves the basic constraints out."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.parsed.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(issuer.key if issuer is not None else key, hashes.SHA256())
    return Certificate(
        pem=signed.public_bytes(serialization.Encoding.PEM).decode(),
        fingerprint=signed.fingerprint(hashes.SHA256()).hex(),
        key=key,
        parsed=signed,
    )


def renewed(ca: Certificate, *, end: datetime) -> x509.Certificate:
    """Return another certificate of a CA's key, that ends at another time."""
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    name, begin = ca.parsed.subject, end - timedelta(days=30)
    builder = x509.CertificateBuilder(name, name, ca.key.public_key(), x509.random_serial_number(), begin, end)
    return builder.add_extension(constraints, critical=True).sign(ca.key, hashes.SHA256())


def partner_certificate(name: str = CLIENT_ID) -> Certificate:
    return _partner_certificate(name)


@cache
def _partner_certificate(name: str) -> Certificate:
    return certificate(name, uris=(f"spiffe://example.org/client/{name}",))


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good token; a change to None leaves the claim out."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-1",
        "client_id": CLIENT_ID,
        "scope": "patient/Patient.read patient/Observation.read",
        "patient": "123",
        "iat": int(NOW.timestamp()) - 60,
        "exp": int(NOW.timestamp()) + 600,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(*, headers: dict[str, Any] | None = None, key: Any = None, algorithm: str = "RS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key or rsa_key(), algorithm, headers={"kid": "k1"} | (headers or {}))


def raw_token(header: bytes | dict[str, Any], payload: bytes | dict[str, Any], *, key: Any = None) -> str:
    """A token of any bytes, rightly signed with RS256: what a library would not write."""

    def part(value: bytes | dict[str, Any]) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{part(header)}.{part(payload)}"
    signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(signed.encode(), key or rsa_key())
    return f"{signed}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def xfcc(certificate: Certificate | None = None, *, whole: bool = True, more: str = "") -> str:
    certificate = certificate or partner_certificate()
    cert = f';Cert="{certificate.encoded}"' if whole else ""
    return f'Hash={certificate.fingerprint}{cert};Subject="CN={CLIENT_ID}";URI=spiffe://example.org/client/x{more}'


def check_request(
    target: str = "/fhir/Patient/123",
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    bearer: str | None = None,
    forwarded: str | None = "",
    peer: str = "",
    address: str = "192.0.2.7",
) -> CheckRequest:
    """A request as Envoy describes it; `forwarded` "" is the partner's certificate, None is no header."""
    request = CheckRequest()
    source = request.attributes.source
    source.address.socket_address.address = address
    source.certificate = peer
    http = request.attributes.request.http
    http.id = "1234"
    http.method, http.path, http.host, http.protocol = method, target, "api.example.org", "HTTP/2"
    if forwarded is not None:
        http.headers["x-forwarded-client-cert"] = forwarded or xfcc()
    if bearer is not None:
        http.headers["authorization"] = f"Bearer {bearer}"
    for name, value in (headers or {}).items():
        http.headers[name] = value
    return request


def policy_document(name: str = CLIENT_ID, **spec: Any) -> dict[str, Any]:
    good: dict[str, Any] = {
        "clientId": name,
        "certificate": {"source": "External", "fingerprints": [partner_certificate(name).fingerprint]},
        "scopes": ["patient/Patient.read", "patient/Observation.read"],
    }
    return {
        "apiVersion": "authz.healthtech.dev/v1alpha1",
        "kind": "ClientPolicy",
        "metadata": {"name": name, "namespace": "partners"},
        "spec": {key: value for key, value in (good | spec).items() if value is not None},
    }


@dataclass
class Site:
    """A folder with configuration, policies and keys, as `clientpolicy serve` and `check` read it."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        return self.folder / "authz.yaml"

    def write(self, *policies: dict[str, Any], **config: Any) -> Path:
        (self.folder / "policies").mkdir(exist_ok=True)
        (self.folder / "jwks.json").write_bytes(jwks())
        for policy in policies or (policy_document(),):
            self.write_policy(policy)
        good: dict[str, Any] = {
            "listen": {"grpc": "127.0.0.1:0", "ops": "127.0.0.1:0"},
            "policies": {"source": "files", "path": "policies"},
            "issuers": [
                {"name": "health-auth", "issuer": ISSUER, "audiences": [AUDIENCE], "jwksFile": "jwks.json"},
            ],
        }
        self.config = good | config
        self.config_file.write_text(yaml.safe_dump(self.config))
        return self.config_file

    def policy_file(self, name: str = CLIENT_ID) -> Path:
        return self.folder / "policies" / f"{name}.yaml"

    def write_policy(self, policy: dict[str, Any]) -> None:
        self.policy_file(policy["metadata"]["name"]).write_text(yaml.safe_dump(policy))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
