"""Paths that a lenient upstream takes for others, beside the FHIR base and beside routes that ask for more."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.lookalike import is_at, is_below, require_apart, shape, shape_of_pattern
from authz.model import Reason, Refused

SAME = {
    "slash": "/Export/Admin/",
    "slashes": "/export/admin//",
    "case": "/EXPORT/admin",
    "width": "/export/\uff41dmin",
    "long s": "/export/admin".replace("s", "\u017f"),
    "dotless i": "/export/adm\u0131n",
    "i with two dots": "/export/adm\u0130n",
    "trailing dot": "/export/admin.",
    "dots and spaces": "/export/admin. . ",
    "no-break space": "/export/admin\u00a0",
    "ideographic space": "/export/admin\u3000",
    "a dot at an inner segment": "/export./admin",
    "a space at an inner segment": "/export /admin",
}
SUFFIXED = {
    "json": "/export/admin.json",
    "one letter": "/export/admin.z",
    "letters and digits": "/export/admin.a09z",
    "sixteen characters": "/export/admin.a" + "9" * 15,
    "an empty suffix between": "/export/admin..json",
    "two suffixes": "/export/admin.tar.gz",
    "upper case": "/export/admin.JSON",
    "slash behind": "/export/admin.json/",
    "space before": "/export/admin .json",
    "dot behind": "/export/admin.xml.",
}
OTHER = [
    "/export",
    "/export/admi",
    "/export/administrator",
    "/export/admin-x",
    "/export/admin~",
    "/x/export/admin",
    "/exp/ort/admin",
    "/export/ admin",
    "/export/.admin",
    "/export/admi\u0308n",
    "/",
    "/export/admin,json",
    "/export/admin.json/x",
]
# Rails takes for a format whatever follows the last dot.
ANY_FORMAT = ["2", "1", "7z", "json.2", "json-api", "*", "x-yaml", "`x", "x:", "a9999999999999999", "9a", "\u00e9"]
PATTERN = shape("/export/admin")


@pytest.mark.parametrize("path", SAME.values(), ids=SAME.keys())
def test_paths_that_differ_in_what_is_overlooked_look_alike(path: str) -> None:
    assert shape(path).whole == PATTERN.whole
    assert is_at(shape(path), PATTERN)
    assert is_below(shape(path), PATTERN)
    assert is_below(shape(f"{path}/x.y"), PATTERN)


@pytest.mark.parametrize("path", SUFFIXED.values(), ids=SUFFIXED.keys())
def test_path_with_a_suffix_looks_like_the_one_without_and_with_another(path: str) -> None:
    assert is_at(shape(path), PATTERN)
    assert is_at(shape(path), shape("/export/admin.html"))
    assert is_at(PATTERN, shape(path))
    assert is_below(shape(path), PATTERN)
    assert not is_below(shape(f"{path.strip(' ./')}/x"), PATTERN)


@pytest.mark.parametrize("suffix", ANY_FORMAT)
def test_whatever_follows_a_dot_may_be_a_format(suffix: str) -> None:
    assert is_at(shape(f"/export/admin.{suffix}"), PATTERN)
    assert not is_at(PATTERN, shape(f"/export/admin.{suffix}")) or suffix in ("json", "xml")


@pytest.mark.parametrize("path", OTHER)
def test_other_paths_do_not(path: str) -> None:
    assert not is_at(shape(path), PATTERN)
    assert not is_below(shape(path), PATTERN)


def test_root_has_everything_below_it_and_nothing_at_it() -> None:
    root = shape("/")
    assert is_below(shape("/x"), root)
    assert is_at(shape("/"), root)
    assert not is_at(shape("/x"), root)


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("/FHIR", "/fhir"),
        ("/FHIR/Patient/1", "/fhir"),
        ("/Fhir/", "/fhir"),
        ("/fhir./Patient/1", "/fhir"),
        ("/fhir /Patient/1", "/fhir"),
        ("/fhir\u00a0/Patient/1", "/fhir"),
        ("/\uff46\uff48\uff49\uff52/Patient/1", "/fhir"),
        ("/fh\u0131r/Patient/1", "/fhir"),
        ("/fhir.json", "/fhir"),
        ("/FHIR.XML", "/fhir"),
        ("/api./fhir/Patient/1", "/api/fhir"),
        ("/API/Fhir/Patient/1", "/api/fhir"),
        ("/fhir/r4/Patient/1", "/FHIR/R4"),
    ],
)
def test_what_looks_like_the_fhir_base_is_refused(path: str, base: str) -> None:
    with pytest.raises(Refused) as refused:
        require_apart(path, base)
    assert refused.value.reason is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("/fhirs/Patient/1", "/fhir"),
        ("/fhir-docs", "/fhir"),
        ("/fhir.r5/Patient/1", "/fhir"),
        ("/fhir/r5", "/fhir/r4"),
        ("/health", "/fhir"),
        ("/files/fhir/x", "/fhir"),
        ("/", "/fhir"),
    ],
)
def test_other_paths_pass(path: str, base: str) -> None:
    require_apart(path, base)


@pytest.mark.parametrize(
    "path", ["/" + "." * 16_000 + "x", "/x" + ".a" * 8_000 + "!", "/x" + ".a" * 8_000, "/" * 16_000]
)
def test_longest_paths_are_read_in_one_go(path: str) -> None:
    """Each would take minutes, were the work not linear."""
    for _ in range(100):
        shape(path)


def test_name_that_is_nothing_but_a_suffix_has_none() -> None:
    assert shape("/x/.json").stem == "/x/.json"
    assert shape("/x/.json.xml").stem == "/x/.json"
    assert is_at(shape("/x/v1.2.json"), shape("/x/v1.2"))
    assert not is_at(shape("/x/v1.3"), shape("/x/v1.2"))


def test_remembered_patterns_are_bounded() -> None:
    for number in range(4_200):
        assert shape_of_pattern(f"/{number}").whole == f"/{number}"
    assert shape_of_pattern.cache_info().currsize == 4_096


@given(st.text(), st.text())
def test_shape_is_its_own_shape(first: str, second: str) -> None:
    for path in (f"/{first}", f"/{first}/{second}", quote(f"/{first}")):
        whole = shape(path).whole
        assert is_at(shape(path), shape(path))
        assert not whole.endswith("/")
        assert "//" not in whole
