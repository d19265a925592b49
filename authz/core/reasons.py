"""The one table from a reason to what the caller gets to see."""

from __future__ import annotations

from typing import Final, NamedTuple

from authz.model import Reason


class Answer(NamedTuple):
    """How a reason is answered: HTTP status, RFC 6750 `error`, FHIR issue type, and a title for people."""

    status: int
    error: str | None  # None: no `error` attribute
    issue: str  # http://hl7.org/fhir/issue-type
    title: str


ANSWERS: Final[dict[Reason, Answer]] = {
    Reason.ALLOWED: Answer(200, None, "informational", "Allowed"),
    Reason.PATH_AMBIGUOUS: Answer(400, None, "invalid", "The path can be read in more than one way"),
    Reason.REQUEST_MALFORMED: Answer(400, "invalid_request", "structure", "The request is malformed"),
    Reason.CERTIFICATE_MISSING: Answer(403, None, "login", "A client certificate is needed"),
    Reason.CERTIFICATE_MALFORMED: Answer(403, None, "login", "The client certificate cannot be read"),
    Reason.CERTIFICATE_UNKNOWN: Answer(403, None, "unknown", "The client certificate is not known here"),
    Reason.CERTIFICATE_REVOKED: Answer(403, None, "forbidden", "The client certificate is revoked"),
    Reason.CERTIFICATE_EXPIRED: Answer(403, None, "expired", "The client certificate has expired"),
    Reason.CERTIFICATE_NOT_YET_VALID: Answer(403, None, "forbidden", "The client certificate is not valid yet"),
    Reason.PROXY_UNTRUSTED: Answer(403, None, "forbidden", "The request came through an untrusted proxy"),
    Reason.CLIENT_SUSPENDED: Answer(403, None, "suppressed", "The client is suspended"),
    Reason.CLIENT_NOT_VALID: Answer(403, None, "expired", "The client's agreement is not in force"),
    Reason.POLICY_CONFLICT: Answer(403, None, "conflict", "The client's policy conflicts with another"),
    Reason.POLICY_INVALID: Answer(403, None, "exception", "The client's policy is invalid"),
    Reason.TOKEN_MISSING: Answer(401, None, "login", "An access token is needed"),
    Reason.TOKEN_MALFORMED: Answer(401, "invalid_token", "login", "The access token is malformed"),
    Reason.TOKEN_ALGORITHM: Answer(401, "invalid_token", "login", "The access token's algorithm is not accepted"),
    Reason.TOKEN_KEY_UNKNOWN: Answer(401, "invalid_token", "login", "The access token's key is not known"),
    Reason.TOKEN_SIGNATURE: Answer(401, "invalid_token", "login", "The access token's signature is wrong"),
    Reason.TOKEN_EXPIRED: Answer(401, "invalid_token", "expired", "The access token has expired"),
    Reason.TOKEN_NOT_YET_VALID: Answer(401, "invalid_token", "login", "The access token is not valid yet"),
    Reason.TOKEN_ISSUER: Answer(401, "invalid_token", "login", "The access token's issuer is not accepted"),
    Reason.TOKEN_AUDIENCE: Answer(401, "invalid_token", "login", "The access token is meant for another audience"),
    Reason.TOKEN_TYPE: Answer(401, "invalid_token", "login", "The token is not an access token"),
    Reason.TOKEN_CLIENT: Answer(401, "invalid_token", "login", "The access token belongs to another client"),
    Reason.TOKEN_BINDING: Answer(401, "invalid_token", "login", "The access token is bound to another certificate"),
    Reason.TOKEN_INACTIVE: Answer(401, "invalid_token", "login", "The access token is not active"),
    Reason.SCOPE_MISSING: Answer(403, "insufficient_scope", "forbidden", "A scope is missing"),
    Reason.PATIENT_UNKNOWN: Answer(403, None, "forbidden", "The access token names no patient"),
    Reason.PATIENT_MISMATCH: Answer(403, None, "forbidden", "The request concerns another patient"),
    Reason.COMPARTMENT_UNDECIDABLE: Answer(403, None, "forbidden", "Nothing limits the request to the patient"),
    Reason.INTERACTION_UNSUPPORTED: Answer(403, None, "not-supported", "The interaction is not open to clients"),
    Reason.ROUTE_NOT_ALLOWED: Answer(403, None, "forbidden", "The path is not open to the client"),
    Reason.QUOTA_EXCEEDED: Answer(429, None, "throttled", "The quota is used up"),
    Reason.STORE_UNAVAILABLE: Answer(503, None, "transient", "The quota cannot be checked now"),
    Reason.ISSUER_UNAVAILABLE: Answer(503, None, "transient", "The access token cannot be checked now"),
    Reason.INTERNAL: Answer(503, None, "exception", "The request cannot be judged"),
    Reason.NOT_READY: Answer(503, None, "transient", "The service is starting"),
}
