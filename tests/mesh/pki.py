"""The two authorities of a mesh test: that of the partners' certificates, and that of the workloads'."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authz.demo.ca import Credential

PEM = serialization.Encoding.PEM


class Authority:
    """Issues into a folder; the purposes of a key are left open, as in a workload's certificate that serves and calls."""

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        self.file = folder / f"{name}.pem"
        ca = x509.BasicConstraints(ca=True, path_length=0)
        made = self._builder(self._name, self.key).add_extension(ca, critical=True)
        self.file.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(PEM))

    def issue(self, file: str, *names: x509.GeneralName, common_name: str = "") -> Credential:
        """Return a certificate; a workload's has no subject, and istiod makes its names critical for that."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_subject(common_name), key)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        made = Credential(
            certificate=builder.sign(self.key, hashes.SHA256()),
            certificate_file=self._folder / f"{file}.crt",
            key_file=self._folder / f"{file}.key",
        )
        made.certificate_file.write_bytes(made.certificate.public_bytes(PEM))
        made.key_file.write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return made

    def crl(self, file: str, *revoked: Credential, ends: timedelta) -> Path:
        """Return a list of what is revoked, that is good until so long from now (or was)."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - timedelta(days=7)).next_update(now + ends)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - timedelta(days=1)).build())
        written = self._folder / f"{file}.crl"
        written.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(PEM))
        return written

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
