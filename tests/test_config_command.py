"""`clientpolicy config check`: every mistake in both configurations at once, and where they do not agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cli import run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ISSUER = {"name": "a", "issuer": "https://a.example.org/", "audiences": ["x"]}
CLUSTER = {"policies": {"source": "kubernetes"}, "issuers": [ISSUER]}
CEILING = {"namespaces": ["partner-*"], "scopes": ["patient/*.rs"]}
OTHER = {"namespaces": ["other"]}


def written(folder: Path, authz: dict[str, Any] | None, operator: dict[str, Any] | None) -> tuple[str | Path, ...]:
    arguments: tuple[str | Path, ...] = ()
    for option, name, value in (("--config", "authz.yaml", authz), ("--operator", "operator.yaml", operator)):
        if value is not None:
            (folder / name).write_text(yaml.safe_dump(value))
            arguments = (*arguments, option, folder / name)
    return arguments


@pytest.mark.parametrize(
    ("authz", "operator", "told"),
    [
        (CLUSTER, None, ["authz.yaml: no mistake"]),
        (None, {}, ["operator.yaml: no mistake"]),
        (CLUSTER | {"ceilings": [CEILING, OTHER]}, {"ceilings": [OTHER, CEILING]}, ["no mistake"]),
        (CLUSTER, {"watch": {"namespaces": ["a"]}}, ["authz reads policies of every namespace", "no mistake"]),
        (
            {"policies": {"source": "kubernetes", "namespaces": ["a", "b"]}},
            {"watch": {"namespaces": ["b", "c"]}},
            ["watch.namespaces: warning: authz reads policies of a, which nothing gives a status", "no mistake"],
        ),
        ({"policies": {"source": "kubernetes", "namespaces": ["a"]}}, {"watch": {"namespaces": ["a"]}}, ["no mistake"]),
        ({"policies": {"path": "p"}}, {"watch": {"namespaces": ["a"]}}, ["no mistake"]),
    ],
)
def test_what_is_good_is_told_to_be(
    tmp_path: Path, authz: dict[str, Any] | None, operator: dict[str, Any] | None, told: list[str]
) -> None:
    done = run("config", "check", *written(tmp_path, authz, operator))
    assert (done.returncode, done.stderr) == (0, "")
    lines = [
        line for line in done.stdout.splitlines() if "authz.yaml: issuers: " not in line and ": ceilings" not in line
    ]
    assert len(lines) == len(told)
    assert all(part in line for part, line in zip(told, lines, strict=True)), lines


def test_every_mistake_of_both_is_told_at_once(tmp_path: Path) -> None:
    authz = {"policies": {"source": "kubernetes", "namespace": ["a"]}, "issuers": [{"name": "a"}]}
    operator = {"ceilings": [{"namespaces": ["a"], "clientIDs": ["a"]}], "workers": 4, "leader": {"lease": "1d"}}
    done = run("config", "check", *written(tmp_path, authz, operator))
    assert done.returncode == 1
    assert {tuple(line.split(": ")[:2]) for line in done.stdout.splitlines()} == {
        (str(tmp_path / "authz.yaml"), "policies.namespace"),
        (str(tmp_path / "authz.yaml"), "issuers[0].issuer"),
        (str(tmp_path / "authz.yaml"), "issuers[0].audiences"),
        (str(tmp_path / "operator.yaml"), "ceilings[0].clientIDs"),
        (str(tmp_path / "operator.yaml"), "workers"),
        (str(tmp_path / "operator.yaml"), "leader.lease"),
    }


@pytest.mark.parametrize(("authz", "operator"), [([CEILING], []), ([], [CEILING]), ([CEILING], [OTHER])])
def test_ceilings_are_the_same_for_both(
    tmp_path: Path, authz: list[dict[str, Any]], operator: list[dict[str, Any]]
) -> None:
    done = run("config", "check", *written(tmp_path, CLUSTER | {"ceilings": authz}, {"ceilings": operator}))
    assert done.returncode == 1
    assert "operator.yaml: ceilings: not those of authz" in done.stdout


def test_environment_lies_over_authz_alone(tmp_path: Path) -> None:
    given = written(tmp_path, CLUSTER, {})
    done = run("config", "check", *given, env={"CLIENTPOLICY_STORE__URL": "redis://one:6379/0"})
    assert done.returncode == 0
    done = run("config", "check", *given, env={"CLIENTPOLICY_STORE__URL": "redit://one"})
    assert (done.returncode, "store.url" in done.stdout) == (1, True)


@pytest.mark.parametrize("arguments", [(), ("--config", "nowhere.yaml"), ("--operator", "nowhere.yaml")])
def test_usage(arguments: tuple[str, ...]) -> None:
    done = run("config", "check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--operator" in done.stderr if not arguments else "nowhere.yaml" in done.stderr


def test_examples_are_good() -> None:
    done = run("config", "check", "--config", EXAMPLES / "authz.yaml", "--operator", EXAMPLES / "operator.yaml")
    assert done.returncode == 0
