"""The configuration: YAML and environment → settings, or every mistake in it with its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from authz.core.bearer import SUPPORTED_ALGORITHMS
from authz.core.path import split_target
from authz.edge import configuration
from authz.edge.configuration import SettingsModel
from authz.edge.fhir_settings import CompartmentSettings, FhirServerSettings, FhirSettings
from authz.edge.store.place import MEMORY, read_place
from authz.edge.urls import https_url, proxy_url
from authz.model import Refused
from authz.policy.ceilings import Ceiling
from authz.policy.duration import parse_duration
from authz.policy.fields import DurationText, EntryName, Fingerprint, each_once
from authz.policy.limits import Limit, rate_limit

TIMEOUT_LEAST_US: Final = parse_duration("1ms")
DEADLINE_MOST_US: Final = parse_duration("10s")
CONNECTION_AGE_LEAST_US: Final = parse_duration("1s")
JWKS_MAX_AGE_LEAST_US: Final = parse_duration("1m")
CLIENT_CAS_MAX: Final = 16  # each is looked at once a second
NAMESPACES_MAX: Final = 64  # each has a watch of its own; beyond, one watch of all namespaces costs less
PROXY_FINGERPRINTS_MAX: Final = 256  # gateways of one platform, old and new certificates of each
_PUBLIC: Final = re.compile(r"[A-Z]{1,16} /\S*")


def _beside(path: Path, info: ValidationInfo) -> Path:
    """Return a path of the configuration as an absolute one: it is relative to the configuration file."""
    return Path(str((info.context or {}).get("folder", "."))) / path.expanduser()


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _duration(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("expected a duration such as 90s, 15m or 24h")  # noqa: TRY004 pydantic collects ValueError
    return parse_duration(value)


def _max_age(value: int) -> int:
    if value < JWKS_MAX_AGE_LEAST_US:
        raise ValueError("expected at least 1m: keys are read anew twice within it")
    return value


def _deadline(value: int) -> int:
    if not TIMEOUT_LEAST_US < value <= DEADLINE_MOST_US:
        raise ValueError("expected above 1ms and at most 10s; Envoy waits for 200ms unless it is told otherwise")
    return value


def _connection_age(value: int) -> int:
    if value < CONNECTION_AGE_LEAST_US:
        raise ValueError("expected at least 1s: each connection costs a handshake")
    return value


def _timeout(value: int) -> int:
    if value < TIMEOUT_LEAST_US:
        raise ValueError("expected at least 1ms")
    return value


def _address(value: str) -> str:
    if value.startswith("unix:/"):
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 the last TCP port
        raise ValueError("expected HOST:PORT (port 0: any free one) or unix:/path")
    return value


def _algorithm(value: str) -> str:
    if value not in SUPPORTED_ALGORITHMS:
        raise ValueError(f"expected one of {', '.join(sorted(SUPPORTED_ALGORITHMS))}")
    return value


def _public_route(value: str) -> str:
    if not _PUBLIC.fullmatch(value):
        raise ValueError("expected METHOD /path, or METHOD /path/* for all below it")
    try:
        target = split_target(value.partition(" ")[2])
    except Refused as refused:
        raise ValueError(refused.detail) from None
    if target.query or "*" in target.path.removesuffix("/*"):
        raise ValueError("a path without query, and `*` only as the last segment")
    return value


def _store_url(value: str, info: ValidationInfo) -> str:
    password_file = info.data.get("password_file")
    if value != MEMORY:
        read_place(value, Path(str((info.context or {}).get("folder", "."))), password_file)
    elif password_file is not None:
        raise ValueError(f"{MEMORY} has no password: passwordFile goes with a Redis")
    return value


def _key_prefix(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{0,64}", value) or "{" in value or "}" in value:
        raise ValueError("expected up to 64 printable ASCII characters without braces, which choose a Cluster's slot")
    return value


def _hash_key(value: str) -> str:
    if not 1 <= len(value.encode()) <= blake2b.MAX_KEY_SIZE:
        raise ValueError(f"expected 1 to {blake2b.MAX_KEY_SIZE} bytes")
    return value


AbsolutePath = Annotated[Path, AfterValidator(_beside)]
Address = Annotated[str, AfterValidator(_address)]
ClientCas = Annotated[
    tuple[AbsolutePath, ...],
    Field(min_length=1, max_length=CLIENT_CAS_MAX),
    BeforeValidator(_one_or_more, json_schema_input_type=Path | tuple[Path, ...]),
    AfterValidator(each_once),
]
Algorithm = Annotated[
    str, AfterValidator(_algorithm), Field(json_schema_extra={"enum": [*sorted(SUPPORTED_ALGORITHMS)]})
]
PublicRoute = Annotated[
    str, AfterValidator(_public_route), Field(json_schema_extra={"pattern": f"^{_PUBLIC.pattern}$"})
]
HttpsUrl = Annotated[str, AfterValidator(https_url)]
ProxyUrl = Annotated[str, AfterValidator(proxy_url)]
Duration = Annotated[int, PlainValidator(_duration, json_schema_input_type=DurationText)]
Text = Annotated[str, StringConstraints(min_length=1)]


class Tls(SettingsModel):
    cert: AbsolutePath
    key: AbsolutePath
    client_ca: AbsolutePath | None = None


class Listen(SettingsModel):
    grpc: Address = "127.0.0.1:9191"
    ops: Address = "127.0.0.1:9192"
    deadline: Annotated[Duration, AfterValidator(_deadline)] = parse_duration("150ms")
    max_connection_age: Annotated[Duration, AfterValidator(_connection_age)] | None = None
    tls: Tls | None = None


class PolicySettings(SettingsModel):
    """Where policies are; `path` is given exactly where they are files."""

    source: Literal["files", "kubernetes"] = "files"
    path: Annotated[AbsolutePath | None, Field(validate_default=True)] = None
    namespaces: Annotated[tuple[EntryName, ...], Field(max_length=NAMESPACES_MAX), AfterValidator(each_once)] = ()

    @field_validator("path")
    @classmethod
    def _with_files(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        source = info.data.get("source")
        if path is None and source == "files":
            raise PydanticCustomError("missing", "required")
        if path is not None and source == "kubernetes":
            raise ValueError("goes with source: files")
        return path

    @field_validator("namespaces")
    @classmethod
    def _with_a_cluster(cls, namespaces: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("source") == "files":
            raise ValueError("goes with source: kubernetes")
        return namespaces


class AddressSource(SettingsModel):
    """One that is given says where from: hops alone would count for nothing."""

    from_: Annotated[Literal["source", "x-forwarded-for"], Field(alias="from")]
    trusted_hops: Annotated[int, Field(ge=1, le=16)] = 1


class Identity(SettingsModel):
    trusted_hops: Annotated[int, Field(ge=1, le=16)] = 1
    trusted_proxies: tuple[Text, ...] = ()
    proxy_ca: AbsolutePath | None = None
    proxy_fingerprints: Annotated[
        tuple[Fingerprint, ...], Field(max_length=PROXY_FINGERPRINTS_MAX), AfterValidator(each_once)
    ] = ()
    proxies_verified: bool = False
    client_ca: ClientCas | None = None
    client_address: AddressSource = AddressSource.model_validate({"from": "source"})

    @model_validator(mode="after")
    def _proxies_where_hops(self) -> Self:
        if self.trusted_hops == 1:
            return self
        lacking = []
        if not self.trusted_proxies:
            lacking.append("trustedProxies: the URIs of the proxies' certificates")
        if self.proxy_ca is None and not self.proxy_fingerprints and not self.proxies_verified:
            lacking.append(
                "what proves a proxy, for a name alone can be forged: proxyCa (the CA of the proxies' certificates), "
                "proxyFingerprints (their SHA-256), or proxiesVerified: true if every listener on the way verifies "
                "its peers' certificates, as a service mesh does"
            )
        if lacking:
            raise ValueError(f"trustedHops above 1 needs {'; and '.join(lacking)}")
        return self


class ClaimNames(SettingsModel):
    client: Text = "client_id"
    patient: Text = "patient"
    scope: Text = "scope"


class IssuerSettings(SettingsModel):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$")]
    issuer: HttpsUrl
    audiences: Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)]
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = (
        "RS256",
        "ES256",
    )
    jwks_uri: HttpsUrl | None = None
    jwks_file: AbsolutePath | None = None
    jwks_max_age: Annotated[Duration, AfterValidator(_max_age)] = parse_duration("24h")
    ca: AbsolutePath | None = None
    proxy: Annotated[ProxyUrl | None, Field(repr=False)] = None  # may hold a password
    leeway_seconds: Annotated[int, Field(ge=0, le=120)] = 30
    claims: ClaimNames = ClaimNames()

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.jwks_uri is not None and self.jwks_file is not None:
            raise ValueError("jwksUri and jwksFile exclude each other")
        if self.jwks_file is not None and (self.ca is not None or self.proxy is not None):
            raise ValueError("ca and proxy go with keys that are fetched; with jwksFile nothing is")
        return self


def _issuers_apart(issuers: tuple[IssuerSettings, ...]) -> tuple[IssuerSettings, ...]:
    for what, values in (("name", [one.name for one in issuers]), ("issuer", [one.issuer for one in issuers])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{what} given twice: {', '.join(twice)}")
    return issuers


class StoreSettings(SettingsModel):
    password_file: AbsolutePath | None = None
    url: Annotated[str, AfterValidator(_store_url), Field(validate_default=True)] = MEMORY
    timeout: Annotated[Duration, AfterValidator(_timeout)] = parse_duration("25ms")
    prefix: Annotated[str, AfterValidator(_key_prefix)] = ""
    hash_key: Annotated[str, AfterValidator(_hash_key)] = "clientpolicy"


class AnonymousQuota(SettingsModel):
    """One that is given replaces the default whole: no burst of another rate stays behind."""

    requests: int
    per: Duration
    burst: int | None = None

    @model_validator(mode="after")
    def _is_exact(self) -> Self:
        self.limit()
        return self

    def limit(self) -> Limit:
        return rate_limit(name="anonymous", requests=self.requests, per_us=self.per, burst=self.burst)


class QuotaSettings(SettingsModel):
    anonymous: AnonymousQuota = AnonymousQuota.model_validate({"requests": 10, "per": "1s", "burst": 20})
    headers: Literal["ietf", "legacy", "none"] = "ietf"
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1


class Upstream(SettingsModel):
    remove_authorization: bool = False
    remove_xfcc: bool = False


class Audit(SettingsModel):
    path: Text = "-"


class Settings(SettingsModel):
    listen: Listen = Listen()
    policies: PolicySettings
    identity: Identity = Identity()
    issuers: Annotated[tuple[IssuerSettings, ...], Field(max_length=64), AfterValidator(_issuers_apart)] = ()
    fhir: FhirSettings = FhirSettings()
    public: tuple[PublicRoute, ...] = (
        "GET /health",
        "GET /fhir/metadata",
        "GET /fhir/.well-known/smart-configuration",
    )
    store: StoreSettings = StoreSettings()
    quota: QuotaSettings = QuotaSettings()
    audit: Audit = Audit()
    upstream: Upstream = Upstream()
    shadow: Literal["allow", "forbid"] = "allow"
    ceilings: Annotated[tuple[Ceiling, ...], Field(max_length=256)] = ()

    @field_validator("store")
    @classmethod
    def _in_time(cls, store: StoreSettings, info: ValidationInfo) -> StoreSettings:
        listen = info.data.get("listen")
        if listen is not None and store.timeout >= listen.deadline:
            raise ValueError("timeout: expected less than listen.deadline, within which the whole decision is made")
        return store


NAMES: Final = {
    name.lower(): name
    for model in (
        Settings, Listen, Tls, PolicySettings, Identity, AddressSource, IssuerSettings, ClaimNames, FhirSettings,
        FhirServerSettings, CompartmentSettings, StoreSettings, AnonymousQuota, QuotaSettings, Upstream, Audit, Ceiling,
    )
    for name in (field.alias or "" for field in model.model_fields.values())
}  # fmt: skip


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a file, overridden by `CLIENTPOLICY_...`; paths come out absolute.

    Raises:
        Misconfigured: with every mistake.
    """
    return configuration.load(Settings, NAMES, path, environment)
