"""What every account of a verdict says alike: the audit line, `clientpolicy check`, the headers to the upstream."""

from __future__ import annotations

from authz.core import grant
from authz.core.decide import Allow, Verdict
from authz.model import Grant, Refused


def granted(verdict: Verdict) -> tuple[str, ...] | None:
    """Return the effective scopes of a grant or of an admitted token; None where nobody looked at any."""
    if isinstance(verdict, Allow) and isinstance(verdict.right, Grant):
        return verdict.right.scopes
    if verdict.client is None or verdict.claims is None:
        return None
    return grant.held(verdict.client, verdict.claims).texts


def refusal(verdict: Verdict) -> Refused | None:
    """Return why the request is refused, or would be but for Shadow mode; None where it passes by right."""
    return None if isinstance(verdict, Allow) else verdict.refused
