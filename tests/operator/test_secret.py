"""A client's Secret: whose it is, how it is dressed, and what of it is somebody else's."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from clientpolicy_operator.authority import new_root, sign
from clientpolicy_operator.facts import Blocked, Flaw, Held, Subject, Trouble
from clientpolicy_operator.issue import build, key_pem, leaf_of, pem_of
from clientpolicy_operator.secret import (
    APPLIED,
    LABELS,
    OWNER,
    RENEWED,
    REQUEST,
    REVISION,
    body,
    data_of,
    dress,
    held,
    is_dressed,
)
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START, subject
from partner import ec_key

from authz.policy import ClientPolicy

ROOT = new_root(now=START, life=timedelta(days=3650), serial=1)
TEMPLATE = {"labels": {"team": "partners"}, "annotations": {"example.com/note": "x"}}
OURS = {
    "apiVersion": "authz.healthtech.dev/v1alpha1", "kind": "ClientPolicy", "name": "partner", "uid": "uid-1",
    "controller": True, "blockOwnerDeletion": False,
}  # fmt: skip
OTHER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "uid-other"}
CONTROLLER = {**OTHER, "kind": "Certificate", "controller": True}


MARKS = {
    "authz.healthtech.dev/policy-namespace": "default",
    "authz.healthtech.dev/policy-name": "partner",
    "authz.healthtech.dev/client-id": "trusted-partner-app",
}


def wanted(**certificate: Any) -> tuple[Subject, ClientPolicy]:
    made = subject(certificate={"source": "Issued", **certificate})
    assert made.policy is not None
    return made, made.policy


SUBJECT, POLICY = wanted(secretTemplate=TEMPLATE)
LEAF = sign(
    ROOT, build(POLICY, ec_key().public_key(), serial=7, window=(START, START + timedelta(days=30)))
)  # fmt: skip
FILES = {"tls.crt": pem_of(LEAF), "tls.key": key_pem(ec_key()), "ca.crt": pem_of(ROOT.certificate)}


def encoded(files: dict[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in files.items()}


def made(old: dict[str, Any] | None = None) -> dict[str, Any]:
    return body(old, SUBJECT, POLICY, files=FILES, request="r1", revision=3)


def test_new_secret_is_exactly_this() -> None:
    assert made() == {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": "partner-tls",
            "namespace": "default",
            "labels": {"team": "partners"} | LABELS,
            "annotations": {
                "example.com/note": "x",
                OWNER: "uid-1",
                REQUEST: "r1",
                REVISION: "3",
                APPLIED: '{"labels":["team"],"annotations":["example.com/note"]}',
            }
            | MARKS,
            "ownerReferences": [OURS],
        },
        "data": encoded(FILES),
    }


def test_what_was_made_is_held_as_made() -> None:
    found = made()
    found["metadata"]["resourceVersion"] = "42"
    assert held(found, SUBJECT, POLICY) == Held(
        leaf=leaf_of(LEAF), request="r1", revision=3, is_dressed=True, version="42"
    )


def test_of_the_secret_before_only_what_is_others_stays() -> None:
    old = made()
    old["metadata"] |= {"resourceVersion": "7", "uid": "s-1"}
    old["metadata"]["labels"]["backup"] = "yes"
    old["metadata"]["annotations"]["reloader"] = "on"
    old["metadata"]["ownerReferences"].insert(0, OTHER)
    old["data"] |= {"keystore.p12": "AAAA", "tls.key": "b2xk"}
    new = body(old, SUBJECT, POLICY, files={"tls.crt": b"c", "ca.crt": b"d"}, request="r2", revision=4)
    assert new["data"] == {"keystore.p12": "AAAA", "tls.crt": "Yw==", "ca.crt": "ZA=="}, "no key of before"
    assert new["metadata"] == old["metadata"] | {
        "annotations": old["metadata"]["annotations"] | {REQUEST: "r2", REVISION: "4"}
    }


BARE = {"source": "Issued"}
FEWER: dict[str, tuple[dict[str, Any], set[str], set[str]]] = {
    "nothing left": (BARE, {"backup"}, {"reloader"}),
    "another name": (BARE | {"secretTemplate": {"labels": {"squad": "b"}}}, {"backup", "squad"}, {"reloader", APPLIED}),
    "one of the two": (
        BARE | {"secretTemplate": {"annotations": {"example.com/note": "y"}}},
        {"backup"},
        {"reloader", "example.com/note", APPLIED},
    ),
    "others' name": (BARE | {"secretTemplate": {"labels": {"backup": "no"}}}, {"backup"}, {"reloader", APPLIED}),
}


@pytest.mark.parametrize(("certificate", "labels", "annotations"), FEWER.values(), ids=FEWER)
def test_what_a_template_no_longer_has_goes_and_what_others_put_there_stays(
    certificate: dict[str, Any], labels: set[str], annotations: set[str]
) -> None:
    found = made()["metadata"]
    found["labels"]["backup"] = "yes"
    found["annotations"]["reloader"] = "on"
    subject, policy = wanted(**certificate)
    assert not is_dressed(found, subject, policy)
    dressed = dress(found, subject, policy)
    assert set(dressed["labels"]) - set(LABELS) == labels
    assert set(dressed["annotations"]) - {OWNER, REQUEST, REVISION, *MARKS} == annotations
    assert is_dressed(dressed, subject, policy), "and it is done once"


@pytest.mark.parametrize(
    "noted", ["", "no JSON", "[]", "null", '{"labels": 7}', '{"labels": [7, null]}', "[" * 5000, "9" * 5000]
)
def test_memory_of_a_template_that_cannot_be_read_takes_nothing_away(noted: str) -> None:
    found = made()["metadata"]
    found["annotations"][APPLIED] = noted
    dressed = dress(found, SUBJECT, POLICY)
    assert dressed["labels"] == found["labels"]
    assert dressed["annotations"][APPLIED] == made()["metadata"]["annotations"][APPLIED]


def test_csr_makes_an_opaque_secret() -> None:
    made, policy = wanted(source="CSR", csr="-----BEGIN CERTIFICATE REQUEST-----")
    assert body(None, made, policy, files={"tls.crt": b"c"}, request="r", revision=1)["type"] == "Opaque"


FOREIGN: dict[str, Any] = {
    "no metadata": {},
    "no annotation": {"metadata": {"annotations": None}},
    "of a namesake that is gone": {"metadata": {"annotations": {OWNER: "uid-0"}}},
    "owner reference alone": {"metadata": {"ownerReferences": [OURS]}},
    "labels like ours": {"metadata": {"labels": LABELS}},
}


@pytest.mark.parametrize("found", FOREIGN.values(), ids=FOREIGN)
def test_foreign_secret_is_never_adopted_whatever_is_in_it(found: dict[str, Any]) -> None:
    told = "Secret partner-tls is there and not this policy's; delete it, or make a policy of another secretName"
    assert held({**found, "data": encoded(FILES)}, SUBJECT, POLICY) == Blocked(
        trouble=Trouble.SECRET_CONFLICT, message=told
    )


def test_none_is_none() -> None:
    assert held(None, SUBJECT, POLICY) is None


MANGLED: dict[str, tuple[dict[str, Any], Flaw]] = {
    "no data": ({"data": None}, Flaw.MISSING_DATA),
    "data is a list": ({"data": ["tls.crt"]}, Flaw.MISSING_DATA),
    "not base64": ({"data": {**encoded(FILES), "tls.crt": "*"}}, Flaw.MISSING_DATA),
    "not ASCII": ({"data": {**encoded(FILES), "tls.crt": "é"}}, Flaw.MISSING_DATA),
    "not text": ({"data": {**encoded(FILES), "tls.crt": 7}}, Flaw.MISSING_DATA),
    "key cut off": (
        {"data": {**encoded(FILES), "tls.key": encoded({"": FILES["tls.key"][:40]})[""]}},
        Flaw.INVALID_KEY_PAIR,
    ),
    "no certificate": ({"data": {**encoded(FILES), "tls.crt": "AAAA"}}, Flaw.INVALID_CERTIFICATE),
}


@pytest.mark.parametrize(("change", "flaw"), MANGLED.values(), ids=MANGLED)
def test_mangled_secret_is_ours_with_a_flaw(change: dict[str, Any], flaw: Flaw) -> None:
    found = held(made() | change, SUBJECT, POLICY)
    assert isinstance(found, Held)
    assert (found.leaf, found.flaw) == (None, flaw)


@pytest.mark.parametrize(
    ("noted", "revision"), [("3", 3), ("", 0), ("-1", 0), ("1e3", 0), ("9" * 9, 10**9 - 1), ("9" * 5000, 0), (7, 7)]
)
def test_revision_is_read_from_whatever_stands_there(noted: object, revision: int) -> None:
    found = made()
    found["metadata"]["annotations"][REVISION] = noted
    kept = held(found, SUBJECT, POLICY)
    assert isinstance(kept, Held)
    assert kept.revision == revision


Texts = st.dictionaries(st.sampled_from(["a", "team", OWNER, REQUEST, "example.com/note"]), st.text(max_size=3))
Owners = st.lists(st.sampled_from([OURS, OURS | {"controller": False}, OTHER, CONTROLLER]), max_size=3)
Mess = st.none() | st.integers() | st.lists(st.integers())


@given(
    labels=Texts | Mess, annotations=Texts | Mess, owners=Owners | Mess, policy=st.sampled_from(["Delete", "Retain"])
)  # fmt: skip
def test_dressed_stays_dressed_and_others_labels_stay(labels: Any, annotations: Any, owners: Any, policy: str) -> None:
    of, wish = wanted(secretTemplate=TEMPLATE, secretDeletionPolicy=policy)
    before = {"labels": labels, "annotations": annotations, "ownerReferences": owners}
    after = dress(before, of, wish)
    assert is_dressed(after, of, wish)
    assert dress(after, of, wish) == after
    assert after["annotations"][OWNER] == "uid-1"
    if isinstance(labels, dict):
        assert labels.keys() <= after["labels"].keys()
    if isinstance(owners, list) and OTHER in owners:
        assert OTHER in after["ownerReferences"]


OWNED: dict[str, tuple[list[dict[str, Any]], str, list[dict[str, Any]]]] = {
    "deleted with its policy": ([], "Delete", [OURS]),
    "kept without it": ([OURS], "Retain", []),
    "others own it, too": ([OTHER], "Delete", [OTHER, OURS]),
    "order is others' to choose": ([OURS, OTHER], "Delete", [OURS, OTHER]),
    "others own what is kept": ([OURS, OTHER], "Retain", [OTHER]),
    "somebody else controls it": ([CONTROLLER], "Delete", [CONTROLLER, OURS | {"controller": False}]),
    "somebody else came to control it": ([OURS, CONTROLLER], "Delete", [OURS | {"controller": False}, CONTROLLER]),
    "of a namesake that is gone": ([OURS | {"uid": "uid-0"}], "Delete",
                                   [OURS | {"uid": "uid-0"}, OURS | {"controller": False}]),
}  # fmt: skip


@pytest.mark.parametrize(("before", "policy", "after"), OWNED.values(), ids=OWNED)
def test_owners_are_ours_and_others_and_one_controller(
    before: list[dict[str, Any]], policy: str, after: list[dict[str, Any]]
) -> None:
    of, wish = wanted(secretDeletionPolicy=policy)
    assert dress({"ownerReferences": before}, of, wish)["ownerReferences"] == after


UNDRESSED: dict[str, dict[str, Any]] = {
    "label gone": {"labels": {}},
    "label of another value": {"labels": {"team": "x"} | LABELS},
    "annotation of another value": {"annotations": {OWNER: "uid-1", "example.com/note": "y"}},
    "owner gone": {"ownerReferences": []},
    "owner by another name": {"ownerReferences": [OURS | {"name": "old"}]},
}


@pytest.mark.parametrize("change", UNDRESSED.values(), ids=UNDRESSED)
def test_undressed_is_seen(change: dict[str, Any]) -> None:
    metadata = made()["metadata"]
    assert is_dressed(metadata, SUBJECT, POLICY)
    assert not is_dressed(metadata | change, SUBJECT, POLICY)


def test_template_cannot_speak_for_the_operator() -> None:
    forged = {OWNER: "uid-9", REQUEST: "forged", REVISION: "99", RENEWED: "now", APPLIED: "{}"}
    of, wish = wanted(secretTemplate={"labels": {"app.kubernetes.io/managed-by": "x"}, "annotations": forged})
    new = body(None, of, wish, files=FILES, request="r1", revision=1)
    assert new["metadata"]["annotations"] == {OWNER: "uid-1", REQUEST: "r1", REVISION: "1"} | MARKS
    assert new["metadata"]["labels"] == LABELS
    assert is_dressed(new["metadata"], of, wish)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.none() | st.integers()))
def test_data_that_is_not_base64_counts_as_absent(data: dict[str, Any]) -> None:
    assert all(isinstance(value, bytes) for value in data_of({"data": data}).values())
