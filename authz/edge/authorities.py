"""The CAs of issued certificates and of proxies, in files: looked at again and again, because CAs are rotated.

A file that cannot be used changes nothing: what was read last holds. Where none was ever read there is no CA, and
nothing passes that it would have to vouch for.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.core.certificate import UNREADABLE, fingerprint_of
from authz.core.hops import is_authority
from authz.edge import clock
from authz.edge.metrics import Number

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0  # a rotation publishes the new CA long before it signs with it
FILE_MAX_BYTES: Final = 2**20  # what a ConfigMap may hold
_BEGIN: Final = b"-----BEGIN "
_MARK: Final = re.compile(rb"-----(BEGIN|END)\b ?([^\r\n-]*)")
# Files are judged by each other, in threads of their own: none is taken over while another is judged.
_ONE_AT_A_TIME: Final = Lock()
Certificates = tuple[x509.Certificate, ...]
Unfit = Callable[[Certificates], Iterable[str]]
Metric = tuple[str, str, str]  # kind, name and help, written out so that a name can be searched for


class Use(NamedTuple):
    """What a file of CAs is for."""

    key: str  # of the configuration
    held: Metric
    loaded: Metric
    errors: Metric


CLIENT_CA: Final = Use(
    "identity.clientCa",
    ("gauge", "clientpolicy_client_ca_certificates", "CAs of issued certificates."),
    ("gauge", "clientpolicy_client_ca_loaded_timestamp_seconds", "Last change of the CAs of issued certificates."),
    ("counter", "clientpolicy_client_ca_errors", "Looks that found no usable file of CAs of issued certificates."),
)
PROXY_CA: Final = Use(
    "identity.proxyCa",
    ("gauge", "clientpolicy_proxy_ca_certificates", "CAs of proxies' certificates."),
    ("gauge", "clientpolicy_proxy_ca_loaded_timestamp_seconds", "Last change of the CAs of proxies' certificates."),
    ("counter", "clientpolicy_proxy_ca_errors", "Looks that found no usable file of CAs of proxies' certificates."),
)


def read_authorities(data: bytes) -> Certificates:
    """Return the certificates of a PEM bundle.

    Raises:
        ValueError: there are none, or one is broken.
    """
    if len(data) > FILE_MAX_BYTES:
        raise ValueError(f"more than {FILE_MAX_BYTES} bytes")
    try:
        found = tuple(x509.load_pem_x509_certificates(data))
    except x509.InvalidVersion as odd:  # no ValueError of the library's
        raise ValueError(str(odd)) from None
    if len(found) != _blocks(data):
        raise ValueError("not all of its certificates can be read")
    return found


def _blocks(data: bytes) -> int:
    """Return how many certificates a PEM text should hold; the library leaves out those that are half written.

    Raises:
        ValueError: a block of anything is half written.
    """
    marks = _MARK.findall(data)
    begun, ended = (
        [label for mark, label in marks if mark == b"BEGIN"],
        [label for mark, label in marks if mark == b"END"],
    )
    last = data.rpartition(b"\n")[2]
    if begun != ended or (last and _BEGIN.startswith(last)):
        raise ValueError("a PEM block is half written")
    return sum(label.strip().endswith(b"CERTIFICATE") for label in begun)


def unfit_for_proxies(found: Certificates) -> Iterator[str]:
    """Yield what keeps certificates from being those of `identity.proxyCa`."""
    others = [fingerprint_of(one) for one in found if not is_authority(one)]
    if others:
        yield (
            f"not the certificate of a CA: SHA-256 {', '.join(others)}; a proxy's own is listed in "
            "identity.proxyFingerprints"
        )


def shared(found: Certificates, others: Certificates, key: str) -> Iterator[str]:
    """Yield why a CA may not be in the file that `key` names, too: by its key, which signs under any certificate."""
    if not _keys(found).isdisjoint(_keys(others)):
        # The operator signs the URIs that a policy asks for, so its author could name a proxy's.
        yield (
            f"holds a CA of {key}, too: whoever may write a ClientPolicy could be taken for a proxy; give the proxies "
            "a CA of their own, or list identity.proxyFingerprints"
        )


def _keys(of: Certificates) -> frozenset[bytes]:
    return frozenset(_key_of(one) for one in of)


def _key_of(one: x509.Certificate) -> bytes:
    try:
        return one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except UNREADABLE:  # it vouches for nobody; the same certificate is still the same
        return one.tbs_certificate_bytes


def _nothing(_: Certificates) -> Iterable[str]:
    return ()


class Misfit(ValueError):  # noqa: N818 it is a property of the certificates
    """Certificates that can be read, and may not be used; safe to show."""


class _File:
    """What was last read of one file holds until it holds other CAs."""

    def __init__(self, path: Path, unfit: Unfit) -> None:
        self.path = path
        self._unfit = unfit
        self.trouble = ""
        self.certificates: Certificates = ()
        self._seen: bytes | None = None

    @property
    def was_read(self) -> bool:
        return self._seen is not None

    def look(self) -> bool:
        """Return whether it holds other CAs than before.

        Raises:
            OSError, ValueError, TypeError: it cannot be used; as Misfit where its certificates can be read.
        """
        with self.path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
        is_new = data != self._seen
        if is_new:
            certificates = read_authorities(data)
            if unfit := "; ".join(self._unfit(certificates)):
                raise Misfit(unfit)
            self.certificates, self._seen = certificates, data
        self.trouble = ""
        return is_new


class Authorities:
    """The CAs of some files, together; a file may be missing at first where nobody asked for it by name.

    `unfit` yields what keeps a file's certificates from being used: what a start refuses, a rotation refuses.
    """

    def __init__(self, paths: tuple[Path, ...], use: Use, *, is_required: bool, unfit: Unfit = _nothing) -> None:
        self._files = tuple(_File(path, unfit) for path in paths)
        self._use = use
        self._is_required = is_required
        self.certificates: Certificates = ()
        self.errors = 0  # looks that found no usable file
        self.loaded_at = 0.0  # s since the epoch

    @property
    def remark(self) -> str:
        """What whoever asks for readiness is told of files that were never read; "" where there are none."""
        lacking = [one for one in self._files if one.trouble and not one.was_read]
        if not lacking:
            return ""
        if not self.certificates:
            return f"{self._use.key}: no CA file yet ({lacking[0].trouble}): no issued certificate is trusted"
        told = ", ".join(f"{one.path} ({one.trouble})" for one in lacking)
        return f"{self._use.key}: no CA file yet at {told}: no certificate of its CAs is trusted"

    def refresh(self) -> bool:
        """Look at the files; return whether they hold other CAs than before."""
        with _ONE_AT_A_TIME:
            changed = [self._look(file) for file in self._files]
            if not any(changed):
                return False
            self.loaded_at = clock.now_us() / 1e6
            self.certificates = tuple(dict.fromkeys(one for file in self._files for one in file.certificates))
            return True

    def _look(self, file: _File) -> bool:
        try:
            return file.look()
        except FileNotFoundError as missing:
            if self._is_required or file.was_read:
                self._tell(file, missing.strerror or "missing")
        except OSError as failed:
            self._tell(file, failed.strerror or type(failed).__name__)
        except Misfit as unfit:
            self._tell(file, str(unfit))
        except (ValueError, TypeError) as wrong:
            self._tell(file, f"expected PEM certificates: {wrong}")
        return False

    def _tell(self, file: _File, trouble: str) -> None:
        self.errors += 1
        if trouble != file.trouble:
            told = {"key": self._use.key, "file": str(file.path), "error": trouble}
            text = (
                "CA file not read; the last good CAs hold"
                if file.was_read
                else "no CA file yet; nobody is trusted by it"
            )
            logger.warning(text, extra=told)
        file.trouble = trouble

    async def run(self, changed: Callable[[Certificates], None]) -> None:
        """Look for ever; give each new set of CAs to `changed`."""
        while True:
            if await asyncio.to_thread(self.refresh):
                told = {"key": self._use.key, "certificates": len(self.certificates)}
                logger.info("CA file read", extra=told)
                changed(self.certificates)
            await asyncio.sleep(LOOK_S)

    def numbers(self) -> Iterator[Number]:
        use = self._use
        yield *use.held, {}, len(self.certificates)
        yield *use.loaded, {}, self.loaded_at
        yield *use.errors, {}, self.errors
