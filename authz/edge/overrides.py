"""Environment variables over configuration keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import yaml

from authz.edge.manifests import Plain

ENVIRONMENT_PREFIX: Final = "CLIENTPOLICY_"


class Misconfigured(Exception):  # noqa: N818 it is what the configuration is
    """Every mistake in the configuration, each with its place."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def override(value: dict[str, Plain], environment: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Plain]:
    """Return the configuration with each `CLIENTPOLICY_A__B` set at `a.b`; a missing parent is made.

    `names` spells every key by its lower-case form. Variables ignore case and single underscores (`FHIR__BASE_PATH` is
    fhir.basePath); a number is a place in a list. Values are read as YAML, so `[a, b]` is a list.

    Raises:
        Misconfigured: with the variable's name.
    """
    mistakes: list[str] = []
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        parts = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
        try:
            parsed = yaml.safe_load(environment[name])
            _set(value, parts, parsed if isinstance(parsed, int | list | dict) else environment[name], names)
        except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError):
            mistakes.append(f"{name}: names no place in the configuration, or its value is not YAML")
    if mistakes:
        raise Misconfigured(tuple(mistakes))
    return value


def _set(container: Plain, parts: list[str], value: Plain, names: Mapping[str, str]) -> None:
    """Set a value deep inside; of a map's keys the existing one with that name is meant, else the camel-case one."""
    key, rest = parts[0], parts[1:]
    if isinstance(container, list):
        place = int(key)
        if place == len(container):
            container.append({} if rest else None)
        if rest:
            _set(container[place], rest, value, names)
        else:
            container[place] = value
        return
    if not isinstance(container, dict) or not key:
        raise TypeError(key)
    folded = key.replace("_", "").lower()
    name = next((one for one in container if one.lower() == folded), names.get(folded, key.lower()))
    if rest:
        if container.get(name) is None:
            container[name] = [] if rest[0].isdecimal() else {}
        _set(container[name], rest, value, names)
    else:
        container[name] = value
