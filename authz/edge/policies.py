"""Policies from a folder of manifests: last good versions kept, deletions and brakes applied at once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from watchfiles import awatch

from authz.core.brakes import braked
from authz.core.loose import map_of
from authz.core.roster import Entry, enlist, enlist_invalid, index
from authz.edge.manifests import Unreadable
from authz.edge.metrics import Number
from authz.edge.policy_files import Manifest, manifest_files, read_file
from authz.edge.source import Cautions, no_cautions, standings
from authz.model import Policies
from authz.policy import Source
from authz.policy.ceilings import Ceiling

logger = logging.getLogger(__name__)

FILES_MAX: Final = 100_000
RESCAN_MS: Final = 2_000  # where the file system tells nothing (network mounts), a change is seen this late


@dataclass(slots=True)
class _Known:
    """What was last read of a file, to tell a change from none, and the last good policies in it."""

    stamp: tuple[int, int, int] = (0, 0, 0)
    entries: dict[str, Entry] = field(default_factory=dict)
    positions: dict[int, str] = field(default_factory=dict)
    never_valid: tuple[Entry, ...] = ()
    errors: tuple[str, ...] = ()


class PolicyFolder:
    """Reads a folder again and again; what it keeps is what each file last said that was valid."""

    def __init__(
        self,
        path: Path,
        *,
        may_shadow: bool,
        ceilings: tuple[Ceiling, ...] = (),
        cautions: Cautions = no_cautions,
    ) -> None:
        self.path: Final = path
        self._ceilings = ceilings
        self._cautions = cautions
        self._may_shadow = may_shadow
        self._files: dict[Path, _Known] = {}
        self._generation = 0
        self.errors: tuple[str, ...] = ()

    def refresh(self) -> Policies | None:
        """Return the index of what the folder says now, None if nothing changed since the last call.

        Raises:
            OSError: the folder itself cannot be read; what it said before still holds.
        """
        try:
            present = manifest_files(self.path)
        except FileNotFoundError:  # a folder that is deleted deletes what was in it
            present = ()
        changed = False
        for file in self._files.keys() - set(present):
            del self._files[file]
            changed = True
            logger.info("policy file deleted", extra={"file": str(file)})
        for file in present[:FILES_MAX]:
            changed |= self._refresh_file(file)
        if not changed and self._generation:
            return None
        self._generation += 1
        self.errors = tuple(error for known in self._files.values() for error in known.errors)
        return index(self._entries(), self._generation)

    def _entries(self) -> Iterator[Entry]:
        for known in self._files.values():
            yield from known.entries.values()
            yield from known.never_valid

    def _refresh_file(self, file: Path) -> bool:
        known = self._files.get(file)
        try:
            status = file.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known is not None and known.stamp == stamp:
                return False
            known = self._files.setdefault(file, _Known())
            known.stamp = stamp
            manifests = read_file(file, str(file), self._ceilings)
        except FileNotFoundError:
            return self._files.pop(file, None) is not None
        except (OSError, Unreadable) as failed:
            known = self._files.setdefault(file, _Known())
            line = failed.line if isinstance(failed, Unreadable) else 1
            known.errors = (f"{file}:{line}: {failed}",)
            logger.warning("policy file unreadable; its last good version holds", extra={"error": known.errors[0]})
            return True
        if not manifests:
            logger.warning("policy file holds no ClientPolicy", extra={"file": str(file)})
        _absorb(known, manifests, may_shadow=self._may_shadow)
        for manifest in manifests:
            self._caution(manifest)
        for error in known.errors:
            logger.warning("policy invalid; its last good version holds", extra={"error": error})
        return True

    def _caution(self, manifest: Manifest) -> None:
        """Tell what of a valid policy does less, or more, than it seems to."""
        policy = manifest.policy
        if policy is None:
            return
        if policy.spec.certificate.source in (Source.ISSUED, Source.CSR):
            logger.warning(
                "from files only certificate.source External and None identify a client",
                extra={"file": manifest.shown, "policy": manifest.name},
            )
        for caution in self._cautions(policy):
            told = f"{manifest.where(*caution.path)}: {caution.message}"
            logger.warning("policy opens more or does less than it seems", extra={"caution": told})


def _absorb(known: _Known, manifests: tuple[Manifest, ...], *, may_shadow: bool) -> None:
    """Take over what a file says now: valid documents whole, of invalid ones the brakes, missing ones not at all.

    Beside a document that does not say which one it is, nothing is missing: it may be any of them.
    """
    last_good, owners = known.entries, _owners(known, manifests)
    times = Counter(manifest.name for manifest in manifests)
    kept = last_good if any(manifest.name is None for manifest in manifests) else {}
    entries = dict(kept)
    never_valid: list[Entry] = []
    errors: list[str] = []
    for manifest, owner in zip(manifests, owners, strict=True):
        errors.extend(manifest.errors)
        if manifest.name is not None and (count := times[manifest.name]) > 1:
            errors.append(f"{manifest.where('metadata', 'name')}: `{manifest.name}` stands {count} times in this file")
        elif owner is not None and manifest.policy is not None:
            entries[owner] = enlist(manifest.policy, may_shadow=may_shadow)
            continue
        if owner in last_good:
            good = entries.get(owner, last_good[owner])
            entries[owner] = good._replace(client=braked(good.client, manifest.document.value))
        elif (entry := enlist_invalid(manifest.document.value, manifest.shown_name)) is not None:
            never_valid.append(entry)
    for name in last_good.keys() - entries.keys():
        logger.info("policy deleted from its file", extra={"policy": name})
    known.positions = {one.position: name for one, name in zip(manifests, owners, strict=True) if name is not None}
    known.entries, known.never_valid, known.errors = entries, tuple(never_valid), tuple(errors)


def _owners(known: _Known, manifests: tuple[Manifest, ...]) -> list[str | None]:
    """Return whose version each document is, by name; None where nobody can tell.

    One whose name cannot be read is that of the missing policy with its client id, which never changes, or if it has
    none either, of the one that stood in its place.
    """
    named = {manifest.name for manifest in manifests}
    missing = {name: entry.client.id for name, entry in known.entries.items() if name not in named}
    owners: list[str | None] = []
    for manifest in manifests:
        client_id = map_of(map_of(manifest.document.value).get("spec")).get("clientId")
        if manifest.name is not None:
            owners.append(manifest.name)
        elif client_id is not None:
            owners.append(next((name for name, known_id in missing.items() if known_id == client_id), None))
        else:
            place = known.positions.get(manifest.position)
            owners.append(place if place in missing else None)
    return owners


class FilePolicies:
    """The policies of a folder, watched (`edge.source.PolicySource`)."""

    def __init__(self, folder: PolicyFolder) -> None:
        self._folder = folder
        self.where: Final = str(folder.path)
        self.policies: Policies | None = None
        self.trouble = ""

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def load(self) -> Policies:
        """Return what the folder says now.

        Raises:
            OSError: it cannot be read.
        """
        policies = self._folder.refresh()
        if policies is not None:
            self.policies = policies
        return self.policies or Policies(by_fingerprint={}, by_token={})

    async def run(self, changed: Callable[[], None]) -> None:
        """Read the folder whenever it changes, until cancelled."""
        path = self._folder.path
        watched = path.parent if path.is_file() else path
        await self._reload(changed)
        while True:
            try:
                async for _ in awatch(
                    watched, watch_filter=None, debounce=50, step=10, rust_timeout=RESCAN_MS, yield_on_timeout=True
                ):
                    await self._reload(changed)
            except OSError as failed:
                logger.warning("policies not watched", extra={"error": str(failed)})
            await asyncio.sleep(RESCAN_MS / 1000)
            await self._reload(changed)

    async def _reload(self, changed: Callable[[], None]) -> None:
        try:
            policies = await asyncio.to_thread(self._folder.refresh)
        except OSError as failed:
            self.trouble = str(failed)
            logger.warning("policies not read; what they said before holds", extra={"error": self.trouble})
            return
        self.trouble = ""
        if policies is not None:
            self.policies = policies
            clients = len({credential.client for credential in policies.by_fingerprint.values()})
            logger.info("policies loaded", extra={"generation": policies.generation, "clients": clients})
            changed()

    def numbers(self) -> Iterator[Number]:
        yield "gauge", "clientpolicy_policy_errors", "Errors in policies.", {}, len(self._folder.errors)
        for standing, count in standings(self.policies).items():
            yield "gauge", "clientpolicy_policies", "Policies by standing.", {"standing": standing.value}, count
