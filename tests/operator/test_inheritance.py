"""Whose Secret it was: the same policy under another UID keeps it, and nobody who is merely called the same."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from clientpolicy_operator.facts import Document, Entry
from clientpolicy_operator.inheritance import estate, owner_before
from clientpolicy_operator.issue import key_pem, request_digest
from clientpolicy_operator.plan import Inherit, plan
from clientpolicy_operator.secret import OWNER, REQUEST, marks
from one_policy import START, World, subject
from partner import certificate

LEAF, OTHER = certificate("app"), certificate("other")
SUBJECT = subject(uid="new", certificate={"source": "Issued"})
POLICY = SUBJECT.policy or pytest.fail("no policy")


def secret(notes: dict[str, Any] | None = None, **metadata: Any) -> Document:
    data = {"tls.crt": LEAF.pem.encode(), "tls.key": key_pem(LEAF.key)}
    annotations = {OWNER: "old", REQUEST: request_digest(POLICY), **marks(SUBJECT, POLICY)} | (notes or {})
    return {
        "metadata": {"annotations": annotations} | metadata,
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }


def row(sha256: str = LEAF.fingerprint, **change: Any) -> Entry:
    made = Entry(
        revision=1, sha256=sha256, serial="a1", not_before=START, not_after=START + timedelta(days=30),
        ca_sha256="c" * 64, recorded=START, namespace="default",
    )  # fmt: skip
    return replace(made, **change)


PREFIX = "authz.healthtech.dev/"


@pytest.mark.parametrize(
    ("found", "uid"),
    [
        (secret(), "old"),
        (None, None),
        ({}, None),
        ({"metadata": {"annotations": 7}}, None),
        (secret({OWNER: "new"}), None),
        (secret({OWNER: ""}), None),
        (secret({OWNER: 7}), None),
        (secret({f"{PREFIX}policy-namespace": "another"}), None),
        (secret({f"{PREFIX}policy-name": "another"}), None),
        (secret({f"{PREFIX}client-id": "another"}), None),
        (secret({REQUEST: "1:another"}), None),
        (secret({REQUEST: ""}), None),
        (secret({REQUEST: request_digest(POLICY).removeprefix("1:")}), "old"),
        (secret(deletionTimestamp="2026-11-23T12:00:00Z"), None),
    ],
)
def test_same_namespace_name_client_id_and_request(found: Document | None, uid: str | None) -> None:
    assert owner_before(found, SUBJECT, POLICY) == uid


@pytest.mark.parametrize("missing", [f"{PREFIX}policy-namespace", f"{PREFIX}policy-name", f"{PREFIX}client-id"])
def test_secret_of_before_these_marks_is_not_known_again(missing: str) -> None:
    found: Any = secret()
    del found["metadata"]["annotations"][missing]
    assert owner_before(found, SUBJECT, POLICY) is None


def test_cert_managers_secret_is_cert_managers_to_make() -> None:
    other = subject(uid="new", certificate={"source": "Issued", "issuerRef": {"name": "x"}})
    assert other.policy is not None
    assert marks(other, other.policy) == {}
    assert owner_before(secret(), other, other.policy) is None


@pytest.mark.parametrize(
    ("left", "own", "is_kept"),
    [
        ([row()], [], True),
        ([row(OTHER.fingerprint), row(revision=2)], [], True),
        ([row()], [row()], True),
        ([], [], False),
        ([row(OTHER.fingerprint)], [], False),
        ([row(is_gone=True)], [], False),
        ([row(), row(OTHER.fingerprint, is_gone=True)], [], False),
        ([row(namespace="another")], [], False),
        ([row()], [row(OTHER.fingerprint)], False),
    ],
    ids=[
        "signed", "signed again", "broken off", "never signed", "another was signed", "seen to go", "seen to go since",
        "of another namespace", "has one of its own",
    ],
)  # fmt: skip
def test_rows_go_over_where_the_ledger_never_saw_it_go(left: list[Entry], own: list[Entry], *, is_kept: bool) -> None:
    assert estate(secret(), SUBJECT, POLICY, left=left, own=own) == (tuple(left) if is_kept else ())


def test_secret_without_its_key_is_not_kept() -> None:
    found: Any = secret()
    found["data"]["tls.key"] = ""
    assert estate(found, SUBJECT, POLICY, left=[row()], own=[]) == ()


def test_what_is_inherited_comes_before_all_else() -> None:
    world = World(SUBJECT)
    planned = plan(SUBJECT, replace(world.observe(), inherits="old"), START)
    assert planned.actions == (Inherit(uid="old"),)
