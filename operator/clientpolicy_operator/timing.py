"""When a certificate begins, ends and is renewed. Pure; spreads come from the object's UID, so that they stay."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final

from authz.policy import ClientPolicy
from clientpolicy_operator.authority import BACKDATED
from clientpolicy_operator.facts import Leaf, Signer

RENEW_LEFT_PERCENT: Final = 33
SPREAD: Final = 0.05  # of its life a certificate is renewed earlier, at most: an hour's issues stay an hour's renewals
BACKOFF_FIRST: Final = timedelta(seconds=5)
BACKOFF_MAX: Final = timedelta(hours=1)
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
    begin = max(_up(when) for when in bounds if when is not None)
    ends = (
        max(begin, now) + timedelta(microseconds=policy.spec.certificate.duration),
        validity.not_after,
        signer.not_after,
    )
    end = min(when.replace(microsecond=0) for when in ends if when is not None)
    return (begin, end) if end > max(begin, now) else None


def _up(when: datetime) -> datetime:
    """Return the instant in whole seconds, as X.509 has them, and not earlier."""
    return when if not when.microsecond else when.replace(microsecond=0) + timedelta(seconds=1)


def renewal_time(policy: ClientPolicy, leaf: Leaf, uid: str, signer: Signer | None) -> datetime | None:
    """Return when a certificate is to be renewed; None where a new one could not last longer than it."""
    last = [end.replace(microsecond=0) for end in (policy.spec.validity.not_after,) if end is not None]
    last += [signer.not_after] if signer is not None else []
    if any(leaf.not_after >= end for end in last):
        return None
    wanted, life = policy.spec.certificate, leaf.not_after - leaf.not_before
    if wanted.renew_before is not None:
        left = timedelta(microseconds=wanted.renew_before)
    else:
        left = life * (wanted.renew_before_percentage or RENEW_LEFT_PERCENT) / 100
    early = (life - left) * SPREAD * fraction(uid)
    return max(leaf.not_before, leaf.not_after - left - early).replace(microsecond=0)


def reissue_time(signer: Signer, uid: str) -> datetime:
    """Return when a leaf of the CA before is re-issued by this one."""
    return signer.switched + timedelta(seconds=signer.spread_s * fraction(uid))


def retry_time(now: datetime, attempts: int) -> datetime:
    """Return when to try again after so many failures in a row, at least one."""
    return now + min(BACKOFF_MAX, BACKOFF_FIRST * (1 << min(attempts - 1, 16)))
