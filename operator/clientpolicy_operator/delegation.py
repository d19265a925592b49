"""Asking cert-manager for a certificate, and asking it no longer."""

from __future__ import annotations

from authz.policy import ClientPolicy
from clientpolicy_operator import told
from clientpolicy_operator.api import Api, Forbidden, NotFound, Refused
from clientpolicy_operator.certmanager import certificate_body, certificate_path, is_for
from clientpolicy_operator.facts import Document, Subject
from clientpolicy_operator.told import map_of


async def ask(api: Api, subject: Subject, policy: ClientPolicy, request: str, found: Document | None) -> None:
    """Make the Certificate, or make the one that was found ask for this.

    Raises:
        ApiError: it was not written; Refused where there is no cert-manager.
    """
    wanted = certificate_body(subject, policy, request)
    name = wanted["metadata"]["name"]
    try:
        if found is None:
            await api.create(certificate_path(subject.namespace), wanted)
        else:
            old = map_of(found.get("metadata"))  # others' labels and annotations stay
            notes = {**map_of(old.get("annotations")), **wanted["metadata"]["annotations"]}
            wanted["metadata"] = {**old, **wanted["metadata"], "annotations": notes}
            await api.replace(certificate_path(subject.namespace, name), wanted)
    except NotFound:
        raise Refused("cert-manager is not installed: the cluster has no Certificate of cert-manager.io/v1") from None


async def dismiss(api: Api, subject: Subject, policy: ClientPolicy) -> None:
    """Delete the Certificate of a policy that used to be cert-manager's, or it would write over ours.

    Raises:
        ApiError: it is there still.
    """
    path = certificate_path(subject.namespace, told.secret_name(subject.name, policy))
    try:
        found = await api.get(path)
    except Forbidden:  # who may not read it did not make it
        return
    if found is not None and is_for(found, subject):
        await api.delete(path, uid=str(map_of(found.get("metadata")).get("uid")))
