from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from authz.demo import process
from authz.demo.failure import DemoFailed
from authz.demo.process import Child


def child(folder: Path, code: str) -> Child:
    return Child("program", (sys.executable, "-c", code), folder / "out", folder / "log")


async def never() -> bool:
    return False


async def test_a_program_that_ends_early_is_told_with_its_log(tmp_path: Path) -> None:
    started = child(tmp_path, "import sys; sys.exit('the reason')")
    with pytest.raises(DemoFailed, match="program ended with status 1"):
        await started.ready(never)
    assert started.tail().splitlines() == ["the end of program's log:", "  the reason"]
    await started.stop()


async def test_a_program_that_never_gets_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "READY_WITHIN_S", 0.0)
    started = child(tmp_path, "import time; time.sleep(600)")
    with pytest.raises(DemoFailed, match="program is not ready"):
        await started.ready(never)
    await started.stop()


async def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOPS_WITHIN_S", 0.2)
    ready = tmp_path / "ready"
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code = f"import os, pathlib, signal, time; {ignoring}; print(os.getpid(), flush=True)"
    started = child(tmp_path, f"{code}; pathlib.Path({str(ready)!r}).touch(); time.sleep(600)")

    async def is_ready() -> bool:
        return ready.exists()

    await started.ready(is_ready)
    await started.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "out").read_text()), 0)
    await started.stop()


async def test_what_is_set_for_a_persons_own_authz_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENTPOLICY_SHADOW", "allow")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    started = child(tmp_path, "import os; print(sorted({'CLIENTPOLICY_SHADOW', 'SOMETHING_ELSE'} & set(os.environ)))")
    with pytest.raises(DemoFailed, match="status 0"):
        await started.ready(never)
    assert (tmp_path / "out").read_text() == "['SOMETHING_ELSE']\n"
