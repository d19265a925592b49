"""With what right, concretely: the request's interaction against the scopes that token and policy share."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from authz.core import compartment, interaction, search
from authz.core.compartment import Finding
from authz.core.interaction import Interaction, Need
from authz.core.search import Parameters
from authz.model import Claims, Client, Compartment, Fhir, Grant, Reason, Refused, Request, Target
from authz.policy.document import Route
from authz.policy.smart import Context, Scope, intersect, parse_scope

_EFFECTIVE_CACHE: Final = 4096  # pairs of token scopes and client; a miss costs tens of µs
EFFECTIVE_MAX: Final = 256  # scopes; with more the header that carries them would not
_LETTERS_OF_V1: Final = {"r": "read", "s": "read", "c": "write", "u": "write", "d": "write"}


class Effective(NamedTuple):
    """The token's scopes ∩ the policy's: the clinical ones, the others, and the text of both."""

    clinical: tuple[Scope, ...]
    other: frozenset[str]
    texts: tuple[str, ...]


@lru_cache(maxsize=_EFFECTIVE_CACHE)
def effective(token_scopes: tuple[str, ...], client: Client) -> Effective:
    """Return what a token with these scopes may do in the hands of this client.

    Filters multiply: where more than EFFECTIVE_MAX scopes come of it, nobody meant that, and none is held.
    """
    found: dict[str, Scope] = {}
    other: dict[str, None] = {}
    for text in token_scopes:
        scope = parse_scope(text)
        if scope is None:
            if text in client.other_scopes:
                other[text] = None
            continue
        for ceiling in client.scopes:
            common = intersect(scope, ceiling)
            if common is not None:
                found.setdefault(common.text, common)
        if len(found) > EFFECTIVE_MAX:
            return Effective((), frozenset(), ())
    return Effective(tuple(found.values()), frozenset(other), (*found, *other))


def without_token(client: Client) -> Effective:
    """Return the grant of a certificate alone (`token.required: false`): the policy's `system/` scopes."""
    clinical = tuple(scope for scope in client.scopes if scope.context is Context.SYSTEM)
    return Effective(clinical, frozenset(), tuple(scope.text for scope in clinical))


def held(client: Client, claims: Claims | None) -> Effective:
    """Return the effective scopes of a request: by its verified token, or by the certificate alone."""
    return effective(claims.scopes, client) if claims is not None else without_token(client)


def decide(request: Request, target: Target, client: Client, claims: Claims | None, fhir: Fhir) -> Grant:
    """Return the right by which the request passes; without claims, by the certificate alone.

    Raises:
        Refused: INTERACTION_UNSUPPORTED, SCOPE_MISSING, PATIENT_UNKNOWN, PATIENT_MISMATCH,
            COMPARTMENT_UNDECIDABLE, ROUTE_NOT_ALLOWED.
    """
    scopes = held(client, claims)
    segments = below(target.path, fhir.base_path)
    if segments is None:
        return _by_route(request.method, target.path, client, scopes, fhir.base_path)
    is_form = request.method == "POST" and segments[-1:] == ("_search",)
    parameters = search.read(target.query, request.form if is_form else None, has_body=is_form)
    asked = interaction.classify(request.method, segments, parameters, conditional=request.is_conditional)
    return _by_scope(asked, parameters, scopes, claims, fhir.compartment)


def below(path: str, base_path: str) -> tuple[str, ...] | None:
    """Return the segments of a path below the FHIR base, None if it is elsewhere."""
    if path == base_path:
        return ()
    if not path.startswith(base_path + "/"):
        return None
    rest = path[len(base_path) + 1 :]
    return tuple(rest.split("/")) if rest else ()


def _by_scope(
    asked: Interaction, parameters: Parameters, scopes: Effective, claims: Claims | None, rule: Compartment
) -> Grant:
    covering = [_covering(need, asked, parameters, scopes.clinical) for need in asked.needs]
    if not all(covering):
        missing = tuple(need for need, found in zip(asked.needs, covering, strict=True) if not found)
        raise _scope_missing(missing, _context(asked, parameters, scopes, claims), claims)
    if all(any(scope.context is not Context.PATIENT for scope in found) for found in covering):
        unreached = _unreached(parameters, scopes.clinical)
        if not unreached:
            return Grant(scopes.texts, covering[0][0].text)
        if not any(scope.context is Context.PATIENT for found in covering for scope in found):
            raise _scope_missing(unreached, covering[0][0].context, claims)
    delegated = _within_patient(asked, parameters, claims, rule)
    return Grant(scopes.texts, covering[0][0].text, delegated)


