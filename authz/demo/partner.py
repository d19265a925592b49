"""A partner application's side of OAuth: it finds the server as SMART apps do, and asks for its tokens over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from authz.demo.ask import Answer, Peer
from authz.demo.failure import DemoFailed
from authz.demo.oauth import LAUNCH_PATIENT

REDIRECT_URI: Final = "http://127.0.0.1/callback"  # nobody listens there: the redirect is read, not followed
_FORM: Final = (("Content-Type", "application/x-www-form-urlencoded"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partner:
    client_id: str
    tls: ssl.SSLContext  # with the client's certificate
    fhir: str  # the FHIR server's base URL

    def patient_token(self, *scopes: str) -> str:
        """Return a token for the patient that the user chooses: authorization_code with PKCE."""
        endpoints = self._discover()
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        question = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT_URI,
            "scope": " ".join((LAUNCH_PATIENT, *scopes)),
            "state": state,
            "aud": self.fhir,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        url = urlsplit(endpoints["authorization_endpoint"])
        answer = Peer.of(url.geturl(), self.tls).ask("GET", f"{url.path}?{urlencode(question)}")
        returned = {
            name: values[0] for name, values in parse_qs(urlsplit(answer.headers.get("location", "")).query).items()
        }
        if returned.get("state") != state or returned.get("iss") != endpoints["issuer"] or "code" not in returned:
            raise _unexpected("the authorization endpoint", answer)
        grant = {"grant_type": "authorization_code", "code": returned["code"], "redirect_uri": REDIRECT_URI}
        return self._redeem(endpoints["token_endpoint"], grant | {"code_verifier": verifier})

    def system_token(self, *scopes: str) -> str:
        """Return a token for the application itself: client_credentials."""
        grant = {"grant_type": "client_credentials", "scope": " ".join(scopes)}
        return self._redeem(self._discover()["token_endpoint"], grant)

    def _discover(self) -> dict[str, str]:
        path = f"{urlsplit(self.fhir).path}/.well-known/smart-configuration"
        answer = Peer.of(self.fhir, self.tls).ask("GET", path)
        if answer.status != 200:  # noqa: PLR2004 HTTP OK
            raise _unexpected("smart-configuration", answer)
        return {name: value for name, value in json.loads(answer.body).items() if isinstance(value, str)}

    def _redeem(self, token_endpoint: str, grant: dict[str, str]) -> str:
        body = urlencode(grant | {"client_id": self.client_id}).encode()
        answer = Peer.of(token_endpoint, self.tls).ask("POST", urlsplit(token_endpoint).path, _FORM, body)
        if answer.status != 200:  # noqa: PLR2004 HTTP OK
            raise _unexpected("the token endpoint", answer)
        return str(json.loads(answer.body)["access_token"])


def _unexpected(who: str, answer: Answer) -> DemoFailed:
    return DemoFailed(f"{who} answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
