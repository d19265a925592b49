"""CPU and latency of one Check beside an empty gRPC server, with quotas in memory and in a real Redis.

Usage: python tests/bench/check.py [--calls N] [--rounds N]

All are running servers, asked in alternating rounds of one run.

The load is design §8's: 64 calls in flight, a CheckRequest of 3 kB with XFCC, certificate and an RS256 token of 900
bytes, 100 distinct tokens. CPU is that of the whole server process (user and system), from the kernel's own count.
Machines differ, so what counts is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import partner
from redis_server import RedisServer, free_port

from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

IN_FLIGHT = 64
TOKENS = 100
METHOD = "/envoy.service.auth.v3.Authorization/Check"
EMPTY = """
import asyncio, sys
import grpc
from grpc import aio

class Empty(grpc.GenericRpcHandler):
    async def answer(self, request, context):
        return b""
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer)

async def main():
    server = aio.server()
    server.add_generic_rpc_handlers((Empty(),))
    server.add_insecure_port(sys.argv[1])
    await server.start()
    await server.wait_for_termination()

asyncio.run(main())
"""


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    address: str
    cpu_us: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests() -> list[bytes]:
    now_s = int(time.time())
    filler = {"iss_note": "x" * 150, "jti": "", "iat": now_s, "exp": now_s + 3600}
    made = []
    for number in range(TOKENS):
        claims = partner.claims() | filler | {"jti": f"{number:032d}", "cnf": {"x5t#S256": CERTIFICATE.thumbprint}}
        token = jwt.encode(claims, partner.rsa_key(), "RS256", headers={"kid": "k1", "typ": "at+jwt"})
        headers = {
            ":authority": "api.example.org", ":method": "GET", ":scheme": "https", "accept": "application/fhir+json",
            "user-agent": "partner-app/2.3 (linux; x86_64)", "x-forwarded-proto": "https", "x-request-id": f"{number:036d}",
            "x-forwarded-for": "192.0.2.7", "accept-encoding": "gzip, br",
        }  # fmt: skip
        target = "/fhir/Observation?patient=123&category=vital-signs&_sort=-date&_count=50"
        message = partner.check_request(
            target, headers=headers, bearer=token, forwarded=partner.xfcc(CERTIFICATE), peer=CERTIFICATE.encoded
        )
        made.append(message.SerializeToString())
    return made


CERTIFICATE = partner.certificate(
    uris=("spiffe://example.org/client/trusted-partner-app",),
    start=datetime.now(UTC) - timedelta(days=1),
    end=datetime.now(UTC) + timedelta(days=1),
)


def start_authz(name: str, folder: Path, store_url: str) -> Server:
    folder.mkdir()
    site = partner.Site(folder)
    grpc_port, ops_port = free_port(), free_port()
    config: dict[str, Any] = {"listen": {"grpc": f"127.0.0.1:{grpc_port}", "ops": f"127.0.0.1:{ops_port}"}}
    config["store"] = {"url": store_url}
    policy = partner.policy_document(
        certificate={"source": "External", "fingerprints": [CERTIFICATE.fingerprint]},
        quotas=[
            {"name": "steady", "requests": 1_000_000, "per": "1s"},
            {"name": "daily", "requests": 1_000_000_000, "calendar": "Day"},
        ],
    )
    site.write(policy, **config)
    with (folder / "audit.jsonl").open("wb") as audit, (folder / "log.jsonl").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "authz", "serve", "--config", site.config_file], stdout=audit, stderr=log
        )
    return Server(name, process, f"127.0.0.1:{grpc_port}")


def start_empty() -> Server:
    address = f"127.0.0.1:{free_port()}"
    return Server("empty grpcio.aio", subprocess.Popen([sys.executable, "-c", EMPTY, address]), address)


async def load(server: Server, made: list[bytes], calls: int, *, check: bool) -> None:
    """Send `calls` calls, `IN_FLIGHT` at once, and note CPU a call and each call's latency."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        call: Any = channel.unary_unary(METHOD)
        await asyncio.wait_for(channel.channel_ready(), 30)
        while check and not CheckResponse.FromString(await ask(call, made[0])).HasField("ok_response"):
            await asyncio.sleep(0.05)
        latencies: list[float] = []
        left = iter(range(calls))

        async def worker() -> None:
            for number in left:
                started = time.perf_counter()
                answered = await call(made[number % len(made)])
                latencies.append((time.perf_counter() - started) * 1e3)
                if check and number % 1000 == 0 and not CheckResponse.FromString(answered).HasField("ok_response"):
                    raise RuntimeError("a call of the benchmark was refused")

        before = server.cpu_s()
        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        server.cpu_us.append((server.cpu_s() - before) / calls * 1e6)
        server.latency_ms += latencies


async def ask(call: Any, request: bytes) -> bytes:
    try:
        answered: bytes = await call(request)
    except grpc.aio.AioRpcError:
        return b""
    return answered


def report(servers: list[Server], made: list[bytes], calls: int) -> None:
    print(f"{calls} calls a round, {IN_FLIGHT} in flight, {len(made[0])} bytes a request, {TOKENS} tokens")
    print(f"{'server':<22}{'CPU a call':>14}{'p50':>12}{'p99':>12}")
    for server in servers:
        quantiles = statistics.quantiles(server.latency_ms, n=100)
        cpu = statistics.median(server.cpu_us)
        print(f"{server.name:<22}{cpu:>11.0f} µs{quantiles[49]:>9.2f} ms{quantiles[98]:>9.2f} ms")
    memory, redis, empty = (statistics.median(server.cpu_us) for server in servers)
    print(f"ratio of CPU: {memory / empty:.2f} (target: at most 1.5)")
    print(f"Redis instead of memory: {redis - memory:+.0f} µs (target: at most +20 µs)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=20_000, help="calls a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    made = requests()
    with tempfile.TemporaryDirectory() as folder:
        store = RedisServer(Path(folder))
        store.start()
        servers = [
            start_authz("clientpolicy, memory", Path(folder) / "memory", "memory://"),
            start_authz("clientpolicy, Redis", Path(folder) / "redis", store.url),
            start_empty(),
        ]
        try:
            for server in servers:  # caches warm, all alike
                asyncio.run(load(server, made, 1000, check=server is not servers[-1]))
                server.cpu_us.clear()
                server.latency_ms.clear()
            for _ in range(arguments.rounds):
                for server in servers:
                    asyncio.run(load(server, made, arguments.calls, check=server is not servers[-1]))
        finally:
            for server in servers:
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(30)
            store.stop()
    report(servers, made, arguments.calls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
