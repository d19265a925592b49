"""More requests at once than a quota of 10/s with burst 20 lets pass."""

from __future__ import annotations

import asyncio
import http.client
import time
from dataclasses import dataclass
from typing import Final

from authz.demo.ask import Answer, Headers, Peer, ask

RATE: Final = 10  # per second
AT_ONCE: Final = 21  # burst 20, and the one that the rate itself allows
CONNECTIONS: Final = 4
REQUESTS_EACH: Final = 30  # enough for a machine that manages only 12 a second to see one stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What came of it; `took_s` runs from before the first request to after the last answer."""

    passed: tuple[Answer, ...]
    stopped: tuple[Answer, ...]
    took_s: float

    @property
    def is_within_quota(self) -> bool:
        return AT_ONCE <= len(self.passed) <= AT_ONCE + int(RATE * self.took_s)


async def flood(peer: Peer, target: str, headers: Headers) -> Flood:
    started_s = time.monotonic()
    side_by_side = (asyncio.to_thread(_one_by_one, peer, target, headers) for _ in range(CONNECTIONS))
    answers = [answer for some in await asyncio.gather(*side_by_side) for answer in some]
    took_s = time.monotonic() - started_s
    return Flood(
        passed=tuple(answer for answer in answers if answer.status == http.client.OK),
        stopped=tuple(answer for answer in answers if answer.status != http.client.OK),
        took_s=took_s,
    )


def _one_by_one(peer: Peer, target: str, headers: Headers) -> list[Answer]:
    connection = peer.connection()
    try:
        return [ask(connection, "GET", target, headers) for _ in range(REQUESTS_EACH)]
    finally:
        connection.close()
