"""With what right, concretely: the request's interaction against the scopes that token and policy share."""

from __future__ import annotations

from typing import Final, NamedTuple

from authz.core import interaction, lookalike, search
from authz.core.cache import ENTRY_BYTES, Bounded, weight_of
from authz.core.lookalike import Shape
from authz.core.path import split_target
from authz.core.plain import require_plain_form
from authz.core.scope_authorization import Case, askable, authorize
from authz.model import Claims, Client, Fhir, Grant, Reason, Refused, Request, Target
from authz.policy.document import Route, RouteMatch, RouteScopes
from authz.policy.smart import Context, Scope, intersect, parse_scope

_EFFECTIVE_CACHE: Final = 4096  # pairs of token scopes and client; a miss costs tens of µs
EFFECTIVE_MAX_BYTES: Final = 6 * 2**20  # 1,500 ordinary ones of 4 kB; the largest take 200
_SCOPE_BYTES: Final = 640  # of a parsed scope, without its text and its filters
_FILTER_BYTES: Final = 256
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE"})
EFFECTIVE_MAX: Final = 256  # scopes; with more the header that carries them would not


class Effective(NamedTuple):
    """The token's scopes ∩ the policy's: the clinical ones, the others, and the text of both."""

    clinical: tuple[Scope, ...]
    other: frozenset[str]
    texts: tuple[str, ...]


remembered: Final[Bounded[tuple[tuple[str, ...], Client], Effective]] = Bounded(_EFFECTIVE_CACHE, EFFECTIVE_MAX_BYTES)


def effective(token_scopes: tuple[str, ...], client: Client) -> Effective:
    """Return what a token with these scopes may do in the hands of this client."""
    found = remembered.get((token_scopes, client))
    if found is None:
        found = _in_common(token_scopes, client)
        remembered.put((token_scopes, client), found, _weight(token_scopes, found))
    return found


def _weight(token_scopes: tuple[str, ...], found: Effective) -> int:
    """Return what a remembered pair takes in memory, at most, in bytes."""
    filters = sum(text.count("=") for text in found.texts)
    texts = weight_of(token_scopes) + 2 * weight_of(found.texts)  # filters are parts of them
    return ENTRY_BYTES + texts + _SCOPE_BYTES * len(found.texts) + _FILTER_BYTES * filters


