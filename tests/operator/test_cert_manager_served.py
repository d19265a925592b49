"""issuerRef: a real API server with cert-manager's real CRDs, and a signer that does what cert-manager does."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cert_manager
import pytest
import pytest_asyncio
import yaml
from aiohttp import ClientSession, TCPConnector
from cert_manager import CertManager
from clientpolicy_operator import clock
from clientpolicy_operator.api import Api, Forbidden
from clientpolicy_operator.book import Book
from clientpolicy_operator.reconcile import Reconciler
from clientpolicy_operator.roster import Roster
from clientpolicy_operator.settings import Settings
from clientpolicy_operator.tell import Events
from clientpolicy_operator.territory import Territory
from clientpolicy_operator.timing import PATIENCE
from clientpolicy_operator.told import condition_of
from clientpolicy_operator.trust import Trust
from kubernetes_api import KubernetesApi, policies_in

MERGE = "application/merge-patch+json"
OWNER = "authz.healthtech.dev/policy-uid"
NAMES: dict[str, Any] = {
    "commonName": "app",
    "organizations": ["Partner Ltd"],
    "uris": ["spiffe://a.example/app"],
    "dnsNames": ["app.partner.example"],
    "emails": ["ops@partner.example"],
}


# What the operator does not do yet; each mark goes with the change that makes its test pass.
@pytest.fixture(scope="module", autouse=True)
def _clean(plane: KubernetesApi) -> Iterator[None]:
    """Leave the control plane to the other tests as it was."""
    yield
    cert_manager.uninstall(plane)


@dataclass
class Site:
    """One namespace with an operator and, where it is installed, cert-manager."""

    plane: KubernetesApi
    namespace: str
    signer: CertManager
    reconciler: Reconciler
    trust: Trust

    def apply(self, name: str = "app", **spec: Any) -> None:
        spec = {"clientId": f"{self.namespace}-{name}", "identity": {"commonName": name}} | spec
        path = policies_in(self.namespace, name)
        status, found = self.plane.api("GET", path)
        if status == 200:
            found["spec"] = spec
            self.plane.must("PUT", path, found)
            return
        body = {"apiVersion": "authz.healthtech.dev/v1alpha1", "kind": "ClientPolicy", "metadata": {"name": name}}
        self.plane.must("POST", policies_in(self.namespace) + "?fieldValidation=Strict", body | {"spec": spec})

    def delegate(self, name: str = "app", certificate: dict[str, Any] | None = None, **spec: Any) -> None:
        self.apply(name, certificate={"issuerRef": {"name": "partners-ca"}} | (certificate or {}), **spec)

    async def visit(self, name: str = "app") -> datetime | None:
        return (await self.reconciler.visit((self.namespace, name))).again

    async def settle(self, name: str = "app") -> None:
        """Let cert-manager and the operator take turns until neither has anything to do."""
        for _ in range(4):
            await self.visit(name)
            self.signer.work()
        await self.visit(name)

    def policy(self, name: str = "app") -> dict[str, Any]:
        return dict(self.plane.must("GET", policies_in(self.namespace, name)))

    def told(self, name: str = "app") -> dict[str, Any]:
        found = self.policy(name).get("status", {}).get("certificate", {})
        assert isinstance(found, dict)
        return found

    def condition(self, kind: str, name: str = "app") -> tuple[str, str, str]:
        found = condition_of(self.policy(name)["status"], kind)
        return str(found["status"]), str(found["reason"]), str(found["message"])

    def secret(self, name: str = "app-tls") -> dict[str, Any] | None:
        status, found = self.plane.api("GET", f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        return found if status == 200 else None

    def patch_secret(self, metadata: dict[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/secrets/app-tls"
        self.plane.must("PATCH", path, {"metadata": metadata}, MERGE)


@dataclass(frozen=True)
class Connection:
    server: str
    session: ClientSession


def api_of(kubeconfig: Path) -> Api:
    """Return the API as the user of a kubeconfig sees it."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    context.load_cert_chain(user["client-certificate"], user["client-key"])

    async def connect() -> Connection:
        return Connection(cluster["server"], ClientSession(connector=TCPConnector(ssl=context)))

    return Api(connect)


