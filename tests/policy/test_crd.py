"""The CRD says field by field what authz and the operator read: neither knows a field, default or bound of its own."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel, StringConstraints
from pydantic_core import PydanticUndefined

from authz.edge.manifests import Plain, read_documents
from authz.policy.crd import crd
from authz.policy.document import Spec
from authz.policy.duration import parse_duration
from authz.policy.fields import INSTANT_PATTERN, OPERATORS_SECRETS, SPIFFE_ID, TWO_READINGS

(DEFINITION,) = read_documents(crd())
ROOT: Any = DEFINITION.value
SCHEMA: dict[str, Any] = ROOT["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
Pair = tuple[str, Any, tuple[Any, ...], dict[str, Any]]  # place, annotation, its metadata, the CRD's schema


def plain(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotation without `| None` and `Annotated`, and what was annotated, both levels of it."""
    found: tuple[Any, ...] = ()
    while get_origin(annotation) in (Annotated, Union, types.UnionType):
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            found += tuple(more)
            continue
        choices = [one for one in get_args(annotation) if one is not type(None)]
        if len(choices) > 1:
            return choices, found
        annotation = choices[0]
    return annotation, found


def pairs(model: type[BaseModel], schema: dict[str, Any], place: str) -> Iterator[Pair]:
    names = {field.alias: field for field in model.model_fields.values()}
    assert set(names) == set(schema["properties"]), place
    required = {name for name, field in names.items() if field.is_required()}
    assert required == set(schema.get("required", ())), place
    for name, field in names.items():
        below = schema["properties"][name]
        annotation, found = plain(field.annotation)
        metadata = (*found, *field.metadata)
        here = f"{place}.{name}"
        yield here, annotation, metadata, below
        if get_origin(annotation) is tuple:
            annotation, more = plain(get_args(annotation)[0])
            below = below["items"]
            here += "[]"
            yield here, annotation, more, below
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from pairs(annotation, below, here)


PAIRS = list(pairs(Spec, SCHEMA["spec"], "spec"))


def bounds(metadata: tuple[Any, ...]) -> dict[str, Any]:
    """Return the bounds that a field's metadata sets, by the names of JSON Schema without its kind of thing."""
    found: dict[str, Any] = {}
    for one in metadata:
        for part in one if isinstance(one, annotated_types.GroupedMetadata) else (one,):
            match part:
                case StringConstraints():
                    found |= {"min": part.min_length, "max": part.max_length, "pattern": part.pattern}
                case annotated_types.MinLen() | annotated_types.Ge():
                    found["min"] = part.min_length if isinstance(part, annotated_types.MinLen) else part.ge
                case annotated_types.MaxLen() | annotated_types.Le():
                    found["max"] = part.max_length if isinstance(part, annotated_types.MaxLen) else part.le
                case _:
                    pass
        if hasattr(one, "metadata"):  # pydantic's Field inside Annotated
            found |= bounds(tuple(one.metadata))
    return {name: value for name, value in found.items() if value is not None}


def bound_of(schema: dict[str, Any], end: str) -> Any:
    for kind in ("Length", "Items", "Properties", "imum"):
        if end + kind in schema:
            return schema[end + kind]
    return None


@pytest.mark.parametrize(
    ("place", "annotation", "metadata", "schema"), [pytest.param(*pair, id=pair[0]) for pair in PAIRS]
)
def test_bounds_are_the_same(place: str, annotation: Any, metadata: tuple[Any, ...], schema: dict[str, Any]) -> None:
    ours = bounds(metadata)
    for end in ("min", "max"):
        if end in ours:
            assert bound_of(schema, end) == ours[end], place
    if "pattern" in ours and not place.endswith((".csr", "mediaType")):
        assert schema["pattern"].replace("(?:", "(") == str(ours["pattern"]).replace("(?:", "("), place
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        assert schema["enum"] == [one.value for one in annotation], place
    if get_origin(annotation) is Literal:
        assert schema["enum"] == list(get_args(annotation)), place
    if schema.get("format") == "date-time":
        assert schema["pattern"] == INSTANT_PATTERN, place
    if schema["type"] == "string":
        assert "enum" in schema or "maxLength" in schema or schema.get("format") == "date-time", f"{place}: unbounded"
    if schema["type"] == "array":
        assert "maxItems" in schema
        assert "x-kubernetes-list-type" in schema, place


