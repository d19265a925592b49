"""Quotas of one process, in memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from authz.core.quota import Exceeded, State, Within, expires_us, spend
from authz.policy.limits import Limit

KEYS_MAX: Final = 100_000  # about 0.5 kB each
_SWEEP: Final = 8  # entries looked at for each new key: more than come in, so expired ones cannot pile up


class MemoryStore:
    """Bounded: when full, expired states go first, then those not used for longest.

    A caller who can make up keys (addresses) can so make others' states be forgotten; it never makes them wrong
    the other way round.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._states: OrderedDict[str, tuple[State, tuple[Limit, ...]]] = OrderedDict()
        self._keys_max = keys_max
        self.forgotten = 0  # states dropped before they were idle

    def __len__(self) -> int:
        return len(self._states)

    async def spend(self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1) -> Within | Exceeded:
        return self.charge(key, limits, now_us=now_us, cost=cost)

    def charge(self, key: str, limits: tuple[Limit, ...], *, now_us: int, cost: int = 1) -> Within | Exceeded:
        if not limits:
            return Within(())
        found = self._states.get(key)
        outcome, state = spend(found[0] if found is not None else {}, limits, now_us, cost)
        if state is not None:
            if found is None:
                self._make_room(now_us)
            self._states[key] = state, limits
            self._states.move_to_end(key)
        return outcome

    def _make_room(self, now_us: int) -> None:
        for _ in range(min(_SWEEP, len(self._states))):
            key, (state, limits) = next(iter(self._states.items()))
            if expires_us(state, limits) <= now_us:
                del self._states[key]
            else:
                break
        if len(self._states) >= self._keys_max:
            self._states.popitem(last=False)
            self.forgotten += 1

    async def close(self) -> None:
        self._states.clear()
