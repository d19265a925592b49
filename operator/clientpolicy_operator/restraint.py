"""What holds a signing back though another certificate is due: too many are valid, or others keep undoing it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from authz.policy import ClientPolicy
from clientpolicy_operator.facts import Blocked, Observed, Trouble
from clientpolicy_operator.status import PREVIOUS_MAX, earlier
from clientpolicy_operator.timing import BACKOFF_FIRST, BACKOFF_MAX
from clientpolicy_operator.told import text

_BY_ITSELF: Final = ("Renewing", "Expired", "Revoked", "IncorrectIssuer", "UntrustedIssuer")  # nobody's wish
_BY_OTHERS: Final = ("DoesNotExist", "MissingData", "InvalidCertificate", "InvalidKeyPair", "IncorrectCertificate")
COUNTED: Final = timedelta(hours=1)  # signings within it are counted
UNPAUSED: Final = 3  # of them: a first one, and a Secret that somebody deleted twice


def restraint(reason: str, policy: ClientPolicy, observed: Observed, now: datetime) -> Blocked | None:
    """Return why no other certificate is signed now for this reason, None where one may be."""
    if reason not in _BY_ITSELF and len(earlier(policy, observed, "", now)) > PREVIOUS_MAX:
        told = (
            f"{PREVIOUS_MAX + 1} certificates of this policy are valid, as many as a status holds: another one would "
            "lock a partner out. Until one ends, only renewals and revocations sign; revoke those that nobody uses"
        )
        return Blocked(trouble=Trouble.TOO_MANY, message=told)
    until = _pause(observed, now) if reason in _BY_OTHERS else None
    if until is None or until <= now:
        return None
    told = f"something undoes the Secret again and again: another certificate is signed after {text(until)}"
    return Blocked(trouble=Trouble.OVERWRITTEN, message=told, until=until)


def _pause(observed: Observed, now: datetime) -> datetime | None:
    """Return until when to pause: twice as long after each signing of the last hour, beyond the first few."""
    recent = [entry.recorded for entry in observed.entries if now - COUNTED < entry.recorded < now + COUNTED]
    beyond = len(recent) - UNPAUSED
    if beyond <= 0:
        return None
    return min(max(recent), now) + min(BACKOFF_FIRST * (1 << min(beyond - 1, 16)), BACKOFF_MAX)
