"""Policies from a folder of manifests: last good versions kept, deletions and brakes applied at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from watchfiles import awatch

from authz.core.brakes import braked
from authz.core.roster import Entry, enlist, enlist_invalid, index
from authz.edge.manifests import Document, Unreadable, read_documents
from authz.edge.metrics import Number
from authz.edge.source import standings
from authz.model import Policies
from authz.policy import KIND, ClientPolicy, Source, parse
from authz.policy.ceilings import Ceiling, beyond

logger = logging.getLogger(__name__)

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
FILES_MAX: Final = 100_000
RESCAN_MS: Final = 2_000  # where the file system tells nothing (network mounts), a change is seen this late


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One ClientPolicy document of a file: its value, or every error with its line."""

    file: Path
    position: int  # of the document in its file
    document: Document
    policy: ClientPolicy | None
    errors: tuple[str, ...]  # `file:line: place: message`

    @property
    def name(self) -> str:
        """The object's namespace/name; by its place in the file where it has none."""
        root = self.document.value if isinstance(self.document.value, dict) else {}
        metadata = root.get("metadata")
        named = metadata if isinstance(metadata, dict) else {}
        return f"{named.get('namespace', 'default')}/{named.get('name', f'document {self.position}')}"


def manifest_files(path: Path) -> tuple[Path, ...]:
    """Return the manifest files at a path, sorted; hidden ones (as Kubernetes mounts keep) left out.

    Raises:
        OSError: the path cannot be read.
    """
    if path.is_file():
        return (path,)
    return tuple(sorted(_below(path)))


def _below(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _below(entry)
        elif entry.suffix in SUFFIXES:
            yield entry


def read_file(file: Path, shown: str, ceilings: tuple[Ceiling, ...] = ()) -> tuple[Manifest, ...]:
    """Return the ClientPolicy documents of a file; documents of other kinds are not ours to read.

    One that goes beyond the platform's ceilings is invalid.

    Raises:
        Unreadable: the file is not YAML as we read it.
        OSError: it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Unreadable(1, "not UTF-8 text") from None
    return tuple(
        _manifest(file, position, document, shown, ceilings)
        for position, document in enumerate(read_documents(text))
        if _is_ours(document)
    )


def _is_ours(document: Document) -> bool:
    value = document.value
    return not isinstance(value, dict) or value.get("kind", KIND) == KIND


def _manifest(file: Path, position: int, document: Document, shown: str, ceilings: tuple[Ceiling, ...]) -> Manifest:
    parsed = parse(document.value)
    wrong = beyond(parsed, ceilings) if isinstance(parsed, ClientPolicy) else parsed
    if isinstance(parsed, ClientPolicy) and not wrong:
        return Manifest(file=file, position=position, document=document, policy=parsed, errors=())
    errors = tuple(f"{shown}:{document.line(error.path)}: {error}" for error in wrong)
    return Manifest(file=file, position=position, document=document, policy=None, errors=errors)


@dataclass(slots=True)
class _Known:
    """What was last read of a file, to tell a change from none, and the last good policies in it."""

    stamp: tuple[int, int, int] = (0, 0, 0)
    entries: dict[str, Entry] = field(default_factory=dict)
    positions: dict[int, str] = field(default_factory=dict)
    never_valid: dict[str, Entry] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


class PolicyFolder:
    """Reads a folder again and again; what it keeps is what each file last said that was valid."""

    def __init__(self, path: Path, *, may_shadow: bool, ceilings: tuple[Ceiling, ...] = ()) -> None:
        self._path = path
        self._ceilings = ceilings
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
            present = manifest_files(self._path)
        except FileNotFoundError:  # a folder that is deleted deletes what was in it
            present = ()
        changed = False
        for file in [known for known in self._files if known not in present]:
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
            yield from known.never_valid.values()

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
        _absorb(known, manifests, may_shadow=self._may_shadow)
        for error in known.errors:
            logger.warning("policy invalid; its last good version holds", extra={"error": error})
        return True


def _absorb(known: _Known, manifests: tuple[Manifest, ...], *, may_shadow: bool) -> None:
    """Take over what a file says now: valid documents whole, of invalid ones the brakes, missing ones not at all."""
    last_good, positions = known.entries, known.positions
    valid = {manifest.name for manifest in manifests if manifest.policy is not None}
    entries: dict[str, Entry] = {}
    known.positions, known.never_valid = {}, {}
    for manifest in manifests:
        name = manifest.name
        if manifest.policy is not None:
            entries[name] = enlist(manifest.policy, may_shadow=may_shadow)
            known.positions[manifest.position] = name
            _note_unusable(manifest)
            continue
        if name not in last_good and positions.get(manifest.position) not in valid:
            name = positions.get(manifest.position, name)
        if name in last_good:
            good = last_good[name]
            entries[name] = good._replace(client=braked(good.client, manifest.document.value))
            known.positions[manifest.position] = name
        elif (entry := enlist_invalid(manifest.document.value, name)) is not None:
            known.never_valid[f"{name} {manifest.position}"] = entry
    known.entries = entries
    known.errors = tuple(error for manifest in manifests for error in manifest.errors)


def _note_unusable(manifest: Manifest) -> None:
    if manifest.policy is not None and manifest.policy.spec.certificate.source in (Source.ISSUED, Source.CSR):
        logger.warning(
            "from files only certificate.source External and None identify a client",
            extra={"file": str(manifest.file), "policy": manifest.name},
        )


class FilePolicies:
    """The policies of a folder, watched (`edge.source.PolicySource`)."""

    def __init__(self, path: Path, *, may_shadow: bool, ceilings: tuple[Ceiling, ...] = ()) -> None:
        self._path = path
        self._folder = PolicyFolder(path, may_shadow=may_shadow, ceilings=ceilings)
        self.where: Final = str(path)
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
        watched = self._path.parent if self._path.is_file() else self._path
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
