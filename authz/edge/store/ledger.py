"""Which keys owe calls to the store, and their debits sent in the background when no caller carries them."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final

from authz.core.address import ANONYMOUS, BUCKETS_MAX
from authz.core.debts import Account
from authz.edge.store.script import Plan

KEYS_MAX: Final = 100_000  # of clients; about 0.7 kB each
AT_ONCE: Final = 256  # debits in a round of the background: four flushes
ROUND_S: Final = 0.05


class Ledger:
    """Bounded: when full, what was not looked at for longest is forgotten.

    Who can make up addresses can make those of others be forgotten, so clients have a room of their own.
    """

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._clients: OrderedDict[str, Plan] = OrderedDict()
        self._addresses: OrderedDict[str, Plan] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._clients) + len(self._addresses)

    def account(self, key: str, plan: Plan) -> Account:
        """Return the account of a key; a new one if it has none."""
        if plan.account is None:
            room = self._room(key)
            if len(room) >= (self._keys_max if room is self._clients else min(self._keys_max, BUCKETS_MAX)):
                _, oldest = room.popitem(last=False)
                oldest.account = None
                self.forgotten += 1
            room[key] = plan
            plan.account = Account()
        return plan.account

    def follow(self, key: str, plan: Plan) -> None:
        """Take the plan that replaces another one of a key; what the store told before was about other limits."""
        room = self._room(key)
        before = room.get(key)
        if before is not None and before.account is not None:
            before.account.told = None
            plan.account, before.account = before.account, None
            room[key] = plan

    def due(self, now_us: int) -> list[Plan]:
        """Return the next keys with debits to send, and close the accounts that owe nothing."""
        found = []
        for room in (self._clients, self._addresses):
            for key in list(islice(room, AT_ONCE // 2)):
                plan = room[key]
                if plan.account is None or plan.account.is_settled(now_us):
                    plan.account = None
                    del room[key]
                    continue
                room.move_to_end(key)
                if plan.account.is_due(now_us):
                    found.append(plan)
        return found

    def _room(self, key: str) -> OrderedDict[str, Plan]:
        return self._addresses if key.startswith(ANONYMOUS) else self._clients
