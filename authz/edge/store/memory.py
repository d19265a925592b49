"""Quotas of one process, in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from authz.core.address import ANONYMOUS, BUCKETS_MAX
from authz.core.quota import Exceeded, Level, State, Within, expires_us, levels_at, spend
from authz.policy.limits import Limit

KEYS_MAX: Final = 100_000  # of clients; about 0.5 kB each
_SWEEP: Final = 8  # entries looked at for each new key: more than come in, so expired ones cannot pile up


class MemoryStore:
    """Bounded: when full, expired states go first, then those not used for longest.

    A caller who can make up addresses can make those of others be forgotten, so clients have a room of their own: there
    are no more of them than policies.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._clients = _Room(keys_max)
        self._addresses = _Room(min(keys_max, BUCKETS_MAX))

    def __len__(self) -> int:
        return len(self._clients.states) + len(self._addresses.states)

    @property
    def forgotten(self) -> int:
        """States dropped before they were idle."""
        return self._clients.forgotten + self._addresses.forgotten

    async def open(self) -> None:
        return

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1) -> Within | Exceeded:
        return self.charge(key, limits, now_us=now_us, cost=cost)

    def charge(self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1) -> Within | Exceeded:
        if not limits:
            return Within(())
        room = self._room(key)
        found = room.states.get(key)
        outcome, state = spend(found[0] if found is not None else {}, limits, now_us, cost)
        if state is not None:
            room.put(key, state, limits, now_us)
        return outcome

    def seed(self, key: str, state: State, limits: tuple[Limit, ...], now_us: int) -> None:
        """Have a key start from this state."""
        self._room(key).put(key, state, limits, now_us)

    def levels(self, key: str, limits: tuple[Limit, ...], now_us: int) -> tuple[Level, ...]:
        """Return where a key's limits stand."""
        found = self._room(key).states.get(key)
        return levels_at(found[0] if found is not None else {}, limits, now_us)

    def _room(self, key: str) -> _Room:
        return self._addresses if key.startswith(ANONYMOUS) else self._clients

    async def close(self) -> None:
        self._clients.states.clear()
        self._addresses.states.clear()


class _Room:
    def __init__(self, keys_max: int) -> None:
        self.states: OrderedDict[str, tuple[State, tuple[Limit, ...]]] = OrderedDict()
        self._keys_max = keys_max
        self.forgotten = 0

    def put(self, key: str, state: State, limits: tuple[Limit, ...], now_us: int) -> None:
        if key not in self.states:
            self._make_room(now_us)
        self.states[key] = state, limits
        self.states.move_to_end(key)

    def _make_room(self, now_us: int) -> None:
        for _ in range(min(_SWEEP, len(self.states))):
            key, (state, limits) = next(iter(self.states.items()))
            if expires_us(state, limits) <= now_us:
                del self.states[key]
            else:
                break
        if len(self.states) >= self._keys_max:
            self.states.popitem(last=False)
            self.forgotten += 1
