"""Whose quota a caller without an identity spends."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

ANONYMOUS: Final = "address:"  # how the keys of quotas begin that no client owns


def quota_key(address: str) -> str:
    """Return the key of the bucket that an address shares: IPv4 alone, IPv6 by /64, all unknown ones together.

    A /64 is what one customer gets (RFC 6177), so single addresses inside it cost an attacker nothing.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return f"{ANONYMOUS}unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"{ANONYMOUS}{parsed.ipv4_mapped}"
        return f"{ANONYMOUS}{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return f"{ANONYMOUS}{parsed}"
