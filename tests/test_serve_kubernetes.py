"""`clientpolicy serve`, `check` and `quota` with policies from a real Kubernetes API, as processes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Policies, accepted, allow_reading, external, issued
from kubernetes_api import KubernetesApi
from partner import NOW, Site, certificate, check_request, xfcc
from redis_server import RedisServer, free_port
from test_cli import as_json, run
from test_serve import CERTIFICATE, Service, fresh_token

SOURCE = {"source": "kubernetes"}
QUOTAS = [{"name": "q", "requests": 1_000_000, "per": "1s"}]


@pytest.fixture
def ours(plane: KubernetesApi, namespace: str) -> Policies:
    return Policies(plane, namespace)


@pytest.fixture(scope="module")
def reader(plane: KubernetesApi) -> Path:
    return allow_reading(plane, "authz-process")


def partner_policy(ours: Policies, name: str = "app", **spec: Any) -> None:
    fingerprint = CERTIFICATE.fingerprint
    good = {
        "clientId": "trusted-partner-app", "certificate": external(fingerprint), "scopes": ["patient/Patient.read"],
        "quotas": QUOTAS,
    }  # fmt: skip
    ours.create(name, accepted(fingerprint), **(good | spec))


@pytest.fixture
async def service(site: Site, ours: Policies, reader: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setenv("KUBECONFIG", str(reader))
    service = Service(site, policies=SOURCE | {"namespaces": [ours.namespace]})
    try:
        await service.ready()
        yield service
    finally:
        if service.process.poll() is None:
            await service.stop()


async def test_each_edit_in_the_cluster_is_enforced(service: Service, ours: Policies) -> None:
    assert await service.reason() == "certificate_unknown"
    partner_policy(ours)
    await service.until("allowed")
    for spec, reason in (
        ({"suspended": True}, "client_suspended"),
        ({"suspended": False}, "allowed"),
        ({"revocation": {"fingerprints": [{"sha256": CERTIFICATE.fingerprint}]}}, "certificate_revoked"),
        ({"revocation": None, "scopes": []}, "scope_missing"),
    ):
        ours.edit("app", **spec)
        await service.until(reason)
    ours.delete("app")
    await service.until("certificate_unknown")
    _, text = await service.get("/metrics")
    assert 'clientpolicy_policies{standing="active"} 0.0' in text
    assert "clientpolicy_policies_age_seconds" in text
    assert 'clientpolicy_policy_watch_errors_total{kind="forbidden"} 0.0' in text
    assert await service.stop() == 0


async def test_api_that_is_away_is_waited_for(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ready, alive, and it ends cleanly."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {"token": "t"}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    service = Service(site, policies=SOURCE)
    try:
        async with asyncio.timeout(60):
            while not await service.listens():
                await asyncio.sleep(0.05)
            while "unreachable" not in (await service.get("/readyz"))[1]:
                await asyncio.sleep(0.05)
        status, text = await service.get("/readyz")
        assert status == 503
        assert text.startswith("policies: not loaded (unreachable: no answer")
    finally:
        service.process.send_signal(signal.SIGTERM)
        assert await service.stop() == 0


def test_without_credentials_every_command_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    file = site.write(policies=SOURCE, store={"url": "redis://127.0.0.1:1/0"})
    for arguments in (("serve",), ("check", "-"), ("quota", "show", "app")):
        done = run(*arguments, "--config", file, stdin=json.dumps(as_json(check_request())))
        assert done.returncode == 2
        (line,) = [one for one in done.stderr.splitlines() if "credentials" in one]
        assert "no credentials for a Kubernetes API" in line
        assert "set KUBECONFIG, or run in a pod" in line


def test_forbidden_lists_say_so(site: Site, plane: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig_for("nobody")))
    file = site.write(policies=SOURCE, store={"url": "redis://127.0.0.1:1/0"})
    for arguments in (("check", "-"), ("quota", "show", "app")):
        done = run(*arguments, "--config", file, stdin=json.dumps(as_json(check_request())))
        assert done.returncode == 2
        assert "forbidden: 403: " in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_check_and_quota_read_the_cluster(
    site: Site, ours: Policies, reader: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(reader))
    partner_policy(ours)
    file = site.write(policies=SOURCE | {"namespaces": [ours.namespace]}, store={"url": redis.url})
    message = check_request(bearer=fresh_token(), forwarded=xfcc(CERTIFICATE))
    done = run("check", "--config", file, "-", stdin=json.dumps(as_json(message)))
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert (line["verdict"], line["policy"]) == ("allow", f"{ours.namespace}/app")
    done = run("quota", "show", f"{ours.namespace}/app", "--config", file, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["client"] == "trusted-partner-app"
    done = run("quota", "show", "nobody", "--config", file)
    assert done.returncode == 1
    assert "no client `nobody`" in done.stderr


async def test_rotated_client_ca_is_taken_over_without_a_restart(
    site: Site, ours: Policies, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mounted ConfigMap changes: `..data` is another folder. What was found by old CAs is not remembered."""
    old, new = (certificate(name, is_ca=True) for name in ("old", "new"))
    leafs = [certificate(issuer=ca, start=NOW.replace(year=2020), end=NOW.replace(year=2040)) for ca in (old, new)]
    begin, end = "2020-11-23T12:00:00Z", "2040-11-23T12:00:00Z"
    ours.create("app", issued(*(leaf.fingerprint for leaf in leafs), begin=begin, end=end), clientId="trusted-partner-app", scopes=["patient/Patient.read"])  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", str(reader))
    mount = site.folder / "mount"
    mount.mkdir()

    def publish(name: str, text: str) -> None:
        (mount / name).mkdir()
        (mount / name / "ca.crt").write_text(text)
        (mount / "..new").symlink_to(name)
        (mount / "..new").replace(mount / "..data")

    (mount / "ca.crt").symlink_to("..data/ca.crt")
    publish("..1", old.pem)
    service = Service(site, policies=SOURCE | {"namespaces": [ours.namespace]}, identity={"clientCa": "mount/ca.crt"})
    messages = [check_request(bearer=fresh_token(), forwarded=xfcc(leaf)) for leaf in leafs]

    async def reasons() -> list[str]:
        return [await service.reason(message) for message in messages]

    async def become(*expected: str) -> None:
        async with asyncio.timeout(20):
            while await reasons() != list(expected):
                await asyncio.sleep(0.05)

    try:
        await service.ready()
        await become("allowed", "certificate_unknown")
        publish("..2", old.pem + new.pem)
        await become("allowed", "allowed")
        publish("..3", "no certificate")
        async with asyncio.timeout(20):
            while "clientpolicy_client_ca_errors_total 0.0" in (await service.get("/metrics"))[1]:
                await asyncio.sleep(0.05)
        assert await reasons() == ["allowed", "allowed"]
        publish("..4", new.pem)
        await become("certificate_unknown", "allowed")
        assert await service.stop() == 0
        log = (site.folder / "log.jsonl").read_text()
        assert log.count("the last good CAs hold") == 1
    finally:
        if service.process.poll() is None:
            await service.stop()


