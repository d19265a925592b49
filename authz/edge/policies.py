"""Policies from a folder of manifests: last good versions kept, deletions and brakes applied at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from authz.core.roster import Entry, enlist, enlist_invalid, index
from authz.edge.manifests import Document, Unreadable, read_documents
from authz.model import Policies
from authz.policy import KIND, ClientPolicy, Revocation, Source, Validity, parse
from authz.policy.ceilings import Ceiling, beyond
from authz.policy.document import RevokedFingerprint

logger = logging.getLogger(__name__)

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
FILES_MAX: Final = 100_000
Brakes = dict[str, object]  # suspended, revocation, validity, as a document that is otherwise invalid says


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
    entries: dict[str, ClientPolicy] = field(default_factory=dict)
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
            for policy in known.entries.values():
                yield enlist(policy, may_shadow=self._may_shadow)
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
        _absorb(known, manifests)
        for error in known.errors:
            logger.warning("policy invalid; its last good version holds", extra={"error": error})
        return True


def _absorb(known: _Known, manifests: tuple[Manifest, ...]) -> None:
    """Take over what a file says now: valid documents whole, of invalid ones the brakes, missing ones not at all."""
    last_good, positions = known.entries, known.positions
    valid = {manifest.name for manifest in manifests if manifest.policy is not None}
    entries: dict[str, ClientPolicy] = {}
    known.positions, known.never_valid = {}, {}
    for manifest in manifests:
        name = manifest.name
        if manifest.policy is not None:
            entries[name] = manifest.policy
            known.positions[manifest.position] = name
            _note_unusable(manifest)
            continue
        if name not in last_good and positions.get(manifest.position) not in valid:
            name = positions.get(manifest.position, name)
        if name in last_good:
            entries[name] = braked(last_good[name], manifest.document.value)
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


def braked(good: ClientPolicy, document: object) -> ClientPolicy:
    """Return the last good policy with what an invalid version of it says to stop: suspension, revocation, validity.

    What can be read of them applies; a suspension that is neither true nor false is one.
    """
    root = document if isinstance(document, dict) else {}
    spec = root.get("spec")
    said: Brakes = spec if isinstance(spec, dict) else {}
    changes: Brakes = {}
    if "suspended" in said:
        changes["suspended"] = said["suspended"] is not False
    if "revocation" in said:
        changes["revocation"] = _revocation(good.spec.revocation, said["revocation"])
    if "validity" in said:
        changes["validity"] = _validity(good.spec.validity, said["validity"])
    return good.model_copy(update={"spec": good.spec.model_copy(update=changes)})


def _revocation(good: Revocation, said: object) -> Revocation:
    try:
        return Revocation.model_validate_json(json.dumps(said))
    except ValidationError:
        pass
    listed = said.get("fingerprints") if isinstance(said, dict) else None
    readable = {entry.sha256: entry for entry in good.fingerprints}
    for entry in listed if isinstance(listed, list) else ():
        try:
            revoked = RevokedFingerprint.model_validate_json(json.dumps(entry))
        except ValidationError:
            continue
        readable[revoked.sha256] = revoked
    return good.model_copy(update={"fingerprints": tuple(readable.values())})


def _validity(good: Validity, said: object) -> Validity:
    try:
        return Validity.model_validate_json(json.dumps(said))
    except ValidationError:
        return good
