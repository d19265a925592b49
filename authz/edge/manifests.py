"""YAML documents with the line of every field, read without surprises.

No tags, no repeated keys, no dates: what a person wrote as text stays text. Aliases are expanded up to a bound, because
an alias bomb is a few lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

TEXT_MAX_CHARACTERS: Final = 1_048_576  # what a Kubernetes object may hold
DEPTH_MAX: Final = 32
NODES_MAX: Final = 100_000
_PLAIN_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "map", "seq", "timestamp")
)

_NULL: Final = "tag:yaml.org,2002:null"

Path = tuple[str | int, ...]
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


class Unreadable(Exception):  # noqa: N818 it is a property of the text
    """The text is not YAML as we read it; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One YAML document: plain values, and the line on which each field starts."""

    value: Plain
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of a field, or of the nearest thing around it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def items(self) -> tuple[Document, ...]:
        """Return what stands in its list `items`, each as a document of its own."""
        listed = self.value.get("items") if isinstance(self.value, dict) else None
        if not isinstance(listed, list):
            return ()
        lines: list[dict[Path, int]] = [{} for _ in listed]
        for path, line in self.lines.items():
            if path[:1] == ("items",) and len(path) > 1 and isinstance(place := path[1], int):
                lines[place][path[2:]] = line
        return tuple(Document(value=value, lines=where) for value, where in zip(listed, lines, strict=True))


def read_documents(text: str) -> tuple[Document, ...]:
    """Return the documents of a YAML (or JSON) text, empty ones left out.

    Raises:
        Unreadable: where, and what was expected.
    """
    if len(text) > TEXT_MAX_CHARACTERS:
        raise Unreadable(1, f"longer than {TEXT_MAX_CHARACTERS} characters")
    try:
        return tuple(_documents(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(mark.line + 1 if mark else 1, error.problem or "not YAML") from None
    except yaml.YAMLError:
        raise Unreadable(1, "not YAML: a character that YAML does not allow") from None
    except RecursionError:
        raise Unreadable(1, f"nested more than {DEPTH_MAX} levels deep") from None


def _documents(text: str) -> Iterator[Document]:
    loader = yaml.CSafeLoader(text) if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL and not node.value):
                continue
            reader = _Reader(loader)
            yield Document(value=reader.read(node, ()), lines=reader.lines)
    finally:
        loader.dispose()


class _Reader:
    def __init__(self, loader: yaml.SafeLoader | yaml.CSafeLoader) -> None:
        self._loader = loader
        self._nodes = 0
        self.lines: dict[Path, int] = {}

    def read(self, node: yaml.Node, path: Path) -> Plain:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise Unreadable(line, f"more than {NODES_MAX} values, aliases expanded")
        if len(path) > DEPTH_MAX:
            raise Unreadable(line, f"nested more than {DEPTH_MAX} levels deep")
        if node.tag not in _PLAIN_TAGS:
            raise Unreadable(line, "tags are not read here; expected a plain map, list or scalar")
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, position)) for position, item in enumerate(node.value)]
        return self._scalar(node)

    def _map(self, node: yaml.MappingNode, path: Path) -> dict[str, Plain]:
        values: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key := self._scalar(key_node), str):
                raise Unreadable(line, "a key is not text; quote it")
            if key in values:
                raise Unreadable(line, f"`{key}` stands twice in one map")
            self.lines[(*path, key)] = line
            values[key] = self.read(value_node, (*path, key))
        return values

    def _scalar(self, node: yaml.Node) -> Plain:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return str(node.value)
        try:
            value: Plain = self._loader.construct_object(node)
        except ValueError:  # an integer of thousands of digits
            raise Unreadable(node.start_mark.line + 1, "a number out of range") from None
        return value
