"""Which key a certificate is for: the partner's own, the one there is, or a new one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.policy import ClientPolicy
from clientpolicy_operator.facts import Document, Entry
from clientpolicy_operator.issue import BadCsr, PrivateKey, PublicKey, generate_key, leaf_of, public_key_of, read_key
from clientpolicy_operator.secret import data_of


def key_for(policy: ClientPolicy, old: Document | None, stolen: frozenset[str]) -> tuple[PublicKey, PrivateKey | None]:
    """Return the key to certify, and its private half where it is ours."""
    certificate = policy.spec.certificate
    if certificate.csr is not None:
        return public_key_of(certificate.csr), None
    kept = (
        read_key(data_of(old or {}).get("tls.key", b"")) if certificate.private_key.rotation_policy == "Never" else None
    )
    if kept is not None and _fits(kept, policy) and key_sha256(kept.public_key()) not in stolen:
        return kept.public_key(), kept
    made = generate_key(policy)
    return made.public_key(), made


def _fits(key: PrivateKey, policy: ClientPolicy) -> bool:
    wanted = policy.spec.certificate.private_key
    is_rsa = wanted.algorithm == "RSA"
    return hasattr(key, "curve") is not is_rsa and key.key_size == wanted.size


def key_sha256(key: PublicKey) -> str:
    """Return the digest that tells keys apart in the ledger."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def stolen_keys(policy: ClientPolicy, entries: Iterable[Entry], secret: Document | None) -> frozenset[str]:
    """Return the keys of this policy's certificates that were revoked because others have them."""
    said = {one.sha256 for one in policy.spec.revocation.fingerprints if one.reason == "KeyCompromise"}
    keys = {one.key_sha256 for one in entries if one.sha256 in said} - {""}
    try:
        held = x509.load_pem_x509_certificate(data_of(secret or {}).get("tls.crt", b""))
        public = held.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return frozenset(keys)
    if leaf_of(held).sha256 in said and isinstance(public, PublicKey):
        keys.add(key_sha256(public))
    return frozenset(keys)


def csr_fault(policy: ClientPolicy | None, stolen: frozenset[str] = frozenset()) -> str | None:
    if policy is None or policy.spec.certificate.csr is None:
        return None
    try:
        key = public_key_of(policy.spec.certificate.csr)
    except BadCsr as bad:
        return str(bad)
    if key_sha256(key) in stolen:
        return "its key is that of a certificate that was revoked for KeyCompromise; send a csr of another key"
    return None
