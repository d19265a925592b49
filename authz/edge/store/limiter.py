"""The store as a decision uses it: what becomes of a limit while its store does not answer is the policy's word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from authz.core.address import ANONYMOUS, BUCKETS_MAX
from authz.core.cache import Bounded
from authz.core.debts import Account
from authz.core.quota import SECOND_US, Exceeded, Level, Unknown, Within, share
from authz.edge import clock
from authz.edge.metrics import Number
from authz.edge.settings import StoreSettings
from authz.edge.store import Store
from authz.edge.store.memory import MemoryStore
from authz.edge.store.place import MEMORY, read_place
from authz.edge.store.redis import RedisStore
from authz.policy.limits import Limit, OnStoreFailure

DENIED_MAX: Final = 50_000  # clients; a flood of addresses has a room of its own
KNOWN_US: Final = 5 * SECOND_US  # a refusal is looked up again after this, so that a reset of the counters takes effect


class _Denied(NamedTuple):
    """Until when a key is certainly refused, and why."""

    limits: tuple[Limit, ...]
    since_us: int
    until_us: int
    passes_us: int  # when it passes, by what is told: later than `until_us` by the time of the reply
    exceeded: Exceeded


class Limiter:
    """Asks the store; when that does not answer, `Closed` refuses, `Local` counts here, `Open` lets pass.

    It also remembers who certainly has nothing left. Without a refund or an edit of the limits the earliest pass never
    moves forward, so that is exact, and a flood costs neither the store nor cryptography. It is measured by `clock`, µs
    that never go back, and without one by the callers' own instants.
    """

    def __init__(self, store: Store, *, replicas: int = 1, clock: Callable[[], int] | None = None) -> None:
        self.store = store
        self._local = MemoryStore()
        self._replicas = replicas
        self._clock = clock
        self._denied: Bounded[str, _Denied] = Bounded(DENIED_MAX)
        self._denied_addresses: Bounded[str, _Denied] = Bounded(BUCKETS_MAX)
        self._shares: Bounded[str, tuple[tuple[Limit, ...], tuple[Limit, ...]]] = Bounded(DENIED_MAX)
        self.remembered = 0  # refusals that asked nobody
        self.shadowed = 0  # calls that a quota in Shadow mode would have refused
        self.closed = 0
        self.local = 0
        self.open_ = 0

    async def open(self) -> None:
        await self.store.open()

    def known(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Exceeded | None:
        """Return the refusal that `spend` would certainly answer, without any I/O; None if that is not known."""
        found = self._room(key).peek(key)
        if found is None or (found.limits is not limits and found.limits != limits):
            return None
        at_us = self._at(now_us)
        wait_us = found.passes_us - at_us
        if not found.since_us <= at_us < found.until_us:
            return None
        self.remembered += 1
        return found.exceeded._replace(wait_us=wait_us)

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int) -> Within | Exceeded | Unknown:
        asked_us = self._at(now_us)
        outcome = await self.store.spend(key, limits, now_us=now_us)
        if isinstance(outcome, Unknown):
            return self._without_store(outcome, key, limits, now_us)
        if isinstance(outcome, Exceeded):
            # Anchored to the instant before the call was sent: earlier than the store decided, so never too late.
            self._remember(key, limits, asked_us, now_us, outcome)
            return outcome
        self.shadowed += bool(outcome.shadowed)
        empty = [level for level in outcome.levels if not level.remaining]
        if empty:
            last = max(empty, key=_reset_us)
            self._remember(key, limits, asked_us, now_us, Exceeded(last.name, last.reset_us, outcome.levels))
        return outcome

    def _at(self, now_us: int) -> int:
        return now_us if self._clock is None else self._clock()

    def _remember(self, key: str, limits: tuple[Limit, ...], asked_us: int, now_us: int, exceeded: Exceeded) -> None:
        until_us = asked_us + min(exceeded.wait_us, KNOWN_US)
        passes_us = self._at(now_us) + exceeded.wait_us  # from the reply on, so that nobody is told too early
        self._room(key).put(key, _Denied(limits, asked_us, until_us, passes_us, exceeded))

    def _room(self, key: str) -> Bounded[str, _Denied]:
        return self._denied_addresses if key.startswith(ANONYMOUS) else self._denied

    def _without_store(
        self, unknown: Unknown, key: str, limits: tuple[Limit, ...], now_us: int
    ) -> Within | Exceeded | Unknown:
        sharer = ANONYMOUS if key.startswith(ANONYMOUS) else key  # all addresses have the same limits
        found = self._shares.get(sharer)
        if found is None or found[0] is not limits:
            counted = tuple(limit for limit in limits if limit.on_store_failure is OnStoreFailure.LOCAL)
            found = limits, share(counted, self._replicas)
            self._shares.put(sharer, found)
        if any(limit.on_store_failure is OnStoreFailure.CLOSED and limit.enforced for limit in limits):
            self.closed += 1
            return unknown
        if not found[1]:
            self.open_ += 1
            return Within(())
        self.local += 1
        if unknown.account is None:
            return self._local.charge(key, found[1], now_us=now_us)
        return self._owing(unknown, unknown.account, key, found, now_us)

    def _owing(
        self,
        unknown: Unknown,
        account: Account,
        key: str,
        found: tuple[tuple[Limit, ...], tuple[Limit, ...]],
        now_us: int,
    ) -> Within | Exceeded:
        """Decide from this replica's share, starting from what the store told last; what is admitted is owed to it."""
        limits, shares = found
        at_us = clock.monotonic_us()
        account.share(shares)
        state = account.seed(limits, at_us, now_us)
        if state is not None:
            self._local.seed(key, state, shares, now_us)
        binding = account.binding(at_us)
        if binding is not None:
            wait_us = -(-binding.unit // max(1, binding.terms[1]))  # until its share makes one call good
            return Exceeded(binding.name, wait_us, self._local.levels(key, shares, now_us))
        outcome = self._local.charge(key, shares, now_us=now_us)
        if isinstance(outcome, Within):
            account.admit(unknown.doubt, at_us, now_us)
        return outcome

    def numbers(self) -> Iterator[Number]:
        """Return what the metrics page tells of quotas."""
        for name, count in (("closed", self.closed), ("local", self.local), ("open", self.open_)):
            yield "counter", "clientpolicy_store_fallbacks", "Calls without the store.", {"mode": name}, count
        told = "Refusals known without asking the store."
        yield "counter", "clientpolicy_quota_remembered", told, {}, self.remembered
        told = "Calls that a quota in Shadow mode would have refused."
        yield "counter", "clientpolicy_quota_shadowed", told, {}, self.shadowed
        forgotten = self._local.forgotten + (self.store.ledger.forgotten if isinstance(self.store, RedisStore) else 0)
        if isinstance(self.store, MemoryStore):
            forgotten += self.store.forgotten
        told = "Counts in memory dropped before they were idle, for want of room."
        yield "counter", "clientpolicy_quota_forgotten", told, {}, forgotten
        if isinstance(self.store, RedisStore):
            yield from self.store.numbers()

    async def close(self) -> None:
        await self.store.close()


def _reset_us(level: Level) -> int:
    return level.reset_us


def open_store(settings: StoreSettings, *, folder: Path, replicas: int) -> Store:
    """Return the store that the settings name; files that its URL names are in `folder`.

    Raises:
        BadPlace: with every mistake in the URL.
    """
    if settings.url == MEMORY:
        return MemoryStore()
    return RedisStore(
        read_place(settings.url, folder, settings.password_file),
        prefix=settings.prefix,
        hash_key=settings.hash_key.encode(),
        replicas=replicas,
        timeout_s=settings.timeout / SECOND_US,
    )
