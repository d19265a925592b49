"""Every mutant of a module: mutmut's operators, and those that decide here and that it lacks.

mutmut mutates functions, and not those with a decorator. Here a module's constants decide as much as its functions:
regular expressions, tables, bounds in pydantic's annotations. So its operators are applied to the whole module, and ours
beside them: inside of patterns, rows of tables, conditions, statements that refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper
from mutants import patterns
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_assignment, operator_string

Operator = tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]]

_PATTERN_TAKERS: Final = re.compile(r"\bre\.(?:compile|match|fullmatch|search|sub|split|finditer|findall)\($|pattern=$")
_CODECS: Final = {"ascii", "latin-1", "utf-8"}  # Python reads their names in any case
_METHODS: Final = {
    "fullmatch": "match",
    "match": "search",
    "search": "match",
    "startswith": "endswith",
    "endswith": "startswith",
    "any": "all",
    "all": "any",
    "min": "max",
    "max": "min",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of one module; it is known by what it changes, not by a number that moves with the lines above."""

    module: str  # path from the root
    function: str  # qualified name; empty at the module's level
    before: str  # the lines that change, without the indentation
    after: str
    source: str  # the whole module, changed

    @property
    def name(self) -> tuple[str, str, str, str]:
        return self.module, self.function, self.before, self.after


def mutants_of(root: Path, module: str) -> list[Mutant]:
    """Return the mutants of a module that compile, each change once, in the order of the source."""
    source = (root / module).read_bytes()
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    finder = _Finder(wrapper.module, wrapper.resolve(ByteSpanPositionProvider), source)
    wrapper.module.visit(finder)
    found: dict[str, Mutant] = {}
    for function, changed in finder.found:
        if changed not in found and _compiles(changed):
            before, after = _changed_lines(source.decode(), changed)
            found[changed] = Mutant(module=module, function=function, before=before, after=after, source=changed)
    return list(found.values())


class _Finder(cst.CSTVisitor):
    """Walks a module and keeps, for each mutation, the function around it and the changed source."""

    def __init__(self, module: cst.Module, spans: Any, source: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._module, self._spans, self._source = module, spans, source
        self._names: list[str] = []
        self._functions = 0
        self._beside: set[int] = set()
        self._annotations = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if self._is_beside_the_point(node):
            return False
        if isinstance(node, cst.Call) and _is_zip(node):  # what it says of lengths is for us; no test can reach it
            self._beside |= {id(argument) for argument in node.args if argument.keyword is not None}
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
            self._functions += isinstance(node, cst.FunctionDef)
        self._annotations += isinstance(node, cst.Annotation)
        for kind, operator in self._operators():
            if isinstance(node, kind):
                for mutated in operator(node):
                    self._keep(node, mutated)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._is_beside_the_point(original_node):
            return
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()
            self._functions -= isinstance(original_node, cst.FunctionDef)
        self._annotations -= isinstance(original_node, cst.Annotation)

    def _is_beside_the_point(self, node: cst.CSTNode) -> bool:
        match node:
            case cst.Import() | cst.ImportFrom() | cst.Decorator():
                return True
            case cst.Arg(keyword=cst.Name(value="strict")):
                return id(node) in self._beside
            case cst.Annotation():  # pydantic reads those of a class's fields; nobody reads the others
                return not self._names or self._functions > 0
            case cst.Expr(value=cst.SimpleString()):  # a docstring
                return True
            case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__" | "__slots__"))]):
                return True
            case _:
                return False

    def _operators(self) -> Sequence[Operator]:
        if self._annotations:
            return [(cst.BaseNumber, _number), (cst.SimpleString, self._string)]
        operators = [(kind, operator) for kind, operator in mutation_operators if operator not in _REPLACED]
        rows = [] if self._functions else [((cst.List, cst.Tuple, cst.Dict, cst.Set), _without_a_row)]
        return [*operators, *rows, *_OURS, (cst.SimpleString, self._string)]

    def _string(self, node: cst.SimpleString) -> Iterator[cst.CSTNode]:
        start = self._spans[node].start
        before = self._source[max(0, start - 40) : start].decode(errors="ignore")
        if "r" in node.prefix or _PATTERN_TAKERS.search(before):
            quote, begin = node.quote, len(node.prefix) + len(node.quote)
            inner = node.value[begin : -len(quote)]
            for changed in patterns.mutants(inner):
                yield node.with_changes(value=node.value[:begin] + changed + quote)
        else:
            # Another spelling of its letters, which mutmut has as well, falls with the same test.
            yield from islice(operator_string(node), 1)

    def _keep(self, node: cst.CSTNode, mutated: cst.CSTNode) -> None:
        code, changed = self._module.code_for_node(node), self._module.code_for_node(mutated)
        if _wordless(code) == _wordless(changed) or changed.lower().strip("\"'") in _CODECS:
            return
        span = self._spans.get(node)
        if span is not None and self._source[span.start : span.start + span.length] == code.encode():
            whole = self._source[: span.start] + changed.encode() + self._source[span.start + span.length :]
            self.found.append((".".join(self._names), whole.decode()))
        else:
            replaced = cst.ensure_type(self._module.deep_replace(node, mutated), cst.Module)
            self.found.append((".".join(self._names), replaced.code))


_PROSE: Final = re.compile(r"""(?<!\w)f?(?:"[^"=\n]*?[^"=\s] [^"=\n]*"|'[^'=\n]*?[^'=\s] [^'=\n]*')""")


def _wordless(code: str) -> str:
    """Return code without its sentences, which no test repeats; a text with a `=` is for machines."""
    return re.sub(r"\s|, None|None, |\(None\)|, (?=\))", "", _PROSE.sub("None", code))


def _each_text(node: cst.FormattedString) -> Iterator[cst.CSTNode]:
    for place, part in enumerate(node.parts):
        if isinstance(part, cst.FormattedStringText):
            changed = part.with_changes(value="XX" + part.value)
            yield node.with_changes(parts=[*node.parts[:place], changed, *node.parts[place + 1 :]])


def _number(node: cst.BaseNumber) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.Integer):
        yield node.with_changes(value=repr(node.evaluated_value + 1))


