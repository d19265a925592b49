"""A small OAuth 2.0 authorization server, honest in what it does: two grants, PKCE, SMART context, bound tokens.

Source: RFC 6749 (grants, errors), RFC 7636 (PKCE), RFC 8414 (metadata), RFC 8705 (mutual TLS), RFC 9207 (`iss` in the
answer), SMART App Launch 2.2 (`aud`, `launch/patient`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import urlencode

from aiohttp import web
from aiohttp.typedefs import Handler

from authz.demo.ca import thumbprint
from authz.demo.mint import TOKEN_LIFETIME, Mint, Terms

CODE_LIFETIME_S: Final = 60.0  # RFC 6749 section 4.1.2 recommends at most ten minutes
CODES_MAX: Final = 1_000
BODY_MAX_BYTES: Final = 16_384
LAUNCH_PATIENT: Final = "launch/patient"
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # RFC 7636 section 4.2: base64url of a SHA-256
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_NEVER_CACHED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class OAuthError(Exception):
    """A refusal with its code of RFC 6749 section 4.1.2.1 or 5.2."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(code, description)
        self.code = code
        self.description = description


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A client as the server knows it; the URI in its certificate authenticates it (RFC 8705 section 2.1.2)."""

    client_id: str
    san_uri: str
    scopes: frozenset[str]
    redirect_uri: str | None = None  # None: no authorization_code


class Caller(NamedTuple):
    """Who asks, by a certificate that was verified before: its URI SANs, and its thumbprint (RFC 8705 section 3.1)."""

    uris: frozenset[str]
    thumbprint: str


def of_connection(request: web.Request) -> Caller | None:
    """Return the peer of a listener with mutual TLS; None on another."""
    connection = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    if connection is None or not (certificate := connection.getpeercert()):
        return None
    uris = frozenset(value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI")
    return Caller(uris, thumbprint(connection.getpeercert(binary_form=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authorization:
    """What a code stands for."""

    client_id: str
    redirect_uri: str
    challenge: str
    scopes: tuple[str, ...]
    expires_s: float  # time.monotonic()


class AuthorizationServer:
    """Issues tokens for one audience; its user is logged in, has chosen one patient, and consents to everything."""

    def __init__(
        self,
        mint: Mint,
        token_endpoint: str,
        audience: str,
        patient: str,
        *,
        caller: Callable[[web.Request], Caller | None] = of_connection,
    ) -> None:
        self.mint: Final = mint
        self.registrations: dict[str, Registration] = {}
        self._caller = caller
        self._token_endpoint = token_endpoint
        self._audience = audience
        self._patient = patient
        self._codes: dict[str, _Authorization] = {}
        self.app: Final = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=[_errors_told])
        self.app.add_routes(
            [
                web.get("/.well-known/oauth-authorization-server", self._describe),
                web.get("/.well-known/smart-configuration", self._describe),
                web.get("/jwks", self._show_keys),
                web.get("/authorize", self._authorize),
                web.post("/token", self._token),
            ]
        )

    def registered(self, client_id: str) -> Registration | None:
        return self.registrations.get(client_id)

    @property
    def metadata(self) -> dict[str, object]:
        """RFC 8414's document, which is SMART's too."""
        issuer = self.mint.issuer
        return {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/jwks",
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": self._token_endpoint,
            "grant_types_supported": ["authorization_code", "client_credentials"],
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["tls_client_auth"],
            "tls_client_certificate_bound_access_tokens": True,
            "authorization_response_iss_parameter_supported": True,
            "scopes_supported": sorted({scope for client in self.registrations.values() for scope in client.scopes}),
            "capabilities": ["launch-standalone", "context-standalone-patient", "permission-patient", "permission-v1"],
        }

    async def _describe(self, _: web.Request) -> web.Response:
        return web.json_response(self.metadata)

    async def _show_keys(self, _: web.Request) -> web.Response:
        return web.json_response(self.mint.key_set)

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = _once(list(request.query.items()))
        client = self.registered(asked.get("client_id", ""))
        redirect_uri = asked.get("redirect_uri")
        if client is None or redirect_uri is None or redirect_uri != client.redirect_uri:
            # Answered here: to a redirect_uri that nobody registered, not even an error is sent.
            raise OAuthError("invalid_request", "unknown client_id, or a redirect_uri that is not registered")
        try:
            answer = {"code": self._new_code(client, redirect_uri, asked)}
        except OAuthError as refused:
            answer = {"error": refused.code, "error_description": refused.description}
        answer |= {"iss": self.mint.issuer} | ({"state": asked["state"]} if "state" in asked else {})
        return web.Response(status=302, headers={"Location": f"{redirect_uri}?{urlencode(answer)}", **_NEVER_CACHED})

    def _new_code(self, client: Registration, redirect_uri: str, asked: dict[str, str]) -> str:
        if asked.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "expected response_type=code")
        challenge = asked.get("code_challenge", "")
        if asked.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
            raise OAuthError("invalid_request", "expected a code_challenge with code_challenge_method=S256")
        if asked.get("aud") != self._audience:
            raise OAuthError("invalid_request", "aud is not the FHIR server that this server issues tokens for")
        scopes = _scopes(asked, client)
        if any(scope.startswith("system/") for scope in scopes):
            raise OAuthError("invalid_scope", "system/ scopes are for client_credentials")
        if LAUNCH_PATIENT not in scopes and any(scope.startswith("patient/") for scope in scopes):
            raise OAuthError("invalid_scope", "patient/ scopes need launch/patient, or there is no patient to speak of")
        now_s = time.monotonic()
        self._codes = {code: one for code, one in self._codes.items() if one.expires_s > now_s}
        if len(self._codes) >= CODES_MAX:
            raise OAuthError("temporarily_unavailable", "too many codes are waiting to be used")
        code = secrets.token_urlsafe(32)
        self._codes[code] = _Authorization(
            client_id=client.client_id,
            redirect_uri=redirect_uri,
            challenge=challenge,
            scopes=scopes,
            expires_s=now_s + CODE_LIFETIME_S,
        )
        return code

    async def _token(self, request: web.Request) -> web.Response:
        if request.content_type != "application/x-www-form-urlencoded":
            raise OAuthError("invalid_request", "expected application/x-www-form-urlencoded")
        asked = _once([(name, str(value)) for name, value in (await request.post()).items()])
        client, bound_to = self._authenticate(request, asked)
        match asked.get("grant_type"):
            case "authorization_code":
                scopes, patient = self._redeem(client, asked)
                subject = "user" if patient is None else f"user-of-{patient}"
            case "client_credentials":
                scopes, patient, subject = _scopes(asked, client), None, client.client_id
                if not all(scope.startswith("system/") for scope in scopes):
                    raise OAuthError("invalid_scope", "without a user there are only system/ scopes")
            case _:
                raise OAuthError("unsupported_grant_type", "expected authorization_code or client_credentials")
        terms = Terms(
            client_id=client.client_id,
            subject=subject,
            audience=self._audience,
            scopes=scopes,
            patient=patient,
            thumbprint=bound_to,
        )
        answer: dict[str, object] = {
            "access_token": self.mint.token(terms, datetime.now(UTC)),
            "token_type": "Bearer",
            "expires_in": int(TOKEN_LIFETIME.total_seconds()),
            "scope": " ".join(scopes),
        }
        context = {} if patient is None else {"patient": patient}
        return web.json_response(answer | context, headers=_NEVER_CACHED)

    def _authenticate(self, request: web.Request, asked: dict[str, str]) -> tuple[Registration, str]:
        """Return the client and its certificate's thumbprint; whoever terminates TLS has verified the certificate."""
        caller = self._caller(request)
        client = self.registered(asked.get("client_id", ""))
        if caller is None or client is None:
            raise OAuthError("invalid_client", "expected a registered client_id over mutual TLS")
        if client.san_uri not in caller.uris:
            raise OAuthError("invalid_client", "the certificate is not this client's")
        return client, caller.thumbprint

    def _redeem(self, client: Registration, asked: dict[str, str]) -> tuple[tuple[str, ...], str | None]:
        """Return the scopes and patient behind a code, which is used up by any attempt (RFC 6749 section 4.1.2)."""
        authorization = self._codes.pop(asked.get("code", ""), None)
        if authorization is None or authorization.expires_s <= time.monotonic():
            raise OAuthError("invalid_grant", "the code is unknown, used or expired")
        if authorization.client_id != client.client_id or authorization.redirect_uri != asked.get("redirect_uri"):
            raise OAuthError("invalid_grant", "the code was issued to another client or redirect_uri")
        verifier = asked.get("code_verifier", "")
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(digest, authorization.challenge):
            raise OAuthError("invalid_grant", "the code_verifier does not fit the code_challenge")
        return authorization.scopes, self._patient if LAUNCH_PATIENT in authorization.scopes else None


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return parameters, of which RFC 6749 section 3.1 allows none twice; empty ones count as left out."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise OAuthError("invalid_request", "a parameter was given twice")
    return {name: value for name, value in pairs if value}


def _scopes(asked: dict[str, str], client: Registration) -> tuple[str, ...]:
    scopes = tuple(dict.fromkeys(asked.get("scope", "").split()))
    if not scopes or not client.scopes.issuperset(scopes):
        raise OAuthError("invalid_scope", "expected scopes that the client is registered for")
    return scopes


@web.middleware
async def _errors_told(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except OAuthError as refused:
        answer = {"error": refused.code, "error_description": refused.description}
        status = 401 if refused.code == "invalid_client" else 400
        return web.json_response(answer, status=status, headers=_NEVER_CACHED)
