"""docs/clientpolicy.md, held to the CRD, to the parser, to a real API server and to the operator's words."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from kubernetes_api import KubernetesApi, policies_in

from authz.edge.manifests import read_documents
from authz.policy import ClientPolicy, parse
from authz.policy.crd import crd

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "clientpolicy.md").read_text()
OPERATOR: Final = ROOT / "operator" / "clientpolicy_operator"
(READ,) = read_documents(crd())
DEFINITION: Any = READ.value
VERSION: dict[str, Any] = DEFINITION["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
Table = tuple[tuple[str, ...], ...]


def tables(*head: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of every table with these columns."""
    wanted, within = list(head), False
    for line in PAGE.splitlines():
        cells = [cell.replace(r"\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells == wanted:
            within = True
        elif not line.startswith("|"):
            within = False
        elif within and set("".join(cells)) != {"-"}:
            assert len(cells) == len(wanted), line
            yield tuple(cells)


def code(cell: str) -> str:
    """Return what a cell holds as code."""
    assert re.fullmatch(r"`[^`]+`", cell), cell
    return cell[1:-1]


FIELDS: Final = [(code(place), *rest) for place, *rest in tables("field", "type", "default", "limits", "meaning")]


def fields(schema: dict[str, Any], place: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield path, schema and whether it is required, of every field; a list's path ends in []."""
    required = schema.get("required", ())
    for name, below in schema.get("properties", {}).items():
        here = f"{place}.{name}" + ("[]" if below["type"] == "array" else "")
        yield here, below, name in required
        yield from fields(below.get("items", below), here)


WANTED: Final = {
    place: (schema, is_required)
    for top in ("spec", "status")
    for place, schema, is_required in fields(SCHEMA["properties"][top], top)
}


def test_every_field_stands_in_the_page_and_none_besides() -> None:
    places = [place for place, *_ in FIELDS]
    assert len(places) == len(set(places)), "told twice"
    assert set(places) == set(WANTED)


def kind(schema: dict[str, Any]) -> str:
    match schema["type"]:
        case "array":
            return f"list of {schema['items']['type']}s"
        case "object" if "additionalProperties" in schema:
            return f"map of {schema['additionalProperties']['type']}s"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case "string" if is_duration(schema):
            return "duration"
        case other:
            return str(other)


def is_duration(schema: dict[str, Any]) -> bool:
    return "(ns|us|µs|ms|s|m|h)" in schema.get("pattern", "")


def bounds(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the bounds of a value in the page's words."""
    if "enum" in schema:
        yield "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    for unit, least, most in (
        (" characters", "minLength", "maxLength"),
        ("", "minimum", "maximum"),
        (" items", "minItems", "maxItems"),
        (" entries", "minProperties", "maxProperties"),
    ):
        low, high = schema.get(least), schema.get(most)
        assert low is None or high is not None, "the page has no words for a lower bound alone"
        if high is None or (unit == " characters" and is_duration(schema)):
            continue
        if low is None:
            yield f"at most {high}{unit}"
        else:
            yield f"{high}{unit}" if low == high else f"{low} to {high}{unit}"


def limits(schema: dict[str, Any]) -> Iterator[str]:
    yield from bounds(schema)
    inner = schema.get("items", schema.get("additionalProperties"))
    if isinstance(inner, dict) and inner["type"] == "string":
        yield from (f"each {bound}" for bound in bounds(inner))
    if schema["type"] == "string" and is_duration(schema):
        said = (rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
        yield from (message.partition(" is ")[2] for message in said if not message.startswith("expected"))


IMMUTABLE: Final = set(re.findall(r"message: (\w+) cannot be changed", crd()))


@pytest.mark.parametrize(("place", "told"), [pytest.param(place, told, id=place) for place, *told in FIELDS])
def test_type_default_and_limits_are_the_crds(place: str, told: list[str]) -> None:
    schema, is_required = WANTED[place]
    told_kind, default, told_limits, meaning = told
    assert told_kind == kind(schema)
    if is_required:
        assert default == "required"
    elif "default" in schema:
        assert yaml.safe_load(code(default)) == schema["default"]
    else:
        assert default == ""
    phrases = told_limits.split("; ") if told_limits else []
    patterns = [code(phrase) for phrase in phrases if phrase.startswith("`^")]
    is_fixed = "cannot be changed" in phrases
    rest = [phrase for phrase in phrases if not phrase.startswith("`^") and phrase != "cannot be changed"]
    assert rest == list(limits(schema))
    inner = schema.get("items", schema)
    assert all(pattern == inner["pattern"] for pattern in patterns)
    assert is_fixed == (place.rpartition(".")[2] in IMMUTABLE and place.startswith("spec."))
    assert meaning.endswith(".")


def rules(schema: dict[str, Any], place: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield place + rule.get("fieldPath", ""), rule["message"]
    if "items" in schema:
        yield from rules(schema["items"], f"{place}[]")
    for name, below in schema.get("properties", {}).items():
        yield from rules(below, f"{place}.{name}" if place else name)


def test_every_rule_between_fields_stands_in_its_words() -> None:
    told = {(code(place), words) for place, words in tables("where", "words")}
    assert told == {(place.removeprefix(".") or "metadata.name", message) for place, message in rules(SCHEMA, "")}


def test_columns_and_selectors() -> None:
    columns = VERSION["additionalPrinterColumns"]
    wanted = [(one["name"], one["jsonPath"], "wide" if one.get("priority") else "") for one in columns]
    assert [(name, code(place), width) for name, place, width in tables("column", "from", "")] == wanted
    (selectable,) = [line for line in PAGE.splitlines() if line.startswith("| selectable |")]
    told = [f".{path}" for path in re.findall(r"`(spec\.\S+)`", selectable)]
    assert told == [one["jsonPath"] for one in VERSION["selectableFields"]]
    names = DEFINITION["spec"]["names"]
    assert f"`kubectl get {names['shortNames'][0]}`" in PAGE
    assert f"`kubectl get {names['categories'][0]}`" in PAGE


def constants(node: ast.AST) -> set[str]:
    return {
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and re.fullmatch(r"[A-Z][A-Za-z]+", one.value)
    }


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def words() -> dict[str, set[str]]:
    """Return every reason that the operator's code can write, by the status that it goes with."""
    conditions, facts, plan = (ast.parse((OPERATOR / f"{name}.py").read_text()) for name in ("conditions", "facts", "plan"))  # fmt: skip
    yes = {word for call in calls(conditions, "_yes") for word in constants(call.args[0])}
    no = {word for call in calls(conditions, "_no") for word in constants(call.args[0])}
    enums = {node.name: constants(node) for node in facts.body if isinstance(node, ast.ClassDef)}
    why = [node for node in plan.body if isinstance(node, ast.FunctionDef) and node.name in ("why_issue", "_fault_of_issuer")]  # fmt: skip
    due = {word for function in why for node in ast.walk(function) if isinstance(node, ast.Return) and node.value for word in constants(node.value)}  # fmt: skip
    due |= {word for call in calls(plan, "Standing") for one in call.keywords if one.arg == "reason" for word in constants(one.value)}  # fmt: skip
    return {"True": yes | due | enums["Flaw"], "False": no | enums["Trouble"]}


REASONS: Final = list(tables("condition", "status", "reason", "what it means", "what to do"))


def test_every_reason_stands_in_the_page_and_none_besides() -> None:
    told = [code(reason) for _, _, reason, *_ in REASONS]
    assert len(told) == len(set(told)), "told twice"
    found = words()
    assert set(told) == found["True"] | found["False"]
    for _, statuses, reason, meaning, _ in REASONS:
        assert meaning
        for status in ("True", "False"):
            assert (code(reason) in found[status]) <= (f"`{status}`" in statuses), (reason, status)


def test_every_condition_stands_in_the_page() -> None:
    tree = ast.parse((OPERATOR / "conditions.py").read_text())
    types = next(node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TYPES")
    assert types.value is not None
    wanted = ast.literal_eval(types.value)
    assert [code(name) for name, _ in tables("condition", "says")] == list(wanted)
    known = {name for conditions, *_ in REASONS for name in re.findall(r"`(\w+)`", conditions)}
    assert known == set(wanted)


BLOCKS: Final = [textwrap.dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)]  # fmt: skip
EXAMPLES: Final[list[dict[str, Any]]] = [one.value for block in BLOCKS for one in read_documents(block)]  # type: ignore[misc] # maps all
POLICIES: Final = [one for one in EXAMPLES if one["kind"] == "ClientPolicy"]
IDS: Final = [f"{number}-{one['metadata']['name']}" for number, one in enumerate(POLICIES, 1)]


@pytest.mark.parametrize("document", POLICIES, ids=IDS)
def test_every_example_parses(document: dict[str, Any]) -> None:
    read = parse(document)
    assert isinstance(read, ClientPolicy), [str(error) for error in read]


def used(value: object, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, below in value.items():
            here = f"{place}.{name}" + ("[]" if isinstance(below, list) else "")
            yield here
            if here in WANTED and WANTED[here][0].get("additionalProperties") is None:
                yield from used(below, here)
    elif isinstance(value, list):
        for below in value:
            yield from used(below, place)


def test_every_field_has_an_example() -> None:
    """Of two that exclude each other, one stands beside the other as a comment."""
    shown = {path for one in POLICIES for top in ("spec", "status") for path in used(one.get(top, {}), top)}
    assert shown <= set(WANTED)
    assert set(WANTED) - shown == {"spec.certificate.renewBefore"}
    assert "# or renewBefore: " in PAGE


@pytest.mark.parametrize("document", POLICIES, ids=IDS)
def test_every_example_is_taken_by_the_api_server(
    plane: KubernetesApi, namespace: str, document: dict[str, Any]
) -> None:
    name = document["metadata"]["name"]
    sent = document | {"metadata": {"name": name}}
    stored = plane.must("POST", policies_in(namespace) + "?fieldValidation=Strict", sent)
    if "status" in document:
        sent = stored | {"status": document["status"]}
        stored = plane.must("PUT", policies_in(namespace, name) + "/status?fieldValidation=Strict", sent)
        assert stored["status"] == document["status"], "nothing was pruned or filled in"


@pytest.mark.parametrize("document", [one for one in EXAMPLES if one not in POLICIES], ids=lambda one: one["kind"])
def test_what_is_no_policy_is_taken_too(plane: KubernetesApi, namespace: str, document: dict[str, Any]) -> None:
    group, plural = document["apiVersion"], f"{document['kind'].lower()}s"
    sent = document | {"metadata": {"name": document["metadata"]["name"]}}
    path = f"/apis/{group}/namespaces/{namespace}/{plural}"
    plane.must("POST", f"{path}?dryRun=All&fieldValidation=Strict", sent)


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"`[^`\n]+`", "", PAGE)):
        file, _, anchor = target.partition("#")
        assert (ROOT / "docs" / file).exists() if file else anchor in anchors, target
    for file in re.findall(r"`((?:docs|examples|authz)/[^`]+)`", PAGE):
        assert (ROOT / file).exists(), file
