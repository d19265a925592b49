"""A document of an issuer, bounded in size and time, or a sentence that says why there is none.

It comes over https (http only from this machine) and without redirects: a redirect would let whoever answers choose
where keys come from. A sentence names no credential, and quotes no document.
"""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from authz.core.jwks import DOCUMENT_MAX_BYTES
from authz.edge.proxy import Proxy, proxy_for
from authz.edge.roots import Roots
from authz.edge.urls import https_url

TIMEOUT_S: Final = 5.0
_SHOWN_MAX: Final = 200  # characters: an issuer's metadata may name any URL
_TIMEOUT: Final = aiohttp.ClientTimeout(total=TIMEOUT_S)


class Unfetchable(Exception):  # noqa: N818 it is what the document is
    """Why a document could not be had; for the log and for readiness."""


def open_session() -> aiohttp.ClientSession:
    """Return a session for all issuers; what is an issuer's own comes with each request.

    No connection outlives its request: each look proves the server anew, by the CAs of that moment.
    """
    return aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False, connector=aiohttp.TCPConnector(force_close=True))


class Fetcher:
    """Fetches documents of one issuer."""

    def __init__(self, session: aiohttp.ClientSession, roots: Roots, proxy: str | None) -> None:
        self._session = session
        self._roots = roots
        self._proxy = proxy

    async def get(self, url: str) -> bytes:
        """Return the document.

        Raises:
            Unfetchable: with the reason.
        """
        through = ""
        try:
            proxy = proxy_for(https_url(url), self._proxy)
            through = f" (through the proxy {proxy.url})" if proxy is not None else ""
            body = await self._body(url, proxy)
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            raise Unfetchable(f"{shown(url)}: {self._reason(failed)}{through}") from None
        if len(body) > DOCUMENT_MAX_BYTES:
            raise Unfetchable(f"{shown(url)}: longer than {DOCUMENT_MAX_BYTES} bytes")
        return body

    async def _body(self, url: str, proxy: Proxy | None) -> bytes:
        tls = await asyncio.to_thread(self._roots.context) if urlsplit(url).scheme == "https" else True
        by, headers = (proxy.url, dict(proxy.headers)) if proxy is not None else (None, None)
        async with self._session.get(url, allow_redirects=False, ssl=tls, proxy=by, proxy_headers=headers) as response:
            if response.status != HTTPStatus.OK:
                raise ValueError(f"answered with HTTP status {response.status}")
            body = await response.content.read(DOCUMENT_MAX_BYTES + 1)
            while len(body) <= DOCUMENT_MAX_BYTES and (more := await response.content.read(65_536)):
                body += more
            return body

    def _reason(self, failed: Exception) -> str:
        if isinstance(failed, aiohttp.ClientConnectorCertificateError):
            why = failed.certificate_error
            words = getattr(why, "verify_message", "") or type(why).__name__
            return f"TLS verification failed: {words} (trusted are {self._roots})"
        if isinstance(failed, aiohttp.ClientHttpProxyError):
            return f"the proxy answered CONNECT with HTTP status {failed.status}"
        return _reason(failed)


def shown(url: str) -> str:
    """Return a URL as a log may hold it: without credentials and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:_SHOWN_MAX]


_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (TimeoutError, f"no answer within {TIMEOUT_S:g} s"),
    (aiohttp.ServerDisconnectedError, "the connection ended before the answer did"),
    (aiohttp.ClientPayloadError, "the connection ended before the answer did"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
)


def _reason(failed: Exception) -> str:
    if isinstance(failed, aiohttp.ClientSSLError):
        return f"TLS handshake failed: {getattr(failed.os_error, 'reason', None) or 'refused'}"
    if isinstance(failed, aiohttp.ClientConnectorDNSError):  # the server's, or the proxy's
        return f"the name {failed.host} cannot be resolved"
    for kind, words in _WORDS:
        if isinstance(failed, kind):
            return words
    if isinstance(failed, OSError):
        return _system_reason(failed)
    return type(failed).__name__ if isinstance(failed, aiohttp.ClientError) else str(failed)


def _system_reason(failed: OSError) -> str:
    """Return the system's own words: asyncio puts addresses, and of several attempts all, into the text."""
    number = failed.errno
    return os.strerror(number).lower() if number is not None else "the connection failed"
