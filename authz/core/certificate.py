"""Who calls: from a forwarded client certificate to the client whose policy lists its fingerprint.

A SAN or a subject never identifies: a listener that accepts unverified certificates forwards whatever names they
claim. The fingerprint is necessary always; where the whole certificate came, it is checked besides, never instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256

from authz.core import forwarded
from authz.model import CertificateFacts, Client, Credential, Policies, Presented, Reason, Refused, Standing
from authz.policy import Source

PEM_MAX_CHARACTERS: Final = 65_536
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}")
_ENCODING_AT_FAULT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def present(
    header: str | None,
    peer: str | None,
    *,
    trusted_hops: int,
    trusted_proxies: frozenset[str],
    authorities: tuple[x509.Certificate, ...],
) -> Presented | None:
    """Return the client's certificate, None if none was presented.

    `header` is x-forwarded-client-cert, `peer` the URL-encoded PEM of source.certificate.

    Raises:
        Refused: REQUEST_MALFORMED (grammar, number of elements), PROXY_UNTRUSTED, CERTIFICATE_MALFORMED.
    """
    immediate = read(peer, authorities) if peer else None
    if header is None:
        return Presented(immediate.fingerprint, immediate) if immediate is not None and trusted_hops == 1 else None
    elements = forwarded.parse(header)
    if len(elements) != trusted_hops:
        # A SAN may forge an element, and so may a caller where a proxy appends: never pick one, refuse.
        raise Refused(
            Reason.REQUEST_MALFORMED, f"x-forwarded-client-cert holds {len(elements)} elements, not {trusted_hops}"
        )
    certificates = [_of_element(element, authorities) for element in elements]
    if immediate is not None:
        _agree(immediate, certificates[-1])
        certificates[-1] = Presented(immediate.fingerprint, immediate)
    for element, proxy in zip(elements[1:], certificates[1:], strict=True):
        _require_trusted(element, proxy, trusted_proxies)
    return certificates[0]


def _of_element(element: forwarded.Element, authorities: tuple[x509.Certificate, ...]) -> Presented | None:
    facts = read(element.cert, authorities) if element.cert is not None else None
    if element.hash is None:
        return Presented(facts.fingerprint, facts) if facts is not None else None
    if not _HASH.fullmatch(element.hash):
        raise Refused(Reason.CERTIFICATE_MALFORMED, "Hash is not 64 hexadecimal digits")
    fingerprint = element.hash.lower()
    if facts is not None and facts.fingerprint != fingerprint:
        raise Refused(Reason.CERTIFICATE_MALFORMED, "Hash is not the certificate's")
    return Presented(fingerprint, facts)


def _require_trusted(element: forwarded.Element, proxy: Presented | None, trusted_proxies: frozenset[str]) -> None:
    """Refuse an element that is not a trusted proxy's.

    A whole certificate tells its URIs itself. Otherwise they come from the header, where Envoy writes SANs bare: a SAN
    that holds `;URI=` would add one, so there must be exactly one, and where Envoy puts it.
    """
    if proxy is not None and proxy.facts is not None:
        trusted = not trusted_proxies.isdisjoint(proxy.facts.uris)
    else:
        trusted = len(element.uris) == 1 and element.is_in_order and element.uris[0] in trusted_proxies
    if not trusted:
        raise Refused(Reason.PROXY_UNTRUSTED, "an element after the client's carries no URI of identity.trustedProxies")


def _agree(immediate: CertificateFacts, rightmost: Presented | None) -> None:
    if rightmost is None or rightmost.fingerprint != immediate.fingerprint:
        raise Refused(Reason.CERTIFICATE_MALFORMED, "source.certificate is not the one that the newest element names")


def read(encoded: str, authorities: tuple[x509.Certificate, ...]) -> CertificateFacts:
    """Return the facts of one URL-encoded PEM certificate.

    Raises:
        Refused: CERTIFICATE_MALFORMED.
    """
    if len(encoded) > PEM_MAX_CHARACTERS or _ENCODING_AT_FAULT.search(encoded):
        raise Refused(Reason.CERTIFICATE_MALFORMED, "too long, or bad percent-encoding")
    pem = unquote_to_bytes(encoded)  # leaves `+` alone: base64 uses it
    if pem.count(b"-----BEGIN") != 1:
        raise Refused(Reason.CERTIFICATE_MALFORMED, "expected exactly one PEM block")
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        return CertificateFacts(
            fingerprint=certificate.fingerprint(SHA256()).hex(),
            not_before_us=epoch_us(certificate.not_valid_before_utc),
            not_after_us=epoch_us(certificate.not_valid_after_utc),
            issuer_windows=tuple(_issuer_windows(certificate, authorities)),
            uris=_uris(certificate),
        )
    except (
        ValueError,
        TypeError,
        OverflowError,
        UnsupportedAlgorithm,
        x509.UnsupportedGeneralNameType,
        x509.DuplicateExtension,
        x509.InvalidVersion,
    ):
        raise Refused(Reason.CERTIFICATE_MALFORMED, "not a readable X.509 certificate") from None


def _uris(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def _issuer_windows(
    certificate: x509.Certificate, authorities: tuple[x509.Certificate, ...]
) -> Iterable[tuple[int, int]]:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        yield epoch_us(authority.not_valid_before_utc), epoch_us(authority.not_valid_after_utc)


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
