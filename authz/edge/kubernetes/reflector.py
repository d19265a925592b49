"""Lists the ClientPolicies of a namespace, or of all, then watches them; whatever goes wrong, it goes on.

What was listed before is never cleared: a list that follows an outage is compared with it. A watch goes on from the
version that was last heard of; where it told nothing at all, or could not be resumed, a list follows.

Source: Kubernetes API concepts, "Efficient detection of changes"; client-go's Reflector.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Never, Protocol

from authz.edge import chance, clock
from authz.edge.kubernetes.api import Api, Kind, Trouble, decoded, policies_path
from authz.edge.kubernetes.objects import Document, Held, Meta, meta_of

logger = logging.getLogger(__name__)

PAGE: Final = 500  # what client-go asks for
BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 4.0
RESUMES_MAX: Final = 3  # that failed; an API restored from a backup may never reach the version that we have
RESTARTS_MAX: Final = 3  # of a list whose pages expire on the way
SLICE_S: Final = 0.002  # of work, then decisions have their turn: what one more may add to a decision's time
_GONE: Final = 410
_TRY_AGAIN: Final = frozenset(  # these say nothing about the version
    {Kind.UNREACHABLE, Kind.THROTTLED, Kind.FORBIDDEN, Kind.UNAUTHORIZED, Kind.CREDENTIALS}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds; a healthy server ends a watch within `watch_s`, so that one silent for `silent_s` is dead."""

    watch_s: float = 60.0  # with a bookmark before its end, if the server's version has moved
    silent_s: float = 70.0


class Sink(Protocol):
    """What is told of each object."""

    def look(self, document: Document, meta: Meta) -> Held | None:
        """Return what to keep of a listed object; None if this version of it is known."""

    def put(self, held: Held) -> None: ...

    def drop(self, meta: Meta) -> None: ...

    async def replace(self, namespace: str | None, present: set[str], changed: list[Held]) -> None:
        """Take over a whole list: what has changed, and who is there at all."""


class Turns:
    """Lets the event loop go on after each slice of work."""

    def __init__(self) -> None:
        self._began_s = clock.monotonic_s()

    async def rest(self) -> None:
        if clock.monotonic_s() - self._began_s >= SLICE_S:
            await asyncio.sleep(0)
            self._began_s = clock.monotonic_s()


