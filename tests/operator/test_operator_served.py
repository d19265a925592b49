"""The operator as people use it: the real process on a real API server."""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubernetes_api import KubernetesApi, policies_in
from operator_process import OperatorProcess, Tenant, ledger_of, until

ROOT = Path(__file__).parents[2]
HEX = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
OTHER = "1234567890abcdef" * 4
TYPES = ["Accepted", "CertificateReady", "Issuing", "QuotaReady", "Programmed", "Ready"]


def files(secret: dict[str, Any] | None) -> dict[str, bytes]:
    assert secret is not None
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


def leaf(secret: dict[str, Any] | None) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files(secret)["tls.crt"])


def sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def csr(name: str = "administrator", key: ec.EllipticCurvePrivateKey | None = None) -> str:
    """A signing request that asks for names of its own choice."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://evil/x")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def published(plane: KubernetesApi, operator: OperatorProcess, kind: str = "configmaps") -> dict[str, str]:
    data = plane.must("GET", f"/api/v1/namespaces/{operator.namespace}/{kind}/clientpolicy-trust")["data"]
    if kind == "secrets":
        return {name: base64.b64decode(value).decode() for name, value in data.items()}
    return dict(data)


def revoked_serials(plane: KubernetesApi, operator: OperatorProcess) -> set[str]:
    crl = x509.load_pem_x509_crl(published(plane, operator)["ca.crl"].encode())
    return {f"{one.serial_number:x}" for one in crl}


def test_policy_becomes_secret_and_status(tenant: Tenant, operator: OperatorProcess) -> None:
    identity = {"commonName": "App", "organizations": ["Ltd"], "uris": ["spiffe://td/app"]}
    tenant.apply(identity=identity, quotas=[{"name": "q", "requests": 10, "per": "1s", "burst": 20}])
    told = tenant.ready()
    secret = tenant.secret()
    found, certificate = files(secret), leaf(secret)
    key = serialization.load_pem_private_key(found["tls.key"], None)
    assert key.public_key() == certificate.public_key()
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(found["ca.crt"]))
    assert certificate.subject.rfc4514_string() == "CN=App,O=Ltd"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (told["sha256"], told["revision"], told["secretName"]) == (sha256(certificate), 1, "app-tls")
    policy = tenant.policy()
    assert policy is not None
    assert [one["type"] for one in policy["status"]["conditions"]] == TYPES
    assert all(one["reason"] and one["observedGeneration"] == 1 for one in policy["status"]["conditions"])
    assert policy["status"]["quotas"] == [
        {
            "name": "q",
            "mode": "Enforce",
            "onStoreFailure": "Local",
            "capacity": 21,
            "periodMicroseconds": 100_000,
            "count": 1,
            "maxOvershoot": 0,
        }
    ]
    assert "annotations" not in policy["metadata"], "no framework leaves marks on people's objects"
    assert "finalizers" not in policy["metadata"]
    assert published(tenant.plane, operator) == published(tenant.plane, operator, "secrets")
    assert published(tenant.plane, operator)["ca.crt"].encode() == found["ca.crt"]
    until("events", lambda: sorted(tenant.events()) == ["Issued", "Ready"])


def second(tenant: Tenant, name: str = "app") -> dict[str, Any]:
    """Return what the status tells of the second certificate, once it is there."""
    until("the second", lambda: tenant.is_ready(name) and tenant.certificate(name)["revision"] == 2)
    return tenant.certificate(name)


def test_names_come_from_the_policy_and_never_from_a_csr(tenant: Tenant) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    tenant.apply(identity={"commonName": "app"}, certificate={"source": "CSR", "csr": csr(key=key)})
    tenant.ready()
    secret = tenant.secret()
    assert secret is not None
    assert secret["type"] == "Opaque"
    assert set(secret["data"]) == {"tls.crt", "ca.crt"}
    certificate = leaf(secret)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=app"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_bad_csr_is_told_and_a_good_one_mends_it(tenant: Tenant) -> None:
    bad = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
    tenant.apply(certificate={"source": "CSR", "csr": bad})
    until("refusal", lambda: tenant.condition("CertificateReady") == ("False", "CSRInvalid"))
    assert tenant.secret() is None
    tenant.apply(certificate={"source": "CSR", "csr": csr()})
    tenant.ready()


def test_certificates_of_a_stolen_key_go_together(tenant: Tenant) -> None:
    """One of them is revoked for its key: the later one has the same, so it identifies nobody either."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = {"source": "CSR", "csr": csr(key=key)}
    tenant.apply(certificate=wanted, identity={"commonName": "one"})
    first = tenant.ready()
    tenant.apply(certificate=wanted, identity={"commonName": "two"})
    second(tenant)
    tenant.patch(revocation={"fingerprints": [{"sha256": first["sha256"], "reason": "KeyCompromise"}]})
    until("refused", lambda: tenant.condition("CertificateReady") == ("False", "CSRInvalid"))
    assert not {"sha256", "previous"} & tenant.certificate().keys()


