"""A configuration file and the environment → a model's value, or every mistake with its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from authz.edge.manifests import Plain, Unreadable, read_documents
from authz.edge.overrides import Misconfigured, override
from authz.policy import field_errors

Model = TypeVar("Model", bound=BaseModel)


class SettingsModel(BaseModel):
    """A map of the configuration: camel-case keys, and no other key."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, coerce_numbers_to_str=True)


def load(model: type[Model], names: Mapping[str, str], path: Path | None, environment: Mapping[str, str]) -> Model:
    """Return what a file says (without one: nothing), overridden by `CLIENTPOLICY_...`.

    Validators find the file's folder as `info.context["folder"]`.

    Raises:
        Misconfigured: with every mistake.
    """
    value = _read(path) if path is not None else {}
    folder = path.resolve().parent if path is not None else Path()
    try:
        return model.model_validate(override(value, environment, names), context={"folder": folder})
    except ValidationError as invalid:
        shown = path if path is not None else "configuration"
        mistakes = tuple(f"{shown}: {error.place or '.'}: {error.message}" for error in field_errors(invalid))
        raise Misconfigured(mistakes) from None


def _read(path: Path) -> dict[str, Plain]:
    try:
        documents = read_documents(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured((f"{path}: cannot be read: {error.strerror}",)) from None
    except UnicodeDecodeError:
        raise Misconfigured((f"{path}: not UTF-8 text",)) from None
    except Unreadable as unreadable:
        raise Misconfigured((f"{path}:{unreadable.line}: {unreadable.message}",)) from None
    value = documents[0].value if documents else {}
    if len(documents) > 1 or not isinstance(value, dict):
        raise Misconfigured((f"{path}: expected one YAML map",))
    return value
