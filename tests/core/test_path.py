"""Path bypasses: what an upstream may read differently is refused, and ordinary targets pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.path import TARGET_MAX_CHARACTERS, split_target
from authz.model import Reason, Refused

HOSTILE = {
    "dot segments": "/fhir/Patient/123/../124",
    "one dot": "/fhir/./Patient",
    "dots at the end": "/fhir/Patient/..",
    "dot at the end": "/fhir/Patient/.",
    "encoded dots": "/fhir/Patient/123/%2e%2e/124",
    "half encoded dots": "/fhir/Patient/123/.%2E/124",
    "encoded slash": "/fhir/Patient%2F124",
    "encoded backslash": "/fhir/Patient%5c124",
    "backslash": "/fhir/Patient\\124",
    "double encoding": "/fhir/Patient/%252e%252e/124",
    "encoded percent": "/fhir/%25",
    "merged slashes": "/fhir//Patient/124",
    "leading slashes": "//fhir/Patient/124",
    "path parameter": "/fhir/Patient;x=/124",
    "dots with parameter": "/a/..;b=c/Patient/2",
    "encoded semicolon": "/fhir/Patient%3Bx/124",
    "encoded question mark": "/fhir/Patient%3fx",
    "encoded hash": "/fhir/Patient%23x",
    "fragment": "/fhir/Patient/1#x",
    "fragment in query": "/fhir/Patient?x=1#y",
    "encoded NUL": "/fhir/Patient/1%00",
    "encoded newline in query": "/fhir/Patient?x=%0a",
    "encoded DEL": "/fhir/Patient/1%7f",
    "raw NUL": "/fhir/Patient/1\0",
    "newline": "/fhir/Patient/1\n",
    "space": "/fhir/Patient/1 HTTP",
    "space in query": "/fhir/Patient?a=b c",
    "tab in query": "/fhir/Patient?a=b\tc",
    "non-ASCII": "/fhir/Pätient",
    "non-ASCII in query": "/fhir/Patient?name=J\u00fcrgen",
    "dots and a space": "/pub/..%20/fhir/Patient/1",
    "a space between dots": "/pub/.%20./fhir/Patient/1",
    "three dots": "/pub/.../fhir",
    "three dots and a space": "/pub/...%20/fhir/Patient/1",
    "dots and a wide space": "/pub/..%E3%80%80/fhir/Patient/1",
    "dots and a space without width": "/pub/..%E2%80%8B/fhir/Patient/1",
    "dots and a soft hyphen": "/pub/.%C2%AD./fhir",
    "a space alone": "/pub/%20/x",
    "a space at the end": "/pub/%20",
    "overlong slash": "/fhir/Patient%c0%af124",
    "overlong dot": "/fhir/%c0%ae%c0%ae/x",
    "overlong in query": "/fhir/Patient?x=%c0%af",
    "stray continuation": "/fhir/Patient/%80",
    "full-width slash": "/files%EF%BC%8Ffhir/Patient/1",
    "full-width backslash": "/files/x%EF%BC%BCy",
    "full-width dots": "/files/%EF%BC%8E%EF%BC%8E/fhir/Patient/1",
    "one full-width dot of two": "/files/.%EF%BC%8E/x",
    "a two dot leader": "/files/%E2%80%A5/x",
    "a sign that spells a slash": "/files/%E2%84%80",
    "bad encoding": "/fhir/Patient/%zz",
    "cut encoding": "/fhir/Patient/%2",
    "bad encoding in query": "/fhir/Patient?x=%",
    "no path": "",
    "asterisk": "*",
    "authority": "api.example.org:443",
    "absolute form": "https://api.example.org/fhir/Patient/1",
    "query only": "?x=1",
    "too long": "/" + "a" * TARGET_MAX_CHARACTERS,
}
ORDINARY = {
    "/": ("/", ""),
    "/health": ("/health", ""),
    "/a/.well-known/x": ("/a/.well-known/x", ""),
    "/a/..b/c..": ("/a/..b/c..", ""),
    "/a/b%20c/": ("/a/b c/", ""),
    "/fhir/Patient/123": ("/fhir/Patient/123", ""),
    "/fhir/Patient/a.b-c": ("/fhir/Patient/a.b-c", ""),
    "/fhir/Observation?patient=123&code=http://loinc.org%7C1234-5": (
        "/fhir/Observation",
        "patient=123&code=http://loinc.org%7C1234-5",
    ),
    "/fhir/Patient?name=J%C3%BCrgen%20B": ("/fhir/Patient", "name=J%C3%BCrgen%20B"),
    "/fhir/Observation?date=ge2026-01-01T00:00:00%2B01:00": (
        "/fhir/Observation",
        "date=ge2026-01-01T00:00:00%2B01:00",
    ),
    "/fhir/.well-known/smart-configuration": ("/fhir/.well-known/smart-configuration", ""),
    "/fhir/Patient/1/$everything?a=//x/../y;z\\": ("/fhir/Patient/1/$everything", "a=//x/../y;z\\"),
    "/files/r%C3%A9sum%C3%A9": ("/files/résumé", ""),
    "/files/%E5%BB%BA%E7%AF%89%EF%BC%9F": ("/files/\u5efa\u7bc9\uff1f", ""),
    "/files/report%E2%80%A6": ("/files/report\u2026", ""),
    "/files/%EF%BD%81.txt": ("/files/\uff41.txt", ""),
    "/a/...b": ("/a/...b", ""),
    "/fhir/%50atient/1": ("/fhir/Patient/1", ""),
    "/x?": ("/x", ""),
    "/x?a?b": ("/x", "a?b"),
}


@pytest.mark.parametrize("target", HOSTILE.values(), ids=HOSTILE.keys())
def test_target_with_two_readings_is_refused(target: str) -> None:
    with pytest.raises(Refused) as refused:
        split_target(target)
    assert refused.value.reason is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize(("target", "expected"), ORDINARY.items(), ids=ORDINARY.keys())
def test_ordinary_target_passes(target: str, expected: tuple[str, str]) -> None:
    assert split_target(target)[:2] == expected


@given(st.text())
def test_any_text_is_split_or_refused(target: str) -> None:
    try:
        path = split_target(target).path
    except Refused:
        return
    assert path.startswith("/")
    assert ".." not in path.split("/")
    assert "//" not in path


@given(st.lists(st.sampled_from(["..", ".", "%2e", "%2f", "%252e", "/", "Patient", ";", "\\", "?", "#", "%00"])))
def test_traversal_pieces_never_leave_a_dot_segment(pieces: list[str]) -> None:
    try:
        path = split_target("/" + "".join(pieces)).path
    except Refused:
        return
    assert not {"..", "."} & set(path.split("/"))
