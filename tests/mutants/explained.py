"""Survivors that no test can tell, each with the reason, in explained.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from mutants.mutations import Mutant

FILE = Path(__file__).with_name("explained.toml")
Name = tuple[str, str, str, str]


def explained(text: str) -> set[Name]:
    """Return the names of the explained mutants.

    Raises:
        ValueError: an entry that lacks a field or a reason, or says what another has said.
    """
    names: set[Name] = set()
    for entry in tomllib.loads(text).get("mutant", []):
        missing = {"module", "function", "before", "after", "why"} ^ entry.keys()
        if missing or not entry["why"].strip():
            raise ValueError(f"an explanation has module, function, before, after and why: {entry}")
        for after in entry["after"]:
            name = (entry["module"], entry["function"], entry["before"], after)
            if name in names:
                raise ValueError(f"explained twice: {name}")
            names.add(name)
    return names


def vanished(names: set[Name], mutants: Iterable[Mutant]) -> list[Name]:
    """Return the explained mutants that the code no longer has."""
    return sorted(names - {mutant.name for mutant in mutants})
