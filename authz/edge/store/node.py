"""One Redis that quotas are kept in: its connection, the calls on their way, and whether it can be relied on.

Calls of one turn of the event loop are sent together, equal keys merged into "admit up to k", and while two such
flushes are on their way the next collects what comes: the busier, the fewer calls. A call is sent once. Without an
answer in time its callers are told so; what Redis says later tells what it charged (`core/debts.py`).

A node is up from a probe that succeeded until it fails: too often (`Breaker`), for too long, or for good (its
connection ends, it is a replica now). Then it is connected anew and probed in the background until it answers; callers
never wait for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import hiredis

from authz.core.quota import Unknown
from authz.edge import chance, clock
from authz.edge.store.ask import Ask, Call, Extra, Outcome
from authz.edge.store.breaker import Breaker
from authz.edge.store.counts import Counts
from authz.edge.store.link import Link, Lost
from authz.edge.store.pace import Pace
from authz.edge.store.script import SOURCE, Asked, Garbled, Plan, command, decode, encode
from authz.policy.limits import rate_limit

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 0.025  # of the 200 ms that Envoy waits for the whole decision
STALLED_S: Final = 0.25  # a connection whose oldest call waits longer is given up, or twice the timeout
CONNECT_S: Final = 1.0
PROBE_S: Final = 0.25  # between two attempts at a node that is down, less up to half by chance
IDLE_S: Final = 1.0  # a connection that nobody used for this long is probed
FLUSHES_MAX: Final = 2
KEYS_MAX: Final = 64  # a flush: about 0.5 ms of Redis
REDIRECTS_MAX: Final = 3
PROBED: Final = (rate_limit(name="probe", requests=1_000, per_us=1_000_000),)


class Node:
    """`connect` opens a connection to wherever the node is now; `redirect` places an ask elsewhere, by Redis's word."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Link]],
        probe: Plan,
        counts: Counts,
        *,
        moved: Callable[[], Awaitable[bool]] | None = None,
        redirect: Callable[[Ask, str], bool] | None = None,
        on_down: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._connect = connect
        self.probe = probe  # a key of its own, that it must hold
        self._counts = counts
        self.timeout_s = TIMEOUT_S
        self._moved = moved
        self._redirect = redirect
        self._on_down = on_down
        self._link: Link | None = None
        self._down: asyncio.Future[str] | None = None
        self._breaker = Breaker()
        self._pending: dict[tuple[Plan, int], Ask] = {}
        self._calls: deque[Call] = deque()
        self._flushes = 0
        self._flushing: asyncio.Handle | None = None
        self._pace = Pace()
        self._nonce = 0
        self._timer: asyncio.TimerHandle | None = None
        self._used = False
        self._loop = asyncio.get_running_loop()
        self.trouble = "not connected yet"

    @property
    def is_up(self) -> bool:
        return self._link is not None

    # ---- callers ------------------------------------------------------------------------------------------------

    def ask(self, plan: Plan, cost: int = 1, extra: Extra | None = None) -> asyncio.Future[Outcome] | Unknown:
        """Return what will hold the outcome; Unknown at once while the node is down."""
        if self._link is None:
            return Unknown(self.trouble)
        ask = self._pending.get((plan, cost))
        if ask is None:
            ask = self._pending[plan, cost] = Ask(plan, cost, clock.monotonic_s(), extra)
        if self._pace.asked() and self._flushing is not None:
            self._flushing.cancel()  # there is enough to send: no more waiting
            self._flushing = None
        if self._flushing is None:
            self._schedule()
        waiter: asyncio.Future[Outcome] = self._loop.create_future()
        ask.waiters.append(waiter)
        return waiter

    def repay(self, plan: Plan) -> None:
        """Send what a key owes, though nobody asks for it."""
        if self._link is not None and (plan, 1) not in self._pending:
            self._pending[plan, 1] = Ask(plan, 1, clock.monotonic_s(), None)
            self._schedule()

    def take(self, ask: Ask, *, asking: bool) -> bool:
        """Take over what another node redirected here; return whether that could be done."""
        if self._link is None:
            return False
        self._send(self._link, [ask], ends_flush=False, asking=asking)
        return True

    def _schedule(self) -> None:
        """See to it that what waits is sent: in this turn of the loop, or a little later where that saves much."""
        if self._flushing is None and self._flushes < FLUSHES_MAX:
            wait_s = self._pace.wait_s(clock.monotonic_s())
            self._flushing = self._loop.call_later(wait_s, self._flush) if wait_s else self._loop.call_soon(self._flush)
        self._watch()

    def _flush(self) -> None:
        self._flushing = None
        link = self._link
        if link is None or not self._pending:
            return
        keys = list(self._pending)[:KEYS_MAX]
        groups: dict[int, list[Ask]] = {}
        now_s = clock.monotonic_s()
        for key in keys:
            ask = self._pending.pop(key)
            if ask.prepare(now_s):
                # A cluster runs a script on keys of one slot only.
                groups.setdefault(ask.plan.slot if self._redirect is not None else 0, []).append(ask)
        self._pace.flushed(now_s, sum([len(ask.waiters) for ask in self._pending.values()]))
        last = len(groups) - 1
        self._flushes += bool(groups)
        for place, asks in enumerate(groups.values()):
            self._send(link, asks, ends_flush=place == last)
        if self._pending:
            self._schedule()

    def _send(self, link: Link, asks: list[Ask], *, ends_flush: bool, asking: bool = False) -> None:
        self._nonce += 1
        call = Call(asks, self._nonce, clock.monotonic_s(), ends_flush=ends_flush, asking=asking)
        self._used = True
        self._counts.sent(call.asks)
        self._transmit(link, call)
        self._watch()

    def _transmit(self, link: Link, call: Call) -> None:
        self._calls.append(call)
        if call.asking:
            link.send(command(b"ASKING"), _ignore)
        link.send(call.data, lambda reply: self._replied(call, reply))

    def _replied(self, call: Call, reply: object) -> None:
        """Take the reply to the oldest call: replies come in the order of the calls."""
        self._calls.popleft()
        if call.ends_flush:
            self._flushes -= 1
        if isinstance(reply, Lost):
            self._fail(call, "lost", "the connection to the store ended")
        elif isinstance(reply, hiredis.ReplyError):
            self._refused(call, str(reply))
        else:
            try:
                admissions = decode(call.nonce, call.asked, reply)
            except Garbled:
                self._fail(call, "garbled", "the store's answers are in disorder")
                self._break("garbled")
                return
            now_s = clock.monotonic_s()
            self._breaker.succeeded(now_s)
            self._counts.answered(now_s - call.sent_s)
            for ask, admission in zip(call.asks, admissions, strict=True):
                if call.over:
                    ask.settle_late(admission, now_s)
                else:
                    ask.settle(admission, call.sent_s, now_s)
        if self._pending:
            self._schedule()

    def _refused(self, call: Call, error: str) -> None:
        """Act on an error of Redis. NOSCRIPT and a redirection alone say that nothing ran and the call may be sent."""
        code = error.partition(" ")[0]
        if code in ("MOVED", "ASK", "TRYAGAIN") and self._redirect is not None:
            for ask in call.asks:
                ask.redirects += 1
                if call.over:
                    ask.abandon(clock.monotonic_s())
                elif ask.redirects > REDIRECTS_MAX or not self._redirect(ask, error):
                    self._counts.failed("redirected")
                    ask.fail("the cluster is being rearranged")
            return
        if code == "NOSCRIPT" and not call.over and not call.resent and self._link is not None:
            call.resent = True
            self._flushes += call.ends_flush
            self._link.send(command(b"SCRIPT", b"LOAD", SOURCE), _ignore)
            self._transmit(self._link, call)
            return
        self._fail(call, code.lower(), f"the store refuses: {code}")
        if code == "READONLY" or "READONLY" in error:
            self._break("READONLY: a replica")
        elif self._breaker.failed(clock.monotonic_s()):
            self._break(error)

    def _fail(self, call: Call, kind: str, detail: str) -> None:
        """Tell the callers that there is no answer, or where they know it, that none will come."""
        if call.over:
            for ask in call.asks:
                ask.abandon(clock.monotonic_s())
            return
        call.over = True
        self._counts.failed(kind)
        for ask in call.asks:
            ask.fail(detail, in_doubt=kind == "timeout")

    # ---- time ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have a timer while anything is under way: one for all, because they end in the order in which they began."""
        if self._timer is None:
            self._timer = self._loop.call_later(self.timeout_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = clock.monotonic_s()
        broken = False
        for call in self._calls:
            if not call.over and now_s - call.since_s >= self.timeout_s:
                self._fail(call, "timeout", "no answer from the store in time")
                broken |= self._breaker.failed(now_s)
        late = [key for key, ask in self._pending.items() if now_s - ask.since_s >= self.timeout_s]
        for key in late:
            self._counts.failed("unsent")  # surely not charged
            self._pending.pop(key).fail("no answer from the store in time")
        if late:
            broken |= self._breaker.failed(now_s)
        stalled_s = max(STALLED_S, 2 * self.timeout_s)
        stalled = bool(self._calls) and now_s - self._calls[0].sent_s >= stalled_s
        if broken or stalled:
            self._break("too many failures" if broken else "no answer for too long")
            return
        due = [call.since_s + self.timeout_s for call in self._calls if not call.over]
        due += [ask.since_s + self.timeout_s for ask in self._pending.values()][:1]
        if self._calls:
            due.append(self._calls[0].sent_s + stalled_s)
        if due:  # who asks meanwhile has no timer of his own
            self._timer = self._loop.call_later(min(max(min(due) - now_s, 0.001), self.timeout_s), self._look)

    # ---- life ---------------------------------------------------------------------------------------------------

    def _break(self, why: str) -> None:
        if self._down is not None and not self._down.done():
            self._down.set_result(why)
        self._take_down(why)

    def _take_down(self, why: str) -> None:
        link, self._link = self._link, None
        self.trouble = why
        if link is not None:
            link.close(why)  # every call on its way gets Lost
        pending, self._pending = self._pending, {}
        for ask in pending.values():
            ask.fail(why)
        for handle in (self._timer, self._flushing):
            if handle is not None:
                handle.cancel()
        self._timer = self._flushing = None

    async def run(self) -> None:
        """Keep the node connected until cancelled; nothing else ends it."""
        try:
            while True:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        link = await self._usable()
                except Exception as failed:  # noqa: BLE001 whatever it is, the node is tried again
                    self._note(_told(failed))
                    await asyncio.sleep(PROBE_S * (1 - chance.fraction() / 2))
                    continue
                await self._serve(link)
                await asyncio.sleep(PROBE_S * chance.fraction() / 4)
        finally:
            self._take_down("closed")

    async def _usable(self) -> Link:
        """Return a new connection on which the script was seen to write, within the budget."""
        link = await self._connect()
        try:
            await link.call(b"SCRIPT", b"LOAD", SOURCE)
            asked = [Asked(self.probe, 1, 1)]
            async with asyncio.timeout(self.timeout_s):
                decode(0, asked, await link.ask(encode(0, asked)))
        except BaseException:
            link.close("not usable")
            raise
        return link

    async def _serve(self, link: Link) -> None:
        self._down = link.lost
        self._breaker.reset(clock.monotonic_s())
        self._flushes = 0
        self._link = link
        self.trouble = ""
        self._counts.connections += 1
        logger.info("store up", extra={"node": self.name})
        while not self._down.done():
            self._used = False
            await asyncio.wait((self._down,), timeout=IDLE_S * (1 - chance.fraction() / 4))
            if not self._used and self._link is not None:
                self.ask(self.probe)
            if self._moved is not None and not self._down.done() and await self._moved():
                self._break("the master is elsewhere now")
        why = self._down.result()
        self._take_down(why)
        logger.warning("store down", extra={"node": self.name, "error": why})
        if self._on_down is not None:
            self._on_down()

    def _note(self, trouble: str) -> None:
        """Tell of trouble once, not at each attempt."""
        if trouble != self.trouble:
            self.trouble = trouble
            logger.warning("store not reached", extra={"node": self.name, "error": trouble})


def _ignore(reply: object) -> None:
    del reply


def _told(failed: Exception) -> str:
    if isinstance(failed, TimeoutError) and not str(failed):
        return "no answer in time"
    return str(failed) or type(failed).__name__
