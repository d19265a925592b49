"""The nouns of a decision: what a caller sent, what the platform knows, and the one way to refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from authz.policy import Binding, Source
from authz.policy.document import Route
from authz.policy.limits import Limit
from authz.policy.smart import Scope


class Reason(Enum):
    """Why a decision came out as it did; the wire's one table maps each to a status and a challenge."""

    ALLOWED = "allowed"
    PATH_AMBIGUOUS = "path_ambiguous"
    REQUEST_MALFORMED = "request_malformed"
    CERTIFICATE_MISSING = "certificate_missing"
    CERTIFICATE_MALFORMED = "certificate_malformed"
    CERTIFICATE_UNKNOWN = "certificate_unknown"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    PROXY_UNTRUSTED = "proxy_untrusted"
    CLIENT_SUSPENDED = "client_suspended"
    CLIENT_NOT_VALID = "client_not_valid"
    POLICY_CONFLICT = "policy_conflict"
    POLICY_INVALID = "policy_invalid"
    TOKEN_MISSING = "token_missing"
    TOKEN_MALFORMED = "token_malformed"
    TOKEN_ALGORITHM = "token_algorithm"
    TOKEN_KEY_UNKNOWN = "token_key_unknown"
    TOKEN_SIGNATURE = "token_signature"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"
    TOKEN_ISSUER = "token_issuer"
    TOKEN_AUDIENCE = "token_audience"
    TOKEN_TYPE = "token_type"
    TOKEN_CLIENT = "token_client"
    TOKEN_BINDING = "token_binding"
    TOKEN_INACTIVE = "token_inactive"
    SCOPE_MISSING = "scope_missing"
    PATIENT_UNKNOWN = "patient_unknown"
    PATIENT_MISMATCH = "patient_mismatch"
    COMPARTMENT_UNDECIDABLE = "compartment_undecidable"
    INTERACTION_UNSUPPORTED = "interaction_unsupported"
    ROUTE_NOT_ALLOWED = "route_not_allowed"
    QUOTA_EXCEEDED = "quota_exceeded"
    STORE_UNAVAILABLE = "store_unavailable"
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    INTERNAL = "internal"
    NOT_READY = "not_ready"


class Refused(Exception):  # noqa: N818 a refusal is an outcome here, not an error of ours
    """The caller's fault. `detail` is for the audit alone: it never holds a token, a certificate or a key."""

    def __init__(
        self, reason: Reason, detail: str = "", *, needed: tuple[str, ...] = (), challenge: bool = False
    ) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.needed = needed  # scopes that would have done
        self.challenge = challenge  # Authorization itself is at fault (RFC 6750 `invalid_request`)


class KeysWanted(Refused):
    """A refusal that newer keys of the issuer (by configured name) may turn into a right: they are to be fetched."""

    def __init__(self, reason: Reason, detail: str, issuer: str) -> None:
        super().__init__(reason, detail)
        self.issuer = issuer


# Values built on every request are NamedTuples: one costs a fifth of a frozen dataclass.
class Request(NamedTuple):
    """What the caller asked, as Envoy saw it; nothing in it is trusted yet."""

    method: str
    target: str  # path and query as sent
    host: str
    request_id: str  # Envoy's x-request-id
    address: str  # of the caller, as `identity.clientAddress` says; "" if unknown
    authorization: str | None
    forwarded: str | None  # x-forwarded-client-cert
    certificate: str | None  # source.certificate: URL-encoded PEM of the immediate peer
    is_overridden: bool  # a header asks the upstream to use another method
    if_none_exist: str | None = None
    steering: tuple[str, ...] = ()  # parameters that headers stand for, such as `_cascade`
    form: bytes | None = None  # a whole form body, unread; None if there is none or it may be partial
    has_body: bool = False  # as far as headers and Envoy tell
    has_form_type: bool = (
        False  # the body, if there is one, may be read as a form: by its media type, or for want of one
    )


class Effect(Enum):
    """What a parameter does besides searching by content; platforms declare the first three (`fhir.parameters`)."""

    NARROWS = "narrows"
    CURSOR = "cursor"  # a page of an earlier search, whoever made it
    REFUSE = "refuse"
    TYPES = "types"  # `_type`: which types, where the path does not say
    CHAINS = "chains"  # looks into other resources, by a chain in its name or in what it sorts by
    REACHES = "reaches"  # brings in, selects by or writes resources of other types
    DELETES_FURTHER = "deletes further"  # a delete takes more than what it names, or for ever
    UNKNOWN = "unknown"


class Parameter(NamedTuple):
    """One `name[:modifier]=value` below the FHIR base; `code` is the name up to its modifier or chain."""

    name: str
    code: str
    value: str
    effect: Effect = Effect.NARROWS
    is_certain: bool = True  # false: of query and form, it stands in the one that this server may not read


class Parameters(NamedTuple):
    """The parameters of query and form body together, in order."""

    items: tuple[Parameter, ...]
    is_complete: bool  # false: there may be more, in a body that we did not see
    is_ambiguous: bool  # servers may disagree on what these are

    def __bool__(self) -> bool:
        return bool(self.items)


class Target(NamedTuple):
    """An unambiguous request target."""

    path: str  # decoded
    query: str  # as sent, without `?`
    segments: tuple[str, ...] | None = None  # below the FHIR base; None elsewhere
    parameters: Parameters | None = None  # of the query, below the FHIR base


Windows = tuple[tuple[int, int], ...]  # times, each from and to an instant, both inclusive