async def operator(namespace: str, api: Api) -> tuple[Reconciler, Trust]:
    settings = Settings.model_validate({"namespace": namespace})
    book, roster = Book(api, namespace), Roster(())
    territory = Territory(api, namespace, resync_s=600.0)
    trust = Trust(api, settings, book, roster, territory)
    await book.open()
    await trust.tick()
    reconciler = Reconciler(
        api, book=book, trust=trust, roster=roster, territory=territory, events=Events(api), settings=settings
    )
    return reconciler, trust


@pytest_asyncio.fixture
async def bare(plane: KubernetesApi, namespace: str) -> AsyncIterator[Site]:
    """A cluster without cert-manager."""
    cert_manager.uninstall(plane)
    api = api_of(plane.kubeconfig)
    reconciler, trust = await operator(namespace, api)
    yield Site(plane, namespace, CertManager(plane, namespace), reconciler, trust)
    await api.close()


@pytest_asyncio.fixture
async def site(plane: KubernetesApi, namespace: str) -> AsyncIterator[Site]:
    """A cluster with cert-manager and the issuer partners-ca."""
    cert_manager.install(plane)
    api = api_of(plane.kubeconfig)
    reconciler, trust = await operator(namespace, api)
    signer = CertManager(plane, namespace)
    signer.add_issuer("partners-ca")
    yield Site(plane, namespace, signer, reconciler, trust)
    await api.close()


