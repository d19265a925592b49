"""Redis as people run it, with real servers on free ports: TLS, ACL, Sentinel, Cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis import Redis
from redis.exceptions import RedisError
from redis_server import RedisServer, free_port


def wait_until(true: Callable[[], bool], told: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if true():
                return
        except (RedisError, OSError):
            pass
        time.sleep(0.05)
    raise RuntimeError(told)


# ---- TLS and ACL ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TlsFiles:
    ca: Path
    other_ca: Path
    cert: Path
    key: Path


def make_tls(folder: Path) -> TlsFiles:
    """Return a private CA and a certificate of its for this machine, for server and client alike."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def build(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )

    def write(file: str, data: bytes) -> Path:
        (folder / file).write_bytes(data)
        return folder / file

    keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in ("ca", "other", "server")}
    authorities = {who: build(who, who, keys[who], ca=True).sign(keys[who], hashes.SHA256()) for who in ("ca", "other")}
    here = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    server = build("server", "ca", keys["server"], ca=False).add_extension(here, critical=False)
    pem = serialization.Encoding.PEM
    private = keys["server"].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return TlsFiles(
        ca=write("ca.pem", authorities["ca"].public_bytes(pem)),
        other_ca=write("other.pem", authorities["other"].public_bytes(pem)),
        cert=write("server.pem", server.sign(keys["ca"], hashes.SHA256()).public_bytes(pem)),
        key=write("server-key.pem", private),
    )


@contextmanager
def tls_redis(folder: Path, files: TlsFiles, *, client_certificate: bool = False) -> Iterator[int]:
    """A Redis that also listens by TLS; yields that port."""
    port = free_port()
    server = RedisServer(
        folder,
        *("--tls-port", str(port), "--tls-cert-file", str(files.cert), "--tls-key-file", str(files.key)),
        *("--tls-ca-cert-file", str(files.ca), "--tls-auth-clients", "yes" if client_certificate else "no"),
    )
    server.start()
    try:
        yield port
    finally:
        server.stop()


@contextmanager
def acl_redis(folder: Path, user: str, password: str, rules: list[str]) -> Iterator[tuple[RedisServer, Redis]]:
    """A Redis with one user under these rules; yields it and a client that may do all."""
    server = RedisServer(folder)
    server.start()
    admin = Redis.from_url(server.url)
    try:
        words = ("ACL", "SETUSER", user, "reset", "on", f">{password}", *rules)
        admin.execute_command(*words)  # type: ignore[no-untyped-call]
        yield server, admin
    finally:
        admin.close()
        server.stop()


# ---- Sentinel ---------------------------------------------------------------------------------------------------


class SentinelPlace:
    """A master, a replica and three sentinels that agree within a second."""

    service = "quotas"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.servers: dict[int, RedisServer] = {}
        self.sentinels: list[int] = []

    def __enter__(self) -> Self:
        master = self._start("master")
        self._start("replica", "--replicaof", "127.0.0.1", str(master.port))
        for number in range(3):
            folder = self._folder / f"sentinel{number}"
            folder.mkdir()
            config = folder / "sentinel.conf"
            config.write_text(
                f"sentinel monitor {self.service} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {self.service} 500\n"
                f"sentinel failover-timeout {self.service} 3000\n"
                f"sentinel parallel-syncs {self.service} 1\n"
            )
            server = RedisServer(folder, "--sentinel", config=config)
            server.start()
            self._stack.callback(server.stop)
            self.sentinels.append(server.port)
        wait_until(self._is_complete, "the sentinels do not know each other")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self, name: str, *options: str) -> RedisServer:
        folder = self._folder / name
        folder.mkdir()
        server = RedisServer(folder, *options)
        server.start()
        self._stack.callback(server.stop)
        self.servers[server.port] = server
        return server

    def _is_complete(self) -> bool:
        for port in self.sentinels:
            with Redis(port=port, protocol=2) as sentinel:
                told: dict[str, Any] = sentinel.sentinel_master(self.service)
            if (int(told["num-other-sentinels"]), int(told["num-slaves"])) != (2, 1):
                return False
        return True

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.sentinels)}/{self.service}/0"

    def master_port(self) -> int:
        with Redis(port=self.sentinels[0], protocol=2) as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(self.service)[1])

    def fail_over(self) -> None:
        before = self.master_port()
        with Redis(port=self.sentinels[0], protocol=2) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", self.service)
        wait_until(lambda: self.master_port() != before, "no failover")

    def kill_master(self) -> None:
        before = self.master_port()
        self.servers[before].stop()
        wait_until(lambda: self.master_port() != before, "no failover")


