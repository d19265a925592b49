"""The schema of the chart's values: whatever values.yaml has no key for is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clientpolicy_operator.settings import Settings as OperatorSettings
from pydantic import BaseModel

from authz.edge.settings import Settings
from authz.policy.ceilings import Ceiling

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "clientpolicy"


def run(values: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy" / "helm" / "values_schema.py"), str(values)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def made(values: str, folder: Path) -> dict[str, Any]:
    (folder / "values.yaml").write_text(values)
    schema: dict[str, Any] = json.loads(run(folder / "values.yaml").stdout)["properties"]
    return schema


def open_objects(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Return the paths of the objects that take any key."""
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield path
    for key, inner in schema.get("properties", {}).items():
        yield from open_objects(inner, f"{path}.{key}".lstrip("."))


def test_committed_schema_is_that_of_the_values() -> None:
    stale = "deploy/helm/generate makes it anew"
    assert run(CHART / "values.yaml").stdout == (CHART / "values.schema.json").read_text(), stale


def test_only_what_is_a_map_of_its_own_takes_any_key() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    maps = {"annotations", "labels", "commonLabels", "podLabels", "podAnnotations", "nodeSelector"}
    free = maps | {"affinity", "requests", "limits", "global", "add"}
    assert {path.rpartition(".")[2] for path in open_objects(schema)} == free
    assert schema["additionalProperties"] is False


def test_types_are_those_of_the_defaults(tmp_path: Path) -> None:
    schema = made("a: {b: text, c: 1, d: true}\ne: []\nf: {}\ng: [1]\n", tmp_path)
    assert schema["a"] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"b": {"type": "string"}, "c": {"type": "integer"}, "d": {"type": "boolean"}},
    }
    assert schema["e"] == {"type": "array"}
    assert schema["f"] == {"type": "object"}
    assert schema["g"] == {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize("model", [Settings, OperatorSettings, Ceiling], ids=lambda model: model.__module__)
def test_model_stands_for_the_keys_that_it_reads(model: type[BaseModel], tmp_path: Path) -> None:
    schema = made(f"# @schema {{model: {model.__module__}.{model.__name__}}}\na: {{}}\n", tmp_path)["a"]
    assert set(schema["properties"]) == {field.alias for field in model.model_fields.values()}
    assert schema["additionalProperties"] is False
    assert "default" not in json.dumps(schema), "what holds without a key is the program's to know"


def test_maps_are_merged_and_lists_are_not_so_only_entries_of_lists_require_anything(tmp_path: Path) -> None:
    schema = made(f"# @schema {{model: {Settings.__module__}.Settings}}\na: {{}}\n", tmp_path)["a"]
    assert "required" not in schema
    assert "required" not in schema["properties"]["listen"]["properties"]["tls"]
    assert schema["properties"]["issuers"]["items"]["required"] == ["name", "issuer", "audiences"]


def test_null_leaves_a_key_out(tmp_path: Path) -> None:
    properties = made(f"# @schema {{model: {Settings.__module__}.Settings}}\na: {{}}\n", tmp_path)["a"]["properties"]
    assert properties["identity"]["properties"]["proxyCa"] == {"type": ["string", "null"]}
    kind = properties["fhir"]["properties"]["server"]["properties"]["kind"]
    assert (kind["type"], kind["enum"][-1]) == (["string", "null"], None)


def test_comment_belongs_to_the_key_below_it_alone(tmp_path: Path) -> None:
    schema = made("a:\n  # @schema {minimum: 1}\n  # -- Text\n  n: 2\n  m: 2\nb:\n  n: 2\n", tmp_path)
    assert schema["a"]["properties"] == {"n": {"type": "integer", "minimum": 1}, "m": {"type": "integer"}}
    assert schema["b"]["properties"] == {"n": {"type": "integer"}}


def test_mistakes_are_told(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"a": None}))
    assert "a: no type can be told from None" in run(values).stderr
    values.write_text("a: {}\n  # @schema {minimum: 1}\n  #b: 1\nc: |\n  # @schema {minimum: 1}\n  x: 1\n")
    assert run(values).returncode != 0
