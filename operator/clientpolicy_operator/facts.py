"""What the operator knows about one ClientPolicy at one instant, as plain values; instants are aware UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from authz.policy import ClientPolicy, FieldError

Document = Mapping[str, object]  # a decoded JSON object
Key = tuple[str, str]  # namespace and name of a ClientPolicy


class Flaw(Enum):
    """What is wrong with a Secret of ours; the words are cert-manager's where it has one."""

    MISSING_DATA = "MissingData"
    INVALID_CERTIFICATE = "InvalidCertificate"
    INVALID_KEY_PAIR = "InvalidKeyPair"


class Trouble(Enum):
    """What keeps a certificate from being made; the words are reasons of CertificateReady and Issuing."""

    CA_UNAVAILABLE = "CAUnavailable"
    SECRET_CONFLICT = "SecretConflict"
    FORBIDDEN = "Forbidden"
    CSR_INVALID = "CSRInvalid"
    OUTSIDE_VALIDITY = "OutsideValidity"
    ISSUER_NOT_READY = "IssuerNotReady"
    REFUSED = "Refused"
    TOO_MANY = "TooManyCertificates"
    OVERWRITTEN = "Overwritten"
    PENDING = "Pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A certificate as it can be told from its bytes."""

    sha256: str
    serial: str  # hexadecimal
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A Secret that is this policy's own."""

    leaf: Leaf | None
    flaw: Flaw | None = None
    request: str = ""  # digest of what its certificate was asked for
    revision: int = 0
    renewed: str = ""  # the last wish for another certificate that was granted
    is_dressed: bool = True  # labels, annotations and owner as they should be
    version: str = ""  # resourceVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Why there is no other certificate, such as a Secret that is somebody else's or cannot be written."""

    trouble: Trouble
    message: str
    until: datetime | None = None  # then it is over by itself


Secret = Held | Blocked | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A signing in the ledger: it happened, whether or not its certificate reached anybody."""

    revision: int
    sha256: str
    serial: str
    not_before: datetime
    not_after: datetime
    ca_sha256: str
    recorded: datetime
    namespace: str = ""  # of the object
    key_sha256: str = ""  # of its public key (SubjectPublicKeyInfo)
    is_gone: bool = False  # somebody saw the object go


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """The CA that signs now; leaves of another one are to be re-issued from `switched` on, spread over `spread_s`."""

    sha256: str
    not_before: datetime
    not_after: datetime
    switched: datetime
    spread_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The policy that a plan is for: its value, or why it is none."""

    uid: str
    generation: int
    namespace: str
    name: str
    policy: ClientPolicy | None
    errors: tuple[FieldError, ...] = ()
    beyond: tuple[FieldError, ...] = ()
    conflict: tuple[str, str] | None = None  # the winner's namespace/name, and what both claim
    csr_fault: str | None = None
    renew: str = ""  # the wish for another certificate, if there ever was one

    @property
    def is_accepted(self) -> bool:
        return self.policy is not None and not self.beyond and self.conflict is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegated:
    """What cert-manager made of the Certificate that we asked for; `asked` is None where there is none yet."""

    asked: str | None = None  # digest of what the Certificate asks for
    message: str = ""
    leaf: Leaf | None = None
    revision: int = 0
    is_dressed: bool = True  # labels, annotations and owner of its Secret as they should be
    blocked: Blocked | None = None
    trouble: str = ""  # why another certificate that is due is not there yet
    renewal: datetime | None = None  # when cert-manager means to renew
    is_misfit: bool = False  # the Secret is of a type that cert-manager cannot write


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The world around one policy."""

    status: Document = field(default_factory=dict)
    secret: Secret = None
    entries: tuple[Entry, ...] = ()
    signer: Signer | None = None  # None: the CA is not available, and `signer_trouble` says why
    signer_trouble: str = ""
    trusted: frozenset[str] | None = None  # roots that are published; None: not known
    delegated: Delegated = Delegated()
    signed: Held | None = None  # by this very process, recorded, and not stored yet
    inherits: str | None = None  # UID that this policy had before it was restored, where it may keep that one's Secret
    failure: Blocked | None = None  # what went wrong in the attempt before this one
    is_alone: bool = False  # no other replica signs
    recorded: frozenset[str] = frozenset()  # fingerprints that this very process has just put into the ledger
