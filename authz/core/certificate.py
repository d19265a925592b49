"""Who calls: from a forwarded client certificate to the client whose policy lists its fingerprint.

A SAN or a subject never identifies: a listener that accepts unverified certificates forwards whatever names they
claim. The fingerprint is necessary always; where the whole certificate came, it is checked besides, never instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256

from authz.model import CertificateFacts, Client, Credential, Policies, Presented, Reason, Refused, Standing
from authz.policy import Source

PEM_MAX_CHARACTERS: Final = 65_536
NAMED_MAX_CHARACTERS: Final = 16_384  # of longer PEM the issuer is not read: a name of thousands of parts takes ms
ISSUER_MAX_CHARACTERS: Final = 256
SERIAL_MAX_DIGITS: Final = 40  # 20 octets, RFC 5280 section 4.1.2.2
FINGERPRINT: Final = re.compile(r"[0-9A-Fa-f]{64}")
UNREADABLE: Final = (  # what the library raises of a certificate that it cannot read
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.UnsupportedGeneralNameType,
    x509.DuplicateExtension,
    x509.InvalidVersion,
)
_ENCODING_AT_FAULT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def load(encoded: str) -> x509.Certificate:
    """Return one certificate from URL-encoded PEM.

    Raises:
        Refused: CERTIFICATE_MALFORMED.
    """
    if len(encoded) > PEM_MAX_CHARACTERS or _ENCODING_AT_FAULT.search(encoded):
        raise Refused(Reason.CERTIFICATE_MALFORMED, "too long, or bad percent-encoding")
    pem = unquote_to_bytes(encoded)  # leaves `+` alone: base64 uses it
    if pem.count(b"-----BEGIN") != 1:
        raise Refused(Reason.CERTIFICATE_MALFORMED, "expected exactly one PEM block")
    try:
        return x509.load_pem_x509_certificate(pem)
    except UNREADABLE:
        raise _unreadable() from None


def facts_of(
    certificate: x509.Certificate, authorities: tuple[x509.Certificate, ...], *, is_long: bool = False
) -> CertificateFacts:
    """Return what a decision and its audit read of a whole certificate, and nothing that grows with it: it is kept.

    Of a certificate that `is_long` the issuer's name is left out.

    Raises:
        Refused: CERTIFICATE_MALFORMED.
    """
    start_us, end_us = validity(certificate)
    issuer = _issuer(certificate) if not is_long else ""
    serial = f"{certificate.serial_number:x}"[:SERIAL_MAX_DIGITS]
    return CertificateFacts(start_us, end_us, tuple(issuer_windows(certificate, authorities)), issuer, serial)


def _issuer(certificate: x509.Certificate) -> str:
    """Return the issuer's name as far as it can be shown; it decides nothing, so it refuses nobody."""
    try:
        return certificate.issuer.rfc4514_string()[:ISSUER_MAX_CHARACTERS]
    except UNREADABLE:
        return ""


def fingerprint_of(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(SHA256()).hex()


def validity(certificate: x509.Certificate) -> tuple[int, int]:
    """Return notBefore and notAfter in µs since the epoch, both inclusive.

    Raises:
        Refused: CERTIFICATE_MALFORMED.
    """
    try:
        return epoch_us(certificate.not_valid_before_utc), epoch_us(certificate.not_valid_after_utc)
    except UNREADABLE:
        raise _unreadable() from None


def issuer_windows(
    certificate: x509.Certificate, authorities: tuple[x509.Certificate, ...]
) -> Iterator[tuple[int, int]]:
    """Yield the validity of each CA that issued a certificate itself: intermediates stand in the file beside roots."""
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        yield validity(authority)


def _unreadable() -> Refused:
    return Refused(Reason.CERTIFICATE_MALFORMED, "not a readable X.509 certificate")


def epoch_us(instant: datetime) -> int:
    """Return µs since the epoch of an aware instant, exactly (floats lose microseconds)."""
    seconds = int(instant.replace(microsecond=0).timestamp())
    return seconds * 1_000_000 + instant.microsecond


def identify(presented: Presented, policies: Policies, now_us: int) -> Client:
    """Return the client whose policy lists the presented certificate and lets it act at `now_us`.

    Raises:
        Refused: CERTIFICATE_UNKNOWN, CERTIFICATE_REVOKED, CERTIFICATE_EXPIRED, CERTIFICATE_NOT_YET_VALID, and
            what `require_standing` raises.
    """
    credential = policies.by_fingerprint.get(presented.fingerprint)
    if credential is None:
        raise Refused(Reason.CERTIFICATE_UNKNOWN, "no policy lists this fingerprint")
    client = credential.client
    _require_unrevoked(presented, credential)
    _require_valid_certificate(presented, credential, now_us)
    require_standing(client, now_us)
    return client


def _require_unrevoked(presented: Presented, credential: Credential) -> None:
    client = credential.client
    if presented.fingerprint in client.revoked:
        raise Refused(Reason.CERTIFICATE_REVOKED, "listed in revocation.fingerprints")
    if client.issued_before_us is None:
        return
    issued_us = presented.facts.not_before_us if presented.facts is not None else credential.not_before_us
    if issued_us is None or issued_us < client.issued_before_us:
        # An unknown age is an old one: whoever set issuedBefore wants proof.
        raise Refused(Reason.CERTIFICATE_REVOKED, "issued before revocation.issuedBefore, or at an unknown time")


def _require_valid_certificate(presented: Presented, credential: Credential, now_us: int) -> None:
    facts = presented.facts
    not_before_us = facts.not_before_us if facts is not None else credential.not_before_us
    not_after_us = facts.not_after_us if facts is not None else credential.not_after_us
    if not_after_us is not None and now_us > not_after_us:
        raise Refused(Reason.CERTIFICATE_EXPIRED, "notAfter has passed")
    if not_before_us is not None and now_us < not_before_us:
        raise Refused(Reason.CERTIFICATE_NOT_YET_VALID, "notBefore is ahead")
    ours = credential.client.source in (Source.ISSUED, Source.CSR)
    if ours and facts is not None and not any(start <= now_us <= end for start, end in facts.issuer_windows):
        raise Refused(Reason.CERTIFICATE_UNKNOWN, "no valid CA of identity.clientCa issued it")


def require_standing(client: Client, now_us: int) -> None:
    """Refuse a client that may not act at all at `now_us`.

    Raises:
        Refused: CLIENT_SUSPENDED, CLIENT_NOT_VALID, POLICY_CONFLICT, POLICY_INVALID.
    """
    if client.suspended:
        raise Refused(Reason.CLIENT_SUSPENDED, "spec.suspended")
    if client.not_before_us is not None and now_us < client.not_before_us:
        raise Refused(Reason.CLIENT_NOT_VALID, "validity.notBefore is ahead")
    if client.not_after_us is not None and now_us >= client.not_after_us:
        raise Refused(Reason.CLIENT_NOT_VALID, "validity.notAfter has passed")
    if client.standing is Standing.CONFLICT:
        raise Refused(Reason.POLICY_CONFLICT, "another policy claims the same client id or fingerprint")
    if client.standing is Standing.INVALID:
        raise Refused(Reason.POLICY_INVALID, "the policy was never valid")
