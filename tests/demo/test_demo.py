"""The whole demonstration, run as a person runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
        self.folder = folder
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
        """Return the exit status and both outputs of a run that has left nothing behind: no file, no process."""
        output, errors = self.process.communicate(timeout=TIMEOUT_S)
        assert list(self.folder.rglob("*")) == []
        assert [line for line in commands() if f"{self.folder}/clientpolicy-demo-" in line] == []
        return self.process.returncode, output, errors


def commands() -> list[str]:
    """Return the command lines of all processes."""
    if not Path("/proc/self/cmdline").exists():
        return subprocess.run(
            ["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended by now
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


Start = Callable[..., Demo]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts runs, and stops those that a failed test has left running."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(folder, *arguments))
        return started[-1]

    yield start
    for demo in started:
        if demo.process.poll() is None:
            demo.process.terminate()
        demo.process.communicate(timeout=TIMEOUT_S)


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


def test_every_step_is_as_expected_and_nothing_is_left(start: Start) -> None:
    status, output, errors = start("--json").finish()
    got = rows(output)
    assert expected_of(got) == EXPECTED
    assert [row for row in got if row["ok"] is not True] == [], errors
    assert [row for row in got if isinstance(row["expect"], int) and row["got"] != row["expect"]] == []
    assert (status, errors) == (0, "")


def test_quotas_in_a_redis_leave_nothing_there(start: Start, own_redis: redis_server.RedisServer) -> None:
    def ask(*command: str) -> bytes:
        with socket.create_connection(("127.0.0.1", own_redis.port), timeout=10) as connection:
            connection.sendall(f"{' '.join(command)}\r\n".encode())
            return connection.recv(65_536)

    assert ask("SET", "of-a-person", "1") == b"+OK\r\n"
    status, output, errors = start("--json", "--redis", own_redis.url).finish()
    assert [row for row in rows(output) if row["ok"] is not True] == [], errors
    assert status == 0
    assert b"cmdstat_evalsha" in ask("INFO", "commandstats"), "the quotas were spent there"
    assert ask("KEYS", "*") == b"*1\r\n$11\r\nof-a-person\r\n"


def interrupt(demo: Demo, number: signal.Signals, after: int) -> tuple[int, str, str]:
    for _ in range(after):
        assert demo.stream("stdout").readline().endswith("}\n")
    demo.process.send_signal(number)
    return demo.finish()


@pytest.mark.parametrize(
    ("number", "after"),
    [
        pytest.param(signal.SIGINT, 1, id="Ctrl-C after the first step"),
        pytest.param(signal.SIGTERM, 5, id="SIGTERM amid the tokens"),
        pytest.param(signal.SIGHUP, 10, id="SIGHUP amid the patients"),
    ],
)
def test_an_interruption_amid_the_steps_leaves_nothing(start: Start, number: signal.Signals, after: int) -> None:
    status, output, errors = interrupt(start("--json"), number, after)
    finished = len(rows(output)) + after == len(EXPECTED)  # the signal came when all was over
    assert (status, errors) == (0 if finished else 128 + number, "")


@pytest.mark.parametrize("after", [28, 29, 30, 31])
def test_an_interruption_near_the_end_leaves_nothing(start: Start, after: int) -> None:
    status, output, _ = interrupt(start("--json"), signal.SIGINT, after)
    finished = len(rows(output)) + after == len(EXPECTED)
    assert status in (128 + signal.SIGINT, *((0, -signal.SIGINT) if finished else ())), "a run that is over may be good"


def test_an_interruption_while_parts_are_starting_leaves_nothing(start: Start) -> None:
    for part in ("ca.pem", "authz.yaml", "authz.log", "envoy.log"):
        demo = start("--json")
        while not list(demo.folder.glob(f"*/{part}")):
            assert demo.process.poll() is None, "it has not ended by itself"
            time.sleep(0.005)
        demo.process.send_signal(signal.SIGINT)
        demo.process.send_signal(signal.SIGINT)
        status, output, errors = demo.finish()
        assert (status, output, errors) == (130, "", ""), part


def test_kept_running_its_curl_lines_work_until_it_is_interrupted(start: Start) -> None:
    redis_server.require("curl")
    demo = start("--json", "--keep")
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


def test_the_table_ends_with_its_verdict(start: Start) -> None:
    status, output, errors = start().finish()
    assert (status, errors) == (0, "")
    assert output.splitlines()[-1] == f"{len(EXPECTED)} of {len(EXPECTED)} steps as expected"
    assert "✗" not in output


def test_a_taken_port_is_told_in_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output, errors = start("--json", "--port", str(port)).finish()
    assert (status, output) == (2, "")
    assert errors == f"clientpolicy demo: port {port} on 127.0.0.1: Address already in use\n"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://somebody:hunter2@127.0.0.1:{port}/0", "ConnectionError: is a Redis there, and the URL right?\n"),
        ("https://somebody:hunter2@127.0.0.1:{port}/", "expected a URL that begins with"),
    ],
)
def test_a_redis_that_is_not_there_is_told_in_one_line_without_its_password(start: Start, url: str, why: str) -> None:
    with socket.socket() as bound:  # bound, but nobody listens
        bound.bind(("127.0.0.1", 0))
        status, output, errors = start("--json", "--redis", url.format(port=bound.getsockname()[1])).finish()
    assert (status, output) == (2, "")
    assert errors.startswith(f"clientpolicy demo: --redis: {why}")
    assert "hunter2" not in errors
    assert errors.count("\n") == 1