def _without_a_row(node: cst.List | cst.Tuple | cst.Dict | cst.Set) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.Set) and len(node.elements) == 1:
        return  # `{}` is no set
    for place in range(len(node.elements)):
        rest = [*node.elements[:place], *node.elements[place + 1 :]]
        yield node.with_changes(elements=rest)


def _without_a_member(node: cst.ComparisonTarget) -> Iterator[cst.CSTNode]:
    if isinstance(node.operator, cst.In | cst.NotIn) and isinstance(node.comparator, cst.Set | cst.Tuple | cst.List):
        for fewer in _without_a_row(node.comparator):
            yield node.with_changes(comparator=fewer)


def _one_operand(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    yield node.left
    yield node.right


def _negated(node: cst.If | cst.While | cst.CompIf) -> Iterator[cst.CSTNode]:
    if isinstance(node.test, cst.Name | cst.Attribute | cst.Call | cst.NamedExpr):
        whole = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=whole))


def _nothing(node: cst.Expr | cst.Raise) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call):
        yield cst.Pass()


def _other_method(node: cst.Call) -> Iterator[cst.CSTNode]:
    name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
    if isinstance(name, cst.Name) and name.value in _METHODS:
        yield node.with_deep_changes(name, value=_METHODS[name.value])


def _is_zip(node: cst.Call) -> bool:
    return isinstance(node.func, cst.Name) and node.func.value == "zip"


def _argument(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Yield the call with None for an argument, and without the last or a named one; without another none works."""
    if isinstance(node.func, cst.Name) and node.func.value in {"isinstance", "len"}:
        return
    for changed in operator_arg_removal(node):
        kept = {id(argument) for argument in changed.args}
        gone = [argument for argument in node.args if id(argument) not in kept]
        if _is_zip(node) and gone[0].keyword is not None:
            continue
        if len(changed.args) == len(node.args) or gone[0].keyword is not None or gone[0] is node.args[-1]:
            yield changed


# Of mutmut's: a value that becomes None is what mypy tells; strings and arguments are ours to choose.
_REPLACED: Final = (operator_string, operator_assignment, operator_arg_removal)
_OURS: Final[list[Operator]] = [
    (cst.Call, _argument),
    (cst.FormattedString, _each_text),
    (cst.ComparisonTarget, _without_a_member),
    (cst.BooleanOperation, _one_operand),
    (cst.If, _negated),
    (cst.While, _negated),
    (cst.CompIf, _negated),
    (cst.Expr, _nothing),
    (cst.Raise, _nothing),
    (cst.Call, _other_method),
]


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    """Return the lines between the common beginning and the common end, of both."""
    old, new = before.splitlines(), after.splitlines()
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return _lines(old[start : len(old) - end]), _lines(new[start : len(new) - end])


def _lines(lines: list[str]) -> str:
    return "\n".join(line.strip() for line in lines)
