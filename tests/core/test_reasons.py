"""What a caller is told of each reason, written a second time: by HTTP, RFC 6750, FHIR, and in Shadow mode."""

from __future__ import annotations

import pytest

from authz.core.reasons import ANSWERS
from authz.model import Reason

# HTTP status, RFC 6750 `error`, FHIR issue type, and whether Shadow lets pass.
TOLD: dict[tuple[int, str | None, str, bool], str] = {
    (200, None, "informational", False): "allowed",
    (400, None, "invalid", False): "path_ambiguous",
    (400, "invalid_request", "structure", False): "request_malformed",
    (401, None, "login", True): "token_missing",
    (401, "invalid_token", "login", True): "token_malformed token_algorithm token_key_unknown token_signature "
    "token_not_yet_valid token_issuer token_audience token_type token_client token_binding token_inactive",
    (401, "invalid_token", "expired", True): "token_expired",
    (403, None, "login", False): "certificate_missing certificate_malformed",
    (403, None, "unknown", False): "certificate_unknown",
    (403, None, "forbidden", False): "certificate_revoked certificate_not_yet_valid proxy_untrusted",
    (403, None, "expired", False): "certificate_expired client_not_valid",
    (403, None, "suppressed", False): "client_suspended",
    (403, None, "conflict", False): "policy_conflict",
    (403, None, "exception", False): "policy_invalid",
    (403, "insufficient_scope", "forbidden", True): "scope_missing",
    (403, None, "forbidden", True): "patient_unknown patient_mismatch compartment_undecidable route_not_allowed",
    (403, None, "not-supported", True): "interaction_unsupported",
    (429, None, "throttled", True): "quota_exceeded",
    (503, None, "transient", True): "store_unavailable issuer_unavailable",
    (503, None, "transient", False): "not_ready",
    (503, None, "exception", False): "internal",
}
BY_REASON = {Reason(name): told for told, names in TOLD.items() for name in names.split()}


@pytest.mark.parametrize("reason", Reason)
def test_reason_is_told_as_it_should_be(reason: Reason) -> None:
    answer = ANSWERS[reason]
    assert (answer.status, answer.error, answer.issue, answer.may_shadow) == BY_REASON[reason]


def test_each_reason_has_a_title_of_its_own() -> None:
    titles = [ANSWERS[reason].title for reason in Reason]
    assert len(set(titles)) == len(titles) == len(ANSWERS)
    assert all(title[0].isupper() and title.isprintable() for title in titles)
    assert ANSWERS[Reason.ALLOWED].title == "Allowed"
