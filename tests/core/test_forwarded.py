"""XFCC forgeries: only what Envoy writes is read, and nothing is picked from what it did not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core import forwarded
from authz.core.forwarded import Element
from authz.model import Reason, Refused

H = "ab" * 32
READ = {
    "hash alone": (f"Hash={H}", (Element(H, None, ()),)),
    "as Envoy sets it": (
        f'By=spiffe://gw;Hash={H};Cert="%2D";Chain="%2D";Subject="CN=a,O=\\"b\\"";URI=spiffe://x;DNS=a.b;DNS=c.d',
        (Element(H, "%2D", ("spiffe://x",)),),
    ),
    "keys ignore case": (f'hash={H};CERT="x";uri=u', (Element(H, "x", ("u",), ends_with_uri=True),)),
    "By and URI repeat": (f"By=a;By=b;Hash={H};URI=u;URI=v", (Element(H, None, ("u", "v"), ends_with_uri=True),)),
    "empty subject and URI": (f'Hash={H};Subject="";URI=', (Element(H, None, ("",), ends_with_uri=True),)),
    "two elements, newest last": (f"Hash={H},Hash={'cd' * 32};URI=gw", (Element(H, None, ()), Element("cd" * 32, None, ("gw",), ends_with_uri=True))),
    "escapes": (f'Hash={H};Subject="a\\\\b\\"c"', (Element(H, None, ()),)),
    "RFC 2253 escapes": (
        f'Hash={H};Subject="CN=x,O=Acme\\, Inc.\\; Caf\\C3\\A9 \\#\\+ \\\\"',
        (Element(H, None, ()),),
    ),
    "separators inside quotes": (f'Subject="a,Hash={H}\\;x=y"', (Element(None, None, ()),)),
    "By after URI": (f"Hash={H};URI=u;By=b", (Element(H, None, ("u",)),)),
    "equals sign in a bare URI": (f"Hash={H};URI=spiffe://x?a=b", (Element(H, None, ("spiffe://x?a=b",), ends_with_uri=True),)),
    "issuer": (f'Hash={H};Issuer="CN=ca"', (Element(H, None, ()),)),
}  # fmt: skip
HOSTILE = {
    "empty": "",
    "lone comma": ",",
    "trailing comma": f"Hash={H},",
    "trailing semicolon": f"Hash={H};",
    "no value": "Hash",
    "unknown key": f"Hash={H};Role=admin",
    "hash twice": f"Hash={H};Hash={H}",
    "hash twice in other case": f"Hash={H};hash={H}",
    "cert twice": 'Cert="a";Cert="b"',
    "subject twice": 'Subject="a";Subject="b"',
    "chain twice": 'Chain="a";Chain="b"',
    "open quote": 'Subject="a',
    "an element inside of a quote": f'Subject=",Hash={H};URI=x";URI=y',
    "text after quote": 'Subject="a"b',
    "quote inside bare value": 'URI=a"b"',
    "escape of nothing": 'Subject="a\\',
    "backslash in bare value": "URI=a\\",
    "space before key": f"Hash={H}; URI=a",
    "newline": f"Hash={H}\n",
    "non-ASCII": f"Hash={H};URI=\u00e9",
    "JSON form": '[{"hash":"x"}]',
    "many elements": ",".join([f"Hash={H}"] * (forwarded.ELEMENTS_MAX + 1)),
    "many URIs": f"Hash={H}" + ";URI=a" * (forwarded.REPEATED_MAX + 1),
    "too long": f'Hash={H};Subject="{"a" * forwarded.HEADER_MAX_CHARACTERS}"',
}


@pytest.mark.parametrize(("header", "expected"), READ.values(), ids=READ.keys())
def test_what_envoy_writes_is_read(header: str, expected: tuple[Element, ...]) -> None:
    assert forwarded.parse(header) == expected


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_envoy_does_not_write_is_refused(header: str) -> None:
    with pytest.raises(Refused) as refused:
        forwarded.parse(header)
    assert refused.value.reason is Reason.REQUEST_MALFORMED


def test_bounds_are_where_they_say() -> None:
    assert len(forwarded.parse(",".join([f"Hash={H}"] * 16))) == 16
    assert len(forwarded.parse(f"Hash={H}" + ";URI=a" * 64)[0].uris) == 64
    assert forwarded.parse(f"Hash={H}" + ";DNS=a" * 32 + ";By=a" * 32)
    with pytest.raises(Refused):
        forwarded.parse(f"Hash={H}" + ";DNS=a" * 32 + ";By=a" * 33)


def test_a_san_can_forge_an_element_and_that_is_seen_in_their_number() -> None:
    """Measured with Envoy 1.39.3: URI SANs are written bare, so this certificate makes two elements."""
    assert len(forwarded.parse(f"Hash={H};URI=spiffe://a/b,Hash={'cd' * 32}")) == 2


@given(st.text())
def test_any_text_is_parsed_or_refused(header: str) -> None:
    try:
        elements = forwarded.parse(header)
    except Refused:
        return
    assert elements


PAIR = st.sampled_from(["Hash", "Cert", "Subject", "URI", "By", "DNS", "hash", "x"]).flatmap(
    lambda key: st.text('a,;="\\ %', max_size=5).map(lambda value: f"{key}={value}")
)


@given(st.lists(PAIR).map(";".join))
def test_anything_like_the_grammar_is_parsed_or_refused(header: str) -> None:
    try:
        elements = forwarded.parse(header)
    except Refused:
        return
    assert all(isinstance(element, Element) for element in elements)


VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.lists(VALUE, min_size=1, max_size=5))
def test_quoting_is_undone_exactly(subjects: list[str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace(";", "\\;") + '"'

    header = ",".join(f"Cert={quoted(subject)}" for subject in subjects)
    assert [element.cert for element in forwarded.parse(header)] == subjects


@given(st.text('\\ab"', max_size=12))
def test_backslash_escapes_the_next_character(value: str) -> None:
    escaped = "".join(f"\\{one}" for one in value)
    (element,) = forwarded.parse(f'Cert="{escaped}"')
    assert element.cert == value


def test_header_full_of_escapes_is_read() -> None:
    escapes = "\\a" * 32_000
    (element,) = forwarded.parse(f'Hash={H};Subject="{escapes}";URI=u')
    assert element == Element(H, None, ("u",), ends_with_uri=True)
    with pytest.raises(Refused):
        forwarded.parse(f'Hash={H};Subject="{escapes}')
