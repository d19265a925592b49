"""How long to leave a policy alone: after visits that failed, and where somebody undoes what we write."""

from __future__ import annotations

from typing import Final

from clientpolicy_operator.facts import Key

FIRST_S: Final = 1.0
MAX_S: Final = 60.0
REWRITES_FREE: Final = 3  # of one spec's status: it also changes as cert-manager answers, or a certificate is renewed
FORGIVEN_S: Final = 600.0  # after so long without a rewrite, the next one is the first


class Patience:
    """Pauses in seconds; what is remembered of a policy goes with `forget`."""

    def __init__(self) -> None:
        self._failures: dict[Key, int] = {}
        self._reported: dict[Key, int] = {}  # the generation of the last status that was written
        self._rewrites: dict[Key, tuple[int, float]] = {}  # of that generation's: how many, and when the last one was

    def failed(self, key: Key, *, wished_s: float, chance: float) -> float:
        """Return the pause after a visit that failed, `wished_s` at least; `chance` in [0, 1) spreads them."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return max(wished_s, _doubled(failures) * (0.5 + chance / 2))

    def settled(self, key: Key, reported: int | None, now_s: float) -> float:
        """Return the pause after a visit that worked; `reported`: the generation whose status it wrote, if it did."""
        self._failures.pop(key, None)
        if reported is None:
            return 0.0
        if self._reported.get(key) != reported:
            self._reported[key] = reported
            self._rewrites.pop(key, None)
            return 0.0
        count, last_s = self._rewrites.get(key, (0, now_s))
        count = 1 if now_s - last_s > FORGIVEN_S else count + 1
        self._rewrites[key] = count, now_s
        return _doubled(count - REWRITES_FREE) if count > REWRITES_FREE else 0.0

    def edited(self, key: Key) -> None:
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        for remembered in (self._failures, self._reported, self._rewrites):
            remembered.pop(key, None)


def _doubled(times: int) -> float:
    return min(MAX_S, FIRST_S * 2.0 ** min(times - 1, 10))
