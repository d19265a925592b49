"""The one table from a reason to what the caller gets to see."""

from __future__ import annotations

from typing import Final, NamedTuple

from authz.model import Reason

# Shadow lets pass what a token, its scopes, the patient, a route or a quota would refuse, also where they cannot be
# checked just now; never what says that the caller is not who it claims to be, that it may not act at all, or that the
# request has no single reading. A reason that is added has to say which it is: the column has no default.
_PASSES: Final = True
_STANDS: Final = False


class Answer(NamedTuple):
    """How a reason is answered: HTTP status, RFC 6750 `error`, FHIR issue type, and a title for people.

    `may_shadow`: whether a client in Shadow mode passes all the same.
    """

    status: int
    error: str | None  # None: no `error` attribute
    issue: str  # http://hl7.org/fhir/issue-type
    may_shadow: bool
    title: str


ANSWERS: Final[dict[Reason, Answer]] = {
    Reason.ALLOWED: Answer(200, None, "informational", _STANDS, "Allowed"),
    Reason.PATH_AMBIGUOUS: Answer(400, None, "invalid", _STANDS, "The path can be read in more than one way"),
    Reason.REQUEST_MALFORMED: Answer(400, "invalid_request", "structure", _STANDS, "The request is malformed"),
    Reason.CERTIFICATE_MISSING: Answer(403, None, "login", _STANDS, "A client certificate is needed"),
    Reason.CERTIFICATE_MALFORMED: Answer(403, None, "login", _STANDS, "The client certificate cannot be read"),
    Reason.CERTIFICATE_UNKNOWN: Answer(403, None, "unknown", _STANDS, "The client certificate is not known here"),
    Reason.CERTIFICATE_REVOKED: Answer(403, None, "forbidden", _STANDS, "The client certificate is revoked"),
    Reason.CERTIFICATE_EXPIRED: Answer(403, None, "expired", _STANDS, "The client certificate has expired"),
    Reason.CERTIFICATE_NOT_YET_VALID: Answer(
        403, None, "forbidden", _STANDS, "The client certificate is not valid yet"
    ),
    Reason.PROXY_UNTRUSTED: Answer(403, None, "forbidden", _STANDS, "The request came through an untrusted proxy"),
    Reason.CLIENT_SUSPENDED: Answer(403, None, "suppressed", _STANDS, "The client is suspended"),
    Reason.CLIENT_NOT_VALID: Answer(403, None, "expired", _STANDS, "The client's agreement is not in force"),
    Reason.POLICY_CONFLICT: Answer(403, None, "conflict", _STANDS, "The client's policy conflicts with another"),
    Reason.POLICY_INVALID: Answer(403, None, "exception", _STANDS, "The client's policy is invalid"),
    Reason.TOKEN_MISSING: Answer(401, None, "login", _PASSES, "An access token is needed"),
    Reason.TOKEN_MALFORMED: Answer(401, "invalid_token", "login", _PASSES, "The access token is malformed"),
    Reason.TOKEN_ALGORITHM: Answer(
        401, "invalid_token", "login", _PASSES, "The access token's algorithm is not accepted"
    ),
    Reason.TOKEN_KEY_UNKNOWN: Answer(401, "invalid_token", "login", _PASSES, "The access token's key is not known"),
    Reason.TOKEN_SIGNATURE: Answer(401, "invalid_token", "login", _PASSES, "The access token's signature is wrong"),
    Reason.TOKEN_EXPIRED: Answer(401, "invalid_token", "expired", _PASSES, "The access token has expired"),
    Reason.TOKEN_NOT_YET_VALID: Answer(401, "invalid_token", "login", _PASSES, "The access token is not valid yet"),
    Reason.TOKEN_ISSUER: Answer(401, "invalid_token", "login", _PASSES, "The access token's issuer is not accepted"),
    Reason.TOKEN_AUDIENCE: Answer(
        401, "invalid_token", "login", _PASSES, "The access token is meant for another audience"
    ),
    Reason.TOKEN_TYPE: Answer(401, "invalid_token", "login", _PASSES, "The token is not an access token"),
    Reason.TOKEN_CLIENT: Answer(401, "invalid_token", "login", _PASSES, "The access token belongs to another client"),
    Reason.TOKEN_BINDING: Answer(
        401, "invalid_token", "login", _PASSES, "The access token is bound to another certificate"
    ),
    Reason.TOKEN_INACTIVE: Answer(401, "invalid_token", "login", _PASSES, "The access token is not active"),
    Reason.SCOPE_MISSING: Answer(403, "insufficient_scope", "forbidden", _PASSES, "A scope is missing"),
    Reason.PATIENT_UNKNOWN: Answer(403, None, "forbidden", _PASSES, "The access token names no patient"),
    Reason.PATIENT_MISMATCH: Answer(403, None, "forbidden", _PASSES, "The request concerns another patient"),
    Reason.COMPARTMENT_UNDECIDABLE: Answer(
        403, None, "forbidden", _PASSES, "Nothing limits the request to the patient"
    ),
    Reason.INTERACTION_UNSUPPORTED: Answer(
        403, None, "not-supported", _PASSES, "The interaction is not open to clients"
    ),
    Reason.ROUTE_NOT_ALLOWED: Answer(403, None, "forbidden", _PASSES, "The path is not open to the client"),
    Reason.QUOTA_EXCEEDED: Answer(429, None, "throttled", _PASSES, "The quota is used up"),
    Reason.STORE_UNAVAILABLE: Answer(503, None, "transient", _PASSES, "The quota cannot be checked now"),
    Reason.ISSUER_UNAVAILABLE: Answer(503, None, "transient", _PASSES, "The access token cannot be checked now"),
    Reason.INTERNAL: Answer(503, None, "exception", _STANDS, "The request cannot be judged"),
    Reason.NOT_READY: Answer(503, None, "transient", _STANDS, "The service is starting"),
}
