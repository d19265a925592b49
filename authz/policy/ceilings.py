"""What the platform lets a namespace grant: who may write a ClientPolicy there cannot go beyond it.

A policy must fit into one of the ceilings of its namespace, whole. A bound that a ceiling leaves out does not bind, but
for `modes`: whatever is shadowed passes every other bound, so a ceiling has to say that it may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from authz.policy import ClientPolicy, FieldError, Mode, Path
from authz.policy.document import Spec
from authz.policy.fields import RouteScope
from authz.policy.limits import REQUESTS_MAX, Limit, OnStoreFailure, RateLimit
from authz.policy.smart import Scope

_SECOND_US: Final = 1_000_000
_SECONDS_AT_ONCE: Final = 60  # a minute's worth, so that `per: 1m` fits without a burst of its own
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=256)]  # `*` stands for any characters, also none
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)]


class Ceiling(BaseModel):
    """One bound; its namespaces, client ids and common names are patterns, its SANs prefixes."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    namespaces: Patterns
    client_ids: Patterns | None = None
    san_prefixes: Patterns | None = None
    scopes: Annotated[tuple[RouteScope, ...], Field(max_length=64)] | None = None
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)] = (Mode.ENFORCE,)  # of policies and of quotas
    requests_per_second: Annotated[int, Field(ge=1, le=REQUESTS_MAX)] | None = None


def beyond(policy: ClientPolicy, ceilings: tuple[Ceiling, ...]) -> tuple[FieldError, ...]:
    """Return what goes beyond the ceilings, by field; nothing where it fits into one, or where there are none.

    Where several ceilings are for its namespace, what is told is measured by the one that it exceeds least.
    """
    if not ceilings:
        return ()
    namespace = policy.metadata.namespace
    ours = [ceiling for ceiling in ceilings if _matches(namespace, ceiling.namespaces)]
    if not ours:
        told = "no ceiling of the platform lets this namespace have a ClientPolicy"
        return (FieldError(path=("metadata", "namespace"), message=told),)
    return min((tuple(_excess(policy, ceiling)) for ceiling in ours), key=len)


def within(
    parsed: ClientPolicy | tuple[FieldError, ...], ceilings: tuple[Ceiling, ...]
) -> tuple[ClientPolicy | None, tuple[FieldError, ...]]:
    """Return what `parse` read if it is a policy that keeps to the ceilings; else None, and what is wrong."""
    wrong = beyond(parsed, ceilings) if isinstance(parsed, ClientPolicy) else parsed
    return (parsed, ()) if isinstance(parsed, ClientPolicy) and not wrong else (None, wrong)


def _excess(policy: ClientPolicy, ceiling: Ceiling) -> Iterator[FieldError]:
    spec = policy.spec
    modes = [mode.value for mode in ceiling.modes]
    if spec.mode not in ceiling.modes:
        yield _error(("spec", "mode"), "one of", modes)
    for place, quota in enumerate(spec.quotas):
        if quota.mode is Mode.SHADOW and Mode.SHADOW not in ceiling.modes:
            yield _error(("spec", "quotas", place, "mode"), "one of", modes)
    yield from _names(policy, ceiling)
    yield from _scopes(policy, ceiling)
    most = ceiling.requests_per_second
    if most is not None and not _is_bounded(spec, most):
        at_once = f"{_SECONDS_AT_ONCE * most} at once (capacity + maxOvershoot), not onStoreFailure: Open"
        yield _error(("spec", "quotas"), "an enforced quota of at most", [f"{most} per 1s and {at_once}"])


def _is_bounded(spec: Spec, per_second: int) -> bool:
    """Return whether a quota holds the client to a rate; in Shadow mode none does, its own or its policy's."""
    return spec.mode is Mode.ENFORCE and any(_keeps_to(quota.limit(), per_second) for quota in spec.quotas)


def _keeps_to(limit: Limit, per_second: int) -> bool:
    """Return whether a quota alone keeps its client to a rate, also in a burst and without a store."""
    return (
        isinstance(limit, RateLimit)
        and limit.enforced
        and limit.on_store_failure is not OnStoreFailure.OPEN
        and limit.requests * _SECOND_US <= per_second * limit.per_us
        and limit.capacity + limit.max_overshoot <= _SECONDS_AT_ONCE * per_second
    )


def _names(policy: ClientPolicy, ceiling: Ceiling) -> Iterator[FieldError]:
    spec, identity = policy.spec, policy.spec.identity
    if ceiling.client_ids is not None:
        if not _matches(spec.client_id, ceiling.client_ids):
            yield _error(("spec", "clientId"), "one of", ceiling.client_ids)
        common_name = identity.common_name if identity is not None else None
        if common_name is not None and not _matches(common_name, ceiling.client_ids):
            yield _error(("spec", "identity", "commonName"), "one of", ceiling.client_ids)
    if ceiling.san_prefixes is None or identity is None:
        return
    for field, sans in (("uris", identity.uris), ("dnsNames", identity.dns_names), ("emails", identity.emails)):
        for place, san in enumerate(sans):
            if not san.startswith(ceiling.san_prefixes):
                yield _error(("spec", "identity", field, place), "something that begins with", ceiling.san_prefixes)


def _scopes(policy: ClientPolicy, ceiling: Ceiling) -> Iterator[FieldError]:
    if ceiling.scopes is None:
        return
    clinical = [scope for scope in ceiling.scopes if isinstance(scope, Scope)]
    others = [scope for scope in ceiling.scopes if isinstance(scope, str)]
    allowed = [scope.text if isinstance(scope, Scope) else scope for scope in ceiling.scopes]
    for place, scope in enumerate(policy.spec.scopes):
        if not any(most.covers(scope) for most in clinical):
            yield _error(("spec", "scopes", place), "at most", allowed)
    for place, other in enumerate(policy.spec.other_scopes):
        if other not in others:
            yield _error(("spec", "otherScopes", place), "at most", allowed)


def _error(path: Path, expected: str, allowed: list[str] | tuple[str, ...]) -> FieldError:
    return FieldError(
        path=path,
        message=f"beyond the platform's ceiling for this namespace: expected {expected} {', '.join(allowed) or 'none'}",
    )


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    return any(_compiled(pattern).fullmatch(text) for pattern in patterns)


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
