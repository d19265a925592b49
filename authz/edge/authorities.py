"""The CAs of issued certificates and of proxies, a file each: looked at again and again, because CAs are rotated.

A file that cannot be used changes nothing: what was read last holds. Where none was ever read there is no CA, and
nothing passes that it would have to vouch for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509

from authz.edge import clock
from authz.edge.metrics import Number

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0  # a rotation publishes the new CA long before it signs with it
FILE_MAX_BYTES: Final = 2**20  # what a ConfigMap may hold
Certificates = tuple[x509.Certificate, ...]
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
        return tuple(x509.load_pem_x509_certificates(data))
    except x509.InvalidVersion as odd:  # no ValueError of the library's
        raise ValueError(str(odd)) from None


class Authorities:
    """One file; it may be missing at first where nobody asked for it by name."""

    def __init__(self, path: Path, use: Use, *, is_required: bool) -> None:
        self._path = path
        self._use = use
        self._is_required = is_required
        self._seen: bytes | None = None
        self._trouble = ""
        self.certificates: Certificates = ()
        self.errors = 0  # looks that found no usable file
        self.loaded_at = 0.0  # s since the epoch

    @property
    def remark(self) -> str:
        """What whoever asks for readiness is told; "" where there are CAs, or none are wanted."""
        if self.certificates or not self.errors:
            return ""
        return f"{self._use.key}: no CA file yet ({self._trouble}): no issued certificate is trusted"

    def refresh(self) -> bool:
        """Look at the file; return whether it holds other CAs than before."""
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_MAX_BYTES + 1)
            if data == self._seen:
                self._trouble = ""
                return False
            certificates = read_authorities(data)
        except FileNotFoundError as missing:
            if self._is_required or self._seen is not None:
                self._tell(missing.strerror or "missing")
            return False
        except OSError as failed:
            self._tell(failed.strerror or type(failed).__name__)
            return False
        except (ValueError, TypeError):
            self._tell("expected PEM certificates")
            return False
        self._seen, self._trouble = data, ""
        self.loaded_at = clock.now_us() / 1e6
        self.certificates = certificates
        return True

    def _tell(self, trouble: str) -> None:
        self.errors += 1
        if trouble != self._trouble:
            told = {"key": self._use.key, "error": trouble}
            text = (
                "CA file not read; the last good CAs hold"
                if self.certificates
                else "no CA file yet; nobody is trusted by it"
            )
            logger.warning(text, extra=told)
        self._trouble = trouble

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
