"""The demonstration's certificate authorities: ECDSA P-256, a day long, nothing kept after the run."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR: Final = timedelta(days=1)
BACKDATED: Final = timedelta(minutes=5)  # a clock that is set back a little must not make them not yet valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A certificate with its private key, in memory and as the PEM files that programs ask for."""

    certificate: x509.Certificate
    certificate_file: Path
    key_file: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER in hex, as a ClientPolicy lists it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def thumbprint(self) -> str:
        return thumbprint(self.certificate.public_bytes(serialization.Encoding.DER))


def thumbprint(der: bytes) -> str:
    """Return the `x5t#S256` of a certificate (RFC 8705 section 3.1)."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return base64.urlsafe_b64encode(digest.finalize()).rstrip(b"=").decode()


class Authority:
    """A certificate authority that writes what it issues into a folder."""

    def __init__(self, name: str, folder: Path, now: datetime) -> None:
        self._folder = folder
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        self.file: Final = folder / f"{name}.pem"
        self.file.write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue_server(self, name: str) -> Credential:
        """Return a certificate for this machine as it calls itself."""
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        return self._issue(name, names, ExtendedKeyUsageOID.SERVER_AUTH, name)

    def issue_client(self, common_name: str, uri: str, file_name: str | None = None) -> Credential:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        return self._issue(common_name, names, ExtendedKeyUsageOID.CLIENT_AUTH, file_name or common_name)

    def _issue(
        self, common_name: str, names: x509.SubjectAlternativeName, purpose: x509.ObjectIdentifier, file_name: str
    ) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        credential = Credential(
            certificate=certificate,
            certificate_file=self._folder / f"{file_name}.pem",
            key_file=self._folder / f"{file_name}-key.pem",
        )
        credential.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(credential.key_file, key)
        return credential

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - BACKDATED)
            .not_valid_after(self._now + VALID_FOR)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key for its owner's eyes, from the first byte on."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(pem)
