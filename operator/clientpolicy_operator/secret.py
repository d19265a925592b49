"""A client's Secret as a document: whose it is, what it holds, and how it should look. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from authz.policy import API_VERSION, KIND, ClientPolicy, Source
from clientpolicy_operator.facts import Blocked, Document, Flaw, Held, Leaf, Subject, Trouble
from clientpolicy_operator.issue import read_secret
from clientpolicy_operator.told import map_of, secret_name

OWNER: Final = "authz.healthtech.dev/policy-uid"
REQUEST: Final = "authz.healthtech.dev/request"
APPLIED: Final = "authz.healthtech.dev/applied"
RENEWED: Final = "authz.healthtech.dev/renewed"
REVISION: Final = "authz.healthtech.dev/revision"
_NAMESPACE: Final = "authz.healthtech.dev/policy-namespace"
_NAME: Final = "authz.healthtech.dev/policy-name"
_CLIENT_ID: Final = "authz.healthtech.dev/client-id"
_OWN: Final = frozenset({OWNER, REQUEST, REVISION, RENEWED, APPLIED, _NAMESPACE, _NAME, _CLIENT_ID})
LABELS: Final = {
    "app.kubernetes.io/managed-by": "clientpolicy",
    "app.kubernetes.io/component": "client-certificate",
}


def secret_type(policy: ClientPolicy) -> str:
    return "Opaque" if policy.spec.certificate.source is Source.CSR else "kubernetes.io/tls"


def held(found: Document | None, subject: Subject, policy: ClientPolicy) -> Held | Blocked | None:
    """Return what a Secret is to this policy; a foreign one is never adopted, whatever is in it."""
    if found is None:
        return None
    metadata = map_of(found.get("metadata"))
    notes = map_of(metadata.get("annotations"))
    if notes.get(OWNER) != subject.uid:
        name = secret_name(subject.name, policy)
        told = f"Secret {name} is there and not this policy's; delete it, or make a policy of another secretName"
        return Blocked(trouble=Trouble.SECRET_CONFLICT, message=told)
    if metadata.get("deletionTimestamp"):
        told = f"Secret {secret_name(subject.name, policy)} is being deleted, and a finalizer holds it back"
        return Blocked(trouble=Trouble.SECRET_CONFLICT, message=told)
    read = read_secret(data_of(found), policy.spec.certificate.source)
    revision = str(notes.get(REVISION, ""))
    return Held(
        leaf=read if isinstance(read, Leaf) else None,
        flaw=read if isinstance(read, Flaw) else None,
        request=str(notes.get(REQUEST, "")),
        renewed=str(notes.get(RENEWED, "")),
        revision=int(revision) if revision.isdecimal() and len(revision) < 10 else 0,  # noqa: PLR2004 32 bits
        is_dressed=is_dressed(metadata, subject, policy),
        version=str(metadata.get("resourceVersion", "")),
    )


def data_of(found: Document) -> dict[str, bytes]:
    """Return the decoded data; what is not base64 counts as absent."""
    data: dict[str, bytes] = {}
    for name, value in map_of(found.get("data")).items():
        try:
            data[name] = base64.b64decode(str(value), validate=True)
        except (binascii.Error, ValueError):
            continue
    return data


def is_dressed(metadata: Document, subject: Subject, policy: ClientPolicy) -> bool:
    wanted = dress(metadata, subject, policy)
    return all(
        map_of(metadata.get(part)) == wanted[part] for part in ("labels", "annotations")
    ) and _owners(metadata) == wanted["ownerReferences"]  # fmt: skip


def dress(metadata: Document, subject: Subject, policy: ClientPolicy) -> dict[str, Any]:
    """Return labels, annotations and owners as they should be; what others added stays, what a template added goes."""
    template = policy.spec.certificate.secret_template
    labels = {name: value for name, value in template.labels.items() if name not in LABELS}
    annotations = {name: value for name, value in template.annotations.items() if name not in _OWN}
    owners = _owners(metadata)
    others = [one for one in owners if one.get("uid") != subject.uid]
    # cert-manager, if it was told to, controls its Secrets; there is one controller at most.
    ours = owner_reference(subject) | {"controller": not any(one.get("controller") is True for one in others)}
    placed = [ours if one.get("uid") == subject.uid else one for one in owners]
    keeps = policy.spec.certificate.secret_deletion_policy == "Retain"
    return {
        "labels": {**_others(metadata, "labels"), **labels, **LABELS},
        "annotations": {
            **_others(metadata, "annotations"),
            **annotations,
            **_ours(metadata, subject),
            **_applied(labels, annotations),
            **marks(subject, policy),
        },
        "ownerReferences": others if keeps else placed if ours in placed else [*others, ours],
    }


def _applied(labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, str]:
    """Return what remembers the names that a template has put there, so that they go when it no longer has them."""
    names = {"labels": sorted(labels), "annotations": sorted(annotations)}
    return {APPLIED: json.dumps(names, separators=(",", ":"))} if labels or annotations else {}


def _others(metadata: Document, part: str) -> dict[str, object]:
    """Return labels or annotations less those that a template has put there."""
    noted = map_of(metadata.get("annotations")).get(APPLIED)
    try:
        names = map_of(json.loads(str(noted))).get(part)
    except (ValueError, RecursionError):
        names = None
    gone = {APPLIED, *(str(name) for name in (names if isinstance(names, list) else ()))}
    return {name: value for name, value in map_of(metadata.get(part)).items() if name not in gone}


def marks(subject: Subject, policy: ClientPolicy) -> dict[str, str]:
    """Return the annotations by which a policy that was restored under another UID knows its Secret again."""
    if policy.spec.certificate.issuer_ref is not None:
        return {}  # cert-manager's, which makes it anew
    return {_NAMESPACE: subject.namespace, _NAME: subject.name, _CLIENT_ID: policy.spec.client_id}


def _ours(metadata: Document, subject: Subject) -> dict[str, str]:
    notes = map_of(metadata.get("annotations"))
    return {OWNER: subject.uid} | {name: str(notes[name]) for name in (REQUEST, REVISION, RENEWED) if name in notes}


def _owners(metadata: Document) -> list[Mapping[str, Any]]:
    listed = metadata.get("ownerReferences")
    return [one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict)]


def owner_reference(subject: Subject) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION, "kind": KIND, "name": subject.name, "uid": subject.uid, "controller": True,
        "blockOwnerDeletion": False,
    }  # fmt: skip


def body(
    old: Document | None,
    subject: Subject,
    policy: ClientPolicy,
    *,
    files: Mapping[str, bytes],
    request: str,
    revision: int,
    renewed: str = "",
) -> dict[str, Any]:
    """Return the Secret with another key and certificate in it; of what it held before, only others' entries stay."""
    metadata: dict[str, Any] = dict(map_of(old.get("metadata"))) if old is not None else {}
    metadata |= {"name": secret_name(subject.name, policy), "namespace": subject.namespace}
    metadata |= dress(metadata, subject, policy)
    metadata["annotations"] = metadata["annotations"] | {REQUEST: request, REVISION: str(revision)}
    metadata["annotations"] |= {RENEWED: renewed} if renewed else {}
    kept = {name: value for name, value in map_of(old.get("data") if old is not None else None).items()
            if name not in ("tls.crt", "tls.key", "ca.crt")}  # fmt: skip
    data = kept | {name: base64.b64encode(value).decode() for name, value in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": secret_type(policy), "metadata": metadata, "data": data}
