"""The built-in CA: made once, kept in one Secret, replaced only with two roots side by side.

All of it is in one object, so that each step of a rotation is one write that either happened or did not. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clientpolicy_operator.issue import PrivateKey, key_pem, leaf_of, pem_of, read_key
from clientpolicy_operator.ledger import instant

_UNREADABLE: Final = (x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion)  # no ValueErrors
_REVOKED_SINCE_MIN: Final = datetime(1950, 1, 1, tzinfo=UTC)  # X.509's first year (RFC 5280 section 4.1.2.5)
BACKDATED: Final = timedelta(minutes=5)  # what the clocks of a cluster may differ by
CRL_LIFE: Final = timedelta(days=7)  # past it Envoy refuses every client, so far beyond the refresh
_REASONS: Final = {
    "KeyCompromise": x509.ReasonFlags.key_compromise,
    "AffiliationChanged": x509.ReasonFlags.affiliation_changed,
    "Superseded": x509.ReasonFlags.superseded,
    "CessationOfOperation": x509.ReasonFlags.cessation_of_operation,
    "PrivilegeWithdrawn": x509.ReasonFlags.privilege_withdrawn,
}


class BadAuthority(ValueError):  # noqa: N818 it is what the Secret holds
    """Why a CA's Secret cannot be used; safe to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A CA certificate with its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def sha256(self) -> str:
        return leaf_of(self.certificate).sha256

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The roots there are: the one that signs, the one that will, and those whose leaves are still out."""

    active: Root
    upcoming: Root | None = None
    retired: Root | None = None
    published: datetime | None = None  # since when the upcoming root is trusted everywhere it is published
    switched: datetime | None = None  # when the active root took over

    @property
    def roots(self) -> tuple[Root, ...]:
        return tuple(root for root in (self.active, self.upcoming, self.retired) if root is not None)


def new_root(*, now: datetime, life: timedelta, serial: int) -> Root:
    """Return a self-signed root of its own name, so that two of them are told apart (RFC 5280 section 4.2.1.1)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ClientPolicy"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"ClientPolicy client CA {serial:x}"[:64]),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Root(certificate=certificate, key=key)


_CA_USAGE: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def sign(root: Root, builder: x509.CertificateBuilder) -> x509.Certificate:
    return (
        builder.issuer_name(root.certificate.subject)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
        .sign(root.key, hashes.SHA256())
    )


@dataclass(frozen=True, slots=True, order=True)
class Revoked:
    """A serial number (hexadecimal) that a CRL lists, since when and why."""

    serial: str
    since: datetime
    reason: str = ""


def crl(
    root: Root, revoked: Sequence[Revoked], *, now: datetime, before: x509.CertificateRevocationList | None = None
) -> x509.CertificateRevocationList:
    """Return the root's CRL; its number rises with time, and above that of the one before (RFC 5280 section 5.2.3).

    It may outlive the root: what it is about has ended then, and an expired list would refuse every client.
    """
    number = max(int(now.timestamp()), number_of(before) + 1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(now + CRL_LIFE)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
    )
    for entry in revoked:
        since = min(max(entry.since, _REVOKED_SINCE_MIN), now)  # a policy may say any instant
        one = x509.RevokedCertificateBuilder().serial_number(int(entry.serial, 16)).revocation_date(since)
        if entry.reason in _REASONS:
            one = one.add_extension(x509.CRLReason(_REASONS[entry.reason]), critical=False)
        builder = builder.add_revoked_certificate(one.build())
    return builder.sign(root.key, hashes.SHA256())


def number_of(found: x509.CertificateRevocationList | None) -> int:
    """Return a CRL's number, -1 of none and of one without it."""
    try:
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number if found is not None else -1
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return -1


_FILES: Final = {"active": ("tls.crt", "tls.key"), "upcoming": ("next.crt", "next.key"),
                 "retired": ("previous.crt", "previous.key")}  # fmt: skip
_NOTES: Final = ("published", "switched")