def test_compromised_key_is_not_certified_again(tenant: Tenant, operator: OperatorProcess) -> None:
    compromised = {"reason": "KeyCompromise"}
    request = csr()
    tenant.apply("csr", certificate={"source": "CSR", "csr": request})
    tenant.apply("own", certificate={"privateKey": {"rotationPolicy": "Never"}})
    told = {name: tenant.ready(name) for name in ("csr", "own")}
    old_key = files(tenant.secret("own-tls"))["tls.key"]
    for name in ("csr", "own"):
        tenant.patch(name, revocation={"fingerprints": [{"sha256": told[name]["sha256"]} | compromised]})
    until("refused", lambda: tenant.condition("CertificateReady", "csr") == ("False", "CSRInvalid"))
    tenant.plane.must("DELETE", f"/api/v1/namespaces/{tenant.namespace}/secrets/csr-tls")
    line = 'clientpolicy_reconciles_total{result="settled"}'
    visits = operator.metric(line)
    until("looked at again", lambda: operator.metric(line) > visits + 40)
    assert tenant.secret("csr-tls") is None, "the ledger remembers the key"
    tenant.patch("csr", certificate={"csr": csr()})
    for name in ("csr", "own"):
        second(tenant, name)
    assert files(tenant.secret("own-tls"))["tls.key"] != old_key


def test_external_fingerprints_are_told_in_status_and_none_needs_none(tenant: Tenant) -> None:
    tenant.apply("out", certificate={"source": "External", "fingerprints": [HEX]})
    tenant.apply("tok", certificate={"source": "None"})
    assert tenant.ready("out") == {"fingerprints": [HEX]}
    assert tenant.ready("tok") == {}
    assert tenant.secret("out-tls") is None


def test_each_source_is_taken_up_at_once_whatever_it_was_before(tenant: Tenant) -> None:
    """No certificate of another replica is waited for (30 s) where this one signed the last."""
    sources: dict[str, dict[str, Any]] = {
        "Issued": {}, "CSR": {"csr": csr()}, "External": {"fingerprints": ["ab" * 32]}, "None": {},
    }  # fmt: skip
    for source in ("CSR", "External", "Issued", "None", "CSR", "Issued", "External", "CSR"):
        tenant.apply(certificate={"source": source} | sources[source], token={"required": source == "None"})
        until(f"{source} is ready", tenant.is_ready, deadline_s=25)


def test_edit_of_what_is_certified_reissues_and_keeps_the_previous(tenant: Tenant) -> None:
    tenant.apply(identity={"commonName": "one"})
    first = tenant.ready()
    tenant.apply(identity={"commonName": "two"})
    second = until(
        "the second", lambda: tenant.is_ready() and tenant.certificate()["revision"] == 2 and tenant.certificate()
    )
    assert [one["sha256"] for one in second["previous"]] == [first["sha256"]]
    assert leaf(tenant.secret()).subject.rfc4514_string() == "CN=two"


def test_suspension_is_told_and_keeps_the_certificate(tenant: Tenant) -> None:
    tenant.apply()
    first = tenant.ready()
    tenant.patch(suspended=True)
    until("suspended", lambda: tenant.condition("Ready") == ("False", "Suspended"))
    assert tenant.certificate() == first


