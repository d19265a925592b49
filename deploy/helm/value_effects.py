#!/usr/bin/env python3
"""Changes each value of the chart in turn and tells which change nothing in what is rendered: value_effects.py CHART.

A value that nothing reads, because a template has it misspelt, is no error to Helm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Keys = tuple[str, ...]
DIGEST = "sha256:" + "0" * 64
# What to change a value to where its type does not tell.
OTHER: dict[str, object] = {
    "redis.url": "redis://other:6379",
    "pullPolicy": "Always",
    "openshift": True,
    "digest": DIGEST,
    "serviceType": "ClusterIP",
    "interval": "7s",
    "issuer": "https://other.example",
    "audience": "https://other.example",
    "resources": {"limits": {"memory": "7Gi"}},
    "egressPorts": [7],
    "redisPorts": [7],
    "topologySpreadConstraints": [{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}}],
    "affinity": {"podAffinity": {}},
    "operator.config": {"certificates": {"workers": 7}},
    "authz.config": {"fhir": {"basePath": "/other"}},
    "namespaces": ["other"],
    "hosts": ["other.example"],
    "ceilings": [{"namespaces": ["other"]}],
    "clientCas": [{"configMap": "other"}],
}
# What else is given, by the beginning of the path. The trial takes Helm a second, for its keys.
EVERY_POD = [{"namespaceSelector": {}}]
REDIS = {"redis": {"url": "redis://one:6379"}, "networkPolicy": {"gateways": EVERY_POD}}
METRICS = ("serviceMonitor", "prometheusRule", "dashboard")
TRIAL = {"trial": {"enabled": True}}
NEEDS: dict[str, dict[str, Any]] = {
    "redis.existingSecret.name": TRIAL,
    "redis.existingSecret": {"redis": {"existingSecret": {"name": "one"}}, "networkPolicy": {"gateways": EVERY_POD}},
    "redis.passwordSecret": REDIS | {"redis": {"url": "redis://one:6379", "passwordSecret": {"name": "one"}}},
    "redis": TRIAL,
    "authz.tls": REDIS | {"authz": {"tls": {"existingSecret": "one"}}},
    **dict.fromkeys(("authz.autoscaling.enabled", *(f"metrics.{part}.enabled" for part in METRICS)), REDIS),
    "authz.autoscaling": REDIS | {"authz": {"autoscaling": {"enabled": True}}},
    "metrics": REDIS | {"metrics": {part: {"enabled": True} for part in METRICS}},
    "rbac.aggregateToEdit": REDIS | {"ceilings": [{"namespaces": ["a"]}]},
    "trial.enabled": REDIS,
    "trial.redis": TRIAL,
    "trial.services.enabled": REDIS | {"trial": {"enabled": True, "gateway": {"enabled": False}}},
    "trial": REDIS | TRIAL,
    "": REDIS,
}
# Their effect is in a certificate, which is another one each time: tests/e2e calls the gateway by these names.
UNSEEN = {("trial", "gateway", "hosts")}


def values(schema: dict[str, Any], path: Keys = ()) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Return the path and schema of each value; a map that may have any key is one, and so is a configuration."""
    for key, inner in schema["properties"].items():
        if key == "global":
            continue
        if "properties" in inner and key not in ("resources", "config"):
            yield from values(inner, (*path, key))
        else:
            yield (*path, key), inner


def other(path: Keys, schema: dict[str, Any], default: object) -> object:
    """Return another value of the type."""
    for name, value in OTHER.items():
        if ".".join(path).endswith(name):
            return value
    match default:
        case bool():
            return not default
        case int():
            return default + 1
        case str():
            return f"{default}other"
        case list():
            required = schema.get("items", {}).get("required", ["name"])
            return [dict.fromkeys(required, "other")]
        case _:
            return {"other": "other"}


def nested(path: Keys, value: object) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if path[1:] else value}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for key, value in over.items():
        below = made.get(key)
        made[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return made


def rendered(chart: Path, given: dict[str, Any]) -> list[Any]:
    """Return the objects without the Secrets, which are drawn by chance.

    Raises:
        subprocess.CalledProcessError: Helm refuses.
    """
    command = ["helm", "template", "clientpolicy", str(chart), "--values", "-"]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True)  # noqa: S603 ours
    objects = yaml.load_all(done.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [one for one in objects if one is not None and one.get("kind") != "Secret"]


@cache
def rendered_once(chart: Path, given: str) -> list[Any]:
    return rendered(chart, json.loads(given))


def has_effect(chart: Path, path: Keys, change: object) -> bool:
    given = next(given for prefix, given in NEEDS.items() if ".".join(path).startswith(prefix))
    try:
        return rendered_once(chart, json.dumps(given)) != rendered(chart, merged(given, nested(path, change)))
    except subprocess.CalledProcessError as failed:
        if "execution error" in failed.stderr:  # a template refuses it, so one reads it
            return True
        sys.exit(f"{'.'.join(path)}: {failed.stderr}")


def default_of(path: Keys, values: Any) -> object:  # noqa: ANN401 a document
    return default_of(path[1:], values[path[0]]) if path else values


def main() -> None:
    chart = Path(sys.argv[1])
    defaults = yaml.safe_load((chart / "values.yaml").read_text())
    found = [one for one in values(json.loads((chart / "values.schema.json").read_text())) if one[0] not in UNSEEN]
    changes = [(path, other(path, schema, default_of(path, defaults))) for path, schema in found]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        effects = list(pool.map(lambda one: has_effect(chart, *one), changes))
    idle = [".".join(path) for (path, _), effect in zip(changes, effects, strict=True) if not effect]
    if idle:
        sys.exit("without effect: " + ", ".join(idle))
    sys.stdout.write(f"{len(found)} values\n")


if __name__ == "__main__":
    main()
