"""Secrets of policies that were restored from a backup: the same policy has another UID then, and may keep its own.

Who is merely called the same inherits nothing: the ledger must not have seen the old one go. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from authz.policy import ClientPolicy
from clientpolicy_operator.facts import Document, Entry, Leaf, Subject
from clientpolicy_operator.issue import is_request, read_secret
from clientpolicy_operator.secret import OWNER, REQUEST, data_of, marks
from clientpolicy_operator.told import map_of


def owner_before(found: Document | None, subject: Subject, policy: ClientPolicy) -> str | None:
    """Return the UID that a policy had when this Secret was made for it, None where it was made for another one."""
    metadata = map_of((found or {}).get("metadata"))
    notes = map_of(metadata.get("annotations"))
    wanted = marks(subject, policy)
    uid = notes.get(OWNER)
    if not wanted or not isinstance(uid, str) or uid in ("", subject.uid) or metadata.get("deletionTimestamp"):
        return None
    is_same = all(notes.get(name) == value for name, value in wanted.items())
    return uid if is_same and is_request(str(notes.get(REQUEST, "")), policy) else None


def estate(
    found: Document, subject: Subject, policy: ClientPolicy, *, left: Iterable[Entry], own: Iterable[Entry]
) -> tuple[Entry, ...]:
    """Return the rows of the ledger that go over to this policy, none where it may not keep the Secret.

    `left`: those of the policy before it, `own`: its own; it has none yet, or an attempt before this one broke off.
    """
    left = tuple(left)
    leaf = read_secret(data_of(found), policy.spec.certificate.source)
    if not isinstance(leaf, Leaf) or any(one.is_gone or one.namespace != subject.namespace for one in left):
        return ()
    known = {one.sha256 for one in left}
    return left if leaf.sha256 in known and known >= {one.sha256 for one in own} else ()
