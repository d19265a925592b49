"""Which key a certificate is for: the partner's own, the one there is, or a new one."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from authz.policy import ClientPolicy
from clientpolicy_operator.facts import Document
from clientpolicy_operator.issue import BadCsr, PrivateKey, PublicKey, generate_key, leaf_of, public_key_of, read_key
from clientpolicy_operator.secret import data_of


def key_for(policy: ClientPolicy, old: Document | None) -> tuple[PublicKey, PrivateKey | None]:
    """Return the key to certify, and its private half where it is ours."""
    certificate = policy.spec.certificate
    if certificate.csr is not None:
        return public_key_of(certificate.csr), None
    kept = (
        read_key(data_of(old or {}).get("tls.key", b"")) if certificate.private_key.rotation_policy == "Never" else None
    )
    if kept is not None and _fits(kept, policy):
        return kept.public_key(), kept
    made = generate_key(policy)
    return made.public_key(), made


def _fits(key: PrivateKey, policy: ClientPolicy) -> bool:
    wanted = policy.spec.certificate.private_key
    is_rsa = wanted.algorithm == "RSA"
    return hasattr(key, "curve") is not is_rsa and key.key_size == wanted.size


def is_compromised(policy: ClientPolicy, secret: Document | None) -> bool:
    """Return whether a csr's key is the one of a certificate that was revoked because others have its key."""
    csr, pem = policy.spec.certificate.csr, data_of(secret or {}).get("tls.crt")
    if csr is None or not pem:
        return False
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        is_same = certificate.public_key() == public_key_of(csr)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return False
    compromised = {one.sha256 for one in policy.spec.revocation.fingerprints if one.reason == "KeyCompromise"}
    return is_same and leaf_of(certificate).sha256 in compromised


def csr_fault(policy: ClientPolicy | None) -> str | None:
    if policy is None or policy.spec.certificate.csr is None:
        return None
    try:
        public_key_of(policy.spec.certificate.csr)
    except BadCsr as bad:
        return str(bad)
    return None
