from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest

from authz.demo import oauth
from authz.demo.ask import Answer, Peer, client_tls, server_tls
from authz.demo.ca import Authority, Credential
from authz.demo.failure import DemoFailed
from authz.demo.mint import Mint, Terms
from authz.demo.oauth import AuthorizationServer, Registration
from authz.demo.partner import Partner
from authz.demo.ports import listen, serve

FHIR = "https://fhir.example/fhir"
CALLBACK = "http://127.0.0.1/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
ASKED = {
    "response_type": "code",
    "client_id": "app",
    "redirect_uri": CALLBACK,
    "scope": "launch/patient patient/Patient.read",
    "state": "a state",
    "aud": FHIR,
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
Pairs = dict[str, str] | list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    server: AuthorizationServer
    app: Credential
    other: Credential
    plain: Peer
    port: int
    ca: Path

    def tls(self, credential: Credential | None) -> ssl.SSLContext:
        return client_tls(self.ca, credential)

    async def authorize(self, asked: Pairs) -> Answer:
        return await asyncio.to_thread(self.plain.ask, "GET", f"/authorize?{urlencode(asked)}")

    async def code(self) -> str:
        return redirected(await self.authorize(ASKED))["code"]

    async def token(self, asked: Pairs, credential: Credential | None = None) -> Answer:
        peer = Peer(host="localhost", port=self.port, tls=self.tls(credential or self.app))
        return await asyncio.to_thread(peer.ask, "POST", "/token", FORM, urlencode(asked).encode())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    authority = Authority("ca", tmp_path, datetime.now(UTC))
    plain, mutual = listen(0), listen(0)
    port = mutual.getsockname()[1]
    mint = Mint(f"http://127.0.0.1:{plain.getsockname()[1]}")
    server = AuthorizationServer(mint, f"https://localhost:{port}/token", FHIR, "123")
    for name in ("app", "other"):
        server.registrations[name] = Registration(
            client_id=name,
            san_uri=f"spiffe://example/{name}",
            scopes=frozenset({"launch/patient", "patient/Patient.read", "system/Patient.read"}),
            redirect_uri=CALLBACK,
        )
    tls = server_tls(authority.issue_server("server"), authority.file)
    runner = await serve(server.app, {plain: None, mutual: tls})
    yield Site(
        server=server,
        app=authority.issue_client("app", "spiffe://example/app"),
        other=authority.issue_client("other", "spiffe://example/other"),
        plain=Peer(host="127.0.0.1", port=plain.getsockname()[1]),
        port=port,
        ca=authority.file,
    )
    await runner.cleanup()


def redirected(answer: Answer) -> dict[str, str]:
    url = urlsplit(answer.headers["location"])
    assert (answer.status, f"{url.scheme}://{url.netloc}{url.path}") == (302, CALLBACK)
    return {name: values[0] for name, values in parse_qs(url.query, strict_parsing=True).items()}


def redeeming(code: str, /, **changes: str) -> dict[str, str]:
    grant = {"grant_type": "authorization_code", "client_id": "app", "redirect_uri": CALLBACK}
    return grant | {"code": code, "code_verifier": VERIFIER} | changes


def error(answer: Answer) -> tuple[int, str]:
    """Return the status and code of an error, which must be JSON that nobody caches (RFC 6749 section 5.2)."""
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].startswith("application/json")
    return answer.status, str(json.loads(answer.body)["error"])


def verified(site: Site, answer: Answer) -> dict[str, object]:
    """Return the claims of a token that an answer holds, verified by the server's own key set."""
    key = jwt.PyJWKSet.from_dict(site.server.mint.key_set).keys[0]
    token = json.loads(answer.body)["access_token"]
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "demo-1", "typ": "at+jwt"}
    issuer = site.server.mint.issuer
    claims: dict[str, object] = jwt.decode(token, key, algorithms=["ES256"], audience=FHIR, issuer=issuer)
    return claims


