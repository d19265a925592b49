"""When a certificate begins, ends and is renewed. Pure; spreads come from the object's UID, so that they stay."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final

from authz.policy import ClientPolicy
from clientpolicy_operator.authority import BACKDATED
from clientpolicy_operator.facts import Leaf, Signer

RENEW_LEFT_PERCENT: Final = 33
RENEW_LEFT_MAX_PERCENT: Final = 75  # four renewals in a life, far fewer than the status holds besides the current
SPREAD: Final = 0.05  # of its life a certificate is renewed earlier, at most: an hour's issues stay an hour's renewals
BACKOFF_FIRST: Final = timedelta(seconds=5)
BACKOFF_MAX: Final = timedelta(hours=1)
_MICROSECOND: Final = timedelta(microseconds=1)
PATIENCE: Final = timedelta(seconds=30)  # for another replica that has signed and not yet stored


def fraction(uid: str) -> float:
    """Return a number in [0, 1) that is this object's own."""
    return int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=6).digest()) / 2**48


def window(policy: ClientPolicy, signer: Signer, now: datetime) -> tuple[datetime, datetime] | None:
    """Return from when to when a certificate that is signed now is valid; None if that is never.

    A little in the past, for clocks that are behind; but never before what revocation.issuedBefore refuses, outside
    the contract's validity or beyond the CA.
    """
    now = now.replace(microsecond=0)
    revocation, validity = policy.spec.revocation, policy.spec.validity
    if revocation.issued_before is not None and revocation.issued_before > now:
        return None
    bounds = (now - BACKDATED, revocation.issued_before, validity.not_before, signer.not_before)
    begin = max(when for when in bounds if when is not None)
    end = min(when for when in (validity.not_after, signer.not_after) if when is not None).replace(microsecond=0)
    if end <= begin:
        return None
    begin = _up(begin)
    left_us = (end - max(begin, now)) // _MICROSECOND
    if left_us <= 0:
        return None
    if policy.spec.certificate.duration < left_us:
        end = (max(begin, now) + policy.spec.certificate.duration * _MICROSECOND).replace(microsecond=0)
    return (begin.astimezone(UTC), end.astimezone(UTC))


def _up(when: datetime) -> datetime:
    """Return the instant in whole seconds, as X.509 has them, and not earlier."""
    return when if not when.microsecond else when.replace(microsecond=0) + timedelta(seconds=1)


def renewal_time(policy: ClientPolicy, leaf: Leaf, uid: str, signer: Signer | None) -> datetime | None:
    """Return when a certificate is to be renewed; None where a new one could not last longer than it."""
    last = [end.replace(microsecond=0) for end in (policy.spec.validity.not_after,) if end is not None]
    last += [signer.not_after] if signer is not None else []
    if any(leaf.not_after >= end for end in last):
        return None
    wanted = policy.spec.certificate
    begin = min(leaf.not_before + BACKDATED, leaf.not_after)  # since then it has been of use
    life = leaf.not_after - begin
    most = life * RENEW_LEFT_MAX_PERCENT / 100
    if wanted.renew_before is not None:
        left = min(wanted.renew_before, most // _MICROSECOND) * _MICROSECOND
    else:
        left = min(life * (wanted.renew_before_percentage or RENEW_LEFT_PERCENT) / 100, most)
    early = (life - left) * SPREAD * fraction(uid)
    return (leaf.not_after - left - early).replace(microsecond=0)


def reissue_time(signer: Signer, uid: str) -> datetime:
    """Return when a leaf of the CA before is re-issued by this one."""
    return signer.switched + timedelta(seconds=signer.spread_s * fraction(uid))


def retry_time(now: datetime, attempts: int) -> datetime:
    """Return when to try again after so many failures in a row, at least one."""
    return now + min(BACKOFF_MAX, BACKOFF_FIRST * (1 << min(max(attempts, 1) - 1, 16)))
