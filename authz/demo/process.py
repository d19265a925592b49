"""Programs that the demonstration starts: watched while they get ready, stopped by their process id."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from authz.demo.failure import DemoFailed

READY_WITHIN_S: Final = 60.0  # a busy machine starts Envoy and authz in a second or two
STOPS_WITHIN_S: Final = 15.0  # authz finishes calls in flight for up to 10 seconds
LOOK_EVERY_S: Final = 0.02
TAIL_LINES: Final = 15
OURS: Final = "CLIENTPOLICY_"


class Child:
    """One program, in a session of its own: a Ctrl-C in the terminal reaches us alone, and we end it in order."""

    def __init__(self, name: str, command: Sequence[str], output: Path, log: Path) -> None:
        # What a person has set for their own authz is not meant for this one.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        self.name: Final = name
        self.log: Final = log
        with output.open("ab") as out, log.open("ab") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )

    async def ready(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the program serves.

        Raises:
            DemoFailed: it ended, or takes too long; `tail` may tell why.
        """
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not await is_ready():
            status = self._process.poll()
            if status is not None:
                raise DemoFailed(f"{self.name} ended with status {status}")
            if time.monotonic() > deadline_s:
                raise DemoFailed(f"{self.name} is not ready after {READY_WITHIN_S:.0f} seconds")
            await asyncio.sleep(LOOK_EVERY_S)

    async def stop(self) -> None:
        """End the program: SIGTERM, and after a while SIGKILL."""
        if self._process.poll() is None:
            self._process.terminate()
        deadline_s = time.monotonic() + STOPS_WITHIN_S
        while self._process.poll() is None:
            if time.monotonic() > deadline_s:
                self._process.kill()
            await asyncio.sleep(LOOK_EVERY_S)

    def tail(self) -> str:
        """Return the last lines of the program's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join((f"the end of {self.name}'s log:", *(f"  {line}" for line in lines)))
