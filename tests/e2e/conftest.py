"""One release for the whole suite: installed where it is absent, told about where something fails."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator

import kube
import pytest
from caller import gateway
from kube import RELEASE, SYSTEM, Tenant, helm, is_installed, kubectl


@pytest.fixture(scope="session")
def release() -> bool:
    """Return whether this suite installed it, so that it may uninstall it."""
    for program in ("kubectl", "helm"):
        assert shutil.which(program), f"{program} is missing"
    ours = not is_installed()
    if not ours and not json.loads(helm("get", "values", RELEASE, "--all", "-o", "json"))["trial"]["enabled"]:
        pytest.exit(f"{SYSTEM}/{RELEASE} is no trial: this suite kills and upgrades what it finds", returncode=2)
    begun = time.monotonic()
    if ours:
        kube.install()
        kube.FIRST_INSTALL["helm install"] = time.monotonic() - begun
    return ours


@pytest.fixture(scope="session")
def place(release: bool) -> tuple[str, int]:
    return gateway()


@pytest.fixture
def tenant(release: bool) -> Iterator[Tenant]:
    made = Tenant()
    yield made
    made.delete()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined] # pluggy's result
    if not report.failed:
        return
    for command in (
        ("-n", SYSTEM, "get", "pods", "-o", "wide"),
        ("-n", SYSTEM, "get", "events", "--sort-by=.lastTimestamp"),
        (
            "-n",
            SYSTEM,
            "logs",
            "-l",
            "app.kubernetes.io/instance=clientpolicy",
            "--tail=60",
            "--prefix",
            "--all-containers",
        ),
        ("get", "clientpolicies", "-A"),
    ):
        sys.stderr.write(f"\n== kubectl {' '.join(command)}\n{kubectl(*command, check=False)[-24_000:]}\n")
