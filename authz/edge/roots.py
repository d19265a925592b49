"""The CAs that vouch for an issuer's server: looked at again before each fetch, because CAs are rotated.

A file of CAs that cannot be used changes nothing: what was read last holds.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

FILE_MAX_BYTES: Final = 2**22  # many times a system's bundle of 150 roots
_SYSTEM_FILE: Final = "SSL_CERT_FILE"
_EXPECTED: Final = "expected PEM certificates"


def trusting(pem: bytes) -> ssl.SSLContext:
    """Return a context that trusts these CAs alone.

    Raises:
        ValueError: there are none, or one is broken.
    """
    text = pem.decode("ascii", "ignore")  # comments may be of any language
    if not text:  # for OpenSSL that were the system's CAs
        raise ValueError(_EXPECTED)
    try:
        context = ssl.create_default_context(cadata=text)
    except ssl.SSLError:
        raise ValueError(_EXPECTED) from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whoever names an intermediate CA trusts it
    return context


class Roots:
    """The CAs of one file, or those of the system: of `SSL_CERT_FILE`, `SSL_CERT_DIR`, or where OpenSSL looks."""

    def __init__(self, ca: Path | None) -> None:
        self._ca = ca
        self._seen = b""
        self._context: ssl.SSLContext | None = None
        self._trouble = ""

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts what the files hold now; the same one as long as they hold the same.

        Raises:
            ValueError: they cannot be used, and never could.
        """
        try:
            seen = _read_bounded(self._ca) if self._ca is not None else _system()
            if self._context is None or seen != self._seen:
                self._context = trusting(seen) if self._ca is not None else _trusting_system()
                self._seen = seen
            self._trouble = ""
        except (OSError, ValueError) as wrong:
            trouble = f"{self}: {wrong.strerror if isinstance(wrong, OSError) else wrong}"
            if self._context is None:
                raise ValueError(trouble) from None
            if trouble != self._trouble:
                logger.warning("CAs of issuers' servers not read; the last good ones hold", extra={"error": trouble})
            self._trouble = trouble
        return self._context

    def __str__(self) -> str:
        """Whose CAs they are, for a person."""
        if self._ca is not None:
            return f"the CAs in {self._ca}"
        path = os.environ.get(_SYSTEM_FILE)
        return f"the CAs in {_SYSTEM_FILE} {path}" if path else "the system's CAs"


def _system() -> bytes:
    """Return what tells one state of the system's CAs from another: the file, and when the folder was changed."""
    paths = ssl.get_default_verify_paths()
    file = os.environ.get(_SYSTEM_FILE) or paths.cafile
    changed_ns = Path(paths.capath).stat().st_mtime_ns if paths.capath else 0
    return (_read_bounded(Path(file)) if file else b"") + str(changed_ns).encode()


def _trusting_system() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if os.environ.get(_SYSTEM_FILE) and not context.cert_store_stats()["x509"]:  # OpenSSL itself says nothing
        raise ValueError(_EXPECTED)
    return context


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        pem = file.read(FILE_MAX_BYTES + 1)
    if len(pem) > FILE_MAX_BYTES:
        raise ValueError(f"more than {FILE_MAX_BYTES} bytes")
    return pem
