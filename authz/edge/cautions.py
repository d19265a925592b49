"""Configuration that opens more than it seems, or does nothing of what it seems to: told, and not refused.

Each may be meant: a mesh encrypts what `listen` does not, and a platform of one team needs no ceilings.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.alias_generators import to_camel

from authz.core.grant import below
from authz.edge.settings import Settings
from authz.edge.store.place import MEMORY
from authz.edge.urls import is_loopback
from authz.policy import FieldError, Mode
from authz.policy.cautions import R4, doubts, is_within
from authz.policy.ceilings import Ceiling
from authz.policy.smart import Scope

_OPEN_BY_DESIGN = ("metadata", ".well-known")  # what FHIR and SMART want everyone to read


def cautions_of(settings: Settings) -> tuple[FieldError, ...]:
    """Return what a person who reads the configuration may not expect of it, by key."""
    return (*_listen(settings), *_identity(settings), *_issuers(settings), *_public(settings), *_store(settings),
            *_ceilings(settings))  # fmt: skip


def _listen(settings: Settings) -> Iterator[FieldError]:
    address, tls = settings.listen.grpc, settings.listen.tls
    if address.startswith("unix:") or is_loopback(address.rpartition(":")[0].strip("[]")):
        return
    if tls is None:
        told = f"{address} without listen.tls: whoever reaches it may ask in anybody's name, and read who asks what"
        yield FieldError(path=("listen", "grpc"), message=told)
    elif tls.client_ca is None:
        told = f"{address} asks nobody for a certificate without clientCa: whoever reaches it may ask in anybody's name"
        yield FieldError(path=("listen", "tls"), message=told)


def _identity(settings: Settings) -> Iterator[FieldError]:
    identity = settings.identity
    place, hops = ("identity", "clientAddress"), identity.trusted_hops
    address = identity.client_address
    if address.from_ == "source" and hops > 1:
        told = f"with {hops} trustedHops the source is a proxy: all callers behind it share one anonymous quota"
        yield FieldError(path=place, message=told)
    if address.from_ == "source" and "trusted_hops" in address.model_fields_set:
        yield FieldError(path=(*place, "trustedHops"), message="has no effect without from: x-forwarded-for")
    if address.from_ == "x-forwarded-for" and address.trusted_hops > hops:
        told = f"more than identity.trustedHops ({hops}): unless another proxy adds to the header, callers write it"
        yield FieldError(path=(*place, "trustedHops"), message=told)
    if hops == 1:
        for name in ("trusted_proxies", "proxy_ca", "proxy_fingerprints", "proxies_verified"):
            if getattr(identity, name):
                told = "has no effect with one trustedHop, which is the caller itself"
                yield FieldError(path=("identity", to_camel(name)), message=told)


def _issuers(settings: Settings) -> Iterator[FieldError]:
    if not settings.issuers:
        told = "none: every token is refused, and only a policy with token.required: false lets anybody in"
        yield FieldError(path=("issuers",), message=told)


def _public(settings: Settings) -> Iterator[FieldError]:
    base = settings.fhir.base_path
    for place, rule in enumerate(settings.public):
        path = rule.partition(" ")[2]
        reached = _reached(path, base)
        if reached is not None:
            yield FieldError(path=("public", place), message=f"`{rule}` opens {reached} to everyone, without a token")


def _reached(path: str, base: str) -> str | None:
    """Return what of FHIR a public path reaches, None where it is as harmless as it looks."""
    start = path.removesuffix("/*")
    if start != path and is_within(base.lower(), start.lower()):
        return f"every path below {start or '/'}, all of FHIR at {base or '/'} included,"
    segments = below(start.lower(), base.lower())
    if segments is None or (segments and segments[0] in _OPEN_BY_DESIGN):
        return None
    if segments and not base and not _is_fhir(start):
        return None
    return f"FHIR at {path}"


def _is_fhir(path: str) -> bool:
    """Return whether a path looks like FHIR where FHIR has no path of its own: a type, an operation, `_history`."""
    return path[1:2].isupper() or path[1:2] in ("$", "_")


def _store(settings: Settings) -> Iterator[FieldError]:
    replicas = settings.quota.replicas
    if settings.store.url == MEMORY and replicas > 1:
        told = f"each of {replicas} replicas counts alone in memory, so that together they let pass as many quotas"
        yield FieldError(path=("store", "url"), message=told)


def _ceilings(settings: Settings) -> Iterator[FieldError]:
    policies = settings.policies
    if policies.source == "kubernetes" and not settings.ceilings and not policies.namespaces:
        told = "none: whoever may write a ClientPolicy in any namespace grants whatever it says, Shadow included"
        yield FieldError(path=("ceilings",), message=told)
    for place, ceiling in enumerate(settings.ceilings):
        path = ("ceilings", place)
        if _bounds_nothing(ceiling):
            told = f"bounds nothing but the mode in {', '.join(ceiling.namespaces)}: their policies may grant anything"
            yield FieldError(path=path, message=told)
        elif Mode.SHADOW in ceiling.modes and settings.shadow == "allow":
            told = "what is in Shadow mode passes every other bound of this ceiling"
            yield FieldError(path=(*path, "modes"), message=told)
        for item, scope in enumerate(ceiling.scopes or ()):
            if isinstance(scope, Scope):
                yield from doubts(scope, (*path, "scopes", item), R4)


def _bounds_nothing(ceiling: Ceiling) -> bool:
    bounds = (ceiling.client_ids, ceiling.san_prefixes, ceiling.scopes, ceiling.requests_per_second)
    return all(bound is None for bound in bounds)