# ---- Cluster ----------------------------------------------------------------------------------------------------

SLOTS = 16_384


class ClusterPlace:
    """Masters that share the slots, each with a replica if asked."""

    def __init__(self, folder: Path, *, masters: int = 3, replicas: bool = False) -> None:
        self._folder = folder
        self._masters = masters
        self._replicas = replicas
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []

    def __enter__(self) -> Self:
        count = self._masters * (2 if self._replicas else 1)
        for number in range(count):
            folder = self._folder / f"node{number}"
            folder.mkdir()
            # The bus port is 10,000 higher by default, which may be no port at all.
            server = RedisServer(
                folder, "--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000",
                "--cluster-require-full-coverage", "no", "--repl-ping-replica-period", "1",
            )  # fmt: skip
            server.start()
            self._stack.callback(server.stop)
            self.servers.append(server)
        self._join()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _join(self) -> None:
        first = self.servers[0]
        for other in self.servers[1:]:
            bus = other.option("--cluster-port")
            self.ask(first.port, "CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        wait_until(lambda: all(self._known(server) == len(self.servers) for server in self.servers), "no cluster")
        share = SLOTS // self._masters
        for number in range(self._masters):
            last = SLOTS - 1 if number == self._masters - 1 else (number + 1) * share - 1
            self.ask(self.servers[number].port, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
        if self._replicas:
            for number in range(self._masters):
                identity = self.ask(self.servers[number].port, "CLUSTER", "MYID")
                self.ask(self.servers[self._masters + number].port, "CLUSTER", "REPLICATE", identity)
        wait_until(lambda: all(self._is_whole(server) for server in self.servers), "the cluster is not whole")

    def ask(self, port: int, *words: object) -> Any:
        with Redis(port=port, protocol=2) as client:
            return client.execute_command(*words)

    def _known(self, server: RedisServer) -> int:
        return int(self.ask(server.port, "CLUSTER INFO")["cluster_known_nodes"])

    def _is_whole(self, server: RedisServer) -> bool:
        told = self.ask(server.port, "CLUSTER INFO")
        whole = told["cluster_state"] == "ok" and int(told["cluster_slots_ok"]) == SLOTS
        with Redis(port=server.port, protocol=2) as client:
            replication = client.info("replication")
        linked = replication["role"] == "master" or replication["master_link_status"] == "up"
        return whole and linked and int(told["cluster_size"]) == self._masters

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.servers[0].port},127.0.0.1:{self.servers[1].port}"

    def owner(self, slot: int) -> RedisServer:
        for server in self.servers[: self._masters]:
            for first, last, master, *_ in self.ask(server.port, "CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(one for one in self.servers if one.port == master[1])
        raise LookupError(slot)

    def other_than(self, owner: RedisServer) -> RedisServer:
        return next(server for server in self.servers[: self._masters] if server is not owner)

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        self.ask(target.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ask(source.port, "CLUSTER", "MYID"))
        self.ask(source.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ask(target.port, "CLUSTER", "MYID"))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        for key in self.ask(source.port, "CLUSTER", "GETKEYSINSLOT", slot, 1000):
            self.ask(source.port, "MIGRATE", "127.0.0.1", target.port, key, 0, 5000)

    def finish_move(self, slot: int, target: RedisServer) -> None:
        identity = self.ask(target.port, "CLUSTER", "MYID")
        for server in (target, *self.servers[: self._masters]):
            self.ask(server.port, "CLUSTER", "SETSLOT", slot, "NODE", identity)

    def replica_of(self, master: int) -> RedisServer:
        return self.servers[self._masters + master]

    def fail_over(self, master: int) -> None:
        replica = self.replica_of(master)
        self.ask(replica.port, "CLUSTER", "FAILOVER")
        self._wait_for_promotion(replica)

    def kill_master(self, master: int) -> None:
        self.servers[master].stop()
        self._wait_for_promotion(self.replica_of(master))

    def _wait_for_promotion(self, replica: RedisServer) -> None:
        def promoted() -> bool:
            with Redis(port=replica.port, protocol=2) as client:
                return bool(client.info("replication")["role"] == "master")

        wait_until(promoted, "no failover")
