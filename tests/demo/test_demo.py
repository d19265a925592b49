"""The whole demonstration, run as a person runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import redis_server

from authz.demo.steps import AMBIGUOUS

COMMAND = (sys.executable, "-m", "authz", "demo")
TIMEOUT_S = 300


class Demo:
    """A run of the demonstration that keeps its files in a folder of the test's."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(folder), "PYTHONUTF8": "1"},
        )

    def stream(self, name: str) -> IO[str]:
        stream: IO[str] | None = getattr(self.process, name)
        assert stream is not None
        return stream

    def finish(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, output, errors

    def left(self) -> list[str]:
        """Return the files that are left, and the processes that were told of any of them."""
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout  # noqa: S607
        files = [str(path) for path in self._folder.rglob("*")]
        return files + [line for line in listed.splitlines() if f"{self._folder}/clientpolicy-demo-" in line]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one run, which is stopped at the latest when the test ends."""
    created = tmp_path / "tmp"
    created.mkdir()
    return created


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    demo = Demo(folder, *arguments)
    finished = demo.finish()
    assert demo.left() == []
    return finished


def rows(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def expected_of(got: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(row["step"], row["expect"]) for row in got]


RECORD = "/fhir/Patient/123"
EXPECTED = [
    ("no client certificate: TLS handshake", "tls handshake fails"),
    ("certificate of another CA: TLS handshake", "tls handshake fails"),
    ("certificate, public path: /health", 200),
    (f"no token: {RECORD}", 401),
    (f"expired token: {RECORD}", 401),
    (f"wrongly signed token: {RECORD}", 401),
    (f"token for another audience: {RECORD}", 401),
    (f"another client's token: {RECORD}", 401),
    (f"bound to another certificate: {RECORD}", 401),
    (f"patient/Patient.read: {RECORD}", 200),
    (f"patient/Patient.read: {RECORD}/Observation", 403),
    (f"patient/Observation.read: {RECORD}/Observation", 200),
    ("another patient's record: /fhir/Patient/124", 403),
    *((f"path with two readings: {path}", 400) for path in AMBIGUOUS),
    (f"forged x-forwarded-client-cert: {RECORD}", 200),
    (f"forged x-client-id: {RECORD}", 200),
    (f"forged x_client_id: {RECORD}", 200),
    (f"forged x-patient-id: {RECORD}", 200),
    ("forged x-patient-id: /fhir/Patient/124", 403),
    (f"flood, 10/s burst 20: {RECORD}", "21 to 21 + ⌊10 t⌋ pass"),
    (f"rest of the flood: {RECORD}", 429),
    (f"after that wait: {RECORD}", 200),
    (f"policy deleted: {RECORD}", 403),
    ("authz stopped: /health", 503),
]


def test_every_step_is_as_expected_and_nothing_is_left(folder: Path) -> None:
    status, output, errors = run(folder, "--json")
    got = rows(output)
    assert expected_of(got) == EXPECTED
    assert [row for row in got if row["ok"] is not True] == [], errors
    assert [row for row in got if isinstance(row["expect"], int) and row["got"] != row["expect"]] == []
    assert (status, errors) == (0, "")


def test_quotas_in_a_redis_leave_nothing_there(folder: Path, own_redis: redis_server.RedisServer) -> None:
    def ask(*command: str) -> bytes:
        with socket.create_connection(("127.0.0.1", own_redis.port), timeout=10) as connection:
            connection.sendall(f"{' '.join(command)}\r\n".encode())
            return connection.recv(65_536)

    assert ask("SET", "of-a-person", "1") == b"+OK\r\n"
    status, output, errors = run(folder, "--json", "--redis", own_redis.url)
    assert [row for row in rows(output) if row["ok"] is not True] == [], errors
    assert status == 0
    assert b"cmdstat_evalsha" in ask("INFO", "commandstats"), "the quotas were spent there"
    assert ask("KEYS", "*") == b"*1\r\n$11\r\nof-a-person\r\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after", [1, 10, len(EXPECTED) - 3, len(EXPECTED) - 1])
def test_an_interruption_between_any_two_steps_leaves_nothing(folder: Path, number: signal.Signals, after: int) -> None:
    demo = Demo(folder, "--json")
    for _ in range(after):
        assert demo.stream("stdout").readline().endswith("}\n")
    demo.process.send_signal(number)
    status, _, errors = demo.finish()
    assert (status, errors) == (128 + number, "")
    assert demo.left() == []


def test_an_interruption_while_parts_are_starting_leaves_nothing(folder: Path) -> None:
    for part in ("ca.pem", "authz.yaml", "authz.log", "envoy.log"):
        demo = Demo(folder, "--json")
        while not list(folder.glob(f"*/{part}")):
            assert demo.process.poll() is None, "it has not ended by itself"
        demo.process.send_signal(signal.SIGINT)
        demo.process.send_signal(signal.SIGINT)
        status, output, errors = demo.finish()
        assert (status, output, errors) == (130, "", ""), part
        assert demo.left() == []


def test_kept_running_its_curl_lines_work_until_it_is_interrupted(folder: Path) -> None:
    redis_server.require("curl")
    demo = Demo(folder, "--json", "--keep")
    statuses = {}
    for line in demo.stream("stderr"):
        if line.startswith("curl "):
            words = [*shlex.split(line), "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
            target = next(word for word in words if word.startswith("https://")).partition("/fhir/")[2]
            statuses[target] = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        if line.startswith("Policies, "):
            break
    assert statuses == {"": "200", "Patient/123": "200", "Patient/123/Observation": "200", "Patient/124": "403"}
    demo.process.send_signal(signal.SIGINT)
    status, output, _ = demo.finish()
    assert (status, len(rows(output))) == (0, len(EXPECTED))
    assert demo.left() == []


def test_the_table_ends_with_its_verdict(folder: Path) -> None:
    status, output, errors = run(folder)
    assert (status, errors) == (0, "")
    assert output.splitlines()[-1] == f"{len(EXPECTED)} of {len(EXPECTED)} steps as expected"
    assert "✗" not in output


def test_a_taken_port_is_told_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output, errors = run(folder, "--json", "--port", str(port))
    assert (status, output) == (2, "")
    assert errors == f"clientpolicy demo: port {port} on 127.0.0.1: Address already in use\n"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://somebody:hunter2@127.0.0.1:{port}/0", "ConnectionError"),
        ("https://somebody:hunter2@127.0.0.1:{port}/", "ValueError"),
    ],
)
def test_a_redis_that_is_not_there_is_told_in_one_line_without_its_password(folder: Path, url: str, why: str) -> None:
    with socket.socket() as bound:  # bound, but nobody listens
        bound.bind(("127.0.0.1", 0))
        status, output, errors = run(folder, "--json", "--redis", url.format(port=bound.getsockname()[1]))
    assert (status, output) == (2, "")
    assert errors == f"clientpolicy demo: --redis: {why}: is a Redis there, and the URL right?\n"
