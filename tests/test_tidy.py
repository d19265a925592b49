"""The style that a machine can keep: size, names that shadow nobody, no stranger's traces."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FUNCTION_MAX_LINES = 60
FILE_MAX_LINES = 350
GENERATED = ("authz/wire/pb/", "authz/policy/fhir_r4.py")
PRODUCT = sorted(
    path
    for package in ("authz", "operator", "docs", "protos", "tools")
    for path in (ROOT / package).rglob("*.py")
    if not str(path.relative_to(ROOT)).startswith(GENERATED)
)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_MAX_LINES
    assert [name for name, lines in functions(path) if lines > FUNCTION_MAX_LINES] == []


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_wait_loses_its_end(path: Path) -> None:
    """Before Python 3.12 `asyncio.wait_for` drops a cancel that comes as what it waits for is done: asyncio.timeout."""
    named = [node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
    assert "wait_for" not in named


def test_standard_operator_stays_itself() -> None:
    """A package of our own called `operator` would replace the standard library's for whoever starts in this folder."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    for arguments in (["-c", "import operator; print(operator.__file__)"], ["-m", "pytest", "--version"]):
        run = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        assert str(ROOT / "operator") not in run.stdout


PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    there = {name for path in (ROOT / "tests").rglob("test_*.py") for name, _ in functions(path)}
    assert set(re.findall(r"`(test_\w+)`", text)) <= there
    assert [name for name in re.findall(r"`(tests/[\w/.-]+)`", text) if not (ROOT / name).exists()] == []


def test_lock_has_hashes_and_no_addresses() -> None:
    for lock in (ROOT / "deploy" / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text