def _in_common(token_scopes: tuple[str, ...], client: Client) -> Effective:
    """Return the scopes that a token and a policy share.

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


def read_target(text: str, fhir: Fhir) -> Target:
    """Return the request target; below the FHIR base with the parameters of its query.

    Raises:
        Refused: PATH_AMBIGUOUS; REQUEST_MALFORMED for a parameter's name that is not of FHIR's grammar.
    """
    target = split_target(text)
    segments = below(target.path, fhir.base_path)
    if segments is None:
        lookalike.require_apart(target.path, fhir.base_path)
        return target
    return Target(target.path, target.query, segments, search.parse(target.query, fhir.parameters))


def complete(request: Request, target: Target, client: Client, fhir: Fhir) -> Target:
    """Return the target with the parameters of all else that carries them: a form, If-None-Exist, other headers.

    What has two readings is refused here, before the token is looked at, because no mode lets it pass.

    Raises:
        Refused: REQUEST_MALFORMED for a form, a body or If-None-Exist; PATH_AMBIGUOUS for a lookalike of a stricter
            route's path.
    """
    require_plain_form(request)
    segments, parameters = target.segments, target.parameters
    if segments is None or parameters is None:
        _require_strictest(request.method, target.path, client.routes)
        return target
    _require_no_hidden_parameters(request, segments)
    if request.method == "POST" and segments[-1:] == ("_search",):
        form = search.parse_form(request.form, fhir.parameters) if request.form is not None else search.UNSEEN
        parameters = search.joined_by_post(parameters, form, fhir.search_by_post)
    if request.if_none_exist is not None and _is_create(request.method, segments):
        condition = search.parse_condition(request.if_none_exist, segments[0], fhir.parameters)
        parameters = search.joined(parameters, condition)
    if request.steering:
        carried = [search.parameter(name, "", fhir.parameters) for name in request.steering]
        parameters = parameters._replace(items=(*parameters.items, *carried))
    settled = interaction.settle_types(parameters, segments)
    return target if settled is target.parameters else target._replace(parameters=settled)


def decide(request: Request, target: Target, client: Client, claims: Claims | None, fhir: Fhir) -> Grant:
    """Return the right by which a request with a complete target passes; without claims, by the certificate alone.

    Raises:
        Refused: INTERACTION_UNSUPPORTED, SCOPE_MISSING, PATIENT_UNKNOWN, PATIENT_MISMATCH,
            COMPARTMENT_UNDECIDABLE, ROUTE_NOT_ALLOWED.
    """
    scopes = held(client, claims)
    segments, parameters = target.segments, target.parameters
    if segments is None or parameters is None:
        return _by_route(request.method, target.path, client, scopes, claims)
    is_conditional = request.if_none_exist is not None and _is_create(request.method, segments)
    asked = interaction.classify(request.method, segments, parameters, conditional=is_conditional)
    rule, delegated = authorize(Case(asked, parameters, scopes.clinical, claims, fhir))
    return Grant(scopes.texts, rule, delegated)


def _is_create(method: str, segments: tuple[str, ...]) -> bool:
    return method == "POST" and len(segments) == 1


def _require_no_hidden_parameters(request: Request, segments: tuple[str, ...]) -> None:
    """Refuse a body in which an upstream may find parameters that the interaction does not have.

    Rack and Laravel merge a form, and some a JSON body, over the query of any method; Rack takes `_method` from it.
    """
    if request.method == "POST" and segments[-1:] == ("_search",):
        return
    if request.has_form_type:
        raise Refused(Reason.REQUEST_MALFORMED, "a form, or a body without a media type, where FHIR has none")
    if request.has_body and request.method in _BODILESS:
        raise Refused(Reason.REQUEST_MALFORMED, f"a body on {request.method}, which some servers read as parameters")


def below(path: str, base_path: str) -> tuple[str, ...] | None:
    """Return the segments of a path below the FHIR base, None if it is elsewhere."""
    if path == base_path:
        return ()
    if not path.startswith(base_path + "/"):
        return None
    rest = path[len(base_path) + 1 :]
    return tuple(rest.split("/")) if rest else ()


def _by_route(method: str, path: str, client: Client, scopes: Effective, claims: Claims | None) -> Grant:
    route = _route_of(method, path, client.routes)
    if route is None:
        raise Refused(Reason.ROUTE_NOT_ALLOWED, "no route of the policy matches")
    lacking = _lacking(scopes, route.scopes)
    if lacking:
        told = " ".join(one.text if isinstance(one, Scope) else one for one in lacking)
        raise Refused(Reason.SCOPE_MISSING, f"route {route.name} needs {told}", needed=askable(lacking, claims))
    return Grant(scopes.texts, route.name)


def _route_of(method: str, path: str, routes: tuple[Route, ...]) -> Route | None:
    return next((route for route in routes if _matches(route, method, path)), None)


def _matches(route: Route, method: str, path: str) -> bool:
    match = route.match
    if not _takes(match, method):
        return False
    if match.path is not None:
        return path == match.path
    prefix = match.path_prefix or ""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _takes(match: RouteMatch, method: str) -> bool:
    if match.methods is None:
        return method != "CONNECT"  # it opens a tunnel, and what goes through that nobody judges
    # Frameworks serve HEAD by what serves GET (RFC 9110 section 9.3.2).
    return method in match.methods or (method == "HEAD" and "GET" in match.methods)


def _require_strictest(method: str, path: str, routes: tuple[Route, ...]) -> None:
    """Refuse a path that a lenient upstream may take for that of another route, which asks for more.

    A route that matches the path as it is has been weighed already: the first of them decides.
    """
    chosen = _route_of(method, path, routes) if len(routes) > 1 else None
    if chosen is None:
        return
    asked = lookalike.shape(path)
    for other in routes:
        if (
            _takes(other.match, method)
            and _looks_like(asked, other.match)
            and not _matches(other, method, path)
            and not _suffices(chosen.scopes, other.scopes)
        ):
            raise Refused(
                Reason.PATH_AMBIGUOUS, f"to a lenient upstream it is of route {other.name}, not {chosen.name}"
            )


def _looks_like(asked: Shape, match: RouteMatch) -> bool:
    if match.path is not None:
        return lookalike.is_at(asked, lookalike.shape_of_pattern(match.path))
    return lookalike.is_below(asked, lookalike.shape_of_pattern(match.path_prefix or ""))


def _suffices(held: RouteScopes, wanted: RouteScopes) -> bool:
    """Return whether who holds what one route asks for also holds what another does."""
    ways = [held.all_of] if held.all_of is not None else [(one,) for one in held.any_of or ()]
    return not any(_lacking(_exactly(way), wanted) for way in ways)


def _exactly(scopes: tuple[Scope | str, ...]) -> Effective:
    clinical = tuple(one for one in scopes if isinstance(one, Scope))
    return Effective(clinical, frozenset(one for one in scopes if isinstance(one, str)), ())


def _lacking(scopes: Effective, wanted: RouteScopes) -> tuple[Scope | str, ...]:
    """Return the scopes that a route asks for and that are not held; none, where those that are suffice."""
    asked = wanted.all_of if wanted.all_of is not None else wanted.any_of or ()
    lacking = tuple(one for one in asked if not _holds(scopes, one))
    return lacking if wanted.all_of is not None or len(lacking) == len(asked) else ()


def _holds(scopes: Effective, wanted: Scope | str) -> bool:
    if isinstance(wanted, Scope):
        return any(scope.covers(wanted) for scope in scopes.clinical)
    return wanted in scopes.other
