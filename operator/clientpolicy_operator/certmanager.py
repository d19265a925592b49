"""cert-manager instead of the built-in CA: the Certificate that is asked for, and what became of it. Pure.

Source: cert-manager.io/v1, Certificate (checked against the CRD of v1.21).
"""

from __future__ import annotations

from typing import Any, Final

from authz.policy import ClientPolicy
from clientpolicy_operator import told
from clientpolicy_operator.facts import Blocked, Delegated, Document, Flaw, Leaf, Subject, Trouble
from clientpolicy_operator.issue import names_of, read_secret
from clientpolicy_operator.secret import LABELS, OWNER, REQUEST, data_of, is_dressed, owner_reference
from clientpolicy_operator.told import condition_of, map_of, secret_name, when_of

GROUP: Final = "cert-manager.io/v1"
_TLS: Final = "kubernetes.io/tls"
_POWERS: Final = (  # of a Certificate's spec: what nobody may add to what was asked for
    "commonName", "subject", "literalSubject", "dnsNames", "ipAddresses", "uris", "emailAddresses", "otherNames",
    "isCA", "nameConstraints", "usages", "secretTemplate",
)  # fmt: skip


def certificate_path(namespace: str, name: str = "") -> str:
    return f"/apis/{GROUP}/namespaces/{namespace}/certificates" + (f"/{name}" if name else "")


def certificate_body(subject: Subject, policy: ClientPolicy, request: str) -> dict[str, Any]:
    """Return the Certificate to ask for; names come from the policy alone."""
    wanted, names = policy.spec.certificate, names_of(policy)
    assert wanted.issuer_ref is not None  # noqa: S101 else nothing is delegated
    usages = ["digital signature", "client auth"]
    usages += ["key encipherment"] if wanted.private_key.algorithm == "RSA" else []
    usages += ["server auth"] if wanted.profile == "Spiffe" else []
    spec: dict[str, Any] = {
        "secretName": secret_name(subject.name, policy),
        "issuerRef": wanted.issuer_ref.model_dump(by_alias=True),
        "duration": _go(wanted.duration),
        "usages": usages,
        "privateKey": {
            "algorithm": wanted.private_key.algorithm,
            "size": wanted.private_key.size,
            "rotationPolicy": wanted.private_key.rotation_policy,
        },
        "secretTemplate": {
            # What we set ourselves, too, is of one value, or cert-manager and we would write over each other for ever.
            "labels": {name: LABELS.get(name, value) for name, value in wanted.secret_template.labels.items()},
            "annotations": {**wanted.secret_template.annotations, OWNER: subject.uid},
        },
        "commonName": names.common_name,
        "subject": {"organizations": list(names.organizations)} if names.organizations else None,
        "uris": list(names.uris),
        "dnsNames": list(names.dns_names),
        "emailAddresses": list(names.emails),
        "renewBefore": _go(wanted.renew_before) if wanted.renew_before is not None else None,
        "renewBeforePercentage": wanted.renew_before_percentage,
    }
    return {
        "apiVersion": GROUP,
        "kind": "Certificate",
        "metadata": {
            "name": secret_name(subject.name, policy),
            "namespace": subject.namespace,
            "annotations": {REQUEST: request},
            "ownerReferences": [owner_reference(subject)],
        },
        "spec": {name: value for name, value in spec.items() if value not in (None, [], {})},
    }


def _go(microseconds: int) -> str:
    return f"{microseconds // 1_000_000}s"


def delegated(
    certificate: Document | None, secret: Document | None, subject: Subject, policy: ClientPolicy
) -> Delegated:
    """Return what there is; a certificate counts only together with its key."""
    if certificate is None:
        foreign = secret is not None and not _is_ours(secret, subject)
        return Delegated(blocked=_conflict("Secret", subject, policy) if foreign else None)
    metadata = map_of(certificate.get("metadata"))
    if not is_for(certificate, subject):
        return Delegated(blocked=_conflict("Certificate", subject, policy))
    request = str(map_of(metadata.get("annotations")).get(REQUEST, ""))
    asked = request if _is_asked(certificate, subject, policy) else ""
    status = map_of(certificate.get("status"))
    message, trouble = _words(status)
    if secret is None:
        return Delegated(asked=asked, message=message)
    if not _is_ours(secret, subject):
        return Delegated(blocked=_conflict("Secret", subject, policy))
    read = read_secret(data_of(secret), policy.spec.certificate.source)
    return Delegated(
        asked=asked,
        message=f"{read.value}: {message}" if isinstance(read, Flaw) else message,
        leaf=read if isinstance(read, Leaf) else None,
        revision=told.current_revision({"certificate": status}),
        is_dressed=is_dressed(map_of(secret.get("metadata")), subject, policy),
        trouble=trouble,
        renewal=when_of(status, "renewalTime"),
        is_misfit=secret.get("type") != _TLS,
    )


def is_for(certificate: Document, subject: Subject) -> bool:
    """Tell whether this Certificate was asked for by this very policy."""
    owners = map_of(certificate.get("metadata")).get("ownerReferences")
    return any(map_of(one).get("uid") == subject.uid for one in (owners if isinstance(owners, list) else ()))


def _is_asked(certificate: Document, subject: Subject, policy: ClientPolicy) -> bool:
    """Tell whether it still asks for what the policy says; what the API server filled in does not count."""
    wanted, spec = certificate_body(subject, policy, "")["spec"], map_of(certificate.get("spec"))
    return _holds(spec, wanted) and all(spec.get(name) == wanted.get(name) for name in _POWERS)


def _holds(found: Document, wanted: Document) -> bool:
    return all(
        found.get(name) == value or (isinstance(value, dict) and _holds(map_of(found.get(name)), value))
        for name, value in wanted.items()
    )


def _words(status: Document) -> tuple[str, str]:
    """Return what cert-manager says, and what of it is about another certificate that is due."""
    ready, issuing = condition_of(status, "Ready"), condition_of(status, "Issuing")
    message = f"{ready.get('reason', 'Pending')}: {ready.get('message', 'cert-manager has not answered yet')}"
    said = f"{issuing.get('reason', 'Issuing')}: {issuing.get('message', '')}"
    if issuing.get("status") == "False" and issuing.get("reason") == "Failed":
        return said, said
    return message, said if issuing.get("status") == "True" else ""


def _is_ours(secret: Document, subject: Subject) -> bool:
    return map_of(map_of(secret.get("metadata")).get("annotations")).get(OWNER) == subject.uid


def _conflict(kind: str, subject: Subject, policy: ClientPolicy) -> Blocked:
    name = secret_name(subject.name, policy)
    message = f"{kind} {name} is there and not this policy's; delete it, or make a policy of another secretName"
    return Blocked(trouble=Trouble.SECRET_CONFLICT, message=message)
