"""The CustomResourceDefinition of ClientPolicy, as it is installed."""

from __future__ import annotations

from importlib.resources import files


def crd() -> str:
    """Return the definition as YAML, comments included."""
    return (files("authz.policy") / "clientpolicy.yaml").read_text(encoding="utf-8")
