"""Watching ClientPolicies with kopf, in a thread and an event loop of its own.

kopf cancels whatever runs in its loop when it ends, and takes over the signals of the main thread. Nothing else of it
is used: no finalizers, no annotations, no retries that would remember in the objects what they do.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import kopf
from aiohttp import ClientResponse, ClientSession, TraceConfig, TraceRequestEndParams, TraceRequestExceptionParams

from authz.policy import API_VERSION
from clientpolicy_operator import clock
from clientpolicy_operator.api import PAGE, Connection
from clientpolicy_operator.facts import Document

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
REOPENING_S: Final = 20.0  # what it may take to open a silent watch anew
BACKOFFS_S: Final = (1, 1, 2, 3, 5)  # of one request; after them a refusal counts
CLOSED_MAX_S: Final = 60.0  # kopf may have lost its way without ending; then it begins anew
ENDING_MAX_S: Final = 20.0
LEAVING_MAX_S: Final = 1.0  # at the end of the process; kopf may take seven seconds or for ever, and only ever reads
RESTART_FIRST_S: Final = 1.0
RESTART_MAX_S: Final = 30.0
_IDENTITY: Final = "clientpolicy-operator"  # of one among peers; we have none
_PLURAL: Final = "clientpolicies"
_FORBIDDEN: Final = 403

ConnectTraced = Callable[[Sequence[TraceConfig], int], Awaitable[Connection]]
Deliver = Callable[[str | None, Document], None]


class WatchDenied(Exception):  # noqa: N818 what became of it
    """Nothing can be seen any more, and only another process or other rights can mend it; safe to show."""


@dataclass(slots=True)
class _Stream:
    """An open watch, and when it last brought something; read from another thread than it is filled in."""

    response: ClientResponse
    heard_s: float
    total_bytes: int = 0

    def look(self, now_s: float) -> None:
        if self.response.content.total_bytes != self.total_bytes:
            self.total_bytes, self.heard_s = self.response.content.total_bytes, now_s


class _Stopping:
    """Ends kopf from another thread, whether it runs already or not yet."""

    def __init__(self) -> None:
        self._is_wanted = False
        self._stop: Callable[[], object] = lambda: None

    def here(self) -> asyncio.Event:
        """Return what is set in this loop; for a threading.Event kopf would wait in a thread, without an end."""
        loop, flag = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(flag.set)
        if self._is_wanted:
            flag.set()
        return flag

    def stop(self) -> None:
        self._is_wanted = True
        with suppress(RuntimeError):  # its loop is closed: it has ended
            self._stop()


class Watch:
    """Calls `deliver`, in the loop of whoever runs it, with each event's type (None: listed) and object."""

    def __init__(
        self,
        connect: ConnectTraced,
        namespaces: tuple[str, ...],
        deliver: Deliver,
        *,
        reopened_s: int,
        silence_s: float,
    ) -> None:
        self._connect = connect
        self._namespaces = namespaces
        self._reopened_s = reopened_s
        self._silence_max_s = silence_s
        self._deliver = deliver
        self._streams: dict[str, _Stream] = {}  # by path
        self._opened: set[str] = set()  # paths that have been watched
        self._failed: BaseException | None = None
        self.restarts = 0
        self.relists = 0  # by kopf itself: after a gap, or because what it knew is too old (410)
        self.errors = 0

    @property
    def breaks(self) -> int:
        """How often something may have gone unseen."""
        return self.restarts + self.relists

    @property
    def silence_s(self) -> float | None:
        """How long the quietest watch has brought nothing; None while one is not open."""
        streams = [one for one in list(self._streams.values()) if not one.response.closed]
        if len(streams) < max(1, len(self._namespaces)):
            return None
        return clock.monotonic_s() - min(one.heard_s for one in streams)

    @property
    def is_open(self) -> bool:
        silence_s = self.silence_s
        return silence_s is not None and silence_s < self._silence_max_s + REOPENING_S

    async def run(self) -> None:
        """Watch until cancelled; what ends kopf but a refusal is tried again.

        Raises:
            WatchDenied: going on would only look like working.
        """
        pause_s = RESTART_FIRST_S
        while True:
            started_s = clock.monotonic_s()
            await self._once()
            failed, self._failed = self._failed, None
            if getattr(failed, "status", None) == _FORBIDDEN:  # kopf's own error, which it does not export
                raise WatchDenied(f"watching ClientPolicies is forbidden: {failed}")
            self.restarts += 1
            told = f"{type(failed).__name__}: {failed}" if failed is not None else "ended"
            logger.warning("watching broke off; it begins anew", extra={"error": told, "pause_s": pause_s})
            if clock.monotonic_s() - started_s > 10 * RESTART_MAX_S:
                pause_s = RESTART_FIRST_S
            await asyncio.sleep(pause_s)
            pause_s = min(RESTART_MAX_S, pause_s * 2)

    async def _once(self) -> None:
        """Run kopf in its thread until it ends, or until this is cancelled: then it is stopped."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        stopping = _Stopping()

        def work() -> None:
            try:
                asyncio.run(self._kopf(loop, stopping))
            except BaseException as failed:  # noqa: BLE001 whatever it is, `run` judges it
                self._failed = failed
            finally:
                self._streams.clear()
                with suppress(RuntimeError):  # nobody waits any more
                    loop.call_soon_threadsafe(ended.set)

        thread = threading.Thread(target=work, name="kopf", daemon=True)
        thread.start()
        try:
            await self._attend(ended)
        except asyncio.CancelledError:
            stopping.stop()
            await asyncio.wait((asyncio.create_task(ended.wait()),), timeout=LEAVING_MAX_S)
            raise
        stopping.stop()
        await self._end(ended)

    async def _attend(self, ended: asyncio.Event) -> None:
        """Return when kopf has ended, or has not watched for too long."""
        opened_s = clock.monotonic_s()
        while not ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await ended.wait()
            now_s = clock.monotonic_s()
            for stream in list(self._streams.values()):
                stream.look(now_s)
            opened_s = now_s if self.is_open else opened_s
            if now_s - opened_s > CLOSED_MAX_S:
                logger.warning("nothing is watched", extra={"for_s": round(now_s - opened_s)})
                return

    async def _end(self, ended: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(ENDING_MAX_S):
                await ended.wait()
        except TimeoutError:
            raise WatchDenied("watching came to a halt and cannot be begun anew in this process") from None

    async def _kopf(self, loop: asyncio.AbstractEventLoop, stopping: _Stopping) -> None:
        registry = kopf.OperatorRegistry()

        async def login(**_: object) -> kopf.AiohttpSession:
            connection = await self._connect((self._trace(),), 0)
            session: ClientSession = connection.session
            return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)

        async def seen(event: Mapping[str, Any], **_: object) -> None:
            loop.call_soon_threadsafe(self._deliver, event["type"], event["object"])

        group, _, version = API_VERSION.partition("/")
        kopf.on.login(registry=registry)(login)
        kopf.on.event(group, version, _PLURAL, registry=registry)(seen)
        await kopf.operator(
            registry=registry,
            settings=self._settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=stopping.here(),
            # Else it asks for the user's name, and in a container there is none of that number.
            identity=_IDENTITY,  # type: ignore[arg-type] # a NewType of str that kopf does not export
        )

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False  # events are ours
        settings.scanning.disabled = True  # needs no rights on CRDs and namespaces
        settings.networking.request_timeout = 30.0
        settings.networking.error_backoffs = BACKOFFS_S
        settings.watching.server_timeout = self._reopened_s
        settings.watching.inactivity_timeout = self._silence_max_s
        settings.watching.chunk_size = PAGE
        settings.queueing.idle_timeout = 0.5  # a task an object, for so long
        settings.process.ultimate_exiting_timeout = None  # whoever started this process ends it
        return settings

    def _trace(self) -> TraceConfig:
        """Tell from kopf's own requests whether it is watching: it says so nowhere."""
        trace = TraceConfig()

        async def opened(_: ClientSession, __: SimpleNamespace, end: TraceRequestEndParams) -> None:
            if end.response.status >= 400:  # noqa: PLR2004 no success
                self.errors += 1
                self._streams.pop(end.url.path, None)
            elif end.url.query.get("watch") == "true":
                self._opened.add(end.url.path)
                self._streams[end.url.path] = _Stream(end.response, clock.monotonic_s())
            elif end.url.path in self._opened and "continue" not in end.url.query:
                self.relists += 1

        async def failed(_: ClientSession, __: SimpleNamespace, what: TraceRequestExceptionParams) -> None:
            self.errors += 1
            self._streams.pop(what.url.path, None)

        trace.on_request_end.append(opened)
        trace.on_request_exception.append(failed)
        return trace
