"""A run from start to end, however it ends: by the last step, by a failure, by Ctrl-C at any moment."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from dataclasses import dataclass
from typing import Final, TextIO

from authz.demo.configuration import PARTNER
from authz.demo.failure import DemoFailed, Unusable
from authz.demo.steps import NEIGHBOUR, OBSERVATIONS, RECORD, Journey, Tokens, fetch_tokens
from authz.demo.table import report
from authz.demo.walk import walk
from authz.demo.world import World
from authz.edge.store.place import MEMORY

EXIT_GOOD: Final = 0
EXIT_BAD: Final = 1
EXIT_UNUSABLE: Final = 2
EXIT_SIGNAL: Final = 128  # plus the signal's number, as shells tell it


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    as_json: bool = False
    keep: bool = False
    store_url: str = MEMORY
    port: int = 0


class Interruption:
    """The first Ctrl-C, SIGTERM or SIGHUP cancels the run; while it cleans up, no further one disturbs it."""

    def __init__(self, task: asyncio.Task[int]) -> None:
        self._task = task
        self.number = 0
        self.is_ignored = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            loop.add_signal_handler(number, self._interrupt, number)

    def _interrupt(self, number: int) -> None:
        if not self.is_ignored:
            self.is_ignored = True
            self.number = number
            self._task.cancel()


async def run(options: Options) -> int:
    """Return the exit status: 0 only if every step was as expected."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("runs in a task")
    interruption = Interruption(task)
    world = World(options.port, options.store_url)
    status = EXIT_BAD
    is_kept = False
    try:
        await world.start()
        tokens = await fetch_tokens(world)
        status = await _walk(world, tokens, as_json=options.as_json)
        if options.keep:
            await _restore(world)
            is_kept = True
            _show(world, tokens, sys.stderr if options.as_json else sys.stdout)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        if not interruption.number:
            raise
        if not is_kept:
            status = EXIT_SIGNAL + interruption.number
    except DemoFailed as failed:
        print(f"clientpolicy demo: {failed}", *world.tails(), sep="\n", file=sys.stderr)
        status = EXIT_UNUSABLE if isinstance(failed, Unusable) else EXIT_BAD
    finally:
        interruption.is_ignored = True
        await world.stop()
    return status


async def _walk(world: World, tokens: Tokens, *, as_json: bool) -> int:
    is_good = True
    with report(as_json=as_json) as add:
        async for section, step, got in walk(Journey(world, tokens).sections()):
            add(section, step, got)
            is_good = is_good and got.ok
    if not is_good:
        print(*world.tails(), sep="\n", file=sys.stderr)
    return EXIT_GOOD if is_good else EXIT_BAD


async def _restore(world: World) -> None:
    """Bring back what the last steps took away."""
    world.write_policy(PARTNER)
    await world.start_authz()


def _show(world: World, tokens: Tokens, stream: TextIO) -> None:
    """Print how to go on by hand."""
    partner = world.credentials[PARTNER.client_id]
    calls = (
        ("/health", None),
        (RECORD, tokens.patient),
        (OBSERVATIONS, tokens.observations),
        (NEIGHBOUR, tokens.patient),
    )
    print("\nIt keeps running until Ctrl-C. Try:\n", file=stream)
    for target, token in calls:
        command = ["curl", "-i", "--cacert", world.authority.file, "--cert", partner.certificate_file]
        command += ["--key", partner.key_file, f"https://localhost:{world.ports.envoy}{target}"]
        command += [] if token is None else ["-H", f"Authorization: Bearer {token}"]
        print(shlex.join(map(str, command)), file=stream)
    print(f"\nPolicies, configuration, logs and the audit trail are in {world.folder}", file=stream, flush=True)
