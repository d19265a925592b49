"""Whose quota a caller without an identity spends."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

ANONYMOUS: Final = "address:"  # how the keys of quotas begin that no client owns
BUCKETS_MAX: Final = 10_000  # addresses that each memory of quotas keeps: anybody can make up more, at some 0.5 kB each
UNKNOWN: Final = f"{ANONYMOUS}unknown"
_NETWORK: Final = "/64"
_MAX_CHARACTERS: Final = 80  # an IPv6 address with a zone, in brackets, with a port, in quotes
_KNOWN_MAX: Final = 1_024  # addresses, some 300 bytes each; a miss costs 4 µs
_PORT: Final = re.compile(r":[0-9]{0,5}\Z")  # empty, too: RFC 3986 section 3.2.3
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1


def read(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a proxy wrote, with or without a port; None for what is none (`unknown`, `_hidden`).

    Source: RFC 7239 section 6 (ports, brackets, quotes, `unknown` and obfuscated names).
    """
    return parse(text) if len(text) <= _MAX_CHARACTERS else None


@lru_cache(maxsize=_KNOWN_MAX)
def parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return what `read` does, of a short text: what is remembered has to be bounded."""
    if text.startswith('"') and text.endswith('"'):
        text = text[1:-1]
    if text.startswith("[") or text.count(":") == 1:  # a bare IPv6 address cannot have a port
        text = _PORT.sub("", text)
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return IPv6Address(int(found)) if isinstance(found, IPv6Address) else found  # its zone means something there alone


def _carried(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address in an IPv6 one: mapped (RFC 4291), 6to4 (RFC 3056), Teredo (RFC 4380), NAT64 (RFC 6052).

    By /64 one IPv4 host would have 65,536 buckets with 6to4, and a translator's whole IPv4 internet a single one.
    """
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def quota_key(address: str) -> str:
    """Return the key of the bucket that an address shares: IPv4 alone, IPv6 by /64, all unknown ones together.

    A /64 is what one customer gets (RFC 6177), so single addresses inside it cost an attacker nothing. A bucket's own
    name (`2001:db8::/64`) is in that bucket, so that people may ask for what they were shown.
    """
    parsed = read(address.removesuffix(_NETWORK))
    if parsed is None:
        return UNKNOWN
    if isinstance(parsed, IPv6Address):
        network = IPv6Address(int(parsed) >> 64 << 64)
        return f"{ANONYMOUS}{_carried(parsed) or f'{network}{_NETWORK}'}"
    return f"{ANONYMOUS}{parsed}"
