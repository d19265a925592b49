"""The mutants themselves: a rule of theirs that makes nothing would look like a code without fault."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path

import pytest
from mutants import trial
from mutants.__main__ import FOLDERS, ROOT, files_for, modules, sample, told
from mutants.explained import explained, vanished
from mutants.mutations import Mutant, mutants_of
from mutants.patterns import mutants


@pytest.mark.parametrize(
    ("pattern", "among"),
    [
        ("a*b", {"ab", "a+b", "a*"}),
        ("a+?", {"a", "a*?"}),
        ("a{2,3}", {"a", "a{1,3}", "a{3,3}", "a{2,2}", "a{2,4}"}),
        ("[a-c_]", {"[^a-c_]", "[_]", "[a-c]", r"[\x60-\x63_]", r"[\x62-\x63_]", r"[\x61-\x62_]", r"[\x61-\x64_]"}),
        (r"[^\x20-\x7e]", {r"[\x20-\x7e]", r"[^\x1f-\x7e]", r"[^\x20-\x7f]"}),
        ("^a$", {"a$", "^a", "^$"}),
        ("ab|cd|ef", {"cd|ef", "ab|ef", "ab|cd", "a|cd|ef"}),
        (r"a|b\Z|c", {r"b\Z|c", r"a|c", r"a|b\Z"}),
        ("x(?:/|$)", {"x(?:$)", "x(?:/)"}),
        ("%(?![0-9])", {"%(?=[0-9])", "(?![0-9])"}),
        (r"\.\d", {r".\d", r"\.\D", r"\d"}),
    ],
)
def test_pattern_is_changed_by_one_decision(pattern: str, among: set[str]) -> None:
    found = mutants(pattern)
    assert among <= set(found)
    assert len(found) == len(set(found))
    assert pattern not in found


def test_set_is_changed_in_what_it_takes() -> None:
    assert mutants("[a-y.z]") == [
        r"[^a-y.z]",
        "[.z]",
        r"[\x60-\x79.z]",
        r"[\x62-\x79.z]",
        r"[\x61-\x78.z]",
        "[a-yz]",
        "[a-y.]",
    ]


def test_lengths_that_are_equal_anyway_are_left_alone(tmp_path: Path) -> None:
    assert made(tmp_path, "def f(a, b):\n    return zip(a, b, strict=True)\n") == {
        ("f", "return zip(None, b, strict=True)"),
        ("f", "return zip(a, None, strict=True)"),
    }


def test_piece_of_a_pattern_is_changed_as_far_as_it_is_one() -> None:
    assert mutants("a|b)c|d") == []
    assert mutants("(?:a|b") == []


def made(tmp_path: Path, source: str) -> set[tuple[str, str]]:
    (tmp_path / "module.py").write_text(source)
    return {(mutant.function, mutant.after) for mutant in mutants_of(tmp_path, "module.py")}


@pytest.mark.parametrize(
    ("source", "among"),
    [
        ("MAX = 8\n", {("", "MAX = 9")}),
        ("NAMES = ('a', 'b')\n", {("", "NAMES = ('b',)"), ("", "NAMES = ('XXaXX', 'b')")}),
        ("TABLE = {'a': 1, 'b': 2}\n", {("", "TABLE = {'b': 2}"), ("", "TABLE = {'a': 2, 'b': 2}")}),
        ("import re\nP = re.compile('[ab]')\n", {("", "P = re.compile('[^ab]')"), ("", "P = re.compile('[a]')")}),
        ("def f(a):\n    return a in {'x', 'y'}\n", {("f", "return a in {'y'}"), ("f", "return a not in {'x', 'y'}")}),
        ("def f(a, b):\n    return a and b\n", {("f", "return a"), ("f", "return b"), ("f", "return a or b")}),
        ("def f(a):\n    if a:\n        raise ValueError('x')\n", {("f", "if not (a):"), ("f", "pass")}),
        ("def f(a):\n    a.append(1)\n", {("f", "pass"), ("f", "a.append(2)"), ("f", "a.append(None)")}),
        ("def f(a):\n    return P.fullmatch(a)\n", {("f", "return P.match(a)")}),
        ("class C(M):\n    x: Annotated[int, Field(le=9)] = 1\n", {("C", "x: Annotated[int, Field(le=10)] = 1")}),
        ("@once\ndef f(a):\n    return a < 2\n", {("f", "return a <= 2"), ("f", "return a < 3")}),
        (
            "def f(a):\n    return g(a, b=1)\n",
            {("f", "return g(None, b=1)"), ("f", "return g(a, )"), ("f", "return g(a, b=2)")},
        ),
    ],
)
def test_module_is_changed_wherever_it_decides(tmp_path: Path, source: str, among: set[tuple[str, str]]) -> None:
    assert among <= made(tmp_path, source)


@pytest.mark.parametrize(
    "source",
    [
        '"""A page."""\n',
        "from a import b\n",
        "def f(a: int | None = None) -> None:\n    b: Final[int]\n",
        "@lru_cache(maxsize=64)\ndef f(a):\n    return a\n",
        "__all__ = ['a', 'b']\n",
        "def f(a):\n    return isinstance(a, str)\n",
        "def f(a):\n    return a.decode('ascii')\n",
    ],
)
def test_what_decides_nothing_is_left_alone(tmp_path: Path, source: str) -> None:
    assert {after for _, after in made(tmp_path, source)} <= {
        "return a.decode(None)",
        "return a.decode()",
        "return a.decode('XXasciiXX')",
    }


def test_sentences_are_not_repeated_by_tests(tmp_path: Path) -> None:
    source = "def f(a):\n    raise Refused(Reason.X, f'`{a}` is no name')\n"
    assert made(tmp_path, source) == {("f", "pass"), ("f", "raise Refused(None, f'`{a}` is no name')")}
    assert ("f", "return f'XXBearer realm=\"{a}\"'") in made(
        tmp_path, "def f(a):\n    return f'Bearer realm=\"{a}\"'\n"
    )


def mutant(module: str, before: str, after: str) -> Mutant:
    source = (ROOT / module).read_text()
    assert before in source
    return Mutant(module=module, function="f", before=before, after=after, source=source.replace(before, after))


def test_sample_is_the_same_for_the_same_code() -> None:
    every = mutants_of(ROOT, "authz/core/path.py")
    chosen = sample(every, 40, "a")
    assert chosen == sample(every[::-1], 40, "a")
    assert chosen != sample(every, 40, "b")
    gone = chosen[3]
    fewer = sample([one for one in every if one.name != gone.name], 40, "a")
    assert [one for one in fewer if one in chosen] == [one for one in chosen if one.name != gone.name]


def test_only_what_a_test_notices_falls(tmp_path: Path) -> None:
    module, line = "authz/core/thumbprint.py", '.rstrip(b"=").decode()'
    noticed = mutant(module, line, ".decode()")
    broken = mutant(module, "import json", "import no_such_module")
    endless = mutant(module, "import json", "import json\nwhile True: pass")
    silent = mutant(module, line, f"{line}.strip()")
    test = tmp_path / "test_thumbprint.py"
    test.write_text(
        "from authz.core.thumbprint import of_jwk\n\ndef test_it():\n    assert len(of_jwk({'kty': 'OKP', 'crv': 'x', 'x': 'y'})) == 43\n"
    )
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        tried = [noticed, broken, endless, silent]
        assert pool.apply(trial.survivors, (ROOT, module, [str(test)], tried, 3)) == [silent]
        test.write_text("def test_it():\n    assert False\n")
        with pytest.raises(RuntimeError, match="fail without a mutant"):
            pool.apply(trial.survivors, (ROOT, module, [str(test)], [silent]))


def test_explanations_are_whole_and_of_something_that_is_there() -> None:
    one = mutant("authz/core/thumbprint.py", 'rstrip(b"=")', "rstrip()")
    text = told([one])
    with pytest.raises(ValueError, match="has module"):
        explained(text)
    known = explained(text.replace('why = ""', 'why = "so"'))
    assert known == {one.name}
    assert vanished(known, [one]) == []
    assert vanished(known, []) == [one.name]
    with pytest.raises(ValueError, match="twice"):
        explained(text.replace('why = ""', 'why = "so"') * 2)


def test_every_module_has_tests() -> None:
    assert {folder for folder in FOLDERS for module in modules() if module.startswith(folder)} == set(FOLDERS)
    for module in modules():
        there = [test for test in files_for(module) if (ROOT / test).is_file()]
        assert there == files_for(module)
        assert there or not (ROOT / module).read_text()
