from __future__ import annotations

import base64
import hashlib
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from authz.demo.ca import Authority

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
URI = "spiffe://example/app"


def store(authority: Authority) -> Store:
    return Store(x509.load_pem_x509_certificates(authority.file.read_bytes()))


def test_a_client_certificate_holds_under_its_authority_alone(tmp_path: Path) -> None:
    authority, elsewhere = Authority("ca", tmp_path, NOW), Authority("other-ca", tmp_path, NOW)
    certificate = authority.issue_client("app", URI).certificate
    verifier = PolicyBuilder().store(store(authority)).time(NOW).build_client_verifier()
    assert verifier.verify(certificate, []).subjects == [x509.UniformResourceIdentifier(URI)]
    with pytest.raises(VerificationError):
        PolicyBuilder().store(store(elsewhere)).time(NOW).build_client_verifier().verify(certificate, [])


def test_the_server_certificate_is_this_machines_and_no_clients(tmp_path: Path) -> None:
    authority = Authority("ca", tmp_path, NOW)
    certificate = authority.issue_server("server").certificate
    builder = PolicyBuilder().store(store(authority)).time(NOW)
    builder.build_server_verifier(x509.DNSName("localhost")).verify(certificate, [])
    with pytest.raises(VerificationError):
        builder.build_client_verifier().verify(certificate, [])


def test_names_of_a_certificate_are_digests_of_its_bytes(tmp_path: Path) -> None:
    credential = Authority("ca", tmp_path, NOW).issue_client("app", URI)
    read = x509.load_pem_x509_certificate(credential.certificate_file.read_bytes())
    digest = hashlib.sha256(read.public_bytes(serialization.Encoding.DER)).digest()
    assert credential.fingerprint == digest.hex()
    assert credential.thumbprint == base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_a_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    credential = Authority("ca", tmp_path, NOW).issue_client("app", URI)
    assert stat.S_IMODE(credential.key_file.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(credential.key_file.read_bytes(), None)
    assert key.public_key() == credential.certificate.public_key()
