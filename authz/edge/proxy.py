"""Through which proxy a server is reached: an issuer's own, or the one that the environment names.

`HTTPS_PROXY` and `NO_PROXY` are read as curl and Go read them where these agree: names with all below them, `*`, and
networks. What is on this machine is reached directly, unless it speaks https and its issuer names a proxy. Credentials
of a proxy travel in a header, so that no error and no log can name them.

Source: RFC 9110 section 9.3.6 (CONNECT); RFC 7617 (Basic).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Self
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

from aiohttp import encode_basic_auth

from authz.edge.urls import is_loopback, proxy_url


@dataclass(frozen=True, slots=True)
class Proxy:
    url: str  # without credentials
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the proxy of a URL that may hold credentials."""
        parts = urlsplit(url)
        headers = {}
        if parts.username is not None:
            basic = encode_basic_auth(unquote(parts.username), unquote(parts.password or ""))
            headers["Proxy-Authorization"] = basic
        return cls(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", headers)


def proxy_for(url: str, chosen: str | None) -> Proxy | None:
    """Return the proxy between us and a URL, None where there is none; `chosen` wins over the environment.

    Raises:
        ValueError: the environment names something else.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https":  # it never leaves this machine
        return None
    if chosen is not None:
        return Proxy.of(chosen)
    named = getproxies_environment()
    proxy = named.get("https")
    if not proxy or is_loopback(host) or _is_exempt(host, parts.port or 443, named.get("no", "")):
        return None
    try:
        return Proxy.of(proxy_url(proxy if "://" in proxy else f"http://{proxy}"))
    except ValueError as wrong:
        raise ValueError(f"HTTPS_PROXY: {wrong}") from None


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    entries = [entry for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry]
    return any(entry == "*" or _names(entry, host, port) or _holds(entry, host) for entry in entries)


def _names(entry: str, host: str, port: int) -> bool:
    """Return whether an entry is the host, or a domain above it: `example.org`, `.example.org` or `*.example.org`."""
    name, _, only = entry.removeprefix("*").removeprefix(".").partition(":")
    return only in ("", str(port)) and (host == name or (host.endswith(f".{name}") and _address(host) is None))


def _holds(network: str, host: str) -> bool:
    address = _address(host)
    try:
        return address is not None and address in ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
