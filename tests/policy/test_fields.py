"""Each kind of value: which characters it takes in which place, how long it may be, and what it reads as."""

from __future__ import annotations

from functools import cache
from string import ascii_lowercase, ascii_uppercase, digits

import pytest
from alphabet import ALNUM, CHARACTERS, HEX, VISIBLE, taken, without
from pydantic import TypeAdapter, ValidationError

from authz.policy import fields
from authz.policy.fields import each_named_once, each_once
from authz.policy.smart import SCOPE_MAX_CHARACTERS, parse_scope

LABEL = ascii_lowercase + digits


@cache
def adapter(kind: str) -> TypeAdapter[object]:
    return TypeAdapter(getattr(fields, kind))


def takes(kind: str, value: object) -> bool:
    try:
        adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


URI = without(VISIBLE, "\"#',;\\")
PLACES = [
    ("Fingerprint", "{}" + "a" * 63, HEX),
    ("DnsName", "{}", LABEL),
    ("DnsName", "a{}", LABEL),
    ("DnsName", "a{}a", LABEL + "-."),
    ("DnsName", "*.{}", LABEL),
    ("DnsName", "*{}a", "."),
    ("DnsName", "{}.a", LABEL + "*"),
    ("DnsName", "a.{}.a", LABEL),
    ("DnsName", "a.a{}a", LABEL + "-."),
    ("ObjectName", "{}", LABEL),
    ("ObjectName", "{}.a", LABEL),
    ("ObjectName", "a{}a", LABEL + "-."),
    ("SecretName", "a{}a", LABEL + "-."),
    ("EntryName", "{}", LABEL),
    ("EntryName", "a{}a", LABEL + "-"),
    ("Email", "{}@a", ALNUM + ".!#$%&*+/=?^_`{|}~-"),
    ("Email", "a{}@a", ALNUM + ".!#$%&*+/=?^_`{|}~-"),
    ("Email", "a{}a", "@"),
    ("Email", "a@{}", ALNUM + ".-"),
    ("Email", "a@a{}", ALNUM + ".-"),
    ("ClientId", "{}", VISIBLE),
    ("ClientId", "a{}a", VISIBLE),
    ("OtherScope", "{}", without(VISIBLE, '"\\')),
    ("OtherScope", "a{}a", without(VISIBLE, '"\\')),
    ("HttpMethod", "{}", ascii_uppercase),
    ("HttpMethod", "A{}", ascii_uppercase),
    ("RoutePath", "{}", "/"),
    ("RoutePath", "/{}", ALNUM + "_~!$&'()*+,=:@-"),
    ("RoutePath", "/a{}a", ALNUM + "_~!$&'()*+,=:@-./"),
    ("SanUri", "{}:a", ascii_lowercase),
    ("SanUri", "a{}:a", LABEL + "+.-:"),
    ("SanUri", "a{}a", ":"),
    ("SanUri", "a:{}", without(URI, ".")),
    ("SanUri", "a:a{}a", URI),
    ("SanUri", "spiffe://{}/a", LABEL + "._-"),
    ("SanUri", "spiffe://a{}/a", LABEL + "._-"),
    ("SanUri", "spiffe://a/{}", ALNUM + "_-"),
    ("SanUri", "spiffe://a/{}a", ALNUM + "_-."),
    ("SanUri", "spiffe://a/a{}a", ALNUM + "_-./"),
]


@pytest.mark.parametrize(("kind", "frame", "expected"), PLACES)
def test_characters_in_each_place(kind: str, frame: str, expected: str) -> None:
    assert taken(frame, lambda text: takes(kind, text)) == set(expected)


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        ("EntryName", 63), ("ObjectName", 253), ("DnsName", 253), ("Email", 254), ("PrintableName", 64), ("ClientId", 256),
        ("RoutePath", 1024), ("SanUri", 2048),
    ],
)  # fmt: skip
def test_what_is_too_long_is_told_its_length(kind: str, length: int) -> None:
    with pytest.raises(ValidationError, match=f"at most {length} characters"):
        adapter(kind).validate_python("a" * (length + 1))


def test_name_to_print_holds_nothing_that_cannot_be_seen() -> None:
    seen = taken("a{}a", lambda text: takes("PrintableName", text))
    controls = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))}
    assert seen == set(CHARACTERS) - controls - {"\xad", "\u202e", "\u200b", "\ue000"}


LENGTHS = [
    ("Fingerprint", "{}", "a", 64, 64),
    ("DnsName", "{}", "a", 1, 63),
    ("DnsName", "a.{}", "a", 1, 63),
    ("ObjectName", "{}", "a", 1, 63),
    ("ObjectName", "a.{}", "a", 1, 63),
    ("EntryName", "{}", "a", 1, 63),
    ("Email", "{}@a", "a", 1, 252),
    ("Email", "a@{}", "a", 1, 252),
    ("PrintableName", "{}", "a", 1, 64),
    ("ClientId", "{}", "a", 1, 256),
    ("OtherScope", "{}", "a", 1, 256),
    ("RouteScope", "{}", "a", 1, 256),
    ("HttpMethod", "{}", "A", 1, 16),
    ("RoutePath", "/{}", "a", 0, 1023),
    ("SanUri", "a:{}", "a", 1, 2046),
    ("SanUri", "spiffe://{}/a", "a", 1, 255),
]


