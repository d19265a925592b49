"""What is asked of cert-manager, and what its answers mean, without a cluster."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from clientpolicy_operator.authority import new_root, sign
from clientpolicy_operator.certmanager import certificate_body, certificate_path, delegated
from clientpolicy_operator.facts import Blocked, Delegated, Observed, Subject, Trouble
from clientpolicy_operator.issue import build, key_pem, leaf_of, pem_of, request_digest
from clientpolicy_operator.plan import Action, Delegate, Discard, Dress, Report, plan
from clientpolicy_operator.secret import LABELS, OWNER, REQUEST, dress
from clientpolicy_operator.told import condition_of
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START, subject
from partner import ec_key

from authz.policy import ClientPolicy

ROOT = new_root(now=START, life=timedelta(days=3650), serial=1)
NAMES = {"commonName": "app", "uris": ["spiffe://td/app"]}
FULL_NAMES = NAMES | {"organizations": ["Partner Ltd"], "dnsNames": ["a.example"], "emails": ["a@example.org"]}


def wanted(certificate: dict[str, Any] | None = None, **spec: Any) -> tuple[Subject, ClientPolicy]:
    asked = {"source": "Issued", "issuerRef": {"name": "partners-ca"}} | (certificate or {})
    made = subject(**({"identity": NAMES} | spec), certificate=asked)
    assert made.policy is not None
    return made, made.policy


SUBJECT, POLICY = wanted()
DIGEST = request_digest(POLICY)


def test_body_says_all_that_the_policy_says() -> None:
    of, policy = wanted(
        {
            "issuerRef": {"group": "issuers.example", "kind": "ClusterIssuer", "name": "x"},
            "duration": "1h30m0.5s", "renewBefore": "10m", "profile": "Spiffe", "secretName": "other",
            "privateKey": {"algorithm": "RSA", "size": 3072, "rotationPolicy": "Never"},
            "secretTemplate": {"labels": {"team": "a"}, "annotations": {"note": "b", OWNER: "forged"}},
        },
        identity=FULL_NAMES,
    )  # fmt: skip
    assert certificate_body(of, policy, "r1") == {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {
            "name": "other", "namespace": "default", "annotations": {REQUEST: "r1"},
            "ownerReferences": [{
                "apiVersion": "authz.healthtech.dev/v1alpha1", "kind": "ClientPolicy", "name": "partner",
                "uid": "uid-1", "controller": True, "blockOwnerDeletion": False,
            }],
        },
        "spec": {
            "secretName": "other",
            "issuerRef": {"group": "issuers.example", "kind": "ClusterIssuer", "name": "x"},
            "duration": "5400s", "renewBefore": "600s",
            "usages": ["digital signature", "client auth", "key encipherment", "server auth"],
            "privateKey": {"algorithm": "RSA", "size": 3072, "rotationPolicy": "Never"},
            "secretTemplate": {"labels": {"team": "a"}, "annotations": {"note": "b", OWNER: "uid-1"}},
            "commonName": "app", "subject": {"organizations": ["Partner Ltd"]}, "uris": ["spiffe://td/app"],
            "dnsNames": ["a.example"], "emailAddresses": ["a@example.org"],
        },
    }  # fmt: skip


def test_body_leaves_out_what_the_policy_does_not_say() -> None:
    of, policy = wanted({"renewBeforePercentage": 40}, identity={"uris": ["urn:a"]})
    assert certificate_body(of, policy, "r1")["spec"] == {
        "secretName": "partner-tls",
        "issuerRef": {"group": "cert-manager.io", "kind": "Issuer", "name": "partners-ca"},
        "duration": "2592000s",
        "renewBeforePercentage": 40,
        "usages": ["digital signature", "client auth"],
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "secretTemplate": {"labels": {}, "annotations": {OWNER: "uid-1"}},
        "uris": ["urn:a"],
    }


def test_template_label_that_we_set_ourselves_is_asked_for_as_we_set_it() -> None:
    """Else cert-manager and the operator would write over each other for ever."""
    of, policy = wanted({"secretTemplate": {"labels": {"app.kubernetes.io/managed-by": "x", "a": "b"}}})
    labels = certificate_body(of, policy, "r1")["spec"]["secretTemplate"]["labels"]
    assert labels == {"app.kubernetes.io/managed-by": LABELS["app.kubernetes.io/managed-by"], "a": "b"}
    assert dress({"labels": labels}, of, policy)["labels"] == LABELS | {"a": "b"}


def test_path_is_of_all_or_of_one() -> None:
    assert certificate_path("n") == "/apis/cert-manager.io/v1/namespaces/n/certificates"
    assert certificate_path("n", "a-tls") == "/apis/cert-manager.io/v1/namespaces/n/certificates/a-tls"


def condition(name: str, status: str, reason: str, message: str) -> dict[str, str]:
    return {"type": name, "status": status, "reason": reason, "message": message}


READY = condition("Ready", "True", "Ready", "up to date")
RENEWING = condition("Issuing", "True", "Renewing", "as it ends soon")
FAILED = condition("Issuing", "False", "Failed", "quota exceeded at the CA")


def certificate(*conditions: dict[str, str], request: str = DIGEST, **spec: Any) -> dict[str, Any]:
    made = certificate_body(SUBJECT, POLICY, request)
    made["spec"] |= spec
    made["status"] = {"revision": 2, "renewalTime": "2026-12-13T12:00:00Z", "conditions": list(conditions)}
    return made


LEAF = sign(ROOT, build(POLICY, ec_key().public_key(), serial=7, window=(START, START + timedelta(days=30))))


def secret(data: dict[str, bytes] | None = None, **change: Any) -> dict[str, Any]:
    files = {"tls.crt": pem_of(LEAF), "tls.key": key_pem(ec_key())} if data is None else data
    encoded = {name: base64.b64encode(value).decode() for name, value in files.items()}
    metadata = dress({}, SUBJECT, POLICY)
    return {"type": "kubernetes.io/tls", "metadata": metadata, "data": encoded} | change


def conflict(kind: str) -> Delegated:
    told = f"{kind} partner-tls is there and not this policy's; delete it, or make a policy of another secretName"
    return Delegated(blocked=Blocked(trouble=Trouble.SECRET_CONFLICT, message=told))


WAITS = "Pending: cert-manager has not answered yet"
MADE = Delegated(
    asked=DIGEST, message="Ready: up to date", leaf=leaf_of(LEAF), revision=2,
    renewal=datetime.fromisoformat("2026-12-13T12:00:00Z"),
)  # fmt: skip
SEEN: dict[str, tuple[Any, Any, Delegated]] = {
    "nothing yet": (None, None, Delegated()),
    "a Secret of ours": (None, secret(), Delegated()),
    "a foreign Secret": (None, secret(metadata={}), conflict("Secret")),
    "a foreign Certificate": (certificate() | {"metadata": {}}, None, conflict("Certificate")),
    "a namesake's Certificate": (
        certificate() | {"metadata": {"ownerReferences": [{"uid": "uid-0"}], "annotations": {REQUEST: DIGEST}}},
        secret(),
        conflict("Certificate"),
    ),
    "our Certificate, a foreign Secret": (certificate(), secret(metadata={"annotations": {}}), conflict("Secret")),
    "asked": (certificate(), None, Delegated(asked=DIGEST, message=WAITS)),
    "asked, no status": (certificate() | {"status": None}, None, Delegated(asked=DIGEST, message=WAITS)),
    "asked for something else": (certificate(request="old"), None, Delegated(asked="old", message=WAITS)),
    "made": (certificate(READY), secret(), MADE),
    "made, another is on its way": (
        certificate(READY, RENEWING), secret(), replace(MADE, trouble="Renewing: as it ends soon"),
    ),
    "made, another was refused": (
        certificate(READY, FAILED), secret(),
        replace(MADE, message="Failed: quota exceeded at the CA", trouble="Failed: quota exceeded at the CA"),
    ),
    "key is missing": (
        certificate(READY), secret({"tls.crt": pem_of(LEAF)}),
        replace(MADE, leaf=None, message="MissingData: Ready: up to date"),
    ),
    "key of another": (
        certificate(READY), secret({"tls.crt": pem_of(LEAF), "tls.key": key_pem(ec_key("other"))}),
        replace(MADE, leaf=None, message="InvalidKeyPair: Ready: up to date"),
    ),
    "of a type that it cannot write": (
        certificate(READY), secret({"tls.crt": pem_of(LEAF)}, type="Opaque"),
        replace(MADE, leaf=None, message="MissingData: Ready: up to date", is_misfit=True),
    ),
    "labels gone": (
        certificate(READY), secret(metadata={"annotations": {OWNER: "uid-1"}}), replace(MADE, is_dressed=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "kept", "found"), SEEN.values(), ids=SEEN)
def test_what_is_seen(asked: Any, kept: Any, found: Delegated) -> None:
    assert delegated(asked, kept, SUBJECT, POLICY) == found


CHANGED: dict[str, dict[str, Any]] = {
    "common name": {"commonName": "other"},
    "another name": {"dnsNames": ["victim.example"]},
    "a name of a kind that is never asked for": {"otherNames": [{"oid": "1.2", "utf8Value": "x"}]},
    "a whole subject": {"literalSubject": "CN=victim"},
    "a CA": {"isCA": True},
    "usages": {"usages": ["digital signature", "client auth", "cert sign"]},
    "issuer": {"issuerRef": {"group": "cert-manager.io", "kind": "Issuer", "name": "evil"}},
    "duration": {"duration": "87600h"},
    "label left over": {"secretTemplate": {"labels": {"gone": "x"}, "annotations": {OWNER: "uid-1"}}},
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_certificate_that_was_changed_is_asked_for_again(change: dict[str, Any]) -> None:
    found = delegated(certificate(READY, **change), secret(), SUBJECT, POLICY)
    assert found.asked == ""


def test_what_the_api_server_fills_in_is_no_change() -> None:
    filled: dict[str, Any] = {"privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always", "encoding": "PKCS1"},
              "revisionHistoryLimit": 1}  # fmt: skip
    assert delegated(certificate(READY, **filled), secret(), SUBJECT, POLICY) == MADE


Junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    metadata=Junk, spec=Junk, status=Junk, conditions=Junk, times=Junk, revision=Junk, kept=Junk, data=Junk
)  # fmt: skip
def test_mangled_objects_raise_nothing(**junk: Any) -> None:
    ours = certificate()["metadata"]
    inner = {"conditions": junk["conditions"], "renewalTime": junk["times"], "revision": junk["revision"]}
    for metadata, status in ((junk["metadata"], junk["status"]), (ours, inner)):
        found = {"metadata": metadata, "spec": junk["spec"], "status": status}
        for held in (None, {"metadata": junk["kept"], "data": junk["data"]}, secret() | {"data": junk["data"]}):
            seen = delegated(found, held, SUBJECT, POLICY)
            assert type(seen.revision) is int


def planned(made: Delegated, policy: Subject = SUBJECT, now: datetime = START, **seen: Any) -> Action:
    (action,) = plan(policy, Observed(delegated=made, **seen), now).actions
    return action


def report(made: Delegated, policy: Subject = SUBJECT, now: datetime = START, **seen: Any) -> dict[str, Any]:
    action = planned(made, policy, now, **seen)
    assert isinstance(action, Report)
    return dict(action.status)


def conditions(status: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    names = ("CertificateReady", "Issuing")
    return {name: tuple(condition_of(status, name)[part] for part in ("status", "reason", "message")) for name in names}


def test_made_is_told_with_cert_managers_words() -> None:
    assert report(MADE)["certificate"] == {
        "secretName": "partner-tls", "serialNumber": "7", "sha256": leaf_of(LEAF).sha256,
        "notBefore": "2026-11-23T12:00:00Z", "notAfter": "2026-12-23T12:00:00Z",
        "renewalTime": "2026-12-13T12:00:00Z", "revision": 2,
    }  # fmt: skip


def test_renewal_that_fails_is_told_while_the_certificate_counts() -> None:
    status = report(replace(MADE, trouble="Failed: quota"))
    assert conditions(status) == {
        "CertificateReady": ("True", "Issued", "valid until 2026-12-23T12:00:00Z"),
        "Issuing": ("True", "Renewing", "IssuerNotReady: Failed: quota"),
    }
    assert status["certificate"]["sha256"] == leaf_of(LEAF).sha256, "whatever becomes of the next one"


def test_expired_is_told_with_cert_managers_words() -> None:
    status = report(replace(MADE, message="Failed: quota"), now=START + timedelta(days=30))
    assert conditions(status)["CertificateReady"] == ("False", "IssuerNotReady", "Failed: quota")


def test_asked_for_something_else_is_asked_anew() -> None:
    assert planned(replace(MADE, asked="")) == Delegate(request=DIGEST)


def test_secret_that_cannot_be_written_is_made_room_for() -> None:
    assert planned(replace(MADE, leaf=None, is_misfit=True)) == Discard()


def test_undressed_is_dressed() -> None:
    assert planned(replace(MADE, is_dressed=False)) == Dress()


def test_secret_that_may_not_be_read_is_said_to_be() -> None:
    unseen = Blocked(trouble=Trouble.FORBIDDEN, message="secrets is forbidden")
    status = report(Delegated(asked=DIGEST), secret=unseen)
    assert conditions(status)["CertificateReady"] == ("False", "Forbidden", "secrets is forbidden")


def test_revoked_is_discarded() -> None:
    of, _ = wanted(revocation={"fingerprints": [{"sha256": leaf_of(LEAF).sha256}]})
    assert planned(MADE, of) == Discard()


def test_revoked_by_an_instant_to_come_waits_for_it_and_is_not_told() -> None:
    """What cert-manager made until then would be refused, too."""
    later = START + timedelta(seconds=150)
    of, _ = wanted(revocation={"issuedBefore": later.isoformat()})
    status = report(MADE, of)
    assert "certificate" not in status
    assert conditions(status)["CertificateReady"][:2] == ("False", "OutsideValidity")
    settled = plan(of, Observed(delegated=MADE, status=status), START + timedelta(seconds=100))
    assert settled.actions == ()
    assert settled.again == later, "and not once every five seconds"
    assert planned(MADE, of, later, status=status) == Discard()
