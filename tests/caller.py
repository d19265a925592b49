"""A partner outside the cluster: its Secret, its tokens, its calls through the gateway; and traffic that judges answers."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import secrets
import socket
import ssl
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from kube import Tenant, get, kubectl, until

from authz.demo.ask import Answer, ask

AUDIENCE = "https://localhost:8443/fhir"
REDIRECT_URI = "https://localhost/callback"
PATIENT_SCOPES = "launch/patient patient/Patient.read patient/Observation.read"
TIMEOUT_S = 30.0


def gateway() -> tuple[str, int]:
    """Return where the NodePort is: at the node, or on this machine, as kind-config.yaml maps it."""
    address = kubectl("get", "nodes", "-o", 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
    places = [(address, 30443), ("127.0.0.1", 8443)]
    # A NodePort takes calls a moment after its Deployment is ready.
    found: tuple[str, int] = until(
        f"a gateway at one of {places}", lambda: next(filter(listens, places), None), deadline_s=30.0
    )
    return found


def listens(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=3).close()
    except OSError:
        return False
    return True


def gateway_ca() -> str:
    """Return what the gateway's server certificate is verified by, in PEM."""
    found = get("secret", "clientpolicy-gateway-tls")
    assert found is not None
    return base64.b64decode(found["data"]["ca.crt"]).decode()


class Connection(http.client.HTTPSConnection):
    """HTTPS to an address that is not the certificate's name."""

    def __init__(self, place: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__("localhost", 8443, timeout=TIMEOUT_S)
        self._place, self._tls = place, context

    def connect(self) -> None:
        plain = socket.create_connection(self._place, timeout=TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(plain, server_hostname="localhost")


@dataclass
class Partner:
    """An application with a client certificate; `refresh` takes what its Secret holds now."""

    tenant: Tenant
    name: str
    client_id: str
    place: tuple[str, int]
    tls: ssl.SSLContext = field(init=False)
    certificate: str = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        secret = self.tenant.secret(self.name)
        self.certificate = secret["tls.crt"]
        context = ssl.create_default_context(cadata=gateway_ca())
        with tempfile.TemporaryDirectory() as folder:
            pem = Path(folder) / "client.pem"
            pem.write_text(secret["tls.key"] + secret["tls.crt"])
            context.load_cert_chain(pem)
        self.tls = context

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate)).hexdigest()

    def ask(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes | None = None
    ) -> Answer:
        connection = Connection(self.place, self.tls)
        try:
            return ask(connection, method, path, tuple((headers or {}).items()), body)
        finally:
            connection.close()

    def read(self, token: str, path: str = "/fhir/Patient/123") -> Answer:
        return self.ask(path, {"authorization": f"Bearer {token}"})

    def patient_token(self, scopes: str = PATIENT_SCOPES) -> str:
        """Return a token by authorization code and PKCE: its patient is 123."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code", "client_id": self.client_id, "redirect_uri": REDIRECT_URI, "scope": scopes,
            "aud": AUDIENCE, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        answer = self.ask(f"/auth/authorize?{urlencode(asked)}")
        (code,) = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
        return self._token(
            grant_type="authorization_code", code=code, redirect_uri=REDIRECT_URI, code_verifier=verifier
        )

    def system_token(self) -> str:
        return self._token(grant_type="client_credentials", scope="system/Patient.read")

    def _token(self, **form: str) -> str:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        answer = self.ask("/auth/token", kind, "POST", urlencode({"client_id": self.client_id, **form}).encode())
        assert answer.status == 200, answer
        return str(json.loads(answer.body)["access_token"])


class Traffic:
    """Calls of one partner, and calls that must never pass, from threads of their own, until the block ends."""

    def __init__(self, partner: Partner, threads: int = 4) -> None:
        self.partner = partner
        self.threads = threads
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        # They belong together: the token is bound to the certificate.
        self._current = (partner.tls, partner.system_token())
        self._ended = threading.Event()
        self._workers = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        self.more(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        for worker in self._workers:
            worker.join(TIMEOUT_S * 2)
        print(f"traffic: {dict(self.answers)}")

    def refresh(self) -> None:
        """Go over to the certificate that the Secret holds now, with a token that is bound to it."""
        self.partner.refresh()
        self._current = (self.partner.tls, self.partner.system_token())

    def more(self, answers: int) -> None:
        """Wait for that many answers more."""
        wanted = self.answers.total() + answers
        ends = time.monotonic() + 120
        while self.answers.total() < wanted:
            assert time.monotonic() < ends, f"traffic stands still: {self.answers}"
            time.sleep(0.02)

    def _work(self, number: int) -> None:
        place = self.partner.place
        current = self._current
        connection = Connection(place, current[0])
        turn = 0
        while not self._ended.is_set():
            turn += 1
            keeps = number % 2 == 0  # half of them on one connection, half on a new one for each call
            if not keeps or turn % 50 == 0 or current is not self._current:
                connection.close()
                current = self._current
                connection = Connection(place, current[0])
            refused = turn % 5 == 0
            path = "/fhir/Observation/1" if refused else "/fhir/Patient/123"  # the token's scope: Patient alone
            try:
                answer = ask(connection, "GET", path, (("authorization", f"Bearer {current[1]}"),))
            except (OSError, http.client.HTTPException) as failed:
                connection.close()  # it is opened anew by the next request
                self.answers[f"no answer: {type(failed).__name__}"] += 1
                continue
            self._judge(answer, refused=refused)
            time.sleep(0.01)
        connection.close()

    def _judge(self, answer: Answer, *, refused: bool) -> None:
        told = f"{answer.status} {answer.reason or ''}".strip()
        self.answers[f"refused: {told}" if refused else told] += 1
        right = {(403, "scope_missing")} if refused else {(200, None)}
        if (answer.status, answer.reason) not in right and answer.status != 503:
            self.wrong.append(f"{'refusable' if refused else 'good'} call: {told}")

    @property
    def lost(self) -> int:
        """Calls without a decision: no answer, or the gateway's 503."""
        return sum(count for told, count in self.answers.items() if "503" in told or told.startswith("no answer"))


def a_partner(tenant: Tenant, place: tuple[str, int], name: str = "app", **spec: Any) -> Partner:
    client_id = tenant.apply(name, **spec)
    tenant.ready(name)
    return Partner(tenant, name, client_id, place)


def answers(what: str, ask: Callable[[], Answer], status: int, *reasons: str, patience_s: float = 60.0) -> float:
    """Wait for an answer with one of these reasons, and return after how many seconds it came."""
    begun = time.monotonic()
    while True:
        answer = ask()
        if answer.status == status and (not reasons or answer.reason in reasons):
            return time.monotonic() - begun
        assert time.monotonic() - begun < patience_s, (
            f"{what}: {answer.status} {answer.reason}, expected {status} {reasons}"
        )
        time.sleep(0.05)
