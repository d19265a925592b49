"""The running operator: watches, decides what is due, does it with a few hands, and says how it is."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from clientpolicy_operator import clock
from clientpolicy_operator.agenda import Agenda
from clientpolicy_operator.api import Api, ApiError, Forbidden, Unavailable
from clientpolicy_operator.book import Book
from clientpolicy_operator.facts import Key, Signer
from clientpolicy_operator.lease import Lease
from clientpolicy_operator.patience import FIRST_S, MAX_S, Patience
from clientpolicy_operator.patrol import Patrol
from clientpolicy_operator.readings import Times
from clientpolicy_operator.reconcile import Reconciler
from clientpolicy_operator.roster import Known, News, Roster
from clientpolicy_operator.settings import LEASE_NAME, Settings
from clientpolicy_operator.sight import Blind, Sight
from clientpolicy_operator.tell import Events
from clientpolicy_operator.territory import Territory
from clientpolicy_operator.timing import fraction, reissue_time
from clientpolicy_operator.trust import Trust
from clientpolicy_operator.watch import ConnectTraced

logger = logging.getLogger(__name__)

GRACE_S: Final = 10.0  # for what is being written when the end comes
RELEASE_S: Final = 5.0  # for the Lease, after that
SWEEP: Final = timedelta(hours=1)
CONNECTIONS_MAX: Final = 32


class Ended(Exception):  # noqa: N818 how it came to an end
    """Why the operator cannot go on; safe to show."""


class Operator:
    """All of the operator but its port and its signals: `run` works until `stop`."""

    def __init__(self, settings: Settings, connect: ConnectTraced, *, is_in_cluster: bool) -> None:
        self.settings = settings
        self.api = Api(lambda: connect((), CONNECTIONS_MAX))
        self.roster = Roster(settings.ceilings)
        self.book = Book(self.api, settings.namespace)
        self.territory = Territory(self.api, settings.namespace, resync_s=settings.certificates.resync.total_seconds())
        self.trust = Trust(self.api, settings, self.book, self.roster, self.territory)
        self.events = Events(self.api)
        self.reconciler = Reconciler(
            self.api,
            book=self.book,
            trust=self.trust,
            roster=self.roster,
            territory=self.territory,
            events=self.events,
            settings=settings,
        )
        self.agenda = Agenda(clock.now)
        self.patrol = Patrol(self.api, self.roster, self.reconciler.seen, self.agenda.soon)
        self.sight = Sight(self.api, connect, self.roster, settings, on_news=self._news, on_gone=self._gone)
        election = settings.leader.election
        self.lease = self._lease() if election == "on" or (election == "auto" and is_in_cluster) else None
        self.is_leading = False
        self.visits: dict[str, int] = {"settled": 0, "failed": 0}
        self.visit_times_s = Times()
        self._patience = Patience()
        self._visiting: set[asyncio.Task[None]] = set()

    def _lease(self) -> Lease:
        return Lease(
            self.api,
            namespace=self.settings.namespace,
            name=LEASE_NAME,
            identity=f"{socket.gethostname()}_{os.getpid()}_{clock.share():.8f}",
            duration=self.settings.leader.lease,
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What readiness waits for; nothing while it watches."""
        waits = [] if self.roster.is_complete else ["policies: not listed yet"]
        waits += [] if self.sight.watch.is_open else ["policies: not watched"]
        return tuple(waits)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, and finish what is being written.

        Raises:
            Ended: it cannot go on.
        """
        work = asyncio.create_task(self._work())
        ending = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((work, ending), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            ending.cancel()
            work.cancel()
            await asyncio.gather(work, ending, return_exceptions=True)
            if self._visiting:
                await asyncio.wait(self._visiting, timeout=GRACE_S)
            if self.lease is not None:
                with suppress(TimeoutError):  # then it runs out
                    async with asyncio.timeout(RELEASE_S):
                        await self.lease.release()
            await self.api.close()

    async def _work(self) -> None:
        await self._persist(self._prepare)
        failed: list[Exception] = []
        parts: tuple[Coroutine[Any, Any, None], ...] = (
            self._watch(), self.events.run(), self._lead(),
        )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in parts:
                    tasks.create_task(part)
        except* Exception as group:  # noqa: BLE001 whatever ended one part ends all
            failed.extend(_flat(group))
        for fault in failed:
            if not isinstance(fault, Ended):
                logger.error("a part of the operator ended", exc_info=fault)
        raise next((fault for fault in failed if isinstance(fault, Ended)), Ended(str(failed[0])))

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Try until it works; only what no waiting would mend ends it."""
        pause_s = FIRST_S
        while True:
            try:
                await attempt()
            except Unavailable as away:
                logger.warning("the API server is away", extra={"error": str(away), "pause_s": pause_s})
                await asyncio.sleep(max(pause_s, away.retry_after_s))
                pause_s = min(MAX_S, pause_s * 2)
            except ApiError as refused:
                raise Ended(str(refused)) from None
            else:
                return

    async def _prepare(self) -> None:
        await self._ensure_namespace()
        try:
            await self.sight.list()
        except Blind as blind:
            raise Ended(str(blind)) from None
        self.roster.on_fortune = self.agenda.soon
        self.trust.on_change = self._signer_changed
        self.roster.on_leave = self.book.saw_go
        self.roster.is_complete = True
        self.book.live = lambda: self.roster.uids if not self.settings.watch.namespaces else None
        logger.info("policies listed", extra={"policies": len(self.roster)})

    def _news(self, key: Key, news: News) -> None:
        if news is News.EDITED:
            self._patience.edited(key)
            self.agenda.shorten(key, clock.now() + timedelta(seconds=FIRST_S))
        if self.is_leading:
            self.agenda.soon(key)

    def _gone(self, key: Key) -> None:
        self._patience.forget(key)
        self.agenda.drop(key)
        self.reconciler.forget(key)

    async def _ensure_namespace(self) -> None:
        namespace = self.settings.namespace
        path = f"/api/v1/namespaces/{namespace}"
        try:
            if await self.api.get(path) is None:
                await self.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
                logger.info("namespace made", extra={"namespace": namespace})
        except Forbidden as forbidden:  # it may be there all the same, and then what follows works
            logger.info("namespace not looked at", extra={"error": str(forbidden)})
        except ApiError as failed:
            if isinstance(failed, Unavailable) or await self.api.get(path) is None:
                raise

    async def _watch(self) -> None:
        try:
            await self.sight.run()
        except Blind as blind:
            raise Ended(str(blind)) from None

    async def _lead(self) -> None:
        """Act, once it is our turn; the end of our turn is the end of this process."""
        if self.lease is not None:
            await self.lease.acquire()
            self.reconciler.is_alone = True  # the end of the Lease is the end of this process
            logger.info("leading")
        await self._persist(self._take_over)
        self.is_leading = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_trust())
            tasks.create_task(self._keep_book())
            tasks.create_task(self.patrol.run())
            if self.lease is not None:
                tasks.create_task(self._keep_lease(self.lease))
            for _ in range(self.settings.certificates.workers):
                tasks.create_task(self._work_off())

    async def _take_over(self) -> None:
        await self.book.open()
        await self.territory.survey([*self.settings.watch.namespaces, *(key[0] for key, _ in self.roster)])
        await self.trust.tick()
        now = clock.now()
        for key, known in self.roster:
            self.agenda.at(key, self._first_visit(known, now))
        self.roster.settle()

    def _first_visit(self, known: Known, now: datetime) -> datetime:
        """Return when to look at a policy that was here before we were: at once where its status is not right."""
        is_valid = bool(known.wanted.claims)
        accepted = ("Accepted", "True") in known.conditions
        if known.observed != known.generation or not known.is_ready or is_valid is not accepted:
            return now
        due = [now + self.settings.certificates.resync * fraction(known.uid)]
        due += [when for when in (known.renewal, known.not_after) if when is not None]
        signer = self.trust.signer
        if known.uses_ca and signer is not None and known.ca_sha256 != signer.sha256:
            due.append(reissue_time(signer, known.uid))
        return min(due)

    def _signer_changed(self, before: Signer | None, after: Signer | None) -> None:
        now = clock.now()
        for key, known in self.roster:
            if not known.uses_ca or after is None:
                continue
            if before is None and not known.is_ready:
                self.agenda.at(key, now)
            elif known.ca_sha256 != after.sha256:
                self.agenda.at(key, max(now, reissue_time(after, known.uid)))

    async def _keep_trust(self) -> None:
        while True:
            await asyncio.sleep(self.settings.authority.interval.total_seconds())
            try:
                await self.trust.tick()
            except ApiError as failed:
                logger.warning("CA not looked after", extra={"error": str(failed)})
            except Exception:
                logger.exception("CA not looked after")

    async def _keep_book(self) -> None:
        while True:
            await asyncio.sleep(SWEEP.total_seconds() * (0.5 + clock.share()))
            try:
                await self.book.sweep(self.roster.uids)
            except ApiError as failed:
                logger.warning("ledger not swept", extra={"error": str(failed)})

    async def _keep_lease(self, lease: Lease) -> None:
        await lease.keep()
        raise Ended(f"the Lease was lost: {lease.trouble}")

    async def _work_off(self) -> None:
        while True:
            key = await self.agenda.take()
            visit = asyncio.create_task(self._visit(key))
            self._visiting.add(visit)
            visit.add_done_callback(self._visiting.discard)
            await asyncio.shield(visit)  # what is begun is finished, also when the end comes

    async def _visit(self, key: Key) -> None:
        started_s, now = clock.monotonic_s(), clock.now()
        again: datetime | None = None
        pause_s = MAX_S
        try:
            visited = await self.reconciler.visit(key)
            again = self._in_time(key, visited.again, now)
            pause_s = self._patience.settled(key, visited.reported, started_s)
            self.visits["settled"] += 1
        except ApiError as failed:
            wished_s = failed.retry_after_s if isinstance(failed, Unavailable) else 0.0
            pause_s = self._patience.failed(key, wished_s=wished_s, chance=clock.share())
            again = now + timedelta(seconds=pause_s)
            self.visits["failed"] += 1
            logger.warning("policy not looked after", extra={"policy": "/".join(key), "error": str(failed)})
        except Exception:
            again = now + timedelta(seconds=pause_s)
            self.visits["failed"] += 1
            logger.exception("a visit failed", extra={"policy": "/".join(key)})
        finally:
            self.visit_times_s.add(clock.monotonic_s() - started_s)
            if self.roster.get(key) is None:  # it went meanwhile
                self._patience.forget(key)
            elif pause_s:
                self.agenda.rest(key, clock.now() + timedelta(seconds=pause_s))
            self.agenda.done(key, again)

    def _in_time(self, key: Key, again: datetime | None, now: datetime) -> datetime | None:
        """A Secret changes without a word to us, so those that have one are looked at again and again."""
        known = self.roster.get(key)
        if known is None or not known.uses_ca or ("Accepted", "True") not in known.conditions:
            return again
        resync = now + self.settings.certificates.resync * (0.75 + clock.share() / 4)
        return min(again, resync) if again is not None else resync


def _flat(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    flat: list[Exception] = []
    for one in group.exceptions:
        flat.extend(_flat(one) if isinstance(one, BaseExceptionGroup) else [one])
    return flat
