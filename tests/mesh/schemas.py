"""The real schemas of what the manifests configure: CRDs on an API server, and Istio's mesh configuration from its protobuf."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import modules
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from kubernetes_api import DEFINITIONS, KubernetesApi

HERE = Path(__file__).parents[1]


@cache
def folder() -> Path:
    return modules.folder("mesh", "ISTIO", "GATEWAY_API", "ENVOY_GATEWAY")


@cache
def definitions() -> dict[tuple[str, str], dict[str, Any]]:
    """Return every CRD, by group and kind."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # they are 5 MB
    files = sorted(folder().glob("*.yaml"))
    found = [one for file in files for one in yaml.load_all(file.read_text(), Loader=loader)]
    return {(one["spec"]["group"], one["spec"]["names"]["kind"]): one for one in found if one is not None}


NETWORK_POLICY = ("networking.k8s.io", "NetworkPolicy")  # of Kubernetes itself
BUILT_IN: dict[str, Any] = {"scope": "Namespaced", "names": {"plural": "networkpolicies"}}


def place(document: dict[str, Any]) -> tuple[str, str]:
    """Return the group and kind of a manifest."""
    group, _, _ = document["apiVersion"].rpartition("/")
    return group, document["kind"]


def install(plane: KubernetesApi, kinds: set[tuple[str, str]]) -> list[str]:
    """Install the CRDs of some kinds, wait until they are served, and return their names."""
    wanted = [definitions()[kind] for kind in sorted(kinds) if kind != NETWORK_POLICY]
    for definition in wanted:
        plane.must("POST", DEFINITIONS, definition)
    for definition in wanted:
        _until_served(plane, definition)
    return [definition["metadata"]["name"] for definition in wanted]


def _until_served(plane: KubernetesApi, definition: dict[str, Any]) -> None:
    spec = definition["spec"]
    paths = [
        f"/apis/{spec['group']}/{one['name']}/{spec['names']['plural']}" for one in spec["versions"] if one["served"]
    ]
    for _ in range(600):
        if all(plane.api("GET", path)[0] == 200 for path in paths):
            return
        time.sleep(0.05)
    raise AssertionError(f"{definition['metadata']['name']} is not served")


def create(plane: KubernetesApi, namespace: str, document: dict[str, Any]) -> tuple[int, Any]:
    """Have the API server judge a manifest as it would on creation, with unknown fields as errors; nothing is stored."""
    spec = BUILT_IN if place(document) == NETWORK_POLICY else definitions()[place(document)]["spec"]
    metadata = dict(document["metadata"])
    scope = ""
    if spec["scope"] == "Namespaced":
        metadata["namespace"] = namespace
        scope = f"namespaces/{namespace}/"
    path = f"/apis/{document['apiVersion']}/{scope}{spec['names']['plural']}?dryRun=All&fieldValidation=Strict"
    return plane.api("POST", path, document | {"metadata": metadata})


@cache
def _mesh_config(into: Path) -> Any:
    """Return the class of Istio's MeshConfig."""
    proto, compiled = folder() / "proto", into / "mesh.pb"
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", "--include_imports"]
    command = [*compiler, f"--descriptor_set_out={compiled}", "mesh/v1alpha1/config.proto"]
    subprocess.run(command, check=True, cwd=proto)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("istio.mesh.v1alpha1.MeshConfig"))


def mesh_config(document: dict[str, Any], into: Path) -> Any:
    """Return a mesh configuration as istiod reads it.

    Raises:
        json_format.ParseError: a field that there is not, or a value that is none.
    """
    return json_format.ParseDict(document, _mesh_config(into)())
