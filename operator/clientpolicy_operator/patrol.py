"""Looking at each client's Secret, one by one and by name: nobody tells us that one was deleted or overwritten.

A list or a watch would need the right to read every Secret there is. Only metadata is asked for: no key is read for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import Final

from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, ApiError, core_path
from clientpolicy_operator.facts import Key
from clientpolicy_operator.pace import Pace
from clientpolicy_operator.roster import Roster
from clientpolicy_operator.told import map_of

logger = logging.getLogger(__name__)

LOOKS_PER_SECOND: Final = 20  # a thousand Secrets within a minute
ROUND_MIN_S: Final = 15.0


class Patrol:
    """`seen` holds the resourceVersion of each Secret as it was last verified, "" of one that was not there."""

    def __init__(
        self, api: Api, roster: Roster, seen: MutableMapping[Key, str], on_change: Callable[[Key], None]
    ) -> None:
        self._api = api
        self._roster = roster
        self._seen = seen
        self._on_change = on_change
        self._pace = Pace(LOOKS_PER_SECOND)

    async def run(self) -> None:
        while True:
            started_s = clock.monotonic_s()
            await self.round()
            await asyncio.sleep(max(1.0, started_s + ROUND_MIN_S - clock.monotonic_s()))

    async def round(self) -> None:
        """Look at each Secret once."""
        trouble = ""
        for key, name in list(self._due()):
            await self._pace.wait()
            try:
                await self._look(key, name)
            except ApiError as failed:  # the policy's own visit tells whose Secret cannot be read
                trouble = str(failed)
        if trouble:
            logger.warning("Secrets not looked at", extra={"error": trouble})

    def _due(self) -> Iterator[tuple[Key, str]]:
        """Yield those whose Secret was verified by a visit, or by the operator before this one."""
        for key, known in self._roster:
            if known.wanted.secret and (key in self._seen or known.is_ready):
                yield key, known.wanted.secret

    async def _look(self, key: Key, name: str) -> None:
        before = self._seen.get(key)
        found = await self._api.metadata(core_path(key[0], "secrets", name))
        version = str(map_of((found or {}).get("metadata")).get("resourceVersion", ""))
        if self._roster.get(key) is None:
            return
        if before is None and version:
            self._seen.setdefault(key, version)
        elif version != before and self._seen.get(key) == before:  # else a visit was faster
            self._on_change(key)
