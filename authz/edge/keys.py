"""Issuers' keys: fetched in the background, the last good set kept, newer keys asked for once and not again soon.

No request ever waits for a fetch. What cannot be read changes nothing until the last good set is too old; a set that
was read twice without a usable key is the issuer's word that none is valid.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

import aiohttp

from authz.core import jwks
from authz.edge import clock
from authz.edge.discovery import discover
from authz.edge.fetch import Fetcher, Unfetchable, open_session, shown
from authz.edge.roots import Roots
from authz.edge.settings import IssuerSettings
from authz.model import Issuer, KeySet, Trusted

logger = logging.getLogger(__name__)

REFRESH_S: Final = 300.0  # well inside the hours for which issuers publish a new key ahead of its use
RETRY_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
COOLDOWN_S: Final = 10.0  # between fetches that unknown kids and wrong signatures asked for
CONFIRM_S: Final = 10.0  # until a set without a usable key is read again: a slip in a deployment is shorter
FILE_LOOK_S: Final = 2.0


class Reading(Enum):
    """What came of a look at an issuer's keys."""

    TAKEN = "taken"
    DOUBTED = "doubted"  # no usable key, for the first time
    FAILED = "failed"


def issuer_of(settings: IssuerSettings) -> Issuer:
    """Return the issuer as decisions see it."""
    claims = settings.claims
    return Issuer(
        name=settings.name,
        issuer=settings.issuer,
        audiences=frozenset(settings.audiences),
        algorithms=frozenset(settings.algorithms),
        leeway_us=settings.leeway_seconds * 1_000_000,
        client_claim=claims.client,
        patient_claim=claims.patient,
        # Some issuers write `scp`; where nobody chose a claim, both count.
        scope_claims=("scope", "scp") if claims.scope == "scope" else (claims.scope,),
    )


