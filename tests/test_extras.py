"""Each image holds one extra's packages: what its command imports is among them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LOCKS = Path(__file__).resolve().parents[1] / "deploy" / "requirements"
# Imports a module of ours where packages other than those named cannot be.
HIDDEN = """
import importlib, re, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

of = {module: {re.sub(r"[-_.]+", "-", one).lower() for one in names} for module, names in packages_distributions().items()}
there = {"clientpolicy", *sys.argv[2:]}

class Shown:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name in of and not of[name] & there else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Shown
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize(("module", "lock"), [
    ("authz.serve", "authz"), ("authz.counters", "authz"), ("authz.probe", "authz"), ("authz.check", "authz"),
    ("authz.lint", "authz"), ("authz.configurations", "authz"), ("authz.operate", "operator"), ("authz.cli", "operator"), ("authz.demo.trial", "trial"),
])  # fmt: skip
def test_imports_only_what_its_image_installs(module: str, lock: str) -> None:
    installed = re.findall(r"^([a-z0-9][\w.-]*)==", (LOCKS / f"{lock}.txt").read_text(), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, module, *installed], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
