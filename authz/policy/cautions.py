"""What a valid policy says that nobody can have meant: a scope that grants nothing, a route that is never reached.

Told and not refused: another version of FHIR, or a server with parameters of its own, may know what this one does not,
and a policy that holds today must not become invalid by a newer table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from authz.policy import ClientPolicy, FieldError, Path, fhir_r4
from authz.policy.document import RouteMatch
from authz.policy.smart import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a version of FHIR defines."""

    version: str
    types: frozenset[str]
    parameters: Mapping[str, frozenset[str]]  # of a search, by type
    own: frozenset[str] = frozenset()  # parameters of a server, of whatever type

    def knows(self, name: str, kind: str) -> bool:
        """Return whether a type has a search parameter, of `*` whether any has."""
        kinds = self.parameters.values() if kind == "*" else (self.parameters.get(kind, ()),)
        return name in self.own or any(name in known for known in kinds)


R4: Final = Vocabulary(version="R4", types=fhir_r4.RESOURCE_TYPES, parameters=fhir_r4.SEARCH_PARAMETERS)


def cautions(policy: ClientPolicy, vocabulary: Vocabulary) -> Iterator[FieldError]:
    """Yield what in a policy grants nothing or is never reached, by field."""
    for place, scope in enumerate(policy.spec.scopes):
        yield from doubts(scope, ("spec", "scopes", place), vocabulary)
    for place, route in enumerate(policy.spec.routes):
        path: Path = ("spec", "routes", place)
        for rule, wanted in (("allOf", route.scopes.all_of or ()), ("anyOf", route.scopes.any_of or ())):
            for item, scope_or_text in enumerate(wanted):
                if isinstance(scope_or_text, Scope):
                    yield from doubts(scope_or_text, (*path, "scopes", rule, item), vocabulary)
        first = next(
            (n for n, other in enumerate(policy.spec.routes[:place]) if _covers(other.match, route.match)), None
        )
        if first is not None:
            yield FieldError(path=path, message=f"never reached: spec.routes[{first}] matches all of it first")


def doubts(scope: Scope, path: Path, vocabulary: Vocabulary) -> Iterator[FieldError]:
    """Yield what in a scope a version of FHIR does not know."""
    kind, version = scope.resource_type, vocabulary.version
    if kind != "*" and kind not in vocabulary.types:
        yield FieldError(path=path, message=f"FHIR {version} has no resource type `{kind}`: this grants nothing")
        return
    if scope.filters and "s" not in scope.letters:
        yield FieldError(path=path, message="a filter opens searches alone, and there is no `s`: this grants nothing")
    for name in sorted(name for name in {name for name, _ in scope.filters} if not vocabulary.knows(name, kind)):
        told = f"FHIR {version} has no search parameter `{name}` of {kind}, and a server ignores what it does not know"
        yield FieldError(path=path, message=f"{told}: this grants nothing unless fhir.parameters says that it narrows")


def _covers(first: RouteMatch, later: RouteMatch) -> bool:
    """Return whether whatever a later route matches an earlier one has matched."""
    if first.methods is not None and (later.methods is None or not {*later.methods} <= {*first.methods}):
        return False
    if first.path is not None:
        return later.path == first.path
    return is_within(later.path or later.path_prefix or "", first.path_prefix or "")


def is_within(path: str, prefix: str) -> bool:
    """Return whether a path is a prefix or below it, as routes match: `/a` holds `/a` and `/a/b`, not `/ab`."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
