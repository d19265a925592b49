"""URLs of the configuration: which may be asked, and through what."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit


def is_loopback(host: str) -> bool:
    """Return whether a URL's host never leaves this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def https_url(value: str) -> str:
    """Return the URL of a document that may be trusted for where it is.

    Raises:
        ValueError: it is none, or nobody vouches for what it answers.
    """
    url = _parts(value)
    host = url.hostname or ""
    if not host or url.username is not None or url.fragment:
        raise ValueError("expected a URL with a host and without credentials or fragment")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        raise ValueError("expected https:// (http:// only for this machine)")
    return value


def proxy_url(value: str) -> str:
    """Return the URL of a proxy; it may hold credentials, so no error shows it.

    Raises:
        ValueError: it is none.
    """
    url = _parts(value)
    is_bare = url.path in ("", "/") and not url.query and not url.fragment
    if url.scheme not in ("http", "https") or not url.hostname or not is_bare or ":" in unquote(url.username or ""):
        raise ValueError(
            "expected a proxy: http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before HOST where it asks"
        )
    return value


def _parts(value: str) -> SplitResult:
    try:
        url = urlsplit(value)
        _ = url.hostname, url.port
    except ValueError:
        raise ValueError("not a URL") from None
    return url
