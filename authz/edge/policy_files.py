"""Files of manifests → the ClientPolicies in them, each with its name and every error; and what nearly is one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from authz.core.loose import map_of
from authz.edge.manifests import Document, Unreadable, read_documents
from authz.policy import API_VERSION, KIND, ClientPolicy, FieldError, parse
from authz.policy.ceilings import Ceiling, within
from authz.policy.document import Metadata

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_GROUP: Final = API_VERSION.partition("/")[0]
_LISTS: Final = ("List", f"{KIND}List")
_OTHERS: Final = ("TokenRevocation",)  # of our group, and no policies
_OF_A_LIST: Final = frozenset({"apiVersion", "kind", "metadata", "items"})
_LOOK_ALIKES: Final = ("clientpolicy", "clientpolicies", "clientpolicylist", "cpol")
# A slip of a letter or two; kinds and groups of others (ClientTrafficPolicy, audit.healthtech.dev) stay below.
_KIND_ALIKE: Final = 0.88
_GROUP_ALIKE: Final = 0.92


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One ClientPolicy document of a file: its value, or every error with its line."""

    file: Path
    shown: str  # the file as people are told it
    position: int  # among the objects of its file
    document: Document
    name: str | None  # namespace/name; None where it cannot be read
    policy: ClientPolicy | None
    wrong: tuple[FieldError, ...]

    @property
    def errors(self) -> tuple[str, ...]:
        """What is wrong, as `file:line: place: message`."""
        return tuple(f"{self.shown}:{self.document.line(error.path)}: {error}" for error in self.wrong)

    @property
    def shown_name(self) -> str:
        return self.name or f"default/document {self.position}"

    def where(self, *path: str | int) -> str:
        """Return where a field stands, as `file:line: field`."""
        return f"{self.shown}:{self.document.line(path)}: {FieldError(path=path, message='').place}"


def manifest_files(path: Path) -> tuple[Path, ...]:
    """Return the manifest files at a path, sorted; hidden ones (as Kubernetes mounts keep) left out.

    Each real file and folder comes once, by its own name rather than a link's, so that no link makes two of one policy.

    Raises:
        OSError: the path cannot be read.
    """
    if path.is_file():
        return (path,)
    found: dict[Path, Path] = {}
    for real, file in sorted(_below(path, set()), key=lambda one: (one[1].is_symlink(), one[1])):
        found.setdefault(real, file)
    return tuple(sorted(found.values()))


def real_path(path: Path) -> Path:
    """Return where links lead; of a loop of links, unlike `Path.resolve`, some path in it."""
    return Path(os.path.realpath(path))


def _below(folder: Path, seen: set[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the real path and the name of each file; folders are seen once, so that a link to one above ends."""
    real = real_path(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in sorted(folder.iterdir(), key=lambda one: (one.is_symlink(), one)):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _below(entry, seen)
        elif entry.suffix.lower() in SUFFIXES:
            yield real_path(entry) if entry.is_symlink() else real / entry.name, entry


def read_file(file: Path, shown: str, ceilings: tuple[Ceiling, ...] = ()) -> tuple[Manifest, ...]:
    """Return the ClientPolicy documents of a file, those in lists too; documents of other kinds are not ours to read.

    One that goes beyond the platform's ceilings is invalid, and so is one that is nearly a ClientPolicy.

    Raises:
        Unreadable: the file is not YAML as we read it.
        OSError: it cannot be read.
    """
    return read_manifests(file.read_bytes(), file, shown, ceilings)


def read_manifests(data: bytes, file: Path, shown: str, ceilings: tuple[Ceiling, ...] = ()) -> tuple[Manifest, ...]:
    """Return what `read_file` does, of a file's content.

    Raises:
        Unreadable: it is not YAML as we read it.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Unreadable(1, "not UTF-8 text") from None
    objects = (one for document in read_documents(text) for one in _objects(document))
    return tuple(
        _manifest(file, position, document, shown, ceilings)
        for position, document in enumerate(objects)
        if _is_ours(document.value)
    )


def _objects(document: Document) -> Iterator[Document]:
    """Yield the objects that a document holds: those in a list, in lists of lists too, else itself."""
    if _is_list(map_of(document.value)):
        for item in document.items():
            yield from _objects(item)
    else:
        yield document


def _is_list(value: Mapping[str, object]) -> bool:
    """Return whether a map is a list; without `items` it is an empty one, unless it says what no list does."""
    items = value.get("items")
    is_empty = items is None and value.keys() <= _OF_A_LIST
    return value.get("kind") in _LISTS and (is_empty or isinstance(items, list))


def _is_ours(value: object) -> bool:
    """Return whether a value is a ClientPolicy, was meant to be one, or does not say what else it is."""
    if not isinstance(value, dict):
        return True
    kind, version = value.get("kind"), value.get("apiVersion")
    if not isinstance(kind, str) or kind in _LISTS or _is_misspelt_list(value):
        return True
    if version == API_VERSION and kind in _OTHERS:
        return False
    group = version.partition("/")[0].casefold() if isinstance(version, str) else ""
    letters = "".join(filter(str.isalpha, kind)).casefold()
    return _alike(group, _GROUP) >= _GROUP_ALIKE or any(_alike(letters, one) >= _KIND_ALIKE for one in _LOOK_ALIKES)


def _is_misspelt_list(value: Mapping[str, object]) -> bool:
    kind = value.get("kind")
    return (
        isinstance(kind, str) and kind != "List" and kind.casefold() == "list" and isinstance(value.get("items"), list)
    )


def _alike(one: str, other: str) -> float:
    """Return how much of two texts is the same, from 0 to 1; of long ones nothing."""
    return SequenceMatcher(None, one, other).ratio() if len(one) <= 2 * len(other) else 0.0


def _manifest(file: Path, position: int, document: Document, shown: str, ceilings: tuple[Ceiling, ...]) -> Manifest:
    policy, wrong = _judged(document.value, ceilings)
    return Manifest(
        file=file,
        shown=shown,
        position=position,
        document=document,
        name=_name(document.value),
        policy=policy,
        wrong=wrong,
    )


def _judged(value: object, ceilings: tuple[Ceiling, ...]) -> tuple[ClientPolicy | None, tuple[FieldError, ...]]:
    """Return the policy, or what is wrong with it."""
    if _is_misspelt_list(map_of(value)):
        return None, (FieldError(path=("kind",), message="expected `List`"),)
    if map_of(value).get("kind") in _LISTS:
        return None, (FieldError(path=("items",), message="expected a list of ClientPolicies"),)
    return within(parse(value), ceilings)


def _name(value: object) -> str | None:
    """Return namespace/name of an object, None where they cannot be read, or nothing could be called that."""
    try:
        metadata = Metadata.model_validate(map_of(value).get("metadata"))
    except ValidationError:
        return None
    return f"{metadata.namespace}/{metadata.name}"
