"""Source addresses: as proxies write them, and whose quota each spends."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core import address
from authz.core.address import ANONYMOUS, UNKNOWN, quota_key, read

V6 = "2001:db8:1:2::/64"
WRITTEN: dict[str, tuple[str, str]] = {  # as a proxy writes it: the address, and its bucket
    "192.0.2.7": ("192.0.2.7", "192.0.2.7"),
    "203.0.113.7:0": ("203.0.113.7", "203.0.113.7"),
    "203.0.113.7:99999": ("203.0.113.7", "203.0.113.7"),
    "203.0.113.7:51234": ("203.0.113.7", "203.0.113.7"),
    '"203.0.113.7"': ("203.0.113.7", "203.0.113.7"),
    '"203.0.113.7:80"': ("203.0.113.7", "203.0.113.7"),
    "[203.0.113.7]:80": ("203.0.113.7", "203.0.113.7"),
    "2001:db8:1:2:3:4:5:6": ("2001:db8:1:2:3:4:5:6", V6),
    "2001:DB8:1:2::1": ("2001:db8:1:2::1", V6),
    "[2001:db8:1:2::1]": ("2001:db8:1:2::1", V6),
    "203.0.113.7:": ("203.0.113.7", "203.0.113.7"),
    "[2001:db8:1:2::1]:": ("2001:db8:1:2::1", V6),
    "[2001:db8:1:2::1]:0": ("2001:db8:1:2::1", V6),
    "[2001:db8:1:2::1]:99999": ("2001:db8:1:2::1", V6),
    "[2001:db8:1:2::1]:443": ("2001:db8:1:2::1", V6),
    '"[2001:db8:1:2::1]:443"': ("2001:db8:1:2::1", V6),
    "fe80::1%eth0": ("fe80::1", "fe80::/64"),
    "[fe80::1%25eth0]:443": ("fe80::1", "fe80::/64"),
    "::ffff:192.0.2.7": ("::ffff:192.0.2.7", "192.0.2.7"),
    "[::ffff:192.0.2.7]:443": ("::ffff:192.0.2.7", "192.0.2.7"),
    "2002:c000:207:1::9": ("2002:c000:207:1::9", "192.0.2.7"),
    "64:ff9b::192.0.2.7": ("64:ff9b::c000:207", "192.0.2.7"),
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45"),
}
NO_ADDRESS = [
    "",
    "unknown",
    "_hidden",
    "_hidden:80",
    "client:other",
    "localhost",
    "192.0.2.7:http",
    "192.0.2.7:123456",
    '"192.0.2.7',
    "192.0.2.256",
    "010.0.0.1",
    "192.0.2",
    "2130706433",
    "192.0.2.7/24",
    "192.0.2.7%eth0",
    "2001:db8::1::2",
    "[2001:db8::1",
    "2001:db8::1]:443",
    "[]",
    ":",
    "[2001:db8::1]:443443",
    "[2001:db8::1]443",
    "[2001:db8::1]:http",
    "[2001:db8::1]x",
    '""',
    "::1]",
    "fe80::1%",
    "[2001:db8::1]:8:0",
    "192.0.2.7:8/0",
    "[2001:db8::1]:8/0",
    "192.0.2.7:80\n",
    '"',
    "[",
    "]",
    "[192.0.2.7",
    '"[2001:db8::1]',
    "fe80::1]%x",
    "for=192.0.2.7",
    "192.0.2.7, 192.0.2.8",
    "\u0663.0.0.1",
    "1" * 1000,
]


@pytest.mark.parametrize(("text", "expected", "bucket"), [(text, *found) for text, found in WRITTEN.items()])
def test_address_is_read_without_its_port_and_pays_alone_or_with_its_network(
    text: str, expected: str, bucket: str
) -> None:
    assert read(text) == ip_address(expected)
    assert quota_key(text) == f"address:{bucket}"


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_shares_one_bucket(text: str) -> None:
    assert read(text) is None
    assert quota_key(text) == UNKNOWN == "address:unknown"


@given(st.text() | st.sampled_from([*WRITTEN, *NO_ADDRESS]) | st.ip_addresses().map(str))
def test_every_bucket_is_in_itself(text: str) -> None:
    key = quota_key(text)
    assert quota_key(key.removeprefix(ANONYMOUS)) == key


def test_text_that_is_longer_than_any_address_is_none() -> None:
    longest = "fe80::1%" + "z" * 72
    assert read(longest) == ip_address("fe80::1")
    assert read(longest + "z") is None


def test_remembered_addresses_are_bounded() -> None:
    for number in range(1_100):
        assert quota_key(f"10.0.{number // 256}.{number % 256}").startswith("address:10.0.")
    assert address.parse.cache_info().currsize == 1_024