def _unreached(parameters: Parameters, scopes: tuple[Scope, ...]) -> tuple[Need, ...]:
    """Return what includes and chains reach beyond the user/ and system/ scopes."""
    whole = [scope for scope in scopes if scope.context is not Context.PATIENT and not scope.filters]
    return tuple(need for need in interaction.reached(parameters) if not any(_covers(scope, need) for scope in whole))


def _covering(need: Need, asked: Interaction, parameters: Parameters, scopes: tuple[Scope, ...]) -> list[Scope]:
    return [
        scope
        for scope in scopes
        if _covers(scope, need) and (not scope.filters or _carries(scope.filters, need, asked, parameters))
    ]


def _carries(filters: frozenset[tuple[str, str]], need: Need, asked: Interaction, parameters: Parameters) -> bool:
    """Return whether a search carries all the parameters that a scope is limited to."""
    if need.letter != "s" or asked.kind not in (interaction.Kind.SEARCH, interaction.Kind.COMPARTMENT_SEARCH):
        return False
    # A space may have been a plus: two readings, so it carries nothing.
    return filters <= {(item.name, item.value) for item in parameters.items if " " not in item.value}


def _covers(scope: Scope, need: Need) -> bool:
    return scope.resource_type in ("*", need.resource_type) and need.letter in scope.letters


def _within_patient(asked: Interaction, parameters: Parameters, claims: Claims | None, rule: Compartment) -> str | None:
    """Return None for a request that stays within the token's patient, or the compartment for the server to enforce."""
    patient = claims.patient if claims is not None else None
    if patient is None:
        raise Refused(Reason.PATIENT_UNKNOWN, "only patient/ scopes, and the token names no patient")
    found = compartment.locate(asked, parameters, patient)
    if found is Finding.OUTSIDE:
        raise Refused(Reason.PATIENT_MISMATCH, "the request names another patient than the token")
    if found is Finding.WITHIN:
        return None
    if rule is Compartment.DELEGATE:
        return f"Patient/{patient}"
    raise Refused(Reason.COMPARTMENT_UNDECIDABLE, "nothing proves that the request stays within the patient")


def _context(asked: Interaction, parameters: Parameters, scopes: Effective, claims: Claims | None) -> Context:
    """Return the context in which a scope would have done: the token's own; not `patient/` where it is undecidable."""
    held = dict.fromkeys(scope.context for scope in scopes.clinical)
    patient = claims.patient if claims is not None else None
    if patient is not None and compartment.locate(asked, parameters, patient) is not Finding.UNDECIDABLE:
        held.setdefault(Context.PATIENT)
    else:
        held.pop(Context.PATIENT, None)
    return next(iter(held), Context.SYSTEM)


def _scope_missing(missing: tuple[Need, ...], context: Context, claims: Claims | None) -> Refused:
    """Name the scopes that would have done, in the version (v1 or v2) that the token speaks."""
    speaks_v1 = claims is not None and any(text.endswith((".read", ".write", ".*")) for text in claims.scopes)
    needed = dict.fromkeys(
        f"{context.value}/{need.resource_type}.{_LETTERS_OF_V1[need.letter] if speaks_v1 else need.letter}"
        for need in missing
    )
    return Refused(Reason.SCOPE_MISSING, f"needs {' '.join(needed)}", needed=tuple(needed))


def _by_route(method: str, path: str, client: Client, scopes: Effective, base_path: str) -> Grant:
    if base_path and below(path.lower(), base_path.lower()) is not None:
        # An upstream that ignores case would serve FHIR here, and no route may open that.
        raise Refused(Reason.ROUTE_NOT_ALLOWED, "differs from the FHIR base path in case only")
    route = next((route for route in client.routes if _matches(route, method, path)), None)
    if route is None:
        raise Refused(Reason.ROUTE_NOT_ALLOWED, "no route of the policy matches")
    wanted = route.scopes.all_of if route.scopes.all_of is not None else route.scopes.any_of or ()
    lacking = tuple(one for one in wanted if not _holds(scopes, one))
    if lacking and (route.scopes.all_of is not None or len(lacking) == len(wanted)):
        needed = tuple(one.text if isinstance(one, Scope) else one for one in lacking)
        raise Refused(Reason.SCOPE_MISSING, f"route {route.name} needs {' '.join(needed)}", needed=needed)
    return Grant(scopes.texts, route.name)


def _matches(route: Route, method: str, path: str) -> bool:
    match = route.match
    if match.methods is not None and method not in match.methods:
        return False
    if match.path is not None:
        return path == match.path
    prefix = match.path_prefix or ""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _holds(scopes: Effective, wanted: Scope | str) -> bool:
    if isinstance(wanted, Scope):
        return any(scope.covers(wanted) for scope in scopes.clinical)
    return wanted in scopes.other
