"""`clientpolicy operator` as it is typed: what is wrong is told in a line each, and it always ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from api_gate import lines_of
from clientpolicy_operator.settings import Settings
from operator_process import OperatorProcess, until

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMAND = [sys.executable, "-m", "authz", "operator"]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLIENTPOLICY_", "KUBE"))}
    return kept | {"HOME": "/nonexistent"} | more


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=60, env=environment(**more)
    )


def kubeconfig(folder: Path, server: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "a", "clusters": [{"name": "a", "cluster": {"server": server}}],
        "users": [{"name": "a", "user": {}}], "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }))  # fmt: skip
    return path


def test_every_mistake_is_told_at_once_with_its_key(tmp_path: Path) -> None:
    config = tmp_path / "operator.yaml"
    config.write_text(
        "namespace: Not_One\nlistens: {}\nwatch: {timeout: 1 hour}\nauthority: {life: 1m}\ncertificates: {workers: 0}\n"
    )
    done = run("--config", str(config))
    assert done.returncode == 2
    places = {line.split(": ")[1] for line in done.stderr.splitlines()}
    assert places == {"namespace", "listens", "watch.timeout", "authority", "certificates.workers"}
    assert "Traceback" not in done.stderr


def test_sighup_ends_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*COMMAND], env=environment(KUBECONFIG=str(kubeconfig(tmp_path, server)), CLIENTPOLICY_LISTEN__OPS="127.0.0.1:0"),
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        for _ in range(20):
            process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        process.communicate()


def test_environment_alone_configures_it_and_a_wrong_name_is_told() -> None:
    done = run(CLIENTPOLICY_CERTIFICATES__WORKERS="none", CLIENTPOLICY_NO_SUCH="1")
    assert done.returncode == 2
    assert "configuration: certificates.workers: " in done.stderr
    assert "configuration: no_such: no such field" in done.stderr


@pytest.mark.parametrize(
    ("name", "text"), [("missing", None), ("garbage", "a: ["), ("list", "- a"), ("latin", "\udce4")]
)
def test_unreadable_file_is_told(tmp_path: Path, name: str, text: str | None) -> None:
    config = tmp_path / name
    if text is not None:
        config.write_bytes(text.encode(errors="surrogateescape"))
    done = run("--config", str(config))
    assert done.returncode == 2
    assert str(config) in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_cluster_it_says_so() -> None:
    done = run()
    assert done.returncode == 2
    assert "no credentials for a Kubernetes API" in done.stderr
    assert "Traceback" not in done.stderr


def test_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(KUBECONFIG=str(kubeconfig(tmp_path, "http://127.0.0.1:1")), CLIENTPOLICY_LISTEN__OPS=address)
    assert done.returncode == 2
    assert f"listen.ops: cannot listen on {address}" in done.stderr


def test_api_server_that_is_away_is_waited_for_alive_and_not_ready(tmp_path: Path) -> None:
    config = kubeconfig(tmp_path, "http://127.0.0.1:1")
    with OperatorProcess(tmp_path, config, "clientpolicy-system") as operator:
        until("waiting", lambda: operator.get("/readyz")[0] == 503)
        assert operator.get("/livez")[0] == 200
        assert "policies: not listed yet" in operator.get("/readyz")[1]
        until("told", lambda: any(line["message"] == "the API server is away" for line in lines_of(operator.log)))
        assert operator.stop() == 0


def test_second_signal_and_interrupt_end_it_as_well(tmp_path: Path) -> None:
    with OperatorProcess(tmp_path, kubeconfig(tmp_path, "http://127.0.0.1:1"), "own") as operator:
        until("up", lambda: operator.get("/livez")[0] == 200)
        assert operator.process is not None
        operator.process.send_signal(signal.SIGINT)
        assert operator.process.wait(30) == 0


def test_example_is_the_default() -> None:
    read = yaml.safe_load((EXAMPLES / "operator.yaml").read_text())
    assert Settings.model_validate(read) == Settings()


def test_it_needs_no_more_than_its_own_extra() -> None:
    """The operator's image has no gRPC, Redis, JWT or watchfiles."""
    banned = ("grpc", "redis", "jwt", "uvloop", "orjson", "watchfiles", "google.protobuf", "grpc_health", "hiredis")
    program = f"""
import sys
sys.modules.update(dict.fromkeys({banned!r}))
import authz.cli, authz.operate
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