@pytest.mark.parametrize(("kind", "frame", "filler", "least", "most"), LENGTHS)
def test_lengths_end_where_they_say(kind: str, frame: str, filler: str, least: int, most: int) -> None:
    lengths = [length for length in range(most + 3) if takes(kind, frame.format(filler * length))]
    assert (lengths[0], lengths[-1], len(lengths)) == (least, most, most - least + 1)


@pytest.mark.parametrize("kind", ["DnsName", "ObjectName", "SecretName"])
def test_name_of_many_labels_has_253_characters(kind: str) -> None:
    assert takes(kind, "a." * 126 + "a")
    assert not takes(kind, "a." * 126 + "aa")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "RoutePath",
            "/ /a/ /a/b /.a /a.b/c.d /a/..b",
            "a //a // /a//b /a. /.../a /. /.. /a/. /a/.. /a/./b /a/../b /a%2Fb",
        ),
        ("SanUri", "a:b urn:a:b https://a/b?c spiffe://a/b/c spiffe://a/... spiffe://a/..b spiffe://a/b.", ""),
        ("SanUri", "a:.b a:/..b a:b/...", "a:. a:.. a:/. a:/.. a:/./b a:/../b a:b/../c a:b/.?x a:b/..?x a:./b a:../b"),
        ("SanUri", "a:%41 a:%2D a:%5B", "a:%2E a:%2e a:%2F a:%2f a:%5C a:%5c A:b a: :b a:b,c a:b;c"),
        (
            "SanUri",
            "",
            "spiffe://a spiffe://a/ spiffe://a//b spiffe://a/b/ spiffe://a/. spiffe://a/.. spiffe:a spiffe://A/b",
        ),
        ("OtherScope", "a openid launch/patient patients/x", "patient/x user/x system/x patient/Observation.rs"),
        ("RouteScope", "a openid patient/Observation.rs", "patient/x user/x system/Observation.x"),
        ("ClinicalScope", "patient/Observation.rs system/*.read", "openid patient/x"),
        ("SecretName", "clientpolicy clientpolicy-cas a", "clientpolicy-ca clientpolicy-trust"),
        ("DnsName", "a.b *.a.b a-b.c", "a..b .a a. *.*.a a.*.b * *a -a a- a-.b a.-b"),
        ("EntryName", "a a-b a--b", "a.b -a a-"),
        ("ClientId", "https://a/b", ""),
    ],
)
def test_kind_takes_what_has_one_reading(kind: str, good: str, bad: str) -> None:
    assert [one for one in good.split() if not takes(kind, one)] == []
    assert [one for one in bad.split() if takes(kind, one)] == []


@pytest.mark.parametrize("kind", ["OtherScope", "RouteScope", "ClinicalScope", "DurationUs"])
def test_what_is_no_text_is_refused(kind: str) -> None:
    values: list[object] = [None, 1, 90, True, [], {}, b"a", ["patient/Observation.rs"]]
    assert [value for value in values if takes(kind, value)] == []


def test_values_are_read_once() -> None:
    def read(kind: str, value: object) -> object:
        return adapter(kind).validate_python(value)

    assert read("Fingerprint", "AB" * 32) == "ab" * 32
    assert read("DurationUs", "90s") == 90_000_000
    assert read("ClinicalScope", "patient/Observation.rs") == parse_scope("patient/Observation.rs")
    assert read("RouteScope", "patient/Observation.rs") == parse_scope("patient/Observation.rs")
    assert read("RouteScope", "openid") == "openid"


def test_scopes_kept_are_bounded() -> None:
    kept = vars(fields)["_read_scope"]
    for number in range(4_100):
        takes("ClinicalScope", f"patient/Observation.rs?code={number}")
    assert kept.cache_info().currsize == 4_096
    kept.cache_clear()
    takes("ClinicalScope", "patient/Observation.rs?code=" + "a" * SCOPE_MAX_CHARACTERS)
    assert kept.cache_info().currsize == 0


class Item:
    def __init__(self, name: str) -> None:
        self.name = name


def test_each_is_given_once() -> None:
    assert each_once(("a", "b")) == ("a", "b")
    with pytest.raises(ValueError, match=r"^given twice: a, b$"):
        each_once(("b", "a", "b", "c", "a"))
    items = (Item("a"), Item("b"))
    assert each_named_once(items) is items
    with pytest.raises(ValueError, match=r"^given twice: a$"):
        each_named_once((*items, Item("a")))


def test_schemas_say_what_is_taken() -> None:
    assert adapter("Fingerprint").json_schema()["pattern"] == "^[0-9A-Fa-f]{64}$"
    day, offset = "[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}", "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
    assert f"^{day}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?:\\.[0-9]{{1,9}})?{offset}$" == fields.INSTANT_PATTERN


@pytest.mark.parametrize("value", [5, None, True, ["2026-11-01T00:00:00Z"], {}])
def test_what_is_no_text_is_no_instant_and_said_so(value: object) -> None:
    with pytest.raises(ValidationError, match="expected an instant such as"):
        adapter("Instant").validate_python(value)
