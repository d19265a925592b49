"""One account of a verdict for audit, check and upstream."""

from __future__ import annotations

import pytest

from authz.core.decide import Allow, Deny, Public, Shadowed, Verdict
from authz.core.quota import Within
from authz.core.told import granted, refusal
from authz.model import Claims, Client, Confirmation, Grant, Reason, Refused
from authz.policy.smart import parse_scope

SCOPE = parse_scope("patient/*.rs")
assert SCOPE is not None
CLIENT = Client(id="app", policy="p/app", scopes=(SCOPE,))
CLAIMS = Claims("iss", "key", "user-1", "app", ("patient/Patient.rs", "openid"), "123", 0, None, Confirmation.NONE)
REFUSED, WITHIN = Refused(Reason.SCOPE_MISSING, "needs x", needed=("x",)), Within(())
VERDICTS: dict[str, tuple[Verdict, tuple[str, ...] | None, Refused | None]] = {
    "by a grant": (Allow(Grant(("a", "b"), "r"), WITHIN, CLIENT, CLAIMS), ("a", "b"), None),
    "by a certificate alone": (Allow(Grant(("system/*.rs",), "r"), WITHIN, CLIENT, None), ("system/*.rs",), None),
    "public": (Allow(Public("GET /health"), WITHIN, CLIENT, None), None, None),
    "nobody": (Allow(Public("GET /health"), WITHIN, None, None), None, None),
    "denied with a token": (Deny(REFUSED, WITHIN, CLIENT, CLAIMS), ("patient/Patient.rs",), REFUSED),
    "denied without": (Deny(REFUSED, WITHIN, CLIENT, None), None, REFUSED),
    "denied to nobody": (Deny(REFUSED), None, REFUSED),
    "shadowed": (Shadowed(REFUSED, WITHIN, CLIENT, CLAIMS), ("patient/Patient.rs",), REFUSED),
    "shadowed without a token": (Shadowed(REFUSED, WITHIN, CLIENT, None), None, REFUSED),
}


@pytest.mark.parametrize(("verdict", "scopes", "refused"), VERDICTS.values(), ids=VERDICTS.keys())
def test_verdict_is_told(verdict: Verdict, scopes: tuple[str, ...] | None, refused: Refused | None) -> None:
    assert granted(verdict) == scopes
    assert refusal(verdict) is refused
