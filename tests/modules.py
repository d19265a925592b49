"""What tests take from Go modules, in a folder that outlives the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def folder(name: str, *modules: str) -> Path:
    """Return where `NAME-crds` has put the versions of kubernetes.versions; the test is skipped by name if it cannot."""
    text = (HERE / "kubernetes.versions").read_text()
    versions = [found[1] for module in modules if (found := re.search(rf"^{module}=(\S+)$", text, re.MULTILINE))]
    assert len(versions) == len(modules)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    made = home / "clientpolicy-tests" / "-".join((name, *versions))
    if not made.is_dir():
        if shutil.which("go") is None:
            pytest.skip(f"go is not installed, which fetches the CRDs of {name}; see tests/programs")
        subprocess.run([str(HERE / f"{name}-crds"), str(made)], check=True)
    return made
