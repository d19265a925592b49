"""The only maker of `Allow`: it takes evidence of every stage, and there is none for what did not happen."""

from __future__ import annotations

from typing import NamedTuple

from authz.core.quota import Exceeded, Unknown, Within
from authz.core.reasons import ANSWERS
from authz.model import Claims, Client, Grant, Presented, Reason, Refused

Quota = Within | Exceeded | Unknown


class Public(NamedTuple):
    """The right by which a public route passes, with or without a client."""

    rule: str


class Allow(NamedTuple):
    """The request passes: by which right, within which quota, as whom."""

    right: Grant | Public
    quota: Within
    client: Client | None
    claims: Claims | None
    presented: Presented | None = None


class Shadowed(NamedTuple):
    """The request passes only because its client is in Shadow mode; Enforce would have refused it."""

    refused: Refused
    quota: Quota
    client: Client
    claims: Claims | None
    presented: Presented | None = None


class Deny(NamedTuple):
    """The request is refused; who asked, as far as that was established, and the quota if it was asked."""

    refused: Refused
    quota: Quota | None = None
    client: Client | None = None
    claims: Claims | None = None
    presented: Presented | None = None  # the certificate that was shown, whether it identified anybody or not


Verdict = Allow | Shadowed | Deny


def conclude(
    right: Grant | Public | Refused,
    quota: Quota,
    client: Client | None,
    claims: Claims | None,
    presented: Presented | None = None,
) -> Verdict:
    """Return the verdict on a request that was judged to the end: the right it has, and what its quota says.

    A refusal stands, whatever the quota says.
    """
    if not isinstance(right, Refused) and isinstance(quota, Within):
        return Allow(right, quota, client, claims, presented)
    refused = right if isinstance(right, Refused) else _refused_by(quota)
    if client is not None and client.shadow and ANSWERS[refused.reason].may_shadow:
        return Shadowed(refused, quota, client, claims, presented)
    return Deny(refused, quota, client, claims, presented)


def _refused_by(quota: Quota) -> Refused:
    if isinstance(quota, Exceeded):
        return Refused(Reason.QUOTA_EXCEEDED, "no request left")
    return Refused(Reason.STORE_UNAVAILABLE, "the quota store does not answer, and the policy says Closed")
