"""Whose quota a caller without an identity spends."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def quota_key(address: str) -> str:
    """Return the key of the bucket that an address shares: IPv4 alone, IPv6 by /64, all unknown ones together.

    A /64 is what one customer gets (RFC 6177), so single addresses inside it cost an attacker nothing.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "address:unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return f"address:{parsed}"
