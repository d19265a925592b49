"""Which namespaces are ours to serve: a Lease in each names the operator that does, by its own namespace.

Two operators with CAs of their own would issue for one policy in turn. Whoever comes first keeps a namespace, however
long it is away: another CA would refuse every partner there. It is given up by deleting the Lease, or the operator's
own namespace, and its CA with it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, Conflict, Forbidden, NotFound, Refused
from clientpolicy_operator.facts import Document
from clientpolicy_operator.told import map_of, text

logger = logging.getLogger(__name__)

NAME: Final = "clientpolicy-served"
LABELS: Final = {"app.kubernetes.io/managed-by": "clientpolicy", "app.kubernetes.io/component": "territory"}
OTHERS_S: Final = 30.0  # until another operator's Lease is looked at again, at most
KNOWN_MAX: Final = 10_000  # namespaces; of one more, the one looked at longest ago is asked for again
_ATTEMPTS: Final = 3
_A_NAMESPACE: Final = re.compile(
    r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
)  # whoever may write the Lease, writes anything


class _Seen(NamedTuple):
    holder: str
    at_s: float  # monotonic


class Territory:
    """`home` is the operator's own namespace; a Lease of ours is looked at again every `resync_s`."""

    def __init__(self, api: Api, home: str, *, resync_s: float) -> None:
        self._api = api
        self._home = home
        self._ours_s = resync_s
        self._others_s = min(resync_s, OTHERS_S)
        self._seen: dict[str, _Seen] = {}
        self._is_blind = False  # said already that it cannot be told

    @property
    def others(self) -> dict[str, str]:
        """The namespaces that others serve, and whose they are."""
        return {namespace: seen.holder for namespace, seen in self._seen.copy().items() if seen.holder != self._home}

    @property
    def is_shut_out(self) -> bool:
        """Whether all that was looked at is another operator's."""
        return bool(self._seen) and len(self.others) == len(self._seen)

    async def survey(self, namespaces: Iterable[str]) -> None:
        """Look at them all, and take what is nobody's; what is refused is tried again when it is visited.

        Raises:
            ApiError: the API server is away.
        """
        looked = await asyncio.gather(*map(self.other, sorted(set(namespaces))), return_exceptions=True)
        for fault in looked:
            if isinstance(fault, BaseException) and not isinstance(fault, Conflict | Refused):
                raise fault

    async def other(self, namespace: str) -> str | None:
        """Return the operator that serves it, None where that is us; what is nobody's is taken.

        Raises:
            ApiError: it cannot be told.
        """
        seen = self._seen.get(namespace)
        now_s = clock.monotonic_s()
        if seen is None or now_s - seen.at_s > (self._ours_s if seen.holder == self._home else self._others_s):
            seen = _Seen(await self._look(namespace), now_s)
            self._note(namespace, seen)
        return seen.holder if seen.holder != self._home else None

    def _note(self, namespace: str, seen: _Seen) -> None:
        before = self._seen.pop(namespace, None)
        while len(self._seen) >= KNOWN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[namespace] = seen
        if seen.holder == (before.holder if before is not None else self._home):
            return
        if seen.holder == self._home:
            logger.warning("this operator serves the namespace from now on", extra={"namespace": namespace})
            return
        logger.error(
            "another operator serves this namespace; this one does nothing there (docs/operations.md)",
            extra={"namespace": namespace, "lease": NAME, "holder": seen.holder},
        )

    async def _look(self, namespace: str) -> str:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        for _ in range(_ATTEMPTS):
            try:
                found = await self._api.get(f"{path}/{NAME}")
                holder = str(map_of((found or {}).get("spec")).get("holderIdentity") or "")
                if holder == self._home or (holder and not await self._is_gone(holder)):
                    return holder
                await self._take(path, found)
            except Conflict:  # somebody else was faster
                continue
            except NotFound:  # the namespace is gone, and what was in it
                return self._home
            except Forbidden as forbidden:
                self._say_blind(namespace, str(forbidden))
                return self._home
            else:
                return self._home
        raise Conflict(f"{path}/{NAME}: others write as often as we do")

    async def _take(self, path: str, found: Document | None) -> None:
        spec = {"holderIdentity": self._home, "acquireTime": text(clock.now())[:-1] + ".000000Z"}
        if found is None:
            body: dict[str, Any] = {"metadata": {"name": NAME, "labels": LABELS}, "spec": spec}
            await self._api.create(path, body)
        else:
            await self._api.replace(f"{path}/{NAME}", {**found, "spec": {**map_of(found.get("spec")), **spec}})

    async def _is_gone(self, holder: str) -> bool:
        """Tell whether an operator's own namespace, and so its CA, is there no more."""
        if not _A_NAMESPACE.fullmatch(holder):
            return False
        try:
            return await self._api.get(f"/api/v1/namespaces/{holder}") is None
        except Forbidden:
            return False

    def _say_blind(self, namespace: str, error: str) -> None:
        """Say once that it cannot be told: who has installed the rights of an older version is served as before."""
        if not self._is_blind:
            told = {"namespace": namespace, "lease": NAME, "error": error}
            logger.warning("it cannot be told whether another operator serves a namespace", extra=told)
        self._is_blind = True
