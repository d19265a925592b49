"""Settings → the parts of a service; every file that they name is read here, and every one that is wrong is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz.core import jwks
from authz.core.cautions import Platform, cautions_on
from authz.core.hops import Proxies
from authz.core.public import PublicRoutes
from authz.edge.authorities import (
    CLIENT_CA,
    PROXY_CA,
    Authorities,
    Certificates,
    read_authorities,
    shared,
    unfit_for_proxies,
)
from authz.edge.overrides import Misconfigured
from authz.edge.policies import FilePolicies, PolicyFolder
from authz.edge.roots import trusting
from authz.edge.settings import Settings, Tls
from authz.edge.source import PolicySource
from authz.policy.limits import Limit
from authz.service import Rules
from authz.wire.ratelimit import Form
from authz.wire.request import ClientAddress
from authz.wire.response import Style

DEFAULT_CLIENT_CA: Final = "ca.pem"


def rules_of(settings: Settings, folder: Path) -> Rules:
    """Return what the settings fix for every decision; `folder` is the configuration file's.

    Raises:
        Misconfigured: with every file that cannot be used.
    """
    mistakes: list[str] = []
    authorities = _client_authorities(settings, folder, mistakes)
    proxy_authorities = _proxy_authorities(settings, authorities, mistakes)
    _check_tls(settings.listen.tls, mistakes)
    if settings.policies.path is not None:
        _check_policies(settings.policies.path, mistakes)
    for place, issuer in enumerate(settings.issuers):
        if issuer.jwks_file is not None:
            _try(f"issuers[{place}].jwksFile", issuer.jwks_file, _require_jwks, mistakes)
        if issuer.ca is not None:
            _try(f"issuers[{place}].ca", issuer.ca, _require_roots, mistakes)
    if mistakes:
        raise Misconfigured(tuple(mistakes))
    identity = settings.identity
    return Rules(
        trusted_hops=identity.trusted_hops,
        proxies=Proxies(
            uris=frozenset(identity.trusted_proxies),
            fingerprints=frozenset(identity.proxy_fingerprints),
            are_verified=identity.proxies_verified,
            authorities=proxy_authorities,
        ),
        authorities=authorities,
        fhir=settings.fhir.facts(),
        public=_public(settings.public),
        anonymous=anonymous_of(settings),
    )


def policy_source(settings: Settings) -> PolicySource:
    may_shadow, ceilings = settings.shadow == "allow", settings.ceilings
    cautions = partial(cautions_on, platform=platform_of(settings))
    if settings.policies.path is not None:
        path = settings.policies.path
        return FilePolicies(PolicyFolder(path, may_shadow=may_shadow, ceilings=ceilings, cautions=cautions))
    # The client library takes 0.4 s and 35 MB to load: for those alone who need it.
    from authz.edge.kubernetes.source import KubernetesPolicies  # noqa: PLC0415

    namespaces = settings.policies.namespaces
    return KubernetesPolicies(namespaces, may_shadow=may_shadow, ceilings=ceilings, cautions=cautions)


def platform_of(settings: Settings) -> Platform:
    """Return what a policy meets here."""
    fhir = settings.fhir
    return Platform(
        issuers=frozenset(issuer.name for issuer in settings.issuers),
        base_path=fhir.base_path,
        public=_public(settings.public),
        parameters=frozenset(name for name, effect in fhir.parameters.items() if effect == "narrows").union(
            *fhir.compartments.add.values()
        ),
    )


def authorities_of(settings: Settings, folder: Path) -> tuple[Authorities, Authorities | None]:
    """Return the CAs of issued certificates and of proxies, to be kept fresh; `folder` is the configuration file's.

    There are none of proxies where these are proven by something else.
    """
    identity = settings.identity
    of_clients = identity.client_ca or (folder / DEFAULT_CLIENT_CA,)
    is_required = identity.client_ca is not None
    if identity.proxy_ca is None:
        return Authorities(of_clients, CLIENT_CA, is_required=is_required), None
    apart = settings.policies.source == "kubernetes"
    proxies = Authorities(
        (identity.proxy_ca,),
        PROXY_CA,
        is_required=True,
        unfit=lambda found: _unfit_for_proxies(found, clients.certificates if apart else ()),
    )
    clients = Authorities(
        of_clients,
        CLIENT_CA,
        is_required=is_required,
        unfit=lambda found: shared(found, proxies.certificates if apart else (), PROXY_CA.key),
    )
    return clients, proxies


def _unfit_for_proxies(found: Certificates, of_clients: Certificates) -> Iterator[str]:
    yield from unfit_for_proxies(found)
    yield from shared(found, of_clients, CLIENT_CA.key)


def style_of(settings: Settings) -> Style:
    return Style(
        fhir=settings.fhir.facts(),
        form=Form(settings.quota.headers),
        remove_authorization=settings.upstream.remove_authorization,
        remove_xfcc=settings.upstream.remove_xfcc,
    )


def client_address_of(settings: Settings) -> ClientAddress:
    source = settings.identity.client_address
    return ClientAddress(source.trusted_hops if source.from_ == "x-forwarded-for" else 0)


def anonymous_of(settings: Settings) -> tuple[Limit, ...]:
    """Return the quota of an address whose caller is not identified."""
    return (settings.quota.anonymous.limit(),)


def _public(routes: tuple[str, ...]) -> PublicRoutes:
    pairs = [tuple(route.split(" ", 1)) for route in routes]
    return PublicRoutes(
        exact=frozenset((method, path) for method, path in pairs if not path.endswith("/*")),
        below=tuple((method, path[:-1]) for method, path in pairs if path.endswith("/*")),
    )


def _client_authorities(settings: Settings, folder: Path, mistakes: list[str]) -> Certificates:
    default = folder / DEFAULT_CLIENT_CA
    paths = settings.identity.client_ca or ((default,) if default.exists() else ())
    found: list[x509.Certificate] = []
    for path in paths:
        if settings.policies.source == "kubernetes" and path.parent.is_dir() and not path.exists():
            continue  # its issuer publishes it when it first starts; `Authorities` tells that it is waited for
        found.extend(_certificates("identity.clientCa", path, mistakes))
    return tuple(dict.fromkeys(found))


def _proxy_authorities(settings: Settings, of_clients: Certificates, mistakes: list[str]) -> Certificates:
    path = settings.identity.proxy_ca
    if path is None:
        return ()
    found = _certificates("identity.proxyCa", path, mistakes)
    apart = of_clients if settings.policies.source == "kubernetes" else ()
    mistakes.extend(f"identity.proxyCa: {path}: {unfit}" for unfit in _unfit_for_proxies(found, apart))
    return found


def _certificates(key: str, path: Path, mistakes: list[str]) -> Certificates:
    found: list[x509.Certificate] = []

    def read(data: bytes) -> None:
        found.extend(read_authorities(data))

    _try(key, path, read, mistakes, "expected PEM certificates")
    return tuple(found)


def _check_tls(tls: Tls | None, mistakes: list[str]) -> None:
    if tls is None:
        return
    certified: list[object] = []
    held: list[object] = []

    def read_certificate(data: bytes) -> None:
        certified.append(read_authorities(data)[0].public_key())

    def read_key(data: bytes) -> None:
        held.append(load_pem_private_key(data, None).public_key())

    _try("listen.tls.cert", tls.cert, read_certificate, mistakes, "expected PEM certificates")
    _try("listen.tls.key", tls.key, read_key, mistakes, "expected an unencrypted PEM private key")
    if certified and held and certified != held:
        mistakes.append(f"listen.tls.key: {tls.key}: not the key of the certificate in {tls.cert}")
    if tls.client_ca is not None:
        _try("listen.tls.clientCa", tls.client_ca, _require_certificates, mistakes, "expected PEM certificates")


def _require_certificates(data: bytes) -> None:
    read_authorities(data)


def _require_jwks(data: bytes) -> None:
    keys, warnings = jwks.read_keys(data, 0)
    if not keys.keys:
        raise ValueError(jwks.without_usable_key(warnings))


def _require_roots(data: bytes) -> None:
    trusting(data)


def _check_policies(path: Path, mistakes: list[str]) -> None:
    if not path.exists():
        mistakes.append(f"policies.path: {path}: no such file or folder")


def _try(key: str, path: Path, use: Callable[[bytes], None], mistakes: list[str], expected: str | None = None) -> None:
    """Note what keeps a file from being used, by its key and path; never a word of its content."""
    try:
        use(path.read_bytes())
    except OSError as failed:
        mistakes.append(f"{key}: {path}: {failed.strerror}")
    except (ValueError, TypeError) as failed:
        mistakes.append(f"{key}: {path}: {expected or failed}")
