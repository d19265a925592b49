"""What a valid policy says that this platform never does, or does whatever the policy says. Told, and not refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from authz.core import lookalike
from authz.core.public import PublicRoutes
from authz.policy import ClientPolicy, FieldError, Path, Route
from authz.policy.cautions import R4, cautions, is_within


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a policy meets: the names of issuers, where FHIR is served, and what is open to everyone."""

    issuers: frozenset[str]
    base_path: str  # without a final slash; "" where everything is FHIR
    public: PublicRoutes
    parameters: frozenset[str] = frozenset()  # search parameters that the platform declares of its server


def cautions_on(policy: ClientPolicy, platform: Platform) -> Iterator[FieldError]:
    """Yield what in a policy grants nothing, is never reached or is open anyway, by field."""
    yield from cautions(policy, replace(R4, own=platform.parameters))
    for place, name in enumerate(policy.spec.token.issuers or ()):
        if name not in platform.issuers:
            known = ", ".join(sorted(platform.issuers)) or "none"
            told = f"no issuer of the configuration is called `{name}` (those are: {known}): no token of it is accepted"
            yield FieldError(path=("spec", "token", "issuers", place), message=told)
    for place, route in enumerate(policy.spec.routes):
        yield from _route(route, ("spec", "routes", place, "match"), platform)


def _route(route: Route, path: Path, platform: Platform) -> Iterator[FieldError]:
    match, base = route.match, platform.base_path
    field, start = ("path", match.path) if match.path is not None else ("pathPrefix", match.path_prefix or "")
    if lookalike.is_below(lookalike.shape(start), lookalike.shape(base)):
        told = f"below {base or '/'} FHIR is served, which spec.scopes alone open: this route is never asked"
        yield FieldError(path=(*path, field), message=told)
    elif match.path is None and is_within(base.lower(), start.lower()):
        told = f"reaches around FHIR at {base}, to all else below {start}: name what is meant"
        yield FieldError(path=(*path, field), message=told)
    for method, opened in platform.public.covering(start, is_prefix=match.path is None):
        if match.methods is None or method in match.methods:
            told = f"public: `{method} {opened}` of the configuration opens this to everyone, without a token"
            yield FieldError(path=(*path, field), message=told)
