"""From an HTTP request to the FHIR interaction it is, and to the permissions that SMART asks for it.

Source: FHIR R4 (4.0.1) http.html; SMART App Launch 2.2, "Scopes and Launch Context" (c r u d s).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from authz.model import Effect, Parameter, Parameters, Reason, Refused
from authz.policy.fhir_r4 import RESOURCE_TYPES

_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
TYPES_MAX: Final = 32  # of one system search
ANY: Final = "*"


class Need(NamedTuple):
    """One permission: a letter of `cruds` on a type, `*` for every type."""

    resource_type: str
    letter: str


class Kind(Enum):
    """What the compartment rule has to look at."""

    INSTANCE = "instance"  # one resource by id
    SEARCH = "search"  # resources of one type
    COMPARTMENT_SEARCH = "compartment search"  # [type]/[id]/[type or *]
    EVERYTHING = "everything"  # Patient/[id]/$everything
    CREATE = "create"
    CONDITIONAL = "conditional"  # a write of what a search finds
    CONDITIONAL_CREATE = "conditional create"  # answers with what its search finds
    OTHER = "other"  # nothing in the request tells whose data it touches


class Interaction(NamedTuple):
    """All of `needs` must be granted; `resource_type` and `id` are what the path names."""

    kind: Kind
    needs: tuple[Need, ...]
    resource_type: str = ""
    id: str = ""
    within: str = ""  # type searched inside the compartment of `resource_type`/`id`
    is_readable: bool = True  # false: parameters may stand in a body that we did not see
    deletes_further: bool = False  # takes other resources along, or old versions


def classify(
    method: str,
    segments: tuple[str, ...],
    parameters: Parameters,
    *,
    conditional: bool = False,
) -> Interaction:
    """Return the interaction of a request below the FHIR base path.

    `segments` are those below the base; `parameters.is_complete` is false where a form body was not seen; `conditional`
    tells of If-None-Exist.

    Raises:
        Refused: INTERACTION_UNSUPPORTED.
    """
    effects = {item.effect for item in parameters.items}
    if Effect.REFUSE in effects:
        raise Refused(Reason.INTERACTION_UNSUPPORTED, "a parameter that fhir.parameters refuses")
    verb = "GET" if method == "HEAD" else method
    asked = _classified(verb, segments, parameters, is_page=Effect.CURSOR in effects, conditional=conditional)
    if verb == "DELETE" and (Effect.DELETES_FURTHER in effects or parameters.is_ambiguous):
        return asked._replace(deletes_further=True)
    return asked


def _classified(
    verb: str, segments: tuple[str, ...], parameters: Parameters, *, is_page: bool, conditional: bool
) -> Interaction:
    match segments:
        case () if verb == "GET" and parameters:
            return _system_search(parameters, is_page=is_page)
        case ("_history",) if verb == "GET":  # `_type` is no parameter of a history, so a server may ignore it
            return Interaction(Kind.OTHER, (Need(ANY, "s"),))
        case (kind,) if kind in RESOURCE_TYPES:
            return _on_type(verb, kind, parameters, conditional=conditional)
        case (kind, "_search") if kind in RESOURCE_TYPES and verb == "POST":
            return _search(kind, parameters)
        case (kind, "_history") if kind in RESOURCE_TYPES and verb == "GET":
            return Interaction(Kind.OTHER, (Need(kind, "s"),))
        case (kind, id_, *rest) if kind in RESOURCE_TYPES and _ID.fullmatch(id_):
            return _on_instance(verb, kind, id_, tuple(rest), parameters)
    raise _unsupported()


def _system_search(parameters: Parameters, *, is_page: bool) -> Interaction:
    """A page ignores every parameter beside its cursor (HAPI 8.8.0), so it may hold any type."""
    named = [item for item in parameters.items if item.code.lower() == "_type"]
    types = [one for item in named for one in item.value.split(",")]
    if len(types) > TYPES_MAX or not all(one in RESOURCE_TYPES for one in types):
        raise _unsupported()
    if is_page or any(item.name != "_type" for item in named):
        types = []
    return Interaction(Kind.OTHER, tuple(Need(one, "s") for one in dict.fromkeys(types)) or (Need(ANY, "s"),))


def _search(kind: str, parameters: Parameters) -> Interaction:
    return Interaction(Kind.SEARCH, (Need(kind, "s"),), kind, is_readable=parameters.is_complete)


_CONDITIONAL_WRITE: Final = {"PUT": "u", "PATCH": "u", "DELETE": "d"}
_INSTANCE: Final = {"GET": "r", **_CONDITIONAL_WRITE}


def _on_type(verb: str, kind: str, parameters: Parameters, *, conditional: bool) -> Interaction:
    if verb == "GET":
        return _search(kind, parameters)
    if verb == "POST":
        if conditional:
            return Interaction(Kind.CONDITIONAL_CREATE, (Need(kind, "c"), Need(kind, "s")), kind)
        return Interaction(Kind.CREATE, (Need(kind, "c"),), kind)
    if verb in _CONDITIONAL_WRITE and parameters:
        # The server searches first, and what it finds there it tells by its answer.
        return Interaction(Kind.CONDITIONAL, (Need(kind, _CONDITIONAL_WRITE[verb]), Need(kind, "s")), kind)
    raise _unsupported()


def _on_instance(verb: str, kind: str, id_: str, rest: tuple[str, ...], parameters: Parameters) -> Interaction:
    match rest:
        case () if verb in _INSTANCE:
            return Interaction(Kind.INSTANCE, (Need(kind, _INSTANCE[verb]),), kind, id_)
        case ("_history",) if verb == "GET":
            return Interaction(Kind.INSTANCE, (Need(kind, "r"),), kind, id_)
        case ("_history", version) if verb == "GET" and _ID.fullmatch(version):
            return Interaction(Kind.INSTANCE, (Need(kind, "r"),), kind, id_)
        case ("$everything",) if verb == "GET" and kind == "Patient":
            return Interaction(Kind.EVERYTHING, (Need(ANY, "r"), Need(ANY, "s")), kind, id_)
        case (within,) if verb == "GET":
            return _within(kind, id_, within, parameters)
        case (within, "_search") if verb == "POST":
            return _within(kind, id_, within, parameters)
    raise _unsupported()


def _within(kind: str, id_: str, within: str, parameters: Parameters) -> Interaction:
    if within != ANY and within not in RESOURCE_TYPES:
        raise _unsupported()
    return Interaction(
        Kind.COMPARTMENT_SEARCH, (Need(within, "s"),), kind, id_, within, is_readable=parameters.is_complete
    )


def settle_types(parameters: Parameters, segments: tuple[str, ...]) -> Parameters:
    """Return the parameters with what `_type` does there: it narrows where it says no other type than the path.

    On a typed search Medplum takes its types instead of the path's.
    """
    if not any(item.effect is Effect.TYPES for item in parameters.items):
        return parameters
    searched = (segments[2] if len(segments) > 2 else segments[0]) if segments else ""  # noqa: PLR2004 [type]/[id]/[type]
    items = tuple([_settled(item, searched, segments) for item in parameters.items])
    return parameters._replace(items=items)


def _settled(item: Parameter, searched: str, segments: tuple[str, ...]) -> Parameter:
    if item.effect is not Effect.TYPES:
        return item
    harmless = not segments or segments[-1] == "$everything" or (item.name, item.value) == ("_type", searched)
    return item._replace(effect=Effect.NARROWS if harmless else Effect.UNKNOWN)


def reached(asked: Interaction, parameters: Parameters) -> tuple[Need, ...]:
    """Return what else a request reaches beyond what its path names.

    Included types are read, chained and reverse-included ones searched; a parameter that may do anything does to every
    type what the interaction does.
    """
    needs = dict.fromkeys(need for item in parameters.items for need in _reached_by(item, asked))
    if parameters.is_ambiguous or not parameters.is_complete:
        needs |= dict.fromkeys((Need(ANY, "r"), Need(ANY, "s"), *_everywhere(asked)))
    return tuple(needs)


def _everywhere(asked: Interaction) -> tuple[Need, ...]:
    return tuple(Need(ANY, need.letter) for need in asked.needs)


def _reached_by(item: Parameter, asked: Interaction) -> tuple[Need, ...]:
    match item.effect:
        case Effect.NARROWS:
            return ()
        case Effect.CHAINS:
            return (Need(ANY, "s"),)
        case Effect.REACHES:
            included = _included(item)
            return included if item.code.lower() == "x-provenance" else (*included, *_written(asked, included))
        case Effect.CURSOR if asked.kind is Kind.SEARCH:  # a page of a typed search needs what the search needed
            return ()
        case Effect.DELETES_FURTHER if asked.deletes_further:
            return ()  # that has a rule of its own
        case _:
            return _everywhere(asked)


def _written(asked: Interaction, included: tuple[Need, ...]) -> tuple[Need, ...]:
    """Return what a write does to what its search includes: Microsoft's server deletes that, too."""
    letters = [need.letter for need in asked.needs if need.letter in "ud"]
    return tuple(Need(need.resource_type, letter) for need in included for letter in letters)


def _included(item: Parameter) -> tuple[Need, ...]:
    """Return what a parameter names that brings in other types; some servers split values at commas."""
    values = [value.split(":") for value in item.value.split(",")]
    match item.code.lower():
        case "_include":  # [type]:[parameter]:[target]
            return tuple(Need(_type_or_any(parts[2] if len(parts) == 3 else ANY), "r") for parts in values)  # noqa: PLR2004
        case "_revinclude":  # [type]:[parameter]
            return tuple(Need(_type_or_any(parts[0]), "s") for parts in values)
        case "_has":  # _has:[type]:[reference]:[parameter], and so on inwards
            chain = item.name.split(":")
            inner = ANY if item.name.lower().count("_has") > 1 or "." in item.name else [*chain, ANY, ANY][1]
            return (Need(_type_or_any(inner), "s"),)
        case "x-provenance":
            return (Need("Provenance", "c"),)
        case _:
            return (Need(ANY, "s"),)


def _type_or_any(name: str) -> str:
    return name if name in RESOURCE_TYPES else ANY


def _unsupported() -> Refused:
    return Refused(Reason.INTERACTION_UNSUPPORTED, "no FHIR interaction that a scope can cover")
