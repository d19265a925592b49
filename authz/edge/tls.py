"""The gRPC port's certificate, which follows its files: one that cert-manager renews must not need a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

logger = logging.getLogger(__name__)


class _Content(NamedTuple):
    cert: bytes
    key: bytes
    client_ca: bytes | None

    def require_good(self) -> None:
        """Raise ValueError where gRPC would refuse every caller with it: a file half written, or of another pair."""
        try:
            key = load_pem_private_key(self.key, None).public_key()
        except TypeError:
            raise ValueError("the key is encrypted") from None
        if x509.load_pem_x509_certificate(self.cert).public_key() != key:
            raise ValueError("the key is not the certificate's")
        if self.client_ca is not None:
            x509.load_pem_x509_certificates(self.client_ca)

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], self.client_ca)


class _Files:
    """gRPC asks `renewed` at each handshake, from a thread of its own; reading three files is little beside one."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self.used = self._read()
        self._refused: _Content | None = None

    def _read(self) -> _Content:
        authority = self._client_ca.read_bytes() if self._client_ca is not None else None
        return _Content(self._cert.read_bytes(), self._key.read_bytes(), authority)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold now; None where nothing changed or, told once, where it is no use."""
        try:
            found = self._read()
        except OSError:  # between two versions of a mounted Secret
            return None
        if found in (self.used, self._refused):
            return None
        try:
            found.require_good()
        except (ValueError, UnsupportedAlgorithm) as wrong:
            self._refused = found
            logger.warning("listen.tls not read; the last good certificate holds", extra={"error": str(wrong)})
            return None
        self.used = found
        logger.info("listen.tls read anew")
        return found.configuration()


def credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """Return TLS credentials that follow their files; with a client CA, callers need a certificate of it.

    Raises:
        OSError: a file cannot be read.
    """
    files = _Files(cert, key, client_ca)
    # None is "as before" (its documentation), which the stubs forget.
    renewed = cast(Callable[[], grpc.ServerCertificateConfiguration], files.renewed)
    return grpc.dynamic_ssl_server_credentials(files.used.configuration(), renewed, client_ca is not None)