async def test_discovery_names_the_issuer_and_endpoints_that_answer(site: Site) -> None:
    answers = [
        await asyncio.to_thread(site.plain.ask, "GET", f"/.well-known/{name}")
        for name in ("oauth-authorization-server", "smart-configuration")
    ]
    told, smart = (json.loads(answer.body) for answer in answers)
    assert told == smart
    assert told["issuer"] == f"http://127.0.0.1:{site.plain.port}"
    assert told["token_endpoint"] == f"https://localhost:{site.port}/token"
    assert told["code_challenge_methods_supported"] == ["S256"]
    assert told["tls_client_certificate_bound_access_tokens"] is True
    keys = await asyncio.to_thread(site.plain.ask, "GET", urlsplit(told["jwks_uri"]).path)
    (key,) = json.loads(keys.body)["keys"]
    assert (key["kty"], key["crv"], key["kid"], "d" in key) == ("EC", "P-256", "demo-1", False)


async def test_a_code_becomes_a_token_for_the_patient_bound_to_the_certificate(site: Site) -> None:
    back = redirected(await site.authorize(ASKED))
    assert (back["state"], back["iss"]) == ("a state", site.server.mint.issuer)
    answer = await site.token(redeeming(back["code"]))
    told = json.loads(answer.body)
    claims = verified(site, answer)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert (told["token_type"], told["patient"], told["scope"]) == ("Bearer", "123", ASKED["scope"])
    assert (claims["client_id"], claims["patient"], claims["scope"]) == ("app", "123", ASKED["scope"])
    assert claims["cnf"] == {"x5t#S256": site.app.thumbprint}


async def test_client_credentials_speak_for_the_application_and_for_no_patient(site: Site) -> None:
    answer = await site.token({"grant_type": "client_credentials", "client_id": "app", "scope": "system/Patient.read"})
    claims = verified(site, answer)
    assert (answer.status, claims["sub"], claims["client_id"]) == (200, "app", "app")
    assert "patient" not in claims
    assert claims["cnf"] == {"x5t#S256": site.app.thumbprint}


async def test_a_code_is_good_for_one_attempt(site: Site) -> None:
    code = await site.code()
    assert (await site.token(redeeming(code))).status == 200
    assert error(await site.token(redeeming(code))) == (400, "invalid_grant")
    failed = await site.code()
    assert error(await site.token(redeeming(failed, code_verifier="w" * 43))) == (400, "invalid_grant")
    assert error(await site.token(redeeming(failed))) == (400, "invalid_grant")


async def test_a_code_expires(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "CODE_LIFETIME_S", -1.0)
    assert error(await site.token(redeeming(await site.code()))) == (400, "invalid_grant")


async def test_codes_that_wait_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "CODES_MAX", 1)
    await site.code()
    assert redirected(await site.authorize(ASKED))["error"] == "temporarily_unavailable"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code_verifier": "w" * 43}, id="wrong verifier"),
        pytest.param({"code_verifier": ""}, id="no verifier"),
        pytest.param({"code_verifier": CHALLENGE}, id="the challenge itself"),
        pytest.param({"code": "guessed"}, id="guessed code"),
        pytest.param({"redirect_uri": f"{CALLBACK}/"}, id="another redirect_uri"),
    ],
)
async def test_a_grant_that_does_not_fit_is_invalid(site: Site, changes: dict[str, str]) -> None:
    assert error(await site.token(redeeming(await site.code(), **changes))) == (400, "invalid_grant")


async def test_a_code_of_another_client_is_invalid(site: Site) -> None:
    asked = redeeming(await site.code(), client_id="other")
    assert error(await site.token(asked, site.other)) == (400, "invalid_grant")


async def test_a_client_is_authenticated_by_its_own_certificate(site: Site) -> None:
    assert error(await site.token(redeeming(await site.code()), site.other)) == (401, "invalid_client")
    assert error(await site.token(redeeming(await site.code(), client_id="nobody"))) == (401, "invalid_client")


