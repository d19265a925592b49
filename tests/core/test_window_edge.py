"""The picture of docs/quotas.md: up to date, and true."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "quotas" / "draw_window_edge.py"


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_window_edge", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_picture_is_what_the_model_draws() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_calendar_admits_twice_at_its_edge_and_a_small_burst_does_not(drawing: ModuleType) -> None:
    calendar, full, small = drawing.runs()
    assert calendar.worst() == drawing.bound(calendar) == 120
    assert len(full.admitted_s) == 80  # all 60 at once, and one a minute from then on
    assert len(small.admitted_s) == 30
    assert [drawing.bound(one) for one in (full, small)] == [120, 70]
    for one in (full, small):
        assert one.worst() <= drawing.bound(one)
