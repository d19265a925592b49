"""From an HTTP request to the FHIR interaction it is, and to the permissions that SMART asks for it.

Source: FHIR R4 (4.0.1) http.html; SMART App Launch 2.2, "Scopes and Launch Context" (c r u d s).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from authz.core.search import Parameter, Parameters
from authz.model import Reason, Refused

_TYPE: Final = re.compile(r"[A-Z][A-Za-z]{0,63}")
_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
TYPES_MAX: Final = 32  # of one system search


# These bring in, or select by, resources of other types than the one searched.
WIDENING: Final = frozenset(
    {"_include", "_revinclude", "_has", "_filter", "_contained", "_containedtype", "_query", "_graph"}
)


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
    OTHER = "other"  # nothing in the request tells whose data it touches


class Interaction(NamedTuple):
    """All of `needs` must be granted; `resource_type` and `id` are what the path names."""

    kind: Kind
    needs: tuple[Need, ...]
    resource_type: str = ""
    id: str = ""
    within: str = ""  # type searched inside the compartment of `resource_type`/`id`
    is_readable: bool = True  # false: parameters may stand in a body that we did not see


def classify(method: str, segments: tuple[str, ...], parameters: Parameters, *, conditional: bool) -> Interaction:
    """Return the interaction of a request below the FHIR base path.

    `segments` are those below the base; `parameters.is_complete` is false where a form body was not seen;
    `conditional` tells of If-None-Exist.

    Raises:
        Refused: INTERACTION_UNSUPPORTED.
    """
    verb = "GET" if method == "HEAD" else method
    match segments:
        case () if verb == "GET" and parameters:
            return _system_search(parameters)
        case ("_history",) if verb == "GET":  # `_type` is no parameter of a history, so a server may ignore it
            return Interaction(Kind.OTHER, (Need("*", "s"),))
        case (kind,) if _TYPE.fullmatch(kind):
            return _on_type(verb, kind, parameters, conditional=conditional)
        case (kind, "_search") if _TYPE.fullmatch(kind) and verb == "POST":
            return _search(kind, parameters)
        case (kind, "_history") if _TYPE.fullmatch(kind) and verb == "GET":
            return Interaction(Kind.OTHER, (Need(kind, "s"),))
        case (kind, id_, *rest) if _TYPE.fullmatch(kind) and _ID.fullmatch(id_):
            return _on_instance(verb, kind, id_, tuple(rest), parameters)
    raise _unsupported()


def _system_search(parameters: Parameters) -> Interaction:
    types = [one for value in parameters.values("_type") for one in value.split(",")]
    if len(types) > TYPES_MAX or not all(_TYPE.fullmatch(one) for one in types):
        raise _unsupported()
    return Interaction(Kind.OTHER, tuple(Need(one, "s") for one in dict.fromkeys(types)) or (Need("*", "s"),))


def _search(kind: str, parameters: Parameters) -> Interaction:
    return Interaction(Kind.SEARCH, (Need(kind, "s"),), kind, is_readable=parameters.is_complete)


_CONDITIONAL_WRITE: Final = {"PUT": "u", "PATCH": "u", "DELETE": "d"}
_INSTANCE: Final = {"GET": "r", **_CONDITIONAL_WRITE}


def _on_type(verb: str, kind: str, parameters: Parameters, *, conditional: bool) -> Interaction:
    if verb == "GET":
        return _search(kind, parameters)
    if verb == "POST":
        needs = (Need(kind, "c"), Need(kind, "s")) if conditional else (Need(kind, "c"),)
        return Interaction(Kind.OTHER, needs)
    if verb in _CONDITIONAL_WRITE and parameters:
        # The server searches first, and what it finds there it tells by its answer.
        return Interaction(Kind.OTHER, (Need(kind, _CONDITIONAL_WRITE[verb]), Need(kind, "s")))
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
            return Interaction(Kind.EVERYTHING, (Need("*", "r"), Need("*", "s")), kind, id_)
        case (within,) if verb == "GET":
            return _within(kind, id_, within, parameters)
        case (within, "_search") if verb == "POST":
            return _within(kind, id_, within, parameters)
    raise _unsupported()


def _within(kind: str, id_: str, within: str, parameters: Parameters) -> Interaction:
    if within != "*" and not _TYPE.fullmatch(within):
        raise _unsupported()
    return Interaction(
        Kind.COMPARTMENT_SEARCH, (Need(within, "s"),), kind, id_, within, is_readable=parameters.is_complete
    )


def reached(parameters: Parameters) -> tuple[Need, ...]:
    """Return what else a search reaches: included types are read, chained and reverse-included ones searched."""
    needs = dict.fromkeys(need for item in parameters.items for need in _reached_by(item))
    if parameters.is_ambiguous or not parameters.is_complete:
        needs |= {Need("*", "r"): None, Need("*", "s"): None}
    return tuple(needs)


def _reached_by(item: Parameter) -> tuple[Need, ...]:
    code, parts = item.code.lower(), item.value.split(":")
    match code:
        case "_include":  # [type]:[parameter]:[target]
            return (Need(_type_or_all(parts[2] if len(parts) == 3 else "*"), "r"),)  # noqa: PLR2004
        case "_revinclude":  # [type]:[parameter]; some servers split at commas
            return (Need("*" if "," in item.value else _type_or_all(parts[0]), "s"),)
        case "_has":  # _has:[type]:[reference]:[parameter], and so on inwards
            chain = item.name.split(":")
            inner = "*" if item.name.lower().count("_has") > 1 or "." in item.name else [*chain, "*", "*"][1]
            return (Need(_type_or_all(inner), "s"),)
        case _ if code in WIDENING or "." in item.name:
            return (Need("*", "s"),)
        case _:
            return ()


def _type_or_all(name: str) -> str:
    return name if _TYPE.fullmatch(name) else "*"


def _unsupported() -> Refused:
    return Refused(Reason.INTERACTION_UNSUPPORTED, "no FHIR interaction that a scope can cover")
