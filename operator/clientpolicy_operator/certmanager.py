"""cert-manager instead of the built-in CA: the Certificate that is asked for, and what became of it. Pure.

Source: cert-manager.io/v1, Certificate (checked against the CRD of v1.21).
"""

from __future__ import annotations

from typing import Any, Final

from authz.policy import ClientPolicy
from clientpolicy_operator.facts import Blocked, Delegated, Document, Flaw, Leaf, Subject, Trouble
from clientpolicy_operator.issue import names_of, read_secret
from clientpolicy_operator.secret import OWNER, REQUEST, data_of, is_dressed, owner_reference
from clientpolicy_operator.told import condition_of, int_of, map_of, secret_name

GROUP: Final = "cert-manager.io/v1"


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
            "labels": dict(wanted.secret_template.labels),
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
    owners = metadata.get("ownerReferences")
    if not any(map_of(one).get("uid") == subject.uid for one in (owners if isinstance(owners, list) else ())):
        return Delegated(blocked=_conflict("Certificate", subject, policy))
    asked = str(map_of(metadata.get("annotations")).get(REQUEST, ""))
    status = map_of(certificate.get("status"))
    ready = condition_of(status, "Ready")
    message = f"{ready.get('reason', 'Pending')}: {ready.get('message', 'cert-manager has not answered yet')}"
    if secret is None:
        return Delegated(asked=asked, message=message)
    if not _is_ours(secret, subject):
        return Delegated(blocked=_conflict("Secret", subject, policy))
    read = read_secret(data_of(secret), policy.spec.certificate.source)
    return Delegated(
        asked=asked,
        message=read.value if isinstance(read, Flaw) else message,
        leaf=read if isinstance(read, Leaf) else None,
        revision=int_of(status.get("revision")),
        is_dressed=is_dressed(map_of(secret.get("metadata")), subject, policy),
    )


def _is_ours(secret: Document, subject: Subject) -> bool:
    return map_of(map_of(secret.get("metadata")).get("annotations")).get(OWNER) == subject.uid


def _conflict(kind: str, subject: Subject, policy: ClientPolicy) -> Blocked:
    name = secret_name(subject.name, policy)
    told = f"{kind} {name} is there and not this policy's; delete it, or choose another secretName"
    return Blocked(trouble=Trouble.SECRET_CONFLICT, message=told)