def ruled(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what each rule of CEL matches, with its message and the pattern beside it ("" where there is none)."""
    for rule in schema.get("x-kubernetes-validations", ()):
        for expression in re.findall(r"self\.matches\(r'([^']+)'\)", rule["rule"]):
            yield expression, rule["message"], schema.get("pattern", "")
    for below in (*schema.get("properties", {}).values(), schema.get("items")):
        if below is not None:
            yield from ruled(below)


def test_rules_match_by_the_expressions_of_patterns_and_of_the_parser() -> None:
    """A rule says in words what a pattern shows raw; what no pattern can hold is the parser's own expression."""
    ours = {SPIFFE_ID: "expected a SPIFFE ID", TWO_READINGS: "expected no dot segments"}
    found = list(ruled(SCHEMA["spec"]))
    assert len(found) == 10
    for expression, message, pattern in found:
        assert expression == pattern or message.startswith(ours.pop(expression))
    assert not ours


def test_operators_secrets_are_the_same() -> None:
    (rule,) = SCHEMA["spec"]["properties"]["certificate"]["properties"]["secretName"]["x-kubernetes-validations"]
    assert tuple(re.findall(r"'([^']+)'", rule["rule"])) == OPERATORS_SECRETS


def defaults(model: type[BaseModel], schema: dict[str, Any], place: str) -> Iterator[tuple[str, Any, Any]]:
    for field in model.model_fields.values():
        below = schema["properties"][field.alias]
        annotation, _ = plain(field.annotation)
        default = field.default if field.default is not PydanticUndefined else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            theirs = below.get("default")
            meant = annotation.model_validate_json(json.dumps(theirs)) if theirs is not None else None
            yield f"{place}.{field.alias}", default, meant
            yield from defaults(annotation, below, f"{place}.{field.alias}")
            continue
        if get_origin(annotation) is tuple:
            item, _ = plain(get_args(annotation)[0])
            if isinstance(item, type) and issubclass(item, BaseModel):
                yield from defaults(item, below["items"], f"{place}.{field.alias}[]")
        if default == () or isinstance(default, dict):
            default = None  # an empty list is as good as none
        yield f"{place}.{field.alias}", default.value if isinstance(default, Enum) else default, below.get("default")


@pytest.mark.parametrize(
    ("place", "ours", "theirs"), [pytest.param(*one, id=one[0]) for one in defaults(Spec, SCHEMA["spec"], "spec")]
)
def test_defaults_are_the_same(place: str, ours: Any, theirs: Any) -> None:
    if place.endswith(".duration"):
        theirs = parse_duration(theirs)
    assert theirs == ours


def described(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, below in schema.get("properties", {}).items():
        yield f"{place}.{name}", below
        yield from described(below.get("items", below), f"{place}.{name}")


@pytest.mark.parametrize(
    "schema", [pytest.param(schema, id=place) for place, schema in (*described(SCHEMA["spec"], "spec"), *described(SCHEMA["status"], "status"))]
)  # fmt: skip
def test_every_field_is_described(schema: dict[str, Any]) -> None:
    described: Plain = schema.get("description")
    assert isinstance(described, str)
    assert described.endswith(".")


def test_every_field_that_holds_a_value_has_an_example() -> None:
    for place, schema in described(SCHEMA["spec"], "spec"):
        assert "properties" in schema or "properties" in schema.get("items", {}) or "example" in schema, place
