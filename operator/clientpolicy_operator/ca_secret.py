"""The Secret that holds the built-in CA: its data, its labels, and the annotations that say where a rotation stands."""

from __future__ import annotations

import base64
from typing import Any, Final

from clientpolicy_operator.authority import Authority, encode
from clientpolicy_operator.facts import Document
from clientpolicy_operator.settings import CA_NAME
from clientpolicy_operator.told import map_of

ANNOTATION: Final = "authz.healthtech.dev/"
ROTATE: Final = f"{ANNOTATION}rotate"  # set by a person who wants another root; taken away once it is under way
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"  # of a Secret it holds the private key
LABELS: Final = {"app.kubernetes.io/managed-by": "clientpolicy", "app.kubernetes.io/component": "trust"}


def secret_body(authority: Authority, old: Document | None) -> Document:
    """Return the Secret of a CA; what people wrote on the old one stays."""
    data, notes = encode(authority)
    metadata: dict[str, Any] = dict(map_of(old.get("metadata"))) if old is not None else {"name": CA_NAME}
    kept = {
        name: value
        for name, value in map_of(metadata.get("annotations")).items()
        if name != LAST_APPLIED and (not name.startswith(ANNOTATION) or (name == ROTATE and authority.upcoming is None))
    }
    metadata["labels"] = {**map_of(metadata.get("labels")), **LABELS}
    metadata["annotations"] = kept | {f"{ANNOTATION}{name}": value for name, value in notes.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque" if old is None else old.get("type", "Opaque"),
        "metadata": metadata,
        "data": {name: base64_of(value) for name, value in data.items()},
    }


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