class CertificateFacts(NamedTuple):
    """What a whole certificate says; instants in µs since the epoch, both inclusive."""

    not_before_us: int
    not_after_us: int
    issuer_windows: Windows  # validity of each CA of `identity.clientCa` that signed it
    issuer: str = ""  # RFC 4514, cut; for the audit alone, as the serial number (hexadecimal)
    serial: str = ""


class Presented(NamedTuple):
    """The client certificate of a request: always its fingerprint, and its facts where it came whole."""

    fingerprint: str  # SHA-256 of the DER, lower-case hex
    facts: CertificateFacts | None
    proofs: tuple[Windows, ...] = ()  # when each proxy behind the client is one; none where nothing ends that


class Standing(Enum):
    """Whether a policy can grant anything at all."""

    ACTIVE = "active"
    CONFLICT = "conflict"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Client:
    """A policy in the form the hot path reads; instants in µs since the epoch."""

    id: str
    policy: str  # namespace/name
    generation: int | None = None  # Kubernetes' metadata.generation of the version that holds; a file has none
    standing: Standing = Standing.ACTIVE
    shadow: bool = False
    suspended: bool = False
    source: Source = Source.EXTERNAL
    revoked: frozenset[str] = frozenset()
    issued_before_us: int | None = None
    not_before_us: int | None = None
    not_after_us: int | None = None
    token_required: bool = True
    issuers: frozenset[str] | None = None  # names; None: every configured one
    binding: Binding = Binding.WHEN_PRESENT
    scopes: tuple[Scope, ...] = ()
    other_scopes: frozenset[str] = frozenset()
    routes: tuple[Route, ...] = ()
    limits: tuple[Limit, ...] = ()
    key: str = field(init=False)  # of its quota

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"client:{self.id}")


class Credential(NamedTuple):
    """A fingerprint that a policy lists, with what is known of that certificate without seeing it."""

    client: Client
    not_before_us: int | None = None
    not_after_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Every client there is, found by certificate or, where there is none, by verified token."""

    by_fingerprint: Mapping[str, Credential]
    by_token: Mapping[str, Client]  # clientId → client of `certificate.source: None`
    generation: int = 0


class VerificationKey(NamedTuple):
    """A public key that may verify signatures of these algorithms (RFC 7518 names)."""

    kid: str | None
    thumbprint: str  # RFC 7638, SHA-256
    algorithms: frozenset[str]
    key: object  # cryptography's public key; its type goes with the algorithm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeySet:
    """An issuer's keys as it published them last; without any, none of its tokens is valid."""

    keys: tuple[VerificationKey, ...]
    stale_at_us: int  # jwksMaxAge after they were fetched
    thumbprints: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "thumbprints", frozenset(key.thumbprint for key in self.keys))

    def fitting(self, kid: str | None, algorithm: str) -> tuple[VerificationKey, ...]:
        """Return the keys that could have made the signature, each once; without a `kid`, all of the algorithm."""
        return tuple(
            {
                key.thumbprint: key
                for key in self.keys
                if algorithm in key.algorithms and (kid is None or key.kid == kid)
            }.values()
        )

    def is_stale(self, now_us: int) -> bool:
        return now_us >= self.stale_at_us

    def holds(self, thumbprint: str) -> bool:
        return thumbprint in self.thumbprints


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """What the platform's configuration says of an authorization server; durations in µs."""

    name: str
    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    leeway_us: int
    client_claim: str
    patient_claim: str
    scope_claims: tuple[str, ...]


class Trusted(NamedTuple):
    """An issuer with the keys last fetched from it."""

    issuer: Issuer
    keys: KeySet | None


class Confirmation(Enum):
    """How a token is bound to its holder, besides a certificate's thumbprint."""

    NONE = "none"
    UNSUPPORTED = "unsupported"


class Claims(NamedTuple):
    """The claims of a token whose signature, issuer, audience and type are verified; instants in µs."""

    issuer: str  # its `iss`
    key_thumbprint: str
    subject: str | None
    client_id: str
    scopes: tuple[str, ...]
    patient: str | None
    expires_us: int
    not_before_us: int | None
    confirmation: str | Confirmation  # hex SHA-256 of the certificate that `cnf` names


class Compartment(Enum):
    """What becomes of a request that cannot be proven to stay within the token's patient."""

    DENY = "deny"
    DELEGATE = "delegate"


class SearchByPost(Enum):
    """Where a server looks for the parameters of `POST [type]/_search`."""

    FORM = "form"
    QUERY = "query"
    BOTH = "both"


class Fhir(NamedTuple):
    """Where FHIR is served, what is known of the server, and what becomes of undecidable requests there."""

    base_path: str  # without a final slash; "" where everything is FHIR
    compartment: Compartment
    search_by_post: SearchByPost = SearchByPost.FORM
    is_everything_within: bool = False  # the server's Patient/[id]/$everything brings no linked patient
    parameters: Mapping[str, Effect] = MappingProxyType({})  # the server's own, by name in lower case
    pins: Mapping[str, Mapping[str, frozenset[str]]] = MappingProxyType({})  # added: type → parameter → its targets


class Grant(NamedTuple):
    """The right by which a request passes."""

    scopes: tuple[str, ...]  # effective: the token's ∩ the policy's
    rule: str  # what granted it: a scope's text, a route's name
    compartment: str | None = None  # `Patient/{id}` that the FHIR server must enforce