async def test_certificate_asked_for_is_exactly_as_wanted(site: Site) -> None:
    site.delegate(
        certificate={
            "duration": "2160h",
            "renewBeforePercentage": 40,
            "secretTemplate": {"labels": {"team": "partners"}, "annotations": {"example.com/note": "x"}},
        },
        identity=NAMES,
    )
    await site.visit()
    asked = site.signer.certificate("app-tls")
    assert asked is not None
    uid = site.policy()["metadata"]["uid"]
    assert asked["spec"] == {
        "secretName": "app-tls",
        "issuerRef": {"group": "cert-manager.io", "kind": "Issuer", "name": "partners-ca"},
        "commonName": "app",
        "subject": {"organizations": ["Partner Ltd"]},
        "uris": ["spiffe://a.example/app"],
        "dnsNames": ["app.partner.example"],
        "emailAddresses": ["ops@partner.example"],
        "usages": ["digital signature", "client auth"],
        "duration": "7776000s",
        "renewBeforePercentage": 40,
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "secretTemplate": {"labels": {"team": "partners"}, "annotations": {"example.com/note": "x", OWNER: uid}},
    }
    (owner,) = asked["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("ClientPolicy", uid)


FULL: dict[str, dict[str, Any]] = {
    "all that a Certificate can hold": {
        "certificate": {
            "renewBefore": "240h",
            "issuerRef": {"group": "issuers.example.com", "kind": "ClusterIssuer", "name": "a.b-c"},
            "privateKey": {"algorithm": "RSA", "size": 4096, "rotationPolicy": "Never"},
            "profile": "Spiffe",
            "secretName": "other",
        },
        "identity": NAMES,
    },
    "as little as it can": {"identity": {"uris": ["spiffe://a.example/app"]}},
    "a duration of fractions": {"certificate": {"duration": "1.5h30m", "renewBefore": "5m0.5s"}},
}


@pytest.mark.parametrize("spec", FULL.values(), ids=FULL)
async def test_certificate_holds_nothing_that_its_schema_does_not_know(site: Site, spec: dict[str, Any]) -> None:
    """What a schema does not know is pruned when it is stored; asked strictly, the API server says so."""
    site.delegate(**spec)
    await site.visit()
    (asked,) = site.signer.certificates()
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        asked["metadata"].pop(name)
    asked["metadata"]["name"] = "copy"
    path = f"/apis/cert-manager.io/v1/namespaces/{site.namespace}/certificates?fieldValidation=Strict&dryRun=All"
    again = site.plane.must("POST", path, asked)
    assert again["spec"] == asked["spec"]
    usages = {"digital signature", "client auth"}
    profile = spec.get("certificate", {}).get("profile")
    assert set(asked["spec"]["usages"]) == usages | (
        {"key encipherment", "server auth"} if profile == "Spiffe" else set()
    )


async def test_not_ready_says_what_cert_manager_says_and_then_issued(site: Site) -> None:
    site.delegate(certificate={"issuerRef": {"name": "missing"}}, quotas=[{"name": "a", "requests": 1, "per": "1s"}])
    again = await site.visit()
    assert again is not None, "nobody tells when cert-manager is done"
    assert again < datetime.now(UTC) + timedelta(seconds=20)
    status, reason, message = site.condition("CertificateReady")
    assert (status, reason) == ("False", "IssuerNotReady")
    assert "cert-manager has not answered yet" in message
    site.signer.work()
    await site.visit()
    assert site.condition("CertificateReady") == (
        "False",
        "IssuerNotReady",
        "DoesNotExist: Issuing certificate as Secret does not exist",
    )
    assert site.condition("Ready")[:2] == ("False", "IssuerNotReady")
    assert site.condition("QuotaReady")[:2] == ("True", "Compiled"), "the rest does not wait"
    assert "sha256" not in site.told()
    site.signer.add_issuer("missing")
    site.signer.work()
    await site.visit()
    told = site.told()
    (sha256,) = site.signer.signed
    assert (told["sha256"], told["revision"], told["secretName"]) == (sha256, 1, "app-tls")
    assert "caSha256" not in told, "another CA's"
    assert "previous" not in told
    assert site.condition("CertificateReady")[:2] == ("True", "Issued")
    assert site.condition("Programmed")[:2] == ("True", "Programmed")
    assert site.condition("Ready")[0] == "True"
    assert site.condition("Issuing")[:2] == ("False", "UpToDate")


async def test_settled_writes_nothing(site: Site) -> None:
    site.delegate()
    await site.settle()
    before, secret = site.policy(), site.secret()
    await site.settle()
    assert site.policy() == before
    assert site.secret() == secret
    assert len(site.signer.signed) == 1


async def test_secret_is_the_policys_own(site: Site) -> None:
    site.delegate(certificate={"secretTemplate": {"labels": {"team": "partners"}}})
    await site.settle()
    secret = site.secret()
    assert secret is not None
    metadata = secret["metadata"]
    assert metadata["annotations"][OWNER] == site.policy()["metadata"]["uid"]
    assert metadata["labels"]["team"] == "partners"
    assert metadata["labels"]["controller.cert-manager.io/fao"] == "true"
    assert [one["kind"] for one in metadata["ownerReferences"]] == ["ClientPolicy"], "gone with the policy"
    site.patch_secret({"labels": {"team": None}, "ownerReferences": None})
    await site.visit()
    secret = site.secret()
    assert secret is not None
    assert secret["metadata"]["labels"]["team"] == "partners"
    assert len(secret["metadata"]["ownerReferences"]) == 1


async def test_retained_secret_has_no_owner(site: Site) -> None:
    site.delegate(certificate={"secretDeletionPolicy": "Retain"})
    await site.settle()
    secret = site.secret()
    assert secret is not None
    assert "ownerReferences" not in secret["metadata"]


async def test_renewal_by_cert_manager_keeps_the_certificate_before(site: Site) -> None:
    site.delegate()
    await site.settle()
    site.signer.work(renew=True)
    await site.visit()
    first, second = site.signer.signed
    told = site.told()
    assert (told["sha256"], told["revision"]) == (second, 2)
    assert [(one["sha256"], one["revision"]) for one in told["previous"]] == [(first, 1)]
    assert site.condition("Ready")[0] == "True"


async def test_other_names_make_another_certificate(site: Site) -> None:
    site.delegate(identity={"commonName": "app"})
    await site.settle()
    site.delegate(identity={"commonName": "other"})
    await site.settle()
    asked = site.signer.certificate("app-tls")
    assert asked is not None
    assert asked["spec"]["commonName"] == "other"
    first, second = site.signer.signed
    assert site.told()["sha256"] == second
    assert [one["sha256"] for one in site.told()["previous"]] == [first]


async def test_revoked_certificate_is_made_anew_and_not_trusted_meanwhile(site: Site) -> None:
    site.delegate()
    await site.settle()
    (first,) = site.signer.signed
    site.delegate(revocation={"fingerprints": [{"sha256": first, "reason": "KeyCompromise"}]})
    await site.visit()
    assert site.secret() is None, "so that cert-manager makes another one"
    assert site.condition("CertificateReady")[0] == "False"
    assert site.condition("Programmed")[0] == "False"
    assert site.condition("Ready")[0] == "False"
    site.signer.work()
    await site.visit()
    second = site.signer.signed[-1]
    assert second != first
    assert site.told()["sha256"] == second
    assert "previous" not in site.told(), "a revoked one does not roll"
    assert site.condition("Ready")[0] == "True"


async def test_issued_before_makes_one_that_was_issued_after(site: Site) -> None:
    site.delegate()
    await site.settle()
    (first,) = site.signer.signed
    begin = datetime.fromisoformat(site.told()["notBefore"])
    while datetime.now(UTC) < begin + timedelta(seconds=1):
        await site.visit()
    site.delegate(revocation={"issuedBefore": (begin + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")})
    await site.settle()
    assert len(site.signer.signed) == 2
    assert site.told()["sha256"] == site.signer.signed[-1] != first
    assert "previous" not in site.told()


async def test_foreign_certificate_is_not_adopted(site: Site) -> None:
    theirs = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "app-tls"},
        "spec": {"secretName": "app-tls", "issuerRef": {"name": "theirs"}, "commonName": "theirs"},
    }
    path = f"/apis/cert-manager.io/v1/namespaces/{site.namespace}/certificates"
    before = site.plane.must("POST", path, theirs)
    site.delegate()
    await site.visit()
    status, reason, message = site.condition("CertificateReady")
    assert (status, reason) == ("False", "SecretConflict")
    assert "Certificate app-tls is there and not this policy's" in message
    assert site.signer.certificate("app-tls") == before
    site.plane.must("DELETE", f"{path}/app-tls")
    await site.settle()
    assert site.condition("Ready")[0] == "True", "once it is gone"


@pytest.mark.parametrize("notes", [{}, {OWNER: "another-uid"}], ids=["nobody's", "another policy's"])
async def test_foreign_secret_is_not_adopted(site: Site, notes: dict[str, str]) -> None:
    path = f"/api/v1/namespaces/{site.namespace}/secrets"
    body = {"metadata": {"name": "app-tls", "annotations": notes}, "stringData": {"a": "b"}}
    before = site.plane.must("POST", path, body)
    site.delegate()
    await site.visit()
    status, reason, message = site.condition("CertificateReady")
    assert (status, reason) == ("False", "SecretConflict")
    assert "Secret app-tls is there and not this policy's" in message
    assert site.secret() == before
    assert site.signer.certificates() == [], "cert-manager would write over it"


async def test_switched_off_the_built_in_ca_issues(site: Site) -> None:
    site.delegate()
    await site.settle()
    (first,) = site.signer.signed
    site.apply()
    await site.settle()
    assert site.signer.certificates() == [], "it would write over ours"
    told = site.told()
    assert site.trust.signer is not None
    assert told["caSha256"] == site.trust.signer.sha256
    assert [one["sha256"] for one in told["previous"]] == [first], "clients can roll"
    assert len(site.signer.signed) == 1
    assert site.condition("Ready")[0] == "True"


async def test_switched_on_cert_manager_issues(site: Site) -> None:
    site.apply()
    await site.settle()
    first = site.told()["sha256"]
    site.delegate()
    await site.visit()
    assert site.told()["sha256"] == first, "good until cert-manager has made another one"
    assert site.condition("Ready")[0] == "True"
    await site.settle()
    told = site.told()
    assert told["sha256"] == site.signer.signed[-1]
    assert "caSha256" not in told
    assert [one["sha256"] for one in told["previous"]] == [first]


async def test_without_cert_manager_it_says_so(bare: Site) -> None:
    bare.delegate()
    again = await bare.visit()
    assert again is not None, "it may be installed later"
    status, reason, message = bare.condition("CertificateReady")
    assert (status, reason) == ("False", "Refused")
    assert message == "cert-manager is not installed: the cluster has no Certificate of cert-manager.io/v1"
    assert bare.condition("Ready")[:2] == ("False", "Refused")
    assert bare.told()["failedIssuanceAttempts"] == 1
    bare.apply("other")
    await bare.visit("other")
    assert bare.condition("Ready", "other")[0] == "True", "others go on"
    cert_manager.install(bare.plane)
    bare.signer.add_issuer("partners-ca")
    await bare.settle()
    assert bare.condition("Ready")[0] == "True"
    assert "failedIssuanceAttempts" not in bare.told()


async def test_forbidden_certificates_stop_nobody_else(site: Site) -> None:
    user = f"operator-{site.namespace}"
    allow(site.plane, user, site.namespace)
    api = api_of(site.plane.kubeconfig_for(user))
    try:
        reconciler, _ = await operator(site.namespace, api)
        site.delegate("delegated")
        site.apply("built-in")
        for name in ("delegated", "built-in"):
            await reconciler.visit((site.namespace, name))
        status, reason, message = site.condition("CertificateReady", "delegated")
        assert (status, reason) == ("False", "Forbidden")
        assert 'cannot get resource "certificates" in API group "cert-manager.io"' in message
        assert site.condition("Ready", "built-in")[0] == "True"
        allow(site.plane, user, site.namespace, certificates=True)
        for _ in range(40):  # RBAC takes effect within moments
            await reconciler.visit((site.namespace, "delegated"))
            if site.condition("CertificateReady", "delegated")[1] != "Forbidden":
                break
        site.signer.work()
        await reconciler.visit((site.namespace, "delegated"))
        assert site.condition("Ready", "delegated")[0] == "True"
    finally:
        await api.close()


def allow(plane: KubernetesApi, user: str, namespace: str, *, certificates: bool = False) -> None:
    """Let a user do in a namespace what an operator does there."""
    every = ["get", "list", "watch", "create", "update", "patch", "delete"]
    rules = [
        {"apiGroups": [""], "resources": ["secrets", "configmaps", "events"], "verbs": every},
        {"apiGroups": ["authz.healthtech.dev"], "resources": ["*"], "verbs": every},
    ]
    rules += [{"apiGroups": ["cert-manager.io"], "resources": ["certificates"], "verbs": every}] if certificates else []
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    name = "more" if certificates else "operator"
    plane.must("POST", f"{path}/roles", {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "Role", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    plane.must("POST", f"{path}/rolebindings", {"metadata": {"name": name}, "subjects": [subject], "roleRef": role})


async def test_another_template_reaches_the_secret(site: Site) -> None:
    site.delegate(certificate={"secretTemplate": {"labels": {"team": "old", "gone": "soon"}}})
    await site.settle()
    site.delegate(certificate={"secretTemplate": {"labels": {"team": "new"}}})
    await site.settle()
    asked, secret = site.signer.certificate("app-tls"), site.secret()
    assert asked is not None
    assert secret is not None
    assert asked["spec"]["secretTemplate"]["labels"] == {"team": "new"}
    assert secret["metadata"]["labels"]["team"] == "new"
    assert "gone" not in secret["metadata"]["labels"]
    assert len(site.signer.signed) == 1, "labels are no reason for another certificate"


@pytest.mark.parametrize(
    ("certificate", "field", "wanted"),
    [
        ({"renewBeforePercentage": 50}, "renewBeforePercentage", 50),
        ({"renewBefore": "48h"}, "renewBefore", "172800s"),
        (
            {"privateKey": {"rotationPolicy": "Never"}},
            "privateKey",
            {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Never"},
        ),
    ],
)
async def test_every_edit_reaches_the_certificate(
    site: Site, certificate: dict[str, Any], field: str, wanted: object
) -> None:
    site.delegate()
    await site.settle()
    site.delegate(certificate=certificate)
    await site.settle()
    asked = site.signer.certificate("app-tls")
    assert asked is not None
    assert asked["spec"].get(field) == wanted


async def test_what_others_change_in_the_certificate_is_put_back(site: Site) -> None:
    site.delegate()
    await site.settle()
    path = f"/apis/cert-manager.io/v1/namespaces/{site.namespace}/certificates/app-tls"
    site.plane.must("PATCH", path, {"spec": {"commonName": "somebody-else"}}, MERGE)
    await site.visit()
    asked = site.signer.certificate("app-tls")
    assert asked is not None
    assert asked["spec"]["commonName"] == "app"


async def test_switched_off_before_it_was_issued(site: Site) -> None:
    site.delegate(certificate={"issuerRef": {"name": "missing"}})
    await site.visit()
    site.apply()
    await site.visit()
    assert site.signer.certificates() == [], "the missing issuer may come, and write over ours"
    assert site.condition("Ready")[0] == "True"


async def test_switched_on_and_off_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.apply()
    await site.settle()
    site.delegate()
    await site.settle()
    site.apply()
    monkeypatch.setattr(clock, "now", lambda: datetime.now(UTC) + 2 * PATIENCE)
    await site.settle()
    assert site.signer.certificates() == []
    assert site.trust.signer is not None
    assert site.told()["caSha256"] == site.trust.signer.sha256


async def test_cert_manager_that_owns_its_secrets(site: Site) -> None:
    """Started with --enable-certificate-owner-ref it is the Secret's controller, and there is only one."""
    site.signer = CertManager(site.plane, site.namespace, owns_secrets=True)
    site.delegate()
    await site.settle()
    assert site.condition("Issuing")[:2] == ("False", "UpToDate"), site.condition("Issuing")
    assert "failedIssuanceAttempts" not in site.told()
    assert site.condition("Ready")[0] == "True"


async def test_failing_issuer_is_quoted(site: Site) -> None:
    site.delegate()
    await site.visit()
    site.signer.fail("app-tls", "The certificate request has failed to complete: quota exceeded at the CA")
    await site.visit()
    assert "quota exceeded at the CA" in site.condition("CertificateReady")[2]


async def test_failing_renewal_shows_before_the_certificate_ends(site: Site) -> None:
    site.delegate()
    await site.settle()
    site.delegate(identity={"commonName": "other"})
    await site.visit()
    site.signer.fail("app-tls", "The certificate request has failed to complete: quota exceeded at the CA")
    await site.visit()
    assert site.condition("CertificateReady")[0] == "True", "the old one holds until its end"
    assert site.condition("Issuing")[0] == "True"
    assert "quota exceeded at the CA" in site.condition("Issuing")[2]


async def test_unreadable_secret_is_said_to_be(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.delegate()
    await site.settle()
    original = Api.get

    async def get(self: Api, path: str, **query: str) -> Any:
        if "/secrets/app-tls" in path:
            raise Forbidden(f"GET {path}: secrets is forbidden")
        return await original(self, path, **query)

    monkeypatch.setattr(Api, "get", get)
    await site.visit()
    assert site.condition("CertificateReady")[1] == "Forbidden"


async def test_failing_renewal_by_cert_manager_shows(site: Site) -> None:
    site.delegate()
    await site.settle()
    site.signer.fail("app-tls", "The certificate request has failed to complete: quota exceeded at the CA")
    await site.visit()
    assert site.condition("Ready")[0] == "True"
    assert site.condition("Issuing")[0] == "True"
    assert "quota exceeded at the CA" in site.condition("Issuing")[2]
    site.signer.work(renew=True)
    await site.visit()
    assert site.condition("Issuing")[:2] == ("False", "UpToDate")


async def test_issued_before_to_come_makes_no_certificates_in_vain(site: Site) -> None:
    site.delegate()
    await site.settle()
    later = datetime.now(UTC) + timedelta(hours=1)
    site.delegate(revocation={"issuedBefore": later.strftime("%Y-%m-%dT%H:%M:%SZ")})
    await site.settle()
    assert len(site.signer.signed) == 1
    assert site.condition("CertificateReady")[0] == "False"


async def test_renewal_time_is_cert_managers(site: Site) -> None:
    site.delegate()
    await site.settle()
    asked = site.signer.certificate("app-tls")
    assert asked is not None
    assert site.told().get("renewalTime") == asked["status"]["renewalTime"]


async def test_labels_that_others_put_on_the_certificate_stay(site: Site) -> None:
    site.delegate()
    await site.settle()
    path = f"/apis/cert-manager.io/v1/namespaces/{site.namespace}/certificates/app-tls"
    site.plane.must("PATCH", path, {"metadata": {"labels": {"backup": "yes"}}}, MERGE)
    site.delegate(identity={"commonName": "other"})
    await site.settle()
    asked = site.signer.certificate("app-tls")
    assert asked is not None
    assert asked["metadata"].get("labels") == {"backup": "yes"}