def encode(authority: Authority) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the data of the CA's Secret, and its notes (annotations without their prefix)."""
    data: dict[str, bytes] = {}
    for part, (certificate, key) in _FILES.items():
        root: Root | None = getattr(authority, part)
        if root is not None:
            data |= {certificate: pem_of(root.certificate), key: key_pem(root.key)}
    notes = {name: when.isoformat() for name in _NOTES if (when := getattr(authority, name)) is not None}
    return data, notes


def decode(data: Mapping[str, bytes], notes: Mapping[str, str]) -> Authority:
    """Return the authority that a Secret holds.

    Raises:
        BadAuthority: with every part that cannot be used.
    """
    faults: list[str] = []
    found: dict[str, Root | None] = {}
    for part, (certificate, key) in _FILES.items():
        found[part] = _root(data, certificate, key, faults) if certificate in data or part == "active" else None
    times: dict[str, datetime | None] = {}
    for name in _NOTES:
        try:
            times[name] = instant(notes[name]) if name in notes else None
        except ValueError:
            faults.append(f"annotation {name}: expected an instant with its time zone")
    active = found["active"]
    if faults or active is None:
        raise BadAuthority("; ".join(faults))
    return Authority(active=active, upcoming=found["upcoming"], retired=found["retired"], **times)


def _root(data: Mapping[str, bytes], certificate: str, key: str, faults: list[str]) -> Root | None:
    try:
        read = x509.load_pem_x509_certificate(data[certificate])
        constraints = read.extensions.get_extension_for_class(x509.BasicConstraints).value
        public = read.public_key()
    except (KeyError, ValueError, UnsupportedAlgorithm, *_UNREADABLE):
        faults.append(f"{certificate}: expected one PEM certificate of a CA")
        return None
    held = read_key(data.get(key, b""))
    if not constraints.ca:
        faults.append(f"{certificate}: not a CA (basicConstraints)")
    if held is None or held.public_key() != public:
        faults.append(f"{key}: expected the unencrypted PEM private key of {certificate}")
        return None
    return Root(certificate=read, key=held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How a rotation is paced."""

    renew_before: timedelta  # the end of the active root
    propagation: timedelta  # until what was published is trusted everywhere
    spread: timedelta  # over which leaves are re-issued


def advance(
    authority: Authority,
    *,
    now: datetime,
    rotation: Rotation,
    wanted: bool,
    last_retired_leaf: datetime | None,
    spare: Root,
) -> Authority:
    """Return the authority after the next step that is due, the same one where none is.

    `wanted`: somebody asked for a new root. `last_retired_leaf`: the end of the last leaf of the retired root.
    `spare`: a new root, taken where one is due. Instants that lie ahead (a clock was set back, a note was mangled) are
    set to now: a rotation takes longer then, and still ends.
    """
    if authority.switched is not None and authority.switched > now:
        return replace(authority, switched=now)
    if authority.retired is not None:  # one rotation at a time: it goes before another root is published or signs
        return _settle(authority, authority.retired, now, rotation, last_retired_leaf)
    if authority.upcoming is None:
        due = authority.active.not_after - rotation.renew_before <= now
        return replace(authority, upcoming=spare, published=None) if wanted or due else authority
    if not authority.upcoming.certificate.not_valid_before_utc <= now < authority.upcoming.not_after:
        return replace(authority, upcoming=spare, published=None)
    if authority.published is not None and authority.published > now:
        return replace(authority, published=None)
    if authority.published is not None and authority.published <= now - rotation.propagation:
        return Authority(active=authority.upcoming, retired=authority.active, switched=now)
    return authority


def _settle(
    authority: Authority, retired: Root, now: datetime, rotation: Rotation, last_retired_leaf: datetime | None
) -> Authority:
    """Drop the retired root once none of its leaves is valid."""
    if authority.switched is None:
        return replace(authority, switched=now)
    # A leaf that was signed just before the switch may be recorded just after it: the spread covers that.
    settled = authority.switched <= now - rotation.spread
    has_leaves = last_retired_leaf is not None and min(last_retired_leaf, retired.not_after) >= now
    return replace(authority, retired=None) if settled and not has_leaves else authority
