"""What is published for proxies: the roots that they trust, and a CRL of each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from clientpolicy_operator.issue import leaf_of

_END_CERTIFICATE = "-----END CERTIFICATE-----\n"
_END_CRL = "-----END X509 CRL-----\n"
_ODD = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)  # what the library raises of mangled bytes

Crl = x509.CertificateRevocationList


def read_roots(text: str) -> dict[str, x509.Certificate]:
    """Return the certificates of a `ca.crt` by their SHA-256; one that cannot be read is left out."""
    found: dict[str, x509.Certificate] = {}
    for pem in _parts(text, _END_CERTIFICATE):
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except _ODD:
            continue
        found[leaf_of(certificate).sha256] = certificate
    return found


def read_lists(text: str, roots: Mapping[str, x509.Certificate]) -> dict[str, Crl]:
    """Return the CRLs of a `ca.crl` by the SHA-256 of the root that signed them; all others are left out."""
    found: dict[str, Crl] = {}
    for pem in _parts(text, _END_CRL):
        try:
            read = x509.load_pem_x509_crl(pem)
            signed_by = [sha256 for sha256, root in roots.items() if _is_of(read, root)]
        except _ODD:
            continue
        found |= dict.fromkeys(signed_by, read)
    return found


def _is_of(read: Crl, root: x509.Certificate) -> bool:
    return read.issuer == root.subject and read.is_signature_valid(root.public_key())  # type: ignore[arg-type]


def _parts(text: str, end: str) -> Iterator[bytes]:
    return ((part + end).encode() for part in text.split(end) if part.strip())
