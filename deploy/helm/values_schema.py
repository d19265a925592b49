#!/usr/bin/env python3
"""Prints values.schema.json for a values.yaml: values_schema.py VALUES.

Types are those of the defaults, and a key that has no default is refused: a misspelt value would be ignored in silence.
Where that says too little or too much, a comment above the key has what is to be laid over it, as JSON Schema in YAML:

    # @schema {minimum: 1}
    # -- Text for the README
    replicas: 2

What a program of ours reads is held to what that program takes: `{model: MODULE.CLASS}` stands for the schema of its
settings, so that a key that it would refuse at its start is refused by Helm before anything is replaced.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import WithDefaultSchema

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


class Shape(GenerateJsonSchema):
    """The schema of what may be written; what holds where nothing is written is the program's to know."""

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def shape_of(model: str) -> dict[str, Any]:
    """Return the schema of the settings that a model reads, whole in itself."""
    module, _, name = model.rpartition(".")
    made = getattr(import_module(module), name).model_json_schema(schema_generator=Shape)
    return laid_over(plain(made, made.get("$defs", {})))


def plain(node: Any, definitions: dict[str, Any]) -> Any:  # noqa: ANN401 a document
    """Return a schema without references, names and texts, which would be longer than what they say."""
    if isinstance(node, list):
        return [plain(one, definitions) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return plain(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in node and (first := without_null(node["anyOf"])) is not None:
        return or_null(plain(first, definitions))
    closed = {"additionalProperties": False} if "patternProperties" in node else {}
    kept = {key: value for key, value in node.items() if key not in ("title", "description", "format", "$defs")}
    return closed | {
        key: {name: plain(one, definitions) for name, one in value.items()}
        if key in ("properties", "patternProperties")
        else plain(value, definitions)
        for key, value in kept.items()
    }


def without_null(choices: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what may stand there besides null, where that is one thing."""
    others = [choice for choice in choices if choice != {"type": "null"}]
    return others[0] if len(others) == 1 and len(choices) == 2 else None  # noqa: PLR2004 it, or null


def or_null(schema: Any) -> dict[str, Any]:  # noqa: ANN401 a document
    """Return a schema that takes null besides: Helm tells what is wrong with the value, and not that no choice fits."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **enum}


def laid_over(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of what is laid over something else: maps are merged, so a key may come from elsewhere.

    Lists are replaced whole, so what an entry requires, it requires here.
    """
    made = {key: value for key, value in schema.items() if key != "required"}
    if "properties" in made:
        made["properties"] = {key: laid_over(inner) for key, inner in made["properties"].items()}
    return made


def resolved(said: object) -> Any:  # noqa: ANN401 a document
    """Return what a comment says, each model replaced by its schema."""
    match said:
        case {"model": str(model), **more}:
            return {**shape_of(model), **more}
        case dict():
            return {key: resolved(value) for key, value in said.items()}
        case _:
            return said


def main() -> None:
    text = Path(sys.argv[1]).read_text()
    said = {path: resolved(schema) for path, schema in comments(text).items()}
    made = schema(yaml.safe_load(text), (), said)
    if said:
        sys.exit(f"@schema above what is no key of a value: {', '.join('.'.join(path) for path in said)}")
    made["properties"]["global"] = {"type": "object"}  # Helm gives it to a chart that is part of another one
    sys.stdout.write(json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **made}, indent=2) + "\n")


if __name__ == "__main__":
    main()
