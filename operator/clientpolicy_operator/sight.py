"""What ClientPolicies there are: listed, watched, and listed again for what a watch cannot tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from clientpolicy_operator.api import Api, ApiError, NotFound, Unavailable, policies_path
from clientpolicy_operator.facts import Document, Key
from clientpolicy_operator.roster import News, Roster
from clientpolicy_operator.settings import Settings
from clientpolicy_operator.told import map_of
from clientpolicy_operator.watch import ConnectTraced, Watch, WatchDenied

logger = logging.getLogger(__name__)


class Blind(Exception):  # noqa: N818 what we are then
    """ClientPolicies cannot be seen, and waiting would not mend it; safe to show."""


class Sight:
    """Keeps the roster true; `on_news` and `on_gone` are told of each object that is news or went."""

    def __init__(
        self,
        api: Api,
        connect: ConnectTraced,
        roster: Roster,
        settings: Settings,
        *,
        on_news: Callable[[Key, News], None],
        on_gone: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._roster = roster
        self._namespaces = settings.watch.namespaces
        self._resync_s = settings.certificates.resync.total_seconds()
        self._on_news = on_news
        self._on_gone = on_gone
        reopened_s = int(settings.watch.timeout.total_seconds())
        silence_s = settings.watch.silence.total_seconds()
        self.watch = Watch(connect, self._namespaces, self._hear, reopened_s=reopened_s, silence_s=silence_s)

    async def list(self) -> None:
        """Take in all ClientPolicies, and forget those that went while nobody watched.

        Raises:
            Blind: there is no such kind, or listing is forbidden.
            Unavailable: later, perhaps.
        """
        absent = {key: known.version for key, known in self._roster}
        try:
            for namespace in self._namespaces or (None,):
                async for page in self._api.pages(policies_path(namespace)):
                    for found in page:
                        self._note(found)
                        absent.pop(key_of(found), None)
                    await asyncio.sleep(0)
        except NotFound:
            told = "this cluster has no ClientPolicy: install it with `clientpolicy crd | kubectl apply -f -`"
            raise Blind(told) from None
        except Unavailable:
            raise
        except ApiError as refused:
            raise Blind(str(refused)) from None
        for key, version in absent.items():
            known = self._roster.get(key)
            if known is not None and known.version == version:  # else it has come or changed since the list was made
                self._roster.forget(key)
                self._on_gone(key)
        self._roster.settle()

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            Blind: as `list`.
        """
        watching = asyncio.create_task(self.watch.run())
        listing = asyncio.create_task(self._list_again())
        try:
            await asyncio.wait((watching, listing), return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, listing):
                if task.done():
                    task.result()
        except WatchDenied as denied:
            raise Blind(str(denied)) from None
        finally:
            watching.cancel()
            listing.cancel()
            await asyncio.gather(watching, listing, return_exceptions=True)

    async def _list_again(self) -> None:
        """Find what the watch has missed: an object that went while it was broken off."""
        while True:
            before = self.watch.breaks
            for _ in range(max(1, int(self._resync_s))):
                await asyncio.sleep(1)
                if self.watch.breaks != before:
                    break
            try:
                await self.list()
            except Unavailable as away:
                logger.warning("policies not listed", extra={"error": str(away)})

    def _hear(self, kind: str | None, found: Document) -> None:
        if kind == "DELETED":
            key = key_of(found)
            known = self._roster.get(key)
            if known is not None and known.uid == map_of(found.get("metadata")).get("uid"):
                self._roster.forget(key)
                self._on_gone(key)
        else:
            self._note(found)
        if self._roster.is_complete:
            self._roster.settle()

    def _note(self, found: Document) -> None:
        if news := self._roster.note(found):
            self._on_news(key_of(found), news)


def key_of(found: Document) -> Key:
    metadata = map_of(found.get("metadata"))
    return str(metadata.get("namespace")), str(metadata.get("name"))