async def test_without_a_published_ca_clients_with_certificates_of_their_own_are_served(
    site: Site, ours: Policies, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator has not published yet: its ConfigMap is an optional volume, an empty folder until then."""
    authority = certificate("ca", is_ca=True)
    leaf = certificate(issuer=authority, start=NOW.replace(year=2020), end=NOW.replace(year=2040))
    begin, end = "2020-11-23T12:00:00Z", "2040-11-23T12:00:00Z"
    ours.create("app", issued(leaf.fingerprint, begin=begin, end=end), clientId="trusted-partner-app", scopes=["patient/Patient.read"])  # fmt: skip
    own = certificate("own", start=NOW.replace(year=2020), end=NOW.replace(year=2040))
    external = {"source": "External", "fingerprints": [own.fingerprint]}
    ours.create("own", {"certificate": {"fingerprints": [own.fingerprint]}}, clientId="own", certificate=external, scopes=["patient/Patient.read"])  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", str(reader))
    mount = site.folder / "mount"
    mount.mkdir()
    service = Service(site, policies=SOURCE | {"namespaces": [ours.namespace]}, identity={"clientCa": "mount/ca.crt"})
    messages = {
        "issued": check_request(bearer=fresh_token(), forwarded=xfcc(leaf)),
        "own": check_request(bearer=fresh_token(client_id="own", azp="own"), forwarded=xfcc(own)),
    }

    async def become(**expected: str) -> None:
        async with asyncio.timeout(20):
            while {name: await service.reason(message) for name, message in messages.items()} != expected:
                await asyncio.sleep(0.05)

    try:
        await service.ready()
        await become(issued="certificate_unknown", own="allowed")
        told = (
            "ready\nidentity.clientCa: no CA file yet (No such file or directory): no issued certificate is trusted\n"
        )
        assert await service.get("/readyz") == (200, told)
        assert "clientpolicy_client_ca_certificates 0.0" in (await service.get("/metrics"))[1]
        (mount / "ca.crt").write_text(authority.pem)
        await become(issued="allowed", own="allowed")
        assert await service.get("/readyz") == (200, "ready\n")
        assert "clientpolicy_client_ca_certificates 1.0" in (await service.get("/metrics"))[1]
        assert await service.stop() == 0
    finally:
        if service.process.poll() is None:
            await service.stop()


@pytest.mark.parametrize(("name", "text"), [("no-folder/ca.crt", None), ("ca.crt", "no certificate"), ("ca.crt", "")])
def test_client_ca_in_a_folder_that_is_not_there_or_unreadable_is_a_mistake(
    site: Site, reader: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(reader))
    if text is not None:
        (site.folder / name).write_text(text)
    file = site.write(policies=SOURCE, store={"url": "redis://127.0.0.1:1/0"}, identity={"clientCa": name})
    done = run("serve", "--config", file)
    assert done.returncode == 2
    assert "identity.clientCa" in done.stderr
