#!/usr/bin/env python3
"""Prints values.schema.json for a values.yaml: values_schema.py VALUES.

Types are those of the defaults, and a key that has no default is refused: a misspelt value would be ignored in silence.
Where that says too little or too much, a comment above the key has what is to be laid over it, as JSON Schema in YAML:

    # @schema {minimum: 1}
    # -- Text for the README
    replicas: 2
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

Keys = tuple[str, ...]
_SAID = re.compile(r"\s*# @schema (?P<said>.+)")
_KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):")


def comments(text: str) -> dict[Keys, dict[str, Any]]:
    """Return what `# @schema` says, by the path of the key below it."""
    found: dict[Keys, dict[str, Any]] = {}
    said = ""
    above: list[tuple[int, str]] = []  # the keys that the line is within, by their indent
    for line in text.splitlines():
        if matched := _SAID.fullmatch(line):
            said = matched["said"]
        elif matched := _KEY.match(line):
            indent = len(matched["indent"])
            above = [*(one for one in above if one[0] < indent), (indent, matched["key"])]
            if said:
                found[tuple(key for _, key in above)] = yaml.safe_load(said)
            said = ""
    return found


def schema(value: object, path: Keys, said: dict[Keys, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of what may stand where `value` is the default; of an empty list or map anything.

    Takes from `said` what it used.
    """
    made: dict[str, Any]
    match value:
        case dict() if value:
            properties = {key: schema(inner, (*path, key), said) for key, inner in value.items()}
            made = {"type": "object", "additionalProperties": False, "properties": properties}
        case dict():
            made = {"type": "object"}
        case list():
            made = {"type": "array"}
            if value:
                made["items"] = schema(value[0], (*path, "0"), said)
        case bool():
            made = {"type": "boolean"}
        case int():
            made = {"type": "integer"}
        case str():
            made = {"type": "string"}
        case _:
            raise TypeError(f"{'.'.join(path)}: no type can be told from {value!r}")
    return made | said.pop(path, {})


def main() -> None:
    text = Path(sys.argv[1]).read_text()
    said = comments(text)
    made = schema(yaml.safe_load(text), (), said)
    if said:
        sys.exit(f"@schema above what is no key of a value: {', '.join('.'.join(path) for path in said)}")
    made["properties"]["global"] = {"type": "object"}  # Helm gives it to a chart that is part of another one
    sys.stdout.write(json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **made}, indent=2) + "\n")


if __name__ == "__main__":
    main()
