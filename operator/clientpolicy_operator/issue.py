"""Certificates of clients: what one is asked for, how it is built, what a Secret holds. Time comes in.

Names come from the policy alone, never from a CSR (its subject and extensions are not read).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.policy import ClientPolicy, Source
from clientpolicy_operator.facts import Flaw, Leaf

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
RSA_MIN_BITS: Final = 2048  # NIST SP 800-131A
RSA_MAX_BITS: Final = 8192  # a larger one costs every handshake
_CURVES: Final = {256: ec.SECP256R1, 384: ec.SECP384R1}
CERTIFICATE_MAX_BYTES: Final = 65_536  # of a Secret that others may write: a chain of a dozen
KEY_MAX_BYTES: Final = 16_384  # RSA with 8192 bits takes 6.4 kB
_PEM: Final = serialization.Encoding.PEM


class BadCsr(ValueError):  # noqa: N818 it is what the csr is
    """Why a signing request cannot be used; safe to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The subject and the SANs of a certificate."""

    common_name: str | None
    organizations: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()


def names_of(policy: ClientPolicy) -> Names:
    identity = policy.spec.identity
    if identity is None:
        return Names(common_name=policy.spec.client_id)
    return Names(
        common_name=identity.common_name,
        organizations=identity.organizations,
        uris=identity.uris,
        dns_names=identity.dns_names,
        emails=identity.emails,
    )


_DIGEST: Final = "1"  # what `_digest` takes in; another version stands beside it, or an upgrade re-issues everything


def request_digest(policy: ClientPolicy) -> str:
    """Return what a certificate is asked for, as a Secret notes it: a digest and its version."""
    return f"{_DIGEST}:{_digest(policy)}"


def is_request(noted: str, policy: ClientPolicy) -> bool:
    """Tell whether a note is of what the policy asks for now: where it is not, another certificate is due.

    What a later version noted cannot be judged: it is due, too.
    """
    version, _, digest = noted.rpartition(":")
    return version in ("", _DIGEST) and digest == _digest(policy)  # once it was noted without a version


def _digest(policy: ClientPolicy) -> str:
    wanted, names = policy.spec.certificate, names_of(policy)
    validity = policy.spec.validity
    parts = [
        names.common_name, names.organizations, names.uris, names.dns_names, names.emails,
        wanted.duration, wanted.profile, wanted.csr, wanted.private_key.algorithm, wanted.private_key.size,
        str(validity.not_before), str(validity.not_after),
        wanted.issuer_ref.model_dump() if wanted.issuer_ref is not None else None,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def public_key_of(csr: str) -> PublicKey:
    """Return the key of a signing request whose signature proves that its sender holds the private one.

    Raises:
        BadCsr: not a PKCS #10 request, its signature is wrong, or the key is of a kind or size that is not used.
    """
    try:
        request = x509.load_pem_x509_csr(csr.strip().encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise BadCsr("csr is not a readable PKCS #10 request") from None
    if not signed:
        raise BadCsr("the csr's signature is not its key's")
    match key:
        case rsa.RSAPublicKey() if RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS:
            return key
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return key
        case _:
            raise BadCsr("the csr's key is none of RSA with 2048 to 8192 bits, ECDSA P-256, ECDSA P-384")


def generate_key(policy: ClientPolicy) -> PrivateKey:
    wanted = policy.spec.certificate.private_key
    if wanted.algorithm == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=wanted.size)
    return ec.generate_private_key(_CURVES[wanted.size]())


def build(
    policy: ClientPolicy, key: PublicKey, *, serial: int, window: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    """Return the client certificate but for its issuer and signature.

    Source: RFC 5280 section 4.2; SPIFFE X509-SVID sections 4 and 5 for the profile Spiffe.
    """
    names = names_of(policy)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if policy.spec.certificate.profile == "Spiffe":
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(names))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(window[0])
        .not_valid_after(window[1])
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(key), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
    sans: list[x509.GeneralName] = [
        *map(x509.UniformResourceIdentifier, names.uris),
        *map(x509.DNSName, names.dns_names),
        *map(x509.RFC822Name, names.emails),
    ]
    if not sans:
        return builder
    return builder.add_extension(x509.SubjectAlternativeName(sans), critical=not _subject(names).rdns)


def _subject(names: Names) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in names.organizations]
    if names.common_name is not None:
        # X.520 counts 64 characters, as the policy does; the library's own check counts bytes.
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, names.common_name, _validate=False))
    return x509.Name(parts)


def _key_usage(key: PublicKey) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=isinstance(key, rsa.RSAPublicKey),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def leaf_of(certificate: x509.Certificate) -> Leaf:
    return Leaf(
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def read_secret(data: dict[str, bytes], source: Source) -> Leaf | Flaw:
    """Return the certificate that a Secret's data holds, or what is wrong with it."""
    pem, key = data.get("tls.crt"), data.get("tls.key")
    if not pem or (source is Source.ISSUED and not key):
        return Flaw.MISSING_DATA
    if len(pem) > CERTIFICATE_MAX_BYTES:
        return Flaw.INVALID_CERTIFICATE
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        leaf = leaf_of(certificate)
    except (ValueError, x509.InvalidVersion):
        return Flaw.INVALID_CERTIFICATE
    return leaf if source is not Source.ISSUED or _is_pair(key or b"", certificate) else Flaw.INVALID_KEY_PAIR


def _is_pair(pem: bytes, certificate: x509.Certificate) -> bool:
    """Tell whether the key is the certificate's; primes are not proven, which takes seconds of a large key."""
    if len(pem) > KEY_MAX_BYTES:
        return False
    try:
        key = serialization.load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
        if isinstance(key, rsa.RSAPrivateKey):
            numbers = key.private_numbers()
            p, q, d = numbers.p, numbers.q, numbers.d
            if p * q != numbers.public_numbers.n or (d % (p - 1), d % (q - 1)) != (numbers.dmp1, numbers.dmq1):
                return False
        return key.public_key() == certificate.public_key()
    except (ValueError, TypeError, ArithmeticError, UnsupportedAlgorithm):
        return False


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(_PEM)


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def read_key(pem: bytes) -> PrivateKey | None:
    """Return the private key, None where it is none of the kinds that we make."""
    if len(pem) > KEY_MAX_BYTES:
        return None
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None