class Reflector:
    """Keeps `sink` true to one namespace (None: to all)."""

    def __init__(self, api: Api, namespace: str | None, sink: Sink, timing: Timing) -> None:
        self._api = api
        self._path = policies_path(namespace)
        self._sink = sink
        self._timing = timing
        self._turns = Turns()
        self._version: str | None = None  # to go on from; None: a list is due
        self._failures = 0  # in a row, since something was heard
        self._resumes = 0  # that the API answered, in vain
        self._page = PAGE
        self.namespace: Final = namespace
        self.is_listed = False
        self.lists = 0
        self.errors = dict.fromkeys(Kind, 0)
        self.trouble: Trouble | None = None
        self.confirmed_s = clock.monotonic_s()  # when the API last said how things are

    async def run(self) -> Never:
        while True:
            try:
                if self._version is None:
                    await self.renew()
                await self._watch()
            except Trouble as trouble:
                await asyncio.sleep(self._note(trouble))

    def _note(self, trouble: Trouble) -> float:
        """Count a failure, tell of it if it is news, and return how long to wait, s."""
        self.errors[trouble.kind] += 1
        self._failures += 1
        self._resumes += trouble.kind not in _TRY_AGAIN
        if trouble.kind in (Kind.GONE, Kind.REPORTED) or self._resumes >= RESUMES_MAX:
            self._version = None
            self._resumes = 0
        if self.trouble is None or self.trouble.kind is not trouble.kind:
            logger.warning(
                "policies not watched; what was read last holds",
                extra={"namespace": self.namespace, "kind": trouble.kind.value, "error": str(trouble)},
            )
        self.trouble = trouble
        backoff_s = min(BACKOFF_MAX_S, BACKOFF_S * (1 << min(self._failures - 1, 10)))
        return max(trouble.retry_after_s, backoff_s * (0.5 + chance.fraction() / 2))

    def _confirm(self) -> None:
        self.confirmed_s = clock.monotonic_s()
        if self.trouble is not None:
            logger.info("policies watched again", extra={"namespace": self.namespace})
        self.trouble = None

    async def renew(self) -> None:
        """Bring the sink to what the API has now.

        Raises:
            Trouble: it cannot be listed; what was known holds.
        """
        for attempt in range(RESTARTS_MAX):
            try:
                await self._list()
            except Trouble as trouble:
                if trouble.kind not in (Kind.GONE, Kind.OVERSIZED) or attempt == RESTARTS_MAX - 1:
                    raise
                self.errors[trouble.kind] += 1
            else:
                return

    async def _list(self) -> None:
        present: set[str] = set()
        changed: list[Held] = []
        version: object = None
        async with aclosing(self._pages()) as pages:
            async for listed in pages:
                version = version or _map(listed.get("metadata")).get("resourceVersion")
                await self._look(listed.get("items"), present, changed)
        if not isinstance(version, str) or not version:
            raise Trouble(Kind.UNREADABLE, "a list without a resourceVersion")
        await self._sink.replace(self.namespace, present, changed)
        self._version = version
        self.is_listed = True
        self.lists += 1
        self._confirm()

    async def _look(self, items: object, present: set[str], changed: list[Held]) -> None:
        """Read the objects of a page."""
        waiting = items if isinstance(items, list) else []
        waiting.reverse()
        while waiting:
            document = waiting.pop()  # what is left of it need not wait for the rest of its page
            meta = meta_of(document)
            if meta is None:
                self._tell_unreadable()
            elif not meta.is_leaving:
                present.add(meta.name)
                held = self._sink.look(document, meta)
                if held is not None:
                    changed.append(held)
            await self._turns.rest()

    async def _pages(self) -> AsyncGenerator[Document, None]:
        """Yield page by page; the next one is on its way while one is being read."""
        ahead = asyncio.create_task(self._page_after(None))
        try:
            while True:
                listed = await ahead
                token = _map(listed.get("metadata")).get("continue")
                if token:
                    ahead = asyncio.create_task(self._page_after(str(token)))
                yield listed
                if not token:
                    return
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _page_after(self, token: str | None) -> Document:
        more = {"continue": token} if token is not None else {}
        try:
            listed = await self._api.page(self._path, {"limit": str(self._page), **more})
        except Trouble as trouble:
            if trouble.kind is Kind.OVERSIZED:
                self._page = max(1, self._page // 4)
            raise
        if "items" not in listed:
            raise Trouble(Kind.UNREADABLE, "a list without items")
        return listed

    async def _watch(self) -> None:
        """Follow a watch to its end."""
        watch_s = self._timing.watch_s * (0.9 + chance.fraction() / 10)  # replicas need not all come at once
        query = {
            "watch": "true",
            "resourceVersion": self._version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(watch_s))),
        }
        began_s = clock.monotonic_s()
        heard = 0
        async with self._api.watch(self._path, query, self._timing.silent_s) as lines:
            async for line in lines:
                self._take(decoded(line))
                heard += 1
                await self._turns.rest()
        if heard:
            return
        if clock.monotonic_s() - began_s < watch_s / 2:
            raise Trouble(Kind.ENDED, "the watch was over before anything was heard")
        self._version = None  # not even a bookmark: only a list can tell that nothing has happened

    def _take(self, event: Document) -> None:
        kind, document = event.get("type"), _map(event.get("object"))
        if kind == "ERROR":
            code, message = document.get("code"), " ".join(str(document.get("message", "")).split())[:300]
            raise Trouble(Kind.GONE if code == _GONE else Kind.REPORTED, f"{code}: {message}")
        if kind == "BOOKMARK":
            version = _map(document.get("metadata")).get("resourceVersion")
        else:
            meta = meta_of(document)
            if meta is None or kind not in ("ADDED", "MODIFIED", "DELETED"):
                raise Trouble(Kind.UNREADABLE, "an event that tells of no object")
            version = meta.version
            if kind == "DELETED" or meta.is_leaving:
                self._sink.drop(meta)
            elif (held := self._sink.look(document, meta)) is not None:
                self._sink.put(held)
        if not isinstance(version, str) or not version:
            raise Trouble(Kind.UNREADABLE, "a bookmark without a version")
        self._version = version
        self._failures = self._resumes = 0
        self._confirm()

    def _tell_unreadable(self) -> None:
        self.errors[Kind.UNREADABLE] += 1
        logger.warning("a listed object does not say which one it is", extra={"namespace": self.namespace})


def _map(value: object) -> Document:
    return value if isinstance(value, dict) else {}
