"""The running service, from outside: real processes, real sockets, hostile callers, and a clean end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from partner import Site, certificate, check_request, policy_document, rsa_key, xfcc
from partner import claims as good_claims
from redis_server import RedisServer, free_port

from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

METHOD = "/envoy.service.auth.v3.Authorization/Check"
CERTIFICATE = certificate(start=datetime.now(UTC) - timedelta(days=1), end=datetime.now(UTC) + timedelta(days=1))


def fresh_token(**changes: Any) -> str:
    now_s = int(datetime.now(UTC).timestamp())
    return jwt.encode(good_claims(iat=now_s, exp=now_s + 600, **changes), rsa_key(), "RS256", headers={"kid": "k1"})


class Service:
    def __init__(self, site: Site, **config: Any) -> None:
        self.site = site
        self.grpc, self.ops = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.policy(quotas=[{"name": "q", "requests": 1_000_000, "per": "1s"}])
        site.write(self.document, **({"listen": {"grpc": self.grpc, "ops": self.ops}} | config))
        self.audit = site.folder / "audit.jsonl"
        with self.audit.open("wb") as audit, (site.folder / "log.jsonl").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "authz", "serve", "--config", site.config_file], stdout=audit, stderr=log
            )
        self.channel = aio.insecure_channel(self.grpc)
        self.call: Any = self.channel.unary_unary(METHOD)

    def policy(self, **spec: Any) -> None:
        listed = {"source": "External", "fingerprints": [CERTIFICATE.fingerprint]}
        self.document = policy_document(**({"certificate": listed} | spec))
        if (self.site.folder / "policies").exists():
            self.site.write_policy(self.document)

    async def check(self, message: CheckRequest | None = None) -> CheckResponse:
        message = message or check_request(bearer=fresh_token(), forwarded=xfcc(CERTIFICATE))
        answered: bytes = await self.call(message.SerializeToString(), timeout=20)
        return CheckResponse.FromString(answered)

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.ops}{path}") as response:
            return response.status, await response.text()

    async def listens(self) -> bool:
        try:
            return (await self.get("/livez"))[0] == 200
        except aiohttp.ClientError:
            return False

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            while True:
                assert self.process.poll() is None, (self.site.folder / "log.jsonl").read_text()
                try:
                    if (await self.get("/readyz"))[0] == 200:
                        return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    async def until(self, reason: str) -> None:
        async with asyncio.timeout(20):
            while await self.reason() != reason:
                await asyncio.sleep(0.01)

    async def reason(self, message: CheckRequest | None = None) -> str:
        return (await self.check(message)).dynamic_metadata.fields["reason"].string_value

    async def stop(self) -> int:
        await self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 30)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1])


@asynccontextmanager
async def serving(site: Site, **config: Any) -> AsyncIterator[Service]:
    """Run the service until the block ends, from when it is ready."""
    service = Service(site, **config)
    try:
        await service.ready()
        yield service
    finally:
        await service.stop()


@pytest.fixture
async def service(site: Site) -> AsyncIterator[Service]:
    async with serving(site) as service:
        yield service


async def test_service_answers_audits_and_counts(service: Service) -> None:
    assert await service.reason() == "allowed"
    assert await service.reason(check_request(forwarded=None)) == "certificate_missing"
    assert (await service.get("/livez"))[0] == 200
    status, text = await service.get("/metrics")
    assert status == 200
    assert 'clientpolicy_decisions_total{reason="allowed",verdict="allow"} 1.0' in text
    assert 'clientpolicy_decisions_total{reason="certificate_missing",verdict="deny"} 1.0' in text
    assert "clientpolicy_decision_seconds_count 2.0" in text
    stub: Any = health_pb2_grpc.HealthStub(service.channel)
    answered = await stub.Check(health_pb2.HealthCheckRequest(service="envoy.service.auth.v3.Authorization"))
    assert answered.status == health_pb2.HealthCheckResponse.SERVING
    assert await service.stop() == 0
    assert [line["reason"] for line in service.lines()] == ["allowed", "certificate_missing"]


async def test_configuration_that_opens_more_than_it_seems_is_told_once_at_start(site: Site) -> None:
    service = Service(site, public=["GET /health", "GET /*"])
    try:
        await service.ready()
        assert "clientpolicy_configuration_cautions 1.0" in (await service.get("/metrics"))[1]
    finally:
        await service.stop()
    log = [json.loads(line) for line in (site.folder / "log.jsonl").read_text().splitlines()]
    told = [line for line in log if line["message"] == "configuration opens more or does less than it seems"]
    assert [(line["level"], line["key"]) for line in told] == [("warning", "public[1]")]
    assert "all of FHIR at /fhir" in told[0]["told"]


async def test_edited_and_deleted_policies_act_at_once(service: Service) -> None:
    service.policy(suspended=True)
    await service.until("client_suspended")
    service.policy()
    await service.until("allowed")
    service.site.policy_file().unlink()
    await service.until("certificate_unknown")


HOSTILE = {
    "empty message": b"",
    "random bytes": os.urandom(4096),
    "4 KiB header": check_request(headers={"x": "a" * 4096}).SerializeToString(),
    "64 KiB header": check_request(headers={"x-forwarded-for": "a" * 65_536}).SerializeToString(),
    "64 KiB XFCC": check_request(forwarded='Subject="' + "a" * 65_536 + '"').SerializeToString(),
    "64 KiB token": check_request(bearer="a." * 32_768).SerializeToString(),
    "64 KiB path": check_request("/" + "a" * 65_536).SerializeToString(),
    "many headers": check_request(headers={f"x-{n}": "a" for n in range(5000)}).SerializeToString(),
    "1 MiB body": check_request(headers={"x": "a" * 1_048_576}).SerializeToString(),
}


async def test_withdrawn_keys_refuse_a_token_that_was_just_accepted(service: Service) -> None:
    message = check_request(bearer=fresh_token(), forwarded=xfcc(CERTIFICATE))
    assert await service.reason(message) == "allowed"
    file = service.site.folder / "jwks.json"
    keys = file.read_bytes()
    file.write_text('{"keys": []}')
    async with asyncio.timeout(60):
        while (reason := await service.reason(message)) == "allowed":
            await asyncio.sleep(0.1)
    assert reason == "token_key_unknown"
    assert (await service.get("/readyz"))[0] == 200
    assert 'clientpolicy_keys{issuer="health-auth"} 0.0' in (await service.get("/metrics"))[1]
    file.write_bytes(keys)
    await service.until("allowed")


async def test_hostile_messages_are_denied_and_leave_it_serving(service: Service) -> None:
    for name, data in HOSTILE.items():
        answered = CheckResponse.FromString(await service.call(data, timeout=20))
        assert answered.status.code != 0, name
        assert answered.HasField("denied_response"), name
    with pytest.raises(aio.AioRpcError) as too_large:
        await service.call(b"\0" * (5 * 1024 * 1024), timeout=20)
    assert too_large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    other: Any = service.channel.unary_unary("/envoy.service.auth.v3.Authorization/Other")
    with pytest.raises(aio.AioRpcError) as unknown:
        await other(b"")
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await service.reason() == "allowed"


async def test_a_thousand_calls_at_once_are_all_answered(service: Service) -> None:
    message = check_request(bearer=fresh_token(), forwarded=xfcc(CERTIFICATE))
    answers = await asyncio.gather(*(service.reason(message) for _ in range(1000)))
    assert set(answers) == {"allowed"}


async def test_cancelled_calls_and_killed_clients_leave_it_serving(service: Service) -> None:
    data = check_request(bearer=fresh_token(), forwarded=xfcc(CERTIFICATE)).SerializeToString()
    for _ in range(200):
        service.call(data).cancel()
    code = (
        "import asyncio, sys\nfrom grpc import aio\n"
        "async def main():\n"
        f"    call = aio.insecure_channel({service.grpc!r}).unary_unary({METHOD!r})\n"
        "    data = sys.stdin.buffer.read()\n"
        "    print('go', flush=True)\n"
        "    while True: await asyncio.gather(*(call(data) for _ in range(200)))\n"
        "asyncio.run(main())\n"
    )
    for _ in range(2):
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(data)
        client.stdin.close()
        await client.stdout.readline()
        await asyncio.sleep(0.3)
        client.kill()
        await client.wait()
    assert await service.reason() == "allowed"


async def test_memory_stays_bounded_under_made_up_callers(service: Service) -> None:
    async def flood(start: int, calls: int) -> None:
        for number in range(start, start + calls):
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            forwarded = f'Hash={number:064x};Subject="{"s" * 2000}"'
            await service.check(check_request(f"/fhir/{number}?{'q' * 500}", forwarded=forwarded, address=address))

    async def round_(start: int) -> None:
        await asyncio.gather(*(flood(start + worker * 250, 250) for worker in range(16)))

    await round_(0)
    await round_(4_000)
    before_kib = service.resident_kib()
    await round_(8_000)
    await round_(12_000)
    assert service.resident_kib() - before_kib < 40_000  # 8,000 callers of 3 kB each would be as much, were they kept
    assert await service.reason() == "allowed"


async def test_sigterm_drains_and_loses_no_call_in_flight(service: Service) -> None:
    message = check_request(bearer=fresh_token(), forwarded=xfcc(CERTIFICATE))
    calls = [asyncio.create_task(service.check(message)) for _ in range(500)]
    await calls[0]
    service.process.send_signal(signal.SIGTERM)
    answers = await asyncio.gather(*calls)
    assert await asyncio.to_thread(service.process.wait, 30) == 0
    assert {one.status.code for one in answers} == {0}
    assert len(service.lines()) == 500


async def test_sighup_follows_a_rotated_audit_file_and_never_kills(site: Site) -> None:
    message = check_request(bearer=fresh_token(), forwarded=xfcc(CERTIFICATE))
    audit, rotated = site.folder / "audit.log", []
    async with serving(site, audit={"path": str(audit)}) as service:
        for number in range(3):
            await asyncio.gather(*(service.check(message) for _ in range(50)))
            rotated.append(audit.rename(audit.with_suffix(f".{number}")))
            for _ in range(20):
                service.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(20):
                while not audit.exists():
                    await asyncio.sleep(0.01)
        calls = [asyncio.create_task(service.check(message)) for _ in range(50)]
        await calls[0]
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGHUP)
        await asyncio.gather(*calls)
        assert await asyncio.to_thread(service.process.wait, 30) == 0
    lines = [line for file in (*rotated, audit) for line in file.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == 200


async def test_before_the_first_keys_the_answer_is_an_error(site: Site) -> None:
    issuer = {"name": "a", "issuer": "https://a.example.org", "audiences": ["x"], "jwksUri": "http://127.0.0.1:1/jwks"}
    service = Service(site, issuers=[issuer])
    try:
        async with asyncio.timeout(60):
            while not await service.listens():
                await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            while "(" not in (told := await service.get("/readyz"))[1]:
                await asyncio.sleep(0.05)
        assert told == (503, "issuer a: no keys yet (http://127.0.0.1:1/jwks: connection refused)")
        with pytest.raises(aio.AioRpcError) as refused:
            await service.check()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert refused.value.details() == "not_ready"
        stub: Any = health_pb2_grpc.HealthStub(service.channel)
        answered = await stub.Check(health_pb2.HealthCheckRequest())
        assert answered.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await service.get("/livez"))[0] == 200
    finally:
        assert await service.stop() == 0


def pair(site: Site, cert: str = "tls.crt", key: str = "tls.key") -> bytes:
    """Write a new certificate of localhost and its key, and return the certificate."""
    now = datetime.now(UTC)
    made = certificate("localhost", dns=("localhost",), start=now - timedelta(days=1), end=now + timedelta(days=1))
    pem = made.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    site.folder.joinpath(key).write_bytes(pem)
    site.folder.joinpath(cert).write_text(made.pem)
    return made.pem.encode()


async def test_service_over_tls_and_unix_socket_whose_certificate_is_renewed(site: Site) -> None:
    first = pair(site)
    ops = f"127.0.0.1:{free_port()}"
    listen = {"grpc": f"unix:{site.folder}/authz.sock", "ops": ops, "tls": {"cert": "tls.crt", "key": "tls.key"}}
    service = Service(site, listen=listen)
    service.ops = ops

    async def reason_trusting(roots: bytes) -> str:
        await service.channel.close()
        options = (("grpc.ssl_target_name_override", "localhost"),)
        secure = grpc.ssl_channel_credentials(roots)
        service.channel = aio.secure_channel(f"unix:{site.folder}/authz.sock", secure, options=options)
        service.call = service.channel.unary_unary(METHOD)
        return await service.reason()

    try:
        await service.ready()
        assert await reason_trusting(first) == "allowed"
        second = pair(site)
        assert await reason_trusting(second) == "allowed"
        pair(site, cert="other.crt")  # the key of another certificate: the last good pair holds
        assert await reason_trusting(second) == "allowed"
        site.folder.joinpath("tls.crt").unlink()
        assert await reason_trusting(second) == "allowed"
        third = pair(site)
        assert await reason_trusting(third) == "allowed"
        with pytest.raises(aio.AioRpcError):
            await reason_trusting(first)
    finally:
        assert await service.stop() == 0


def test_random_bytes_are_no_message() -> None:
    with pytest.raises(DecodeError):
        CheckRequest.FromString(b"\xff")


async def test_rotated_ca_of_proxies_is_taken_over_without_a_restart(site: Site) -> None:
    edge = "spiffe://example.org/edge"
    old, new = (certificate(name, is_ca=True) for name in ("old", "new"))
    begin, end = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
    proxies = [certificate("edge", issuer=one, uris=(edge,), start=begin, end=end) for one in (old, new)]
    messages = [
        check_request(bearer=fresh_token(), forwarded=f'{xfcc(CERTIFICATE)},Cert="{one.encoded}";URI={edge}')
        for one in proxies
    ]
    file = site.folder / "proxies.pem"
    file.write_text(old.pem)
    service = Service(site, identity={"trustedHops": 2, "trustedProxies": [edge], "proxyCa": "proxies.pem"})

    async def become(*expected: str) -> None:
        async with asyncio.timeout(20):
            while [await service.reason(message) for message in messages] != list(expected):
                await asyncio.sleep(0.05)

    try:
        await service.ready()
        await become("allowed", "proxy_untrusted")
        file.write_text(old.pem + new.pem)
        await become("allowed", "allowed")
        file.write_text("no certificate")
        async with asyncio.timeout(20):
            while "clientpolicy_proxy_ca_errors_total 0.0" in (await service.get("/metrics"))[1]:
                await asyncio.sleep(0.05)
        await become("allowed", "allowed")
        file.write_text(new.pem)
        await become("proxy_untrusted", "allowed")
    finally:
        await service.stop()


async def test_store_that_is_away_decides_by_the_policy_and_is_used_when_it_comes(
    site: Site, own_redis: RedisServer
) -> None:
    """Ready all the same; Local passes, Closed is 503 and not 429; then Redis is there, and counts."""
    own_redis.stop()
    service = Service(site, store={"url": own_redis.url})
    try:
        await service.ready()
        assert await service.reason() == "allowed"
        quota = {"name": "q", "requests": 1_000_000, "per": "1s", "onStoreFailure": "Closed"}
        service.policy(quotas=[quota])
        await service.until("store_unavailable")
        assert (await service.check()).denied_response.status.code == 503
        assert (await service.get("/readyz"))[0] == 200
        _, text = await service.get("/metrics")
        assert f'clientpolicy_store_up{{node="127.0.0.1:{own_redis.port}"}} 0.0' in text
        assert re.search(r'clientpolicy_store_fallbacks_total\{mode="local"\} [1-9]', text)
        assert re.search(r'clientpolicy_store_fallbacks_total\{mode="closed"\} [1-9]', text)
        own_redis.start()
        await service.until("allowed")
        _, text = await service.get("/metrics")
        assert f'clientpolicy_store_up{{node="127.0.0.1:{own_redis.port}"}} 1.0' in text
        assert re.search(r"clientpolicy_store_call_seconds_count [1-9]", text)
    finally:
        await service.stop()


async def test_replicas_share_one_quota_and_shadow_is_told(site: Site, redis: RedisServer) -> None:
    prefix = f"{uuid4()}:"
    (site.folder / "one").mkdir()
    (site.folder / "two").mkdir()
    replicas = [
        Service(Site(site.folder / name), store={"url": redis.url, "prefix": prefix}) for name in ("one", "two")
    ]
    try:
        quotas = [
            {"name": "q", "requests": 5, "per": "24h"},
            {"name": "planned", "requests": 1, "per": "24h", "mode": "Shadow"},
        ]
        for replica in replicas:
            await replica.ready()
            replica.policy(quotas=quotas)
        await asyncio.sleep(0.5)
        reasons = [await replicas[number % 2].reason() for number in range(12)]
        assert reasons.count("allowed") >= 5  # some before the policy was read
        assert reasons[-2:] == ["quota_exceeded"] * 2
        answered = await replicas[0].check()
        headers = {header.header.key: header.header.value for header in answered.denied_response.headers}
        assert int(headers["retry-after"]) > 3600
        assert '"planned"' not in headers["ratelimit"]
        assert json.loads(answered.denied_response.body)["issue"][0]["code"] == "throttled"
    finally:
        for replica in replicas:
            await replica.stop()
    told = [line["quota_shadowed"] for replica in replicas for line in replica.lines() if "quota_shadowed" in line]
    assert told
    assert told[0] == ["planned"]
