"""`helm test` against the real service: it passes where all is refused that should be, and fails where one thing is not."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from operator_process import until
from partner import Site, certificate, policy_document
from redis_server import free_port

from authz import probe
from authz.demo import trial
from authz.demo.mint import Mint

CERTIFICATE = certificate(start=datetime.now(UTC) - timedelta(days=1), end=datetime.now(UTC) + timedelta(days=1))
OWN = {"source": "External", "fingerprints": [CERTIFICATE.fingerprint]}
HOP = "spiffe://cluster.local/ns/edge/sa/gateway"


@contextmanager
def serving(site: Site, scopes: list[str], **config: Any) -> Iterator[str]:
    """Run authz, and give the address of its gRPC."""
    grpc, ops = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    document = policy_document(certificate=OWN, token={"required": False}, scopes=scopes)
    site.write(document, listen={"grpc": grpc, "ops": ops}, **config)
    with (site.folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "authz", "serve", "--config", str(site.config_file)]
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://{ops}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        until("ready", ready)
        yield grpc
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WAIT_S", 2.0)
    monkeypatch.setattr(probe, "CALL_TIMEOUT_S", 2.0)


def tried(site: Site, target: str, *more: str) -> int:
    folder = site.folder / "credential"
    folder.mkdir(exist_ok=True)
    (folder / "tls.crt").write_bytes(CERTIFICATE.pem.encode())
    return probe.main([f"--target={target}", f"--credential={folder}", *more])


def test_all_is_refused_that_should_be(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(site, ["system/StructureDefinition.rs"]) as target:
        assert tried(site, target) == 0
    assert "16 of 16 as they should be" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("proof", "more", "asked"),
    [
        ({"proxiesVerified": True}, (), 16),
        ({"proxyFingerprints": ["ef" * 32]}, (f"--proxy-proof={'ef' * 32}",), 16),
        ({"proxyCa": "proxies.pem"}, ("--proxy-proof=ca",), 11),  # as a client only a proxy can ask
    ],
    ids=["verified", "fingerprint", "CA"],
)
def test_through_two_proxies(
    site: Site, capsys: pytest.CaptureFixture[str], proof: dict[str, Any], more: tuple[str, ...], asked: int
) -> None:
    (site.folder / "proxies.pem").write_text(certificate("proxies", is_ca=True).pem)
    identity = {"trustedHops": 2, "trustedProxies": [HOP], **proof}
    with serving(site, ["system/StructureDefinition.rs"], identity=identity) as target:
        assert tried(site, target, "--hops=2", f"--proxy={HOP}", *more) == 0
    assert f"{asked} of {asked} as they should be" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scopes", "public", "told"),
    [
        (["system/StructureDefinition.rs"], ["GET /fhir/*"], "no certificate, no token: allowed"),
        (["system/StructureDefinition.rs"], ["POST /fhir/Patient/*"], "nobody's POST Patient/_search: allowed"),
        (["system/StructureDefinition.rs"], ["GET /fhir/Patient"], "nobody's GET Patient?name=a: allowed"),
        (["system/*.cruds"], [], "another type than its scope: allowed"),
        (["system/StructureDefinition.rus"], [], "a write: allowed"),
        (["system/StructureDefinition.rs"], ["GET /clientpolicy-test"], "a path outside FHIR: allowed"),
        (["system/Observation.rs"], [], "what the client may: scope_missing"),
    ],
)
def test_one_refusal_too_few_or_too_many_fails(
    site: Site, capsys: pytest.CaptureFixture[str], scopes: list[str], public: list[str], told: str
) -> None:
    with serving(site, scopes, public=public) as target:
        assert tried(site, target) == 1
    assert f"FAILED  {told}" in capsys.readouterr().out


@pytest.mark.parametrize("base", ["/", "/fhir/", "/r4/eu"])
def test_fhir_is_asked_for_where_it_is(site: Site, base: str) -> None:
    with serving(site, ["system/StructureDefinition.rs"], fhir={"basePath": base}) as target:
        assert tried(site, target, f"--fhir={base}") == 0


def test_client_without_certificate_is_no_refusal_too_few(site: Site) -> None:
    other = policy_document(name="other", clientId="other", certificate={"source": "None"})
    (site.folder / "policies").mkdir()
    site.write_policy(other)
    with serving(site, ["system/StructureDefinition.rs"]) as target:
        assert tried(site, target) == 0


def test_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main([f"--target=127.0.0.1:{free_port()}"]) == 1
    assert "no answer: " in capsys.readouterr().out
    assert probe.main([f"--target=127.0.0.1:{free_port()}", f"--credential={tmp_path}"]) == 1
    assert "no tls.crt" in capsys.readouterr().out
    assert probe.main([f"--target=127.0.0.1:{free_port()}", f"--tls={tmp_path}"]) == 2
    assert f"{tmp_path}: without tls.key, tls.crt, ca.crt; a Secret with" in capsys.readouterr().out


ELEMENT = f"Hash={'ab' * 32};URI=spiffe://healthtech.dev/client/app"


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-forwarded-client-cert": ""}, {"x-forwarded-client-cert": f"{ELEMENT},{ELEMENT}"},
     {"x-forwarded-client-cert": "Hash=zz;URI=x"}, {"x-forwarded-client-cert": "URI=spiffe://healthtech.dev/client/app"}],
)  # fmt: skip
def test_trial_believes_exactly_one_certificate(headers: dict[str, str]) -> None:
    assert trial.of_gateway(make_mocked_request("GET", "/", headers=headers)) is None
    caller = trial.of_gateway(make_mocked_request("GET", "/", headers={"x-forwarded-client-cert": ELEMENT}))
    assert caller is not None
    assert caller.uris == {"spiffe://healthtech.dev/client/app"}
    assert len(caller.thumbprint) == 43


def test_trial_tells_the_scopes_that_it_gives() -> None:
    issuer = "https://issuer.example"
    server = trial.TrialServer(Mint(issuer), f"{issuer}/token", "https://api.example", "123", caller=trial.of_gateway)
    registration = server.registered("any-app")
    assert registration is not None
    assert server.metadata["scopes_supported"] == sorted(registration.scopes)
