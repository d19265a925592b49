"""The command: answers as designed, and never a traceback."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from partner import CLIENT_ID, Site, check_request, jwk, jwks, policy_document, rsa_key, token

from authz.assembly import rules_of
from authz.edge.manifests import read_documents
from authz.edge.settings import load
from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

AT = "2026-11-23T12:00:00Z"


def run(*arguments: str | Path, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "authz", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | (env or {}),
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def as_json(*messages: CheckRequest) -> list[dict[str, Any]]:
    return [MessageToDict(message) for message in messages]


def check(site: Site, *messages: CheckRequest, at: str = AT) -> list[dict[str, Any]]:
    done = run("check", "--config", site.config_file, "--at", at, "-", stdin=json.dumps(as_json(*messages)))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (0 if all(line["verdict"] == "allow" for line in lines) else 1), done.stderr
    return lines


def test_check_prints_the_decision_as_designed(site: Site) -> None:
    site.write(policy_document(quotas=[{"name": "q", "requests": 10, "per": "1s", "burst": 20}]))
    (line,) = check(site, check_request(bearer=token()))
    assert set(line) == {
        "verdict", "status", "reason", "detail", "decision_id", "client", "policy", "subject", "scopes", "scopes_needed",
        "quota", "shadow", "headers",
    }  # fmt: skip
    assert (line["verdict"], line["status"], line["reason"], line["shadow"]) == ("allow", 200, "allowed", None)
    assert (line["client"], line["policy"], line["subject"]) == (CLIENT_ID, f"partners/{CLIENT_ID}", "user-1")
    assert line["scopes"] == ["patient/Patient.read", "patient/Observation.read"]
    assert (line["detail"], line["scopes_needed"]) == (None, [])
    assert line["quota"]["limits"][0]["remaining"] == 20
    assert line["headers"]["upstream"]["x-patient-id"] == "123"
    assert {"x_client_id", "x-original-url", "x_rewrite_url"} <= set(line["headers"]["remove"])
    assert line["headers"]["response"]["x-decision-id"] == line["decision_id"]


@pytest.mark.parametrize("mode", ["Enforce", "Shadow"])
def test_check_says_why_as_the_audit_does(site: Site, mode: str) -> None:
    site.write(policy_document(mode=mode))
    denied, unknown, expired = check(
        site,
        check_request("/fhir/Condition?patient=123", bearer=token()),
        check_request(forwarded=None),
        check_request(bearer=token(exp=1)),
    )
    assert (denied["detail"], denied["scopes_needed"]) == ("needs patient/Condition.read", ["patient/Condition.read"])
    assert (unknown["reason"], unknown["detail"]) == ("certificate_missing", "no client certificate")
    assert (expired["detail"], expired["scopes_needed"], expired["scopes"]) == ("`exp` has passed", [], [])
    assert [line["verdict"] for line in (denied, unknown, expired)] == (
        ["deny", "deny", "deny"] if mode == "Enforce" else ["allow", "deny", "allow"]
    )


def test_check_decides_in_order_with_quotas_at_the_given_instant(site: Site) -> None:
    site.write(
        policy_document(quotas=[{"name": "q", "requests": 10, "per": "1s", "burst": 20}]),
        store={"url": "redis://127.0.0.1:1"},
    )
    lines = check(site, *[check_request(bearer=token())] * 23)
    assert [line["status"] for line in lines] == [200] * 21 + [429] * 2
    assert lines[-1]["headers"]["response"]["retry-after"] == "1"
    assert lines[-1]["quota"]["wait_us"] == 100_000
    assert len({line["decision_id"] for line in lines}) == 23


def test_check_tells_shadow_and_time(site: Site) -> None:
    site.write(policy_document(mode="Shadow"))
    (line,) = check(site, check_request())
    assert (line["verdict"], line["status"], line["shadow"]) == (
        "allow",
        200,
        {"reason": "token_missing", "status": 401},
    )
    site.write(policy_document())
    (line,) = check(site, check_request(bearer=token()), at="2026-11-23T14:00:00+01:00")
    assert line["reason"] == "token_expired"
    site.write(policy_document(mode="Shadow"), shadow="forbid")
    assert check(site, check_request())[0]["status"] == 401


def test_check_reads_one_request_an_array_or_lines(site: Site, tmp_path: Path) -> None:
    site.write()
    one, two = as_json(check_request(), check_request(bearer=token()))
    files = []
    for name, text in {
        "one": json.dumps(one, indent=2),
        "array": json.dumps([one, two]),
        "lines": f"{json.dumps(one)}\n\n{json.dumps(two)}\n",
    }.items():
        files.append(tmp_path / name)
        files[-1].write_text(text)
    done = run("check", "--config", site.config_file, "--at", AT, *files)
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == [401, 401, 200, 401, 200]
    assert done.returncode == 1


def test_check_without_keys_is_an_error_verdict(site: Site) -> None:
    issuer = {"name": "a", "issuer": "https://a.example.org", "audiences": ["x"], "jwksUri": "http://127.0.0.1:1/jwks"}
    site.write(issuers=[issuer])
    (line,) = check(site, check_request(bearer=token()))
    assert (line["verdict"], line["status"], line["reason"]) == ("error", 503, "not_ready")


@pytest.mark.parametrize("text", ["", "{", "5", "[5]", '{"attributes": 5}', '{"nonsense": {}}', "[" * 100_000, "\x00"])
def test_check_names_what_is_no_request(site: Site, text: str) -> None:
    site.write()
    done = run("check", "--config", site.config_file, "-", stdin=text)
    assert done.returncode == 2
    assert done.stderr.startswith("-")
    assert done.stdout == ""


USAGE: list[tuple[list[str], str]] = [
    ([], "COMMAND"),
    (["nonsense"], "nonsense"),
    (["serve"], "--config"),
    (["serve", "--config", "missing.yaml"], "missing.yaml"),
    (["check", "--config", "missing.yaml", "-"], "missing.yaml"),
    (["check", "--config", "x", "--at", "yesterday", "-"], "expected an instant"),
    (["check", "--config", "x", "--at", "2026-01-01T00:00:00", "-"], "no time zone"),
    (["check", "--config", "x", "missing.json"], "missing.json"),
    (["lint"], "PATH"),
    (["lint", "missing"], "missing"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_usage_error_is_exit_2_and_one_clear_message(arguments: list[str], message: str) -> None:
    done = run(*arguments, stdin="{}")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_crd_is_printed_as_it_is_applied() -> None:
    printed = run("crd")
    assert printed.returncode == 0
    (document,) = read_documents(printed.stdout)
    assert isinstance(document.value, dict)
    assert document.value["kind"] == "CustomResourceDefinition"


def test_version_is_told() -> None:
    assert run("--version").stdout.strip()


def test_bad_configuration_names_every_mistake(site: Site) -> None:
    site.write()
    config = site.config | {"identity": {"clientCa": "none.pem"}, "policies": {"path": "none"}}
    (site.folder / "jwks.json").write_bytes(jwks(jwk(rsa_key(), "k1", use="enc")))
    site.config_file.write_text(yaml.safe_dump(config))
    done = run("serve", "--config", site.config_file)
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "identity.clientCa",
        "policies.path",
        "issuers[0].jwksFile",
    ]
    again = run("serve", "--config", site.config_file, env={"CLIENTPOLICY_SHADOW": "maybe", "CLIENTPOLICY_X": "1"})
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 2


def test_taken_port_is_named(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for listen in ({"grpc": address, "ops": "127.0.0.1:0"}, {"grpc": "127.0.0.1:0", "ops": address}):
            site.write(listen=listen)
            done = run("serve", "--config", site.config_file)
            assert done.returncode == 2
            assert address in done.stderr


def test_lint_tells_errors_notes_and_nothing(site: Site, tmp_path: Path) -> None:
    site.write()
    good = run("lint", site.folder / "policies")
    assert (good.returncode, good.stdout) == (0, "1 policy, no error\n")
    site.write_policy(policy_document("issued", certificate={"source": "Issued"}))
    noted = run("lint", site.folder / "policies")
    assert noted.returncode == 0
    assert ": note: " in noted.stdout
    site.write_policy(policy_document("bad", scopes=["x"], mode="y"))
    bad = run("lint", site.folder / "policies")
    assert bad.returncode == 1
    assert {line.split(": ")[1] for line in bad.stdout.splitlines() if "bad.yaml" in line} == {
        "spec.scopes[0]",
        "spec.mode",
    }
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("lint", empty).returncode == 2


def test_lint_of_a_configuration_tells_what_it_opens_by_file_and_key(site: Site) -> None:
    route = {"name": "all", "match": {"path": "/fhir/Patient"}, "scopes": {"anyOf": ["system/*.r"]}}
    document = policy_document(
        scopes=["patient/Pateint.read"], token={"issuers": ["health-auth", "other"]}, routes=[route]
    )
    site.write(document, public=["GET /health", "GET /*"], listen={"grpc": "0.0.0.0:9191", "ops": "127.0.0.1:0"})
    config, policy = site.config_file, site.policy_file()
    for done in (run("lint", "--config", config), run("lint", "--config", config, site.folder / "policies")):
        assert done.returncode == 0
        *told, summary = done.stdout.splitlines()
        assert summary == "1 policy, no error, 6 warnings"
        assert [re.sub(r":\d+:", ":", line.partition(": warning: ")[0]) for line in told] == [
            f"{config}: listen.grpc",
            f"{config}: public[1]",
            f"{policy}: spec.scopes[0]",
            f"{policy}: spec.token.issuers[1]",
            f"{policy}: spec.routes[0].match.path",
            f"{policy}: spec.routes[0].match.path",
        ]
    alone = run("lint", policy)
    assert (alone.returncode, len(alone.stdout.splitlines())) == (0, 2)
    assert ": spec.scopes[0]: warning: " in alone.stdout


def test_lint_reads_files_folders_and_standard_input_each_once(site: Site) -> None:
    site.write()
    given = yaml.safe_dump_all(
        [policy_document("b", clientId=CLIENT_ID), policy_document("c", scopes=["x"], certificate={"source": "None"})]
    )
    done = run("lint", site.folder / "policies", "-", site.policy_file(), "-", stdin=given)
    assert done.returncode == 1
    *told, summary = done.stdout.splitlines()
    assert summary == "3 policies, 2 errors"
    assert [re.sub(r"^-:\d+: ", "", line).split(": ")[0] for line in told] == ["spec.scopes[0]", "spec.clientId"]
    assert f"is also claimed at {site.policy_file()}:" in told[1]
    assert run("lint", "-", stdin="kind: ConfigMap\napiVersion: v1\n").returncode == 2
    bad = run("lint", "-", stdin="{")
    assert (bad.returncode, bad.stdout.splitlines()[-1]) == (1, "0 policies, 1 error")
    config = run("lint", "--config", site.config_file, "-", stdin=given)
    assert (config.returncode, config.stdout.splitlines()[-1]) == (1, "2 policies, 1 error")


def test_lint_answers_programs_in_json(site: Site) -> None:
    site.write(policy_document(scopes=["patient/Pateint.read"]), public=["GET /*"])
    site.write_policy(policy_document("bad", scopes=["x"], certificate={"source": "None"}))
    done = run("lint", "--config", site.config_file, "--output", "json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["policies"], told["errors"]) == (2, 1)
    assert [(one["severity"], one["file"], one["field"]) for one in told["findings"]] == [
        ("warning", str(site.config_file), "public[0]"),
        ("error", str(site.policy_file("bad")), "spec.scopes[0]"),
        ("warning", str(site.policy_file()), "spec.scopes[0]"),
    ]
    assert told["findings"][0]["line"] is None
    assert all(one["line"] > 1 and one["message"] for one in told["findings"][1:])
    good = run("lint", "--output", "json", "-", stdin=yaml.safe_dump(policy_document()))
    assert json.loads(good.stdout) == {"policies": 1, "errors": 0, "findings": []}


def test_lint_judges_by_the_configurations_ceilings(site: Site) -> None:
    site.write(ceilings=[{"namespaces": ["partners"], "scopes": ["patient/*.r"]}])
    assert run("lint", site.policy_file()).returncode == 0
    done = run("lint", "--config", site.config_file)
    assert done.returncode == 1
    assert "spec.scopes[0]: beyond the platform's ceiling" in done.stdout


def test_lint_of_a_configuration_alone(site: Site) -> None:
    site.write(policies={"source": "kubernetes", "namespaces": ["a"]})
    done = run("lint", "--config", site.config_file)
    assert (done.returncode, done.stdout) == (0, "0 policies, no error\n")
    site.write(public=["nonsense"])
    bad = run("lint", "--config", site.config_file)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "public[0]: expected METHOD" in bad.stderr
    site.write(policies={"path": "nowhere"})
    assert "nowhere" in run("lint", "--config", site.config_file).stderr


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_examples_are_good() -> None:
    examples = EXAMPLES
    done = run("lint", examples / "policies", examples / "policies")
    assert (done.returncode, done.stdout) == (0, "2 policies, no error\n")
    done = run("lint", "--config", examples / "authz.yaml")
    assert (done.returncode, done.stdout) == (0, "2 policies, no error\n")
    settings = load(examples / "authz.yaml", {})
    assert rules_of(settings, examples).trusted_hops == 1


def test_examples_for_a_cluster_are_good() -> None:
    folder = EXAMPLES / "kubernetes"
    done = run("lint", "--config", folder / "authz.yaml", folder / "trusted-partner-app.yaml")
    assert done.returncode == 0
    *told, summary = done.stdout.splitlines()
    assert [line.split(": ")[1:3] for line in told] == [
        ["ceilings", "warning"],  # the example leaves them to the platform
        ["spec.certificate.source", "note"],
    ]
    assert summary == "1 policy, no error, 1 warning"