def test_revoked_certificate_is_replaced_and_listed_in_the_crl(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.apply()
    first = tenant.ready()
    tenant.patch(revocation={"fingerprints": [{"sha256": first["sha256"], "reason": "KeyCompromise"}]})
    second = until(
        "another",
        lambda: tenant.is_ready() and tenant.certificate()["sha256"] != first["sha256"] and tenant.certificate(),
    )
    assert "previous" not in second
    until("CRL", lambda: first["serialNumber"] in revoked_serials(tenant.plane, operator))
    assert second["serialNumber"] not in revoked_serials(tenant.plane, operator)


def test_issued_before_replaces_all_older_ones(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.apply()
    first = tenant.ready()
    tenant.patch(revocation={"issuedBefore": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")})
    second = until(
        "another",
        lambda: tenant.is_ready() and tenant.certificate()["sha256"] != first["sha256"] and tenant.certificate(),
    )
    assert "previous" not in second
    until("CRL", lambda: first["serialNumber"] in revoked_serials(tenant.plane, operator))


def test_oldest_claim_wins_and_the_next_takes_over_when_it_goes(tenant: Tenant) -> None:
    tenant.apply("older", clientId=f"{tenant.namespace}-same")
    tenant.ready("older")
    until("another second", lambda: datetime.now(UTC) - created(tenant, "older") > timedelta(seconds=2))
    tenant.apply("newer", clientId=f"{tenant.namespace}-same")
    until("conflict", lambda: tenant.condition("Accepted", "newer") == ("False", "Conflicted"))
    message = next(one["message"] for one in tenant.status("newer")["conditions"] if one["type"] == "Accepted")
    assert f"{tenant.namespace}/older, which is older, claims clientId {tenant.namespace}-same" in message
    assert tenant.secret("newer-tls") is None
    tenant.delete("older")
    tenant.ready("newer")


def created(tenant: Tenant, name: str) -> datetime:
    policy = tenant.policy(name)
    assert policy is not None
    return datetime.fromisoformat(policy["metadata"]["creationTimestamp"])


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/tls"])
def test_foreign_secret_is_never_adopted_nor_changed(tenant: Tenant, kind: str) -> None:
    data = {"tls.crt": base64.b64encode(b"theirs").decode(), "tls.key": ""}
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets"
    before = tenant.plane.must("POST", path, {"metadata": {"name": "app-tls"}, "type": kind, "data": data})
    tenant.apply()
    until("conflict", lambda: tenant.condition("CertificateReady") == ("False", "SecretConflict"))
    assert tenant.secret() == before
    tenant.plane.must("DELETE", f"{path}/app-tls")
    tenant.ready()


def test_secret_of_a_deleted_policy_goes_or_stays_as_it_says_and_its_certificate_is_revoked(
    tenant: Tenant, operator: OperatorProcess
) -> None:
    tenant.apply("gone")
    tenant.apply("kept", certificate={"secretDeletionPolicy": "Retain"})
    serials = {tenant.ready(name)["serialNumber"] for name in ("gone", "kept")}
    for name in ("gone", "kept"):
        tenant.delete(name)
    until("garbage collected", lambda: tenant.secret("gone-tls") is None)
    assert tenant.secret("kept-tls") is not None
    until("CRL", lambda: serials <= revoked_serials(tenant.plane, operator))


def test_recreated_namesake_gets_a_certificate_of_its_own(tenant: Tenant) -> None:
    tenant.apply(certificate={"secretDeletionPolicy": "Retain"})
    first = tenant.ready()
    tenant.delete()
    tenant.apply()
    until("its Secret is the old one's", lambda: tenant.condition("CertificateReady") == ("False", "SecretConflict"))
    assert "sha256" not in tenant.certificate(), "the old certificate must not match the new policy"
    tenant.plane.must("DELETE", f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls")
    assert tenant.ready()["sha256"] != first["sha256"]


def test_deleted_or_mangled_secret_is_put_right_and_labels_need_no_signing(tenant: Tenant) -> None:
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls"
    tenant.apply(certificate={"secretTemplate": {"labels": {"team": "a"}}})
    first = tenant.ready()
    tenant.plane.must(
        "PATCH", path, {"metadata": {"labels": {"team": "b", "other": "c"}}}, "application/merge-patch+json"
    )
    until("dressed", lambda: (tenant.secret() or {})["metadata"]["labels"].get("team") == "a")
    assert (tenant.secret() or {})["metadata"]["labels"]["other"] == "c"
    assert tenant.certificate()["sha256"] == first["sha256"]
    tenant.plane.must("DELETE", path)
    until("made again", lambda: tenant.secret() is not None)
    until("told", lambda: sha256(leaf(tenant.secret())) == tenant.certificate()["sha256"] != first["sha256"])
    tenant.plane.must("PATCH", path, {"data": {"tls.key": ""}}, "application/merge-patch+json")
    until("whole again", lambda: files(tenant.secret())["tls.key"])


def test_secret_that_is_overwritten_and_edits_lock_nobody_out(tenant: Tenant, operator: OperatorProcess) -> None:
    """Each certificate that a partner may have fetched counts until its end; who overwrites has to wait."""
    tenant.apply(identity={"commonName": "one"})
    fetched = [tenant.ready()["sha256"]]
    for number in range(5):
        tenant.apply(identity={"commonName": f"name-{number}"})
        fetched.append(tenant.ready()["sha256"])
    assert len(set(fetched)) == 6
    tenant.plane.must("DELETE", f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls")
    until("told", lambda: tenant.condition("CertificateReady") == ("False", "Overwritten"))
    until("Warning", lambda: "Overwritten" in tenant.events())
    told = tenant.certificate()
    assert {told["sha256"], *(one["sha256"] for one in told["previous"])} == set(fetched)
    assert operator.is_ready


def test_renewal_that_is_wished_for_comes_once_and_the_earlier_certificate_stays(tenant: Tenant) -> None:
    path = policies_in(tenant.namespace, "app")

    def wish(value: str) -> None:
        change = {"metadata": {"annotations": {"authz.healthtech.dev/renew": value}}}
        tenant.plane.must("PATCH", path, change, "application/merge-patch+json")

    tenant.apply()
    first = tenant.ready()

    def is_revision(number: int) -> bool:
        return bool(tenant.certificate().get("revision") == number)

    wish("2026-11-28T10:00:00Z")
    until("renewed", lambda: is_revision(2))
    wish("again")
    until("renewed again", lambda: is_revision(3))
    told = tenant.ready()
    assert first["sha256"] in [one["sha256"] for one in told["previous"]], "partners go on with it until it ends"
    wish("again")
    time.sleep(5)  # as long as two looks at it take
    assert is_revision(3)


def test_label_that_is_taken_out_of_the_template_goes_and_others_stay(tenant: Tenant) -> None:
    """A reflector's annotation that stayed would go on copying the key."""
    path = f"/api/v1/namespaces/{tenant.namespace}/secrets/app-tls"

    def metadata() -> dict[str, Any]:
        return dict((tenant.secret() or {})["metadata"])

    tenant.apply(certificate={"secretTemplate": {"labels": {"team": "a"}, "annotations": {"reflect": "all"}}})
    first = tenant.ready()
    theirs = {"metadata": {"labels": {"theirs": "x"}, "annotations": {"reloader": "on"}}}
    tenant.plane.must("PATCH", path, theirs, "application/merge-patch+json")
    tenant.apply(certificate={"secretTemplate": {"labels": {"squad": "b"}}})
    until("taken away", lambda: "reflect" not in metadata()["annotations"])
    assert {name for name in metadata()["labels"] if "/" not in name} == {"squad", "theirs"}
    assert metadata()["annotations"]["reloader"] == "on"
    assert tenant.ready()["sha256"] == first["sha256"], "nothing is signed for it"


def test_emptied_status_is_told_again_without_signing(tenant: Tenant, operator: OperatorProcess) -> None:
    made = tenant.apply()
    before = tenant.ready()
    path = f"{policies_in(tenant.namespace, 'app')}/status"
    tenant.plane.must("PATCH", path, {"status": None}, "application/merge-patch+json")
    assert tenant.ready()["sha256"] == before["sha256"]
    assert len(ledger_of(tenant.plane, operator.namespace)[made["metadata"]["uid"]]) == 1


def test_metrics_of_the_handbook_are_exposed_by_these_names(operator: OperatorProcess) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    of_authz = {"clientpolicy_policies_age_seconds", "clientpolicy_configuration_cautions"}
    named = set(re.findall(r"`(clientpolicy_[a-z_]+)", page)) - of_authz
    exposed = set(re.findall(r"^(clientpolicy_\w+)", operator.get("/metrics")[1], re.MULTILINE))
    source = (ROOT / "operator" / "clientpolicy_operator" / "readings.py").read_text()
    exposed |= {
        f"{name}_total" for name in re.findall(r'"counter", "(clientpolicy_[a-z_]+)"', source)
    }  # once they count
    assert named - exposed == {"clientpolicy_reconcile_seconds"}  # a histogram: _bucket, _sum, _count
    assert "clientpolicy_reconcile_seconds_bucket" in exposed


def test_nothing_is_written_when_nothing_changed(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.apply()
    tenant.apply("out", certificate={"source": "External", "fingerprints": [OTHER]})
    tenant.ready()
    tenant.ready("out")
    until("events", lambda: len(tenant.events()) == 3)
    before = [tenant.policy(name) for name in ("app", "out")], tenant.secret()
    line = 'clientpolicy_reconciles_total{result="settled"}'
    policies = operator.metric('clientpolicy_policy_conditions{condition="Ready",status="True"}')
    visits = operator.metric(line)
    until("each looked at again", lambda: operator.metric(line) > visits + 3 * policies)
    assert ([tenant.policy(name) for name in ("app", "out")], tenant.secret()) == before
    assert len(tenant.events()) == 3


def test_beyond_the_ceiling_is_told_and_issues_nothing(tenant: Tenant) -> None:
    tenant.apply(scopes=["user/*.cruds"])
    until("refused", lambda: tenant.condition("Ready") == ("False", "BeyondCeiling"))
    assert tenant.secret() is None
    tenant.apply(scopes=["system/*.rs"])
    tenant.ready()


def test_invalid_beyond_the_schema_is_told_with_its_field(tenant: Tenant) -> None:
    tenant.apply(quotas=[{"name": "q", "requests": 999_999_937, "per": "8000h", "burst": 999_999_936}])
    until("invalid", lambda: tenant.condition("Ready") == ("False", "Invalid"))
    message = next(one["message"] for one in tenant.status()["conditions"] if one["type"] == "Ready")
    assert message.startswith("spec.quotas[0]: ")


def test_columns_tell_what_matters(tenant: Tenant) -> None:
    tenant.apply()
    told = tenant.ready()
    table = tenant.plane.table(policies_in(tenant.namespace))
    names = [column["name"] for column in table["columnDefinitions"]]
    row = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert (row["Ready"], row["Client"], row["Mode"]) == ("True", f"{tenant.namespace}-app", "Enforce")
    assert (row["Not-After"], row["Renewal"]) == (told["notAfter"], told["renewalTime"])


def test_metrics_count_policies_by_condition_and_signings_by_reason(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.apply()
    told = tenant.ready()
    stamp = datetime.fromisoformat(told["notAfter"]).timestamp()
    line = f'clientpolicy_certificate_not_after_timestamp_seconds{{name="app",namespace="{tenant.namespace}"}}'
    until("metric", lambda: operator.metric(line) == stamp)
    assert operator.metric('clientpolicy_policy_conditions{condition="Ready",status="True"}') >= 1
    assert operator.metric('clientpolicy_signings_total{reason="DoesNotExist"}') >= 1
    assert operator.metric('clientpolicy_certificates{days_left="30"}') >= 1
    assert operator.metric("clientpolicy_watching") == 1


def test_ledger_knows_every_signing_before_anybody_has_the_certificate(
    tenant: Tenant, operator: OperatorProcess
) -> None:
    made = tenant.apply()
    told = tenant.ready()
    rows = ledger_of(tenant.plane, operator.namespace)[made["metadata"]["uid"]]
    assert [(row[0], row[1], row[2]) for row in rows] == [(1, told["sha256"], told["serialNumber"])]


def test_log_is_json_and_holds_no_key(tenant: Tenant, operator: OperatorProcess) -> None:
    tenant.apply()
    tenant.ready()
    text = operator.log.read_text()
    assert all(json.loads(line) for line in text.splitlines())
    assert "PRIVATE KEY" not in text
    assert base64.b64encode(files(tenant.secret())["tls.key"]).decode()[:60] not in text