async def test_no_token_comes_without_tls(site: Site) -> None:
    body = urlencode(redeeming(await site.code())).encode()
    answer = await asyncio.to_thread(site.plain.ask, "POST", "/token", FORM, body)
    assert error(answer) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        pytest.param({"client_id": "app"}, "unsupported_grant_type", id="no grant type"),
        pytest.param({"client_id": "app", "grant_type": "password"}, "unsupported_grant_type", id="password"),
        pytest.param({"client_id": "app", "grant_type": "client_credentials"}, "invalid_scope", id="no scope"),
        pytest.param(
            {"client_id": "app", "grant_type": "client_credentials", "scope": "patient/Patient.read"},
            "invalid_scope",
            id="a patient without a user",
        ),
        pytest.param(
            {"client_id": "app", "grant_type": "client_credentials", "scope": "system/*.cruds"},
            "invalid_scope",
            id="a scope that is not registered",
        ),
        pytest.param(
            [("client_id", "app"), ("grant_type", "client_credentials"), ("grant_type", "authorization_code")],
            "invalid_request",
            id="a parameter twice",
        ),
    ],
)
async def test_a_wrong_token_request_says_what_is_wrong(site: Site, asked: Pairs, code: str) -> None:
    assert error(await site.token(asked)) == (400, code)


async def test_a_token_request_is_a_form(site: Site) -> None:
    peer = Peer(host="localhost", port=site.port, tls=site.tls(site.app))
    headers = (("Content-Type", "application/json"),)
    answer = await asyncio.to_thread(peer.ask, "POST", "/token", headers, b"{}")
    assert error(answer) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="implicit"),
        pytest.param({"code_challenge": ""}, "invalid_request", id="no PKCE"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="plain PKCE"),
        pytest.param({"code_challenge": "short"}, "invalid_request", id="a challenge that is no digest"),
        pytest.param({"aud": "https://elsewhere.example/fhir"}, "invalid_request", id="another FHIR server"),
        pytest.param({"scope": "launch/patient patient/*.cruds"}, "invalid_scope", id="not registered"),
        pytest.param({"scope": "patient/Patient.read"}, "invalid_scope", id="a patient scope without a patient"),
        pytest.param({"scope": "system/Patient.read"}, "invalid_scope", id="a system scope for a user"),
    ],
)
async def test_a_wrong_authorization_request_goes_back_with_its_error(
    site: Site, changes: dict[str, str], code: str
) -> None:
    back = redirected(await site.authorize(ASKED | changes))
    assert (back["error"], back["state"], back["iss"]) == (code, "a state", site.server.mint.issuer)
    assert "code" not in back


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(ASKED | {"redirect_uri": "https://evil.example/"}, id="another redirect_uri"),
        pytest.param(ASKED | {"redirect_uri": f"{CALLBACK}/more"}, id="a longer redirect_uri"),
        pytest.param(ASKED | {"client_id": "nobody"}, id="unknown client"),
        pytest.param([*ASKED.items(), ("redirect_uri", CALLBACK)], id="redirect_uri twice"),
    ],
)
async def test_nothing_is_sent_to_a_place_that_nobody_registered(site: Site, asked: Pairs) -> None:
    answer = await site.authorize(asked)
    assert error(answer) == (400, "invalid_request")
    assert "location" not in answer.headers


async def test_the_partner_says_what_a_server_refused(site: Site) -> None:
    partner = Partner(client_id="app", tls=site.tls(site.other), fhir=f"http://127.0.0.1:{site.plain.port}")
    with pytest.raises(DemoFailed, match=r"token endpoint answered 401: .*invalid_client"):
        await asyncio.to_thread(partner.system_token, "system/Patient.read")


async def test_a_minted_token_says_what_its_terms_say(site: Site) -> None:
    terms = Terms(client_id="app", subject="somebody", audience=FHIR, scopes=("system/*.read",))
    now = datetime.now(UTC)
    key = jwt.PyJWKSet.from_dict(site.server.mint.key_set).keys[0]
    claims = jwt.decode(site.server.mint.token(terms, now), key, algorithms=["ES256"], audience=FHIR)
    assert {name: claims[name] for name in ("sub", "client_id", "scope", "iat")} == {
        "sub": "somebody",
        "client_id": "app",
        "scope": "system/*.read",
        "iat": int(now.timestamp()),
    }
    assert not {"cnf", "patient"} & set(claims)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(Mint(site.server.mint.issuer).token(terms, now), key, algorithms=["ES256"], audience=FHIR)
