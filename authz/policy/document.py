"""The ClientPolicy document: every field, its bounds, and what must hold between fields.

The names and meanings are the API's (group `authz.healthtech.dev`, version `v1alpha1`); values are parsed once,
here, into what the rest of the code uses: scopes, limits and microseconds instead of text.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from authz.policy.duration import parse_duration
from authz.policy.fields import (
    COMMON_NAME_MAX,
    ClientId,
    ClinicalScope,
    DnsName,
    DurationUs,
    Email,
    EntryName,
    Fingerprint,
    HttpMethod,
    Instant,
    ObjectName,
    OtherScope,
    PrintableName,
    RoutePath,
    RouteScope,
    SanUri,
    SecretName,
    each_named_once,
    each_once,
)
from authz.policy.limits import Calendar, Limit, OnStoreFailure, calendar_limit, rate_limit

API_VERSION: Final = "authz.healthtech.dev/v1alpha1"
KIND: Final = "ClientPolicy"

_DURATION_MIN_US: Final = parse_duration("1h")
_DURATION_MAX_US: Final = parse_duration("8784h")  # 366 days: the longest wait until a CA or a key is rotated away
_RENEWAL_MIN_US: Final = parse_duration("5m")  # cert-manager's bounds, which people know


class Mode(Enum):
    ENFORCE = "Enforce"
    SHADOW = "Shadow"


class Source(Enum):
    """Where a client's certificate comes from; `None` stands for a client without one."""

    ISSUED = "Issued"
    CSR = "CSR"
    EXTERNAL = "External"
    NONE = "None"


class Binding(Enum):
    REQUIRED = "Required"
    WHEN_PRESENT = "WhenPresent"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)

    def __deepcopy__(self, memo: dict[int, object] | None = None) -> Self:
        """Nothing here changes, so a default is shared: pydantic would copy each, a fifth of the time of reading."""
        return self


class Identity(_Model):
    """What goes into an issued certificate; it never identifies a caller."""

    common_name: PrintableName | None = None
    organizations: Annotated[tuple[PrintableName, ...], Field(max_length=8), AfterValidator(each_once)] = ()
    uris: Annotated[tuple[SanUri, ...], Field(max_length=8), AfterValidator(each_once)] = ()
    dns_names: Annotated[tuple[DnsName, ...], Field(max_length=8), AfterValidator(each_once)] = ()
    emails: Annotated[tuple[Email, ...], Field(max_length=8), AfterValidator(each_once)] = ()

    @field_validator("uris")
    @classmethod
    def _one_spiffe_id(cls, uris: tuple[str, ...]) -> tuple[str, ...]:
        if sum(uri.startswith("spiffe://") for uri in uris) > 1:
            raise ValueError("at most one spiffe:// URI (SPIFFE X509-SVID section 2)")
        return uris

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if not (self.common_name or self.uris or self.dns_names or self.emails):
            raise ValueError("needs a commonName or at least one of uris, dnsNames, emails")
        return self


class IssuerRef(_Model):
    group: DnsName = "cert-manager.io"
    kind: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z]{0,62}$")] = "Issuer"
    name: ObjectName


class PrivateKey(_Model):
    algorithm: Literal["ECDSA", "RSA"] = "ECDSA"
    size: Literal[256, 384, 2048, 3072, 4096] = 256
    rotation_policy: Literal["Always", "Never"] = "Always"

    @model_validator(mode="after")
    def _size_fits(self) -> Self:
        sizes = (256, 384) if self.algorithm == "ECDSA" else (2048, 3072, 4096)
        if self.size not in sizes:
            raise ValueError(f"size for {self.algorithm} is one of {', '.join(map(str, sizes))}")
        return self


class SecretTemplate(_Model):
    labels: dict[str, str] = Field(default_factory=dict, max_length=32)
    annotations: dict[str, str] = Field(default_factory=dict, max_length=32)


class Certificate(_Model):
    source: Source = Source.ISSUED
    duration: DurationUs = parse_duration("720h")
    renew_before_percentage: Annotated[int, Field(ge=1, le=99)] | None = None
    renew_before: DurationUs | None = None
    private_key: PrivateKey = PrivateKey()
    profile: Literal["ClientAuth", "Spiffe"] = "ClientAuth"
    secret_name: SecretName | None = None
    secret_template: SecretTemplate = SecretTemplate()
    secret_deletion_policy: Literal["Delete", "Retain"] = "Delete"
    issuer_ref: IssuerRef | None = None
    csr: (
        Annotated[str, StringConstraints(pattern=r"^\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----", max_length=16384)]
        | None
    ) = None
    fingerprints: Annotated[tuple[Fingerprint, ...], Field(max_length=8), AfterValidator(each_once)] = ()

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        if (self.source is Source.CSR) is not (self.csr is not None):
            raise ValueError("csr goes with source: CSR, and only with it")
        if (self.source is Source.EXTERNAL) is not bool(self.fingerprints):
            raise ValueError("fingerprints (1 to 8) go with source: External, and only with it")
        if self.renew_before is not None and self.renew_before_percentage is not None:
            raise ValueError("renewBefore and renewBeforePercentage exclude each other")
        if self.duration < _DURATION_MIN_US:
            raise ValueError("duration is at least 1h")
        if self.duration > _DURATION_MAX_US:
            raise ValueError("duration is at most 8784h")
        if self.renew_before is not None and not _RENEWAL_MIN_US <= self.renew_before < self.duration:
            raise ValueError("renewBefore is at least 5m, and must be shorter than duration")
        if self.issuer_ref is not None and self.source is not Source.ISSUED:
            raise ValueError("issuerRef goes with source: Issued; a CSR would be signed with the names that it brings")
        return self


