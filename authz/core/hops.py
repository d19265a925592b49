"""Which certificate is the client's: x-forwarded-client-cert hop by hop, and each proxy behind the client's proven.

A name proves nothing: Envoy writes URI SANs bare, so whoever holds a certificate can write the name of a proxy, and a
pair or an element after it; and a listener that accepts unverified certificates forwards whatever they say. So a proxy
is one that carries a listed URI *and* is proven by what its holder cannot make up.

Source: Envoy, docs/root/configuration/http/http_conn_man/headers.rst (x-forwarded-client-cert); RFC 5280 section 4.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz.core import certificate, forwarded
from authz.core.certificate import UNREADABLE, issuer_windows, validity
from authz.core.forwarded import Element
from authz.model import Presented, Reason, Refused, Windows

Extension = TypeVar("Extension", bound=x509.ExtensionType)
_CALLERS: Final = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


class Proxies(NamedTuple):
    """Who may stand between the client and the last proxy (`identity`), and by what each of them is proven."""

    uris: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()  # SHA-256 of the DER, lower-case hex
    are_verified: bool = False  # the platform's word: its listeners verify their peers
    authorities: tuple[x509.Certificate, ...] = ()  # `identity.proxyCa`


class _Seen(NamedTuple):
    """What an element, or `source.certificate`, shows of a certificate."""

    fingerprint: str | None
    whole: x509.Certificate | None
    is_long: bool


def present(
    header: str | None,
    peer: str | None,
    now_us: int,
    *,
    trusted_hops: int,
    proxies: Proxies,
    authorities: tuple[x509.Certificate, ...],
) -> Presented | None:
    """Return the client's certificate, None if none was presented.

    `header` is x-forwarded-client-cert, `peer` the URL-encoded PEM of source.certificate. Who keeps the result asks
    `require_proven` again at another instant.

    Raises:
        Refused: REQUEST_MALFORMED (grammar, number of elements), PROXY_UNTRUSTED, CERTIFICATE_MALFORMED.
    """
    newest = _whole(peer) if peer else None
    if header is None:
        return _presented(newest, authorities) if newest is not None and trusted_hops == 1 else None
    elements = forwarded.parse(header)
    if len(elements) != trusted_hops:
        # A SAN may forge an element, and so may a caller where a proxy appends: never pick one, refuse.
        raise Refused(
            Reason.REQUEST_MALFORMED, f"x-forwarded-client-cert holds {len(elements)} elements, not {trusted_hops}"
        )
    seen = [_of_element(element) for element in elements]
    if newest is not None:
        if newest.fingerprint != seen[-1].fingerprint:
            raise _malformed("source.certificate is not the one that the newest element names")
        seen[-1] = newest
    found = [_proof(element, one, proxies) for element, one in zip(elements[1:], seen[1:], strict=True)]
    proofs = tuple(windows for windows in found if windows is not None)
    require_proven(proofs, now_us)
    return _presented(seen[0], authorities, proofs)


def require_proven(proofs: tuple[Windows, ...], now_us: int) -> None:
    """Refuse what came through a proxy whose certificate, or its CA's, is not valid at `now_us`: PROXY_UNTRUSTED."""
    if not all(any(start <= now_us <= end for start, end in windows) for windows in proofs):
        raise Refused(Reason.PROXY_UNTRUSTED, "a proxy's certificate, or its CA's, has expired or is not yet valid")


def _presented(
    seen: _Seen, authorities: tuple[x509.Certificate, ...], proofs: tuple[Windows, ...] = ()
) -> Presented | None:
    if seen.fingerprint is None:
        return None
    if seen.whole is None:
        return Presented(seen.fingerprint, None, proofs)
    return Presented(seen.fingerprint, certificate.facts_of(seen.whole, authorities, is_long=seen.is_long), proofs)


def _whole(encoded: str) -> _Seen:
    whole = certificate.load(encoded)
    return _Seen(certificate.fingerprint_of(whole), whole, len(encoded) > certificate.NAMED_MAX_CHARACTERS)


def _of_element(element: Element) -> _Seen:
    seen = _whole(element.cert) if element.cert is not None else _Seen(None, None, is_long=False)
    if element.hash is None:
        return seen
    if not certificate.FINGERPRINT.fullmatch(element.hash):
        raise _malformed("Hash is not 64 hexadecimal digits")
    fingerprint = element.hash.lower()
    if seen.fingerprint not in (None, fingerprint):
        raise _malformed("Hash is not the certificate's")
    return seen._replace(fingerprint=fingerprint)


def _proof(element: Element, seen: _Seen, proxies: Proxies) -> Windows | None:
    """Return when the certificate behind an element is a trusted proxy's, in µs; None where it does not end."""
    if _name(element, seen) not in proxies.uris:
        raise _untrusted("an element after the client's is not named by a URI of identity.trustedProxies", seen)
    if proxies.are_verified:
        return None
    if seen.fingerprint in proxies.fingerprints:
        return (validity(seen.whole),) if seen.whole is not None else None
    if seen.whole is None:
        raise _untrusted("the proxy is not of identity.proxyFingerprints, nor here whole for identity.proxyCa", seen)
    windows = tuple(_chained(seen.whole, proxies.authorities))
    if not windows:
        raise _untrusted("the proxy is neither of identity.proxyCa nor of identity.proxyFingerprints", seen)
    return windows


def _name(element: Element, seen: _Seen) -> str | None:
    """Return the one URI of a proxy, None where there is none, or more than a proxy has.

    A whole certificate tells its URIs itself. In the header one must end its element: of `URI=a;DNS=b` nobody can tell
    whether it is a URI and a DNS name, or the one URI `a;DNS=b`.
    """
    if seen.whole is not None:
        uris = _uris(seen.whole)
        return uris[0] if len(uris) == 1 else None
    return element.uris[0] if len(element.uris) == 1 and element.ends_with_uri else None


def _uris(whole: x509.Certificate) -> list[str]:
    names = _extension(whole, x509.SubjectAlternativeName)
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []


def _chained(whole: x509.Certificate, authorities: tuple[x509.Certificate, ...]) -> Iterator[tuple[int, int]]:
    """Yield when a certificate and a CA that issued it are both valid."""
    if not _may_call(whole):
        return
    start_us, end_us = validity(whole)
    for begin_us, until_us in issuer_windows(whole, tuple(filter(is_authority, authorities))):
        yield max(start_us, begin_us), min(end_us, until_us)


def _may_call(whole: x509.Certificate) -> bool:
    """Return whether a proxy may show this certificate to the next: no CA's own, and not for servers alone."""
    constraints = _extension(whole, x509.BasicConstraints)
    purposes = _extension(whole, x509.ExtendedKeyUsage)
    return not (constraints is not None and constraints.ca) and (purposes is None or not _CALLERS.isdisjoint(purposes))


def is_authority(issuer: x509.Certificate) -> bool:
    """Return whether a certificate may sign others: one that may not, a leaf in a CA file, say, vouches for nobody."""
    try:
        constraints, usage = _extension(issuer, x509.BasicConstraints), _extension(issuer, x509.KeyUsage)
    except Refused:
        return False
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def _extension(of: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return of.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE:
        raise _malformed("extensions that cannot be read") from None


def _malformed(why: str) -> Refused:
    return Refused(Reason.CERTIFICATE_MALFORMED, why)


def _untrusted(why: str, seen: _Seen) -> Refused:
    return Refused(Reason.PROXY_UNTRUSTED, f"{why}; SHA-256 {seen.fingerprint or 'not told'}")