class IssuerKeys:
    """The keys of one issuer, and the task that keeps them fresh."""

    def __init__(self, settings: IssuerSettings, fetcher: Fetcher, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._changed = changed
        self._wanted = asyncio.Event()
        self._jwks_uri: str | None = None  # as last discovered
        self._is_doubted = False  # the last set that could be read had no usable key
        self.issuer: Final = issuer_of(settings)
        self.keys: KeySet | None = None
        self.is_known = False  # a usable key was read once
        self.trouble = ""  # why the last look gave no keys
        self.failures = 0  # since the last set that could be read
        self.errors = 0
        self.fetches = 0
        self.loaded_at = 0.0  # time.time() of the last set that was taken

    @property
    def trusted(self) -> Trusted:
        return Trusted(self.issuer, self.keys)

    def want(self) -> None:
        """Ask for a fetch soon; many asking is one fetch, and none sooner than the cool-down allows."""
        self._wanted.set()

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            reading = await self.refresh()
            spread = random.uniform(0.9, 1.1)  # noqa: S311 spreads replicas, hides nothing
            match reading:
                case Reading.FAILED:
                    await asyncio.sleep(spread * RETRY_S[min(self.failures, len(RETRY_S)) - 1])
                case Reading.DOUBTED:
                    await asyncio.sleep(CONFIRM_S)
                case Reading.TAKEN:
                    await self._rest(spread * self.refresh_s)

    @property
    def refresh_s(self) -> float:
        """Return the time between looks: none that lets keys grow too old while they can be read."""
        look_s = FILE_LOOK_S if self._settings.jwks_file is not None else REFRESH_S
        return min(look_s, self._settings.jwks_max_age / 2e6)

    async def _rest(self, rest_s: float) -> None:
        """Sleep, but once the cool-down is over no longer than until newer keys are wanted."""
        await asyncio.sleep(min(rest_s, COOLDOWN_S))
        try:
            async with asyncio.timeout(max(0.0, rest_s - COOLDOWN_S)):
                await self._wanted.wait()
        except TimeoutError:
            return
        finally:
            self._wanted.clear()

    async def refresh(self) -> Reading:
        """Look at the keys; what was read before stays where they cannot be read, or have yet to be confirmed."""
        self.fetches += 1
        try:
            keys, warnings = await self._read()
        except Unfetchable as failed:
            self.errors += 1
            self.failures += 1
            self.trouble = str(failed)
            logger.warning(self._unread(), extra={"issuer": self.issuer.name, "error": self.trouble})
            return Reading.FAILED
        self.failures = 0
        if keys.keys:
            self._is_doubted = False
            self.is_known = True
            self.trouble = ""
        else:
            self.trouble = jwks.without_usable_key(warnings)
            if not self._is_doubted:
                return self._doubt()
        self._tell(keys, warnings)
        self._take(keys)
        return Reading.TAKEN

    async def _read(self) -> tuple[KeySet, tuple[str, ...]]:
        where, document = await self._document()
        try:
            return jwks.read_keys(document, clock.now_us() + self._settings.jwks_max_age)
        except ValueError as broken:
            raise Unfetchable(f"{where}: not a JSON Web Key Set: {broken}") from None

    async def _document(self) -> tuple[str, bytes]:
        path = self._settings.jwks_file
        if path is not None:
            return str(path), await asyncio.to_thread(_read_bounded, path)
        uri = self._settings.jwks_uri or await self._discovered()
        return shown(uri), await self._fetcher.get(uri)

    async def _discovered(self) -> str:
        """Return where the issuer says that its keys are; where it said so last while it says nothing."""
        try:
            self._jwks_uri = await discover(self._settings.issuer, self._fetcher.get)
        except Unfetchable as failed:
            if self._jwks_uri is None:
                raise
            told = "an issuer's metadata were not read; its keys are looked for where they were"
            logger.warning(told, extra={"issuer": self.issuer.name, "error": str(failed)})
        return self._jwks_uri

    @property
    def usable(self) -> int:
        """How many keys verify tokens now."""
        return 0 if self.keys is None or self.keys.is_stale(clock.now_us()) else len(self.keys.thumbprints)

    def _unread(self) -> str:
        """Return what a failed look means for the issuer's tokens."""
        if self.usable:
            return "an issuer's keys were not read; the last good set stays"
        if not self.is_known:
            return "an issuer's keys were not read; there are none yet, and none of its tokens is accepted"
        return "an issuer's keys were not read; they are withdrawn or too old, and none of its tokens is accepted"

    def _doubt(self) -> Reading:
        self._is_doubted = True
        told = "an issuer's key set has no usable key; it is read again before it counts"
        logger.warning(told, extra={"issuer": self.issuer.name, "error": self.trouble})
        return Reading.DOUBTED

    def _tell(self, keys: KeySet, warnings: tuple[str, ...]) -> None:
        """Log what changed, once."""
        if self.keys is not None and keys.thumbprints == self.keys.thumbprints:
            return
        for warning in warnings:
            logger.warning("a key of an issuer was left out", extra={"issuer": self.issuer.name, "error": warning})
        if keys.keys:
            logger.info("an issuer's keys changed", extra={"issuer": self.issuer.name, "keys": len(keys.thumbprints)})
        else:
            told = "an issuer's key set was read twice without a usable key; none of its tokens is accepted"
            logger.error(told, extra={"issuer": self.issuer.name, "error": self.trouble})

    def _take(self, keys: KeySet) -> None:
        self.loaded_at = clock.now_us() / 1e6
        self.keys = keys
        self._changed()


def _read_bounded(path: Path) -> bytes:
    """Return a file's content, cut one byte past what a key set may have.

    Raises:
        Unfetchable: with the reason.
    """
    try:
        with path.open("rb") as file:
            return file.read(jwks.DOCUMENT_MAX_BYTES + 1)
    except OSError as failed:
        raise Unfetchable(f"{path}: {failed.strerror}") from None


class KeyRing:
    """All issuers' keys; `trusted` is swapped whole when any of them changes."""

    def __init__(self, issuers: tuple[IssuerSettings, ...]) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._settings = issuers
        self._changed: Callable[[], None] = lambda: None
        self.by_name: dict[str, IssuerKeys] = {}
        self.trusted: Mapping[str, Trusted] = {}

    async def open(self, changed: Callable[[], None]) -> None:
        """Make ready to fetch, and tell `changed` of every new set; nothing is fetched yet."""
        self._changed = changed
        self._session = session = open_session()
        system = Roots(None)
        for one in self._settings:
            fetcher = Fetcher(session, Roots(one.ca) if one.ca is not None else system, one.proxy)
            self.by_name[one.name] = IssuerKeys(one, fetcher, self._swap)
        self._swap()

    def _swap(self) -> None:
        self.trusted = {keys.issuer.issuer: keys.trusted for keys in self.by_name.values()}
        self._changed()

    def trusted_at(self, now_us: int) -> Mapping[str, Trusted]:
        """Return the issuers with keys as if fetched at `now_us`: for judging a recorded request in its own time."""
        return {
            name: Trusted(issuer, KeySet(keys=keys.keys, stale_at_us=now_us + 1) if keys is not None else None)
            for name, (issuer, keys) in self.trusted.items()
        }

    def want(self, name: str) -> None:
        self.by_name[name].want()

    @property
    def missing(self) -> tuple[str, ...]:
        """The issuers of which no usable key has ever been read."""
        return tuple(name for name, keys in self.by_name.items() if not keys.is_known)

    @property
    def waiting(self) -> tuple[str, ...]:
        """A sentence for each issuer of which no usable key has ever been read."""
        troubles = ((name, self.by_name[name].trouble) for name in self.missing)
        return tuple(f"issuer {name}: no keys yet{f' ({trouble})' if trouble else ''}" for name, trouble in troubles)

    async def load_once(self) -> None:
        """Try every issuer once, side by side."""
        await asyncio.gather(*(keys.refresh() for keys in self.by_name.values()))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for keys in self.by_name.values():
                tasks.create_task(keys.run())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