class RevokedFingerprint(_Model):
    sha256: Fingerprint
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z]{0,63}$")] = "Unspecified"
    time: Instant | None = None


class Revocation(_Model):
    fingerprints: Annotated[tuple[RevokedFingerprint, ...], Field(max_length=32)] = ()
    issued_before: Instant | None = None

    @field_validator("fingerprints")
    @classmethod
    def _each_once(cls, revoked: tuple[RevokedFingerprint, ...]) -> tuple[RevokedFingerprint, ...]:
        each_once(tuple(entry.sha256 for entry in revoked))
        return revoked


class Token(_Model):
    required: bool = True
    issuers: Annotated[tuple[EntryName, ...], Field(min_length=1, max_length=8), AfterValidator(each_once)] | None = (
        None
    )
    binding: Binding = Binding.WHEN_PRESENT


class RouteMatch(_Model):
    methods: Annotated[tuple[HttpMethod, ...], Field(min_length=1, max_length=16), AfterValidator(each_once)] | None = (
        None
    )
    path: RoutePath | None = None
    path_prefix: RoutePath | None = None

    @model_validator(mode="after")
    def _one_kind_of_path(self) -> Self:
        if (self.path is None) is (self.path_prefix is None):
            raise ValueError("needs exactly one of path, pathPrefix")
        return self


class RouteScopes(_Model):
    all_of: Annotated[tuple[RouteScope, ...], Field(min_length=1, max_length=16)] | None = None
    any_of: Annotated[tuple[RouteScope, ...], Field(min_length=1, max_length=16)] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.all_of is None) is (self.any_of is None):
            raise ValueError("needs exactly one of allOf, anyOf")
        return self


class Route(_Model):
    name: EntryName
    match: RouteMatch
    scopes: RouteScopes


class Quota(_Model):
    name: EntryName
    requests: int
    per: DurationUs | None = None
    calendar: Calendar | None = None
    burst: int | None = None
    mode: Mode = Mode.ENFORCE
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL
    max_overshoot: int = 0

    @model_validator(mode="after")
    def _is_exact(self) -> Self:
        self.limit()
        return self

    def limit(self) -> Limit:
        """Return the compiled limit; ValueError names what is out of bounds."""
        if (self.per is None) is (self.calendar is None):
            raise ValueError("needs exactly one of per, calendar")
        if self.calendar is not None:
            if self.burst is not None:
                raise ValueError("burst goes with per, not with calendar")
            if self.max_overshoot:
                raise ValueError("maxOvershoot goes with per; a calendar quota is never overshot")
            return calendar_limit(
                name=self.name,
                requests=self.requests,
                calendar=self.calendar,
                on_store_failure=self.on_store_failure,
                enforced=self.mode is Mode.ENFORCE,
            )
        return rate_limit(
            name=self.name,
            requests=self.requests,
            per_us=self.per or 0,
            burst=self.burst,
            on_store_failure=self.on_store_failure,
            enforced=self.mode is Mode.ENFORCE,
            max_overshoot=self.max_overshoot,
        )


class Validity(_Model):
    not_before: Instant | None = None
    not_after: Instant | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.not_before is not None and self.not_after is not None and self.not_before >= self.not_after:
            raise ValueError("notBefore must be earlier than notAfter")
        return self


class Spec(_Model):
    client_id: ClientId
    mode: Mode = Mode.ENFORCE
    suspended: bool = False
    identity: Identity | None = None
    certificate: Certificate = Certificate()
    revocation: Revocation = Revocation()
    token: Token = Token()
    scopes: Annotated[tuple[ClinicalScope, ...], Field(max_length=64), AfterValidator(each_once)] = ()
    other_scopes: Annotated[tuple[OtherScope, ...], Field(max_length=64), AfterValidator(each_once)] = ()
    routes: Annotated[tuple[Route, ...], Field(max_length=32), AfterValidator(each_named_once)] = ()
    quotas: Annotated[tuple[Quota, ...], Field(max_length=8), AfterValidator(each_named_once)] = ()
    validity: Validity = Validity()

    @model_validator(mode="after")
    def _has_a_common_name(self) -> Self:
        issued = self.certificate.source in (Source.ISSUED, Source.CSR)
        if issued and self.identity is None and len(self.client_id) > COMMON_NAME_MAX:
            raise ValueError(
                "identity is needed: without it clientId becomes the common name, which holds 64 characters"
            )
        return self

    @model_validator(mode="after")
    def _has_a_spiffe_id(self) -> Self:
        issued = self.certificate.source in (Source.ISSUED, Source.CSR)
        uris = self.identity.uris if self.identity is not None else ()
        if issued and self.certificate.profile == "Spiffe" and not (len(uris) == 1 and uris[0].startswith("spiffe://")):
            raise ValueError("certificate.profile: Spiffe needs exactly one URI, spiffe://..., in identity.uris")
        return self

    @model_validator(mode="after")
    def _token_where_nothing_else_identifies(self) -> Self:
        if self.certificate.source is Source.NONE and not self.token.required:
            raise ValueError("certificate.source: None identifies by token, so token.required cannot be false")
        if self.certificate.source is Source.NONE and self.token.binding is Binding.REQUIRED:
            raise ValueError("token.binding: Required needs a certificate, and certificate.source is None")
        return self


class Metadata(BaseModel):
    """The object's name; what else Kubernetes keeps there is not ours to judge."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: Annotated[ObjectName, StringConstraints(max_length=249)]  # the Secret's name ends in -tls
    namespace: EntryName = "default"


class ClientPolicy(_Model):
    """One partner application: who it is, what it may do and how often."""

    api_version: Literal["authz.healthtech.dev/v1alpha1"]
    kind: Literal["ClientPolicy"]
    metadata: Metadata
    spec: Spec
    status: object = None  # the operator's; read where the source is the Kubernetes API
