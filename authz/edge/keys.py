"""Issuers' keys: fetched in the background, the last good set kept, an unknown `kid` asked for once and not again soon.

No request ever waits for a fetch. A document is bounded in size and time, comes over https (http only from this
machine) and without redirects: a redirect would let whoever answers choose where keys come from.

Source: RFC 8414 section 3 and OpenID Connect Discovery 1.0 section 4 for where an issuer's metadata is.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from authz.core import jwks
from authz.core.strict_json import read_object
from authz.edge import clock
from authz.edge.settings import IssuerSettings, is_loopback
from authz.model import Issuer, KeySet, Trusted

logger = logging.getLogger(__name__)

REFRESH_S: Final = 300.0  # well inside the hours for which issuers publish a new key ahead of its use
RETRY_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
COOLDOWN_S: Final = 10.0  # between fetches that unknown kids asked for
FETCH_TIMEOUT_S: Final = 5.0
FILE_LOOK_S: Final = 2.0
_METADATA: Final = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")


class Unfetchable(Exception):  # noqa: N818 it is what the document is
    """Why an issuer's keys could not be had; for the log."""


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

    def __init__(self, settings: IssuerSettings, session: aiohttp.ClientSession, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._session = session
        self._changed = changed
        self._wanted = asyncio.Event()
        self._jwks_uri = settings.jwks_uri
        self.issuer: Final = issuer_of(settings)
        self.keys: KeySet | None = None
        self.failures = 0
        self.fetches = 0
        self.loaded_at = 0.0  # time.time() of the last good set

    @property
    def trusted(self) -> Trusted:
        return Trusted(self.issuer, self.keys)

    def want(self) -> None:
        """Ask for a fetch soon; many asking is one fetch, and none sooner than the cool-down allows."""
        self._wanted.set()

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            loaded = await self.refresh()
            spread = random.uniform(0.9, 1.1)  # noqa: S311 spreads replicas, hides nothing
            if not loaded:
                await asyncio.sleep(spread * RETRY_S[min(self.failures, len(RETRY_S)) - 1])
                continue
            refresh_s = FILE_LOOK_S if self._settings.jwks_file is not None else REFRESH_S
            await asyncio.sleep(min(refresh_s, COOLDOWN_S))
            try:
                async with asyncio.timeout(max(0.0, spread * refresh_s - COOLDOWN_S)):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            finally:
                self._wanted.clear()

    async def refresh(self) -> bool:
        """Return whether the keys could be read now; what was read before stays if not."""
        self.fetches += 1
        try:
            document = await self._document()
            now_us = clock.now_us()
            keys, warnings = jwks.read_keys(document, now_us + self._settings.jwks_max_age)
        except (Unfetchable, ValueError, OSError) as failed:
            self.failures += 1
            logger.warning(
                "keys not refreshed; the last good set stays",
                extra={"issuer": self.issuer.name, "error": str(failed) or type(failed).__name__},
            )
            return False
        self.failures = 0
        self.loaded_at = now_us / 1e6
        if self.keys is None or {key.thumbprint for key in keys.keys} != {key.thumbprint for key in self.keys.keys}:
            for warning in warnings:
                logger.warning("key left out", extra={"issuer": self.issuer.name, "error": warning})
            logger.info("keys changed", extra={"issuer": self.issuer.name, "keys": len(keys.keys)})
        self.keys = keys
        self._changed()
        return True

    async def _document(self) -> bytes:
        if self._settings.jwks_file is not None:
            return await asyncio.to_thread(_read_bounded, self._settings.jwks_file)
        if self._jwks_uri is None:
            self._jwks_uri = await self._discover()
        return await self._get(self._jwks_uri)

    async def _discover(self) -> str:
        """Return the `jwks_uri` of the issuer's metadata, which must name the issuer itself (RFC 8414 section 3.3)."""
        base = self._settings.issuer.rstrip("/")
        failed = Unfetchable("no metadata")
        for suffix in _METADATA:
            try:
                metadata = read_object(await self._get(_metadata_url(base, suffix)))
            except (Unfetchable, ValueError) as failure:
                failed = Unfetchable(f"discovery: {failure}")
                continue
            if metadata.get("issuer") != self._settings.issuer:
                failed = Unfetchable("discovery: the metadata names another issuer")
                continue
            uri = metadata.get("jwks_uri")
            if isinstance(uri, str):
                return uri
            failed = Unfetchable("discovery: no jwks_uri")
        raise failed

    async def _get(self, url: str) -> bytes:
        _require_safe(url)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:  # noqa: PLR2004 HTTP OK
                    raise Unfetchable(f"{url} answered {response.status}")
                body = await response.content.read(jwks.DOCUMENT_MAX_BYTES + 1)
                while len(body) <= jwks.DOCUMENT_MAX_BYTES and (more := await response.content.read(65_536)):
                    body += more
        except (aiohttp.ClientError, TimeoutError) as failed:
            raise Unfetchable(f"{url}: {type(failed).__name__}") from None
        if len(body) > jwks.DOCUMENT_MAX_BYTES:
            raise Unfetchable(f"{url} is longer than {jwks.DOCUMENT_MAX_BYTES} bytes")
        return body


def _metadata_url(base: str, suffix: str) -> str:
    """Return OpenID's form (issuer, then suffix) or RFC 8414's (suffix between host and path)."""
    if suffix == _METADATA[0]:
        return base + suffix
    url = urlsplit(base)
    return f"{url.scheme}://{url.netloc}{suffix}{url.path}"


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise Unfetchable(f"{parts.scheme}:// is not https")


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(jwks.DOCUMENT_MAX_BYTES + 1)


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
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        self.by_name = {one.name: IssuerKeys(one, self._session, self._swap) for one in self._settings}
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
        """The issuers whose keys have never been read."""
        return tuple(name for name, keys in self.by_name.items() if keys.keys is None)

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
