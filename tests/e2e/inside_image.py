"""Run in a container of an image: tells what is there, in JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata

PROGRAMS = ["cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "cargo", "go", "pip", "pip3", "pip3.11", "pip3.13"]
PACKAGES = sysconfig.get_path("purelib")


def can_write(folder: str) -> bool:
    try:
        os.close(os.open(f"{folder}/written", os.O_CREAT | os.O_WRONLY))
    except OSError:
        return False
    return True


def uncompiled() -> list[str]:
    """Return modules that every start would compile, because a read-only root cannot keep what was compiled."""
    modules = [f"{at}/{name}" for at, _, names in os.walk(PACKAGES) for name in names if name.endswith(".py")]
    return [one for one in modules if not os.path.exists(importlib.util.cache_from_source(one))]  # noqa: PTH110


def base_has_pip() -> bool:
    base = [f"{sys.base_prefix}/bin/python3", "-c", "import pip"]
    return subprocess.run(base, capture_output=True, check=False).returncode == 0


print(
    json.dumps(
        {
            "user": os.getuid(),
            "programs": [name for name in PROGRAMS if shutil.which(name)],
            "pip": importlib.util.find_spec("pip") is not None or base_has_pip(),
            "writable": [place for place in ("/", "/tmp", "/etc", "/usr", PACKAGES) if can_write(place)],  # noqa: S108
            "package lists": os.listdir("/var/lib/apt/lists"),  # noqa: PTH208
            "uncompiled": uncompiled(),
            "help": subprocess.run(["clientpolicy", "--help"], capture_output=True, text=True, check=False).stdout,
            "installed": {one.name.lower(): one.version for one in metadata.distributions(path=[PACKAGES])},
            "markers": {
                "python_full_version": sys.version.split()[0],
                "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
                "sys_platform": sys.platform,
                "platform_machine": os.uname().machine,
            },
        }
    )
)
