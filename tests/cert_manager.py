"""cert-manager as tests need it: its real CRDs on the API server, and a signer that does with a Certificate what it does.

Source: cert-manager v1.21, internal/controller/certificates/policies (when it issues) and
pkg/controller/certificates/issuing/internal/secret.go (what it writes, by server-side apply).
"""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import modules
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kubernetes_api import DEFINITIONS, PEM, KubernetesApi

HERE: Final = Path(__file__).parent
GROUP: Final = "/apis/cert-manager.io/v1"
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
USAGES: Final = {"client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "server auth": ExtendedKeyUsageOID.SERVER_AUTH}
CURVES: Final = {256: ec.SECP256R1, 384: ec.SECP384R1}


@cache
def definitions() -> tuple[Path, ...]:
    """Return the files of cert-manager's CRDs; the test that needs them is skipped by name if they cannot be had."""
    folder = modules.folder("cert-manager", "CERT_MANAGER")
    return tuple(sorted(folder.glob("cert-manager.io_*.yaml")))


def install(plane: KubernetesApi) -> None:
    """Install what is missing, and wait until it is served."""
    for file in definitions():
        name = f"{file.stem.removeprefix('cert-manager.io_')}.cert-manager.io"
        if name not in installed(plane):
            plane.must("POST", DEFINITIONS, file.read_text(), "application/yaml")
    _until(lambda: all(plane.api("GET", path)[0] == 200 for path in installed(plane).values()))


def uninstall(plane: KubernetesApi) -> None:
    gone = installed(plane)
    for name in gone:
        plane.api("DELETE", f"{DEFINITIONS}/{name}")
    _until(lambda: not installed(plane) and all(plane.api("GET", path)[0] == 404 for path in gone.values()))


def installed(plane: KubernetesApi) -> dict[str, str]:
    """Return the names of cert-manager's CRDs that are there, and where their objects are served."""
    listed = [one for one in plane.must("GET", DEFINITIONS)["items"] if one["spec"]["group"] == "cert-manager.io"]
    return {one["metadata"]["name"]: f"{GROUP}/{one['spec']['names']['plural']}" for one in listed}


def _until(true: Any) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("cert-manager's CRDs have not settled")


class CertManager:
    """Signs in one namespace when told to: `work` is one round of its controllers, and brings everything about."""

    def __init__(self, plane: KubernetesApi, namespace: str, *, owns_secrets: bool = False) -> None:
        self._plane = plane
        self._namespace = namespace
        self._owns_secrets = owns_secrets  # --enable-certificate-owner-ref
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test issuer")])
        self._asked: dict[str, str] = {}  # what the last certificate was asked for, by UID
        self.signed: list[str] = []  # fingerprints, oldest first

    def add_issuer(self, name: str) -> None:
        body = {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Issuer",
            "metadata": {"name": name},
            "spec": {"ca": {"secretName": "test-issuer"}},
        }
        self._plane.must("POST", f"{GROUP}/namespaces/{self._namespace}/issuers?fieldValidation=Strict", body)

    def certificates(self) -> list[dict[str, Any]]:
        return list(self._plane.must("GET", self._path("certificates"))["items"])

    def certificate(self, name: str) -> dict[str, Any] | None:
        status, found = self._plane.api("GET", self._path("certificates", name))
        assert status in (200, 404), found
        return found if status == 200 else None

    def work(self, *, renew: bool = False) -> None:
        """Issue where it would (or, to renew, everywhere), keep the Secrets' labels, and tell of it in the status."""
        for certificate in self.certificates():
            why = "Renewing" if renew else self._why(certificate)
            issuer = certificate["spec"]["issuerRef"]
            if self._plane.api("GET", self._path("issuers", issuer["name"]))[0] == 404:
                told = "Issuing certificate as Secret does not exist"
                ready = ("False", "DoesNotExist", told) if why == "DoesNotExist" else None
                self._tell(certificate, ready, issuing=("True", why, f"Issuer {issuer['name']} not found"))
            elif why is None:
                self._write(certificate, None)
            else:
                self._issue(certificate)

    def fail(self, name: str, message: str) -> None:
        """Tell that the issuer has refused to sign."""
        certificate = self.certificate(name)
        assert certificate is not None
        why = self._why(certificate)
        ready = ("False", why, f"Issuing certificate: {why}") if why is not None else None  # valid ones are Ready
        self._tell(certificate, ready, issuing=("False", "Failed", message))

    def _why(self, certificate: dict[str, Any]) -> str | None:
        secret = self._secret(certificate)
        if secret is None:
            return "DoesNotExist"
        notes = secret["metadata"].get("annotations", {})
        issuer = certificate["spec"]["issuerRef"]
        if notes.get("cert-manager.io/issuer-name") != issuer["name"]:
            return "IncorrectIssuer"
        asked = json.dumps(_request(certificate["spec"]), sort_keys=True)
        return "RequestChanged" if self._asked.get(certificate["metadata"]["uid"]) != asked else None

    def _issue(self, certificate: dict[str, Any]) -> None:
        spec = certificate["spec"]
        key = _new_key(spec["privateKey"])
        now = datetime.now(UTC).replace(microsecond=0)
        end = now + timedelta(seconds=int(spec["duration"].removesuffix("s")))
        made = self._build(spec, key.public_key(), now, end)
        self.signed.append(made.fingerprint(hashes.SHA256()).hex())
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self._asked[certificate["metadata"]["uid"]] = json.dumps(_request(spec), sort_keys=True)
        self._write(certificate, {"tls.crt": made.public_bytes(PEM), "tls.key": private})
        revision = certificate.get("status", {}).get("revision", 0) + 1
        times = {"notBefore": now, "notAfter": end, "renewalTime": end - (end - now) / 3}
        more = {name: when.strftime("%Y-%m-%dT%H:%M:%SZ") for name, when in times.items()}
        ready = ("True", "Ready", "Certificate is up to date and has not expired")
        self._tell(certificate, ready, issuing=None, revision=revision, **more)

    def _build(self, spec: dict[str, Any], key: Any, begin: datetime, end: datetime) -> x509.Certificate:
        organizations = spec.get("subject", {}).get("organizations", [])
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
        if "commonName" in spec:
            subject.append(x509.NameAttribute(NameOID.COMMON_NAME, spec["commonName"]))
        sans: list[x509.GeneralName] = [
            *map(x509.UniformResourceIdentifier, spec.get("uris", [])),
            *map(x509.DNSName, spec.get("dnsNames", [])),
            *map(x509.RFC822Name, spec.get("emailAddresses", [])),
        ]
        purposes = [USAGES[usage] for usage in spec["usages"] if usage in USAGES]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, certificate: dict[str, Any], files: dict[str, bytes] | None) -> None:
        """Apply the Secret: what this manager applied before and no longer applies goes, what others set stays."""
        spec, metadata = certificate["spec"], certificate["metadata"]
        old = self._secret(certificate)
        template = spec.get("secretTemplate", {})
        data = {name: base64.b64encode(value).decode() for name, value in (files or {}).items()}
        if files is None and old is not None:
            data = {name: old["data"][name] for name in ("tls.crt", "tls.key")}
        notes = {
            "cert-manager.io/certificate-name": metadata["name"],
            "cert-manager.io/issuer-name": spec["issuerRef"]["name"],
            "cert-manager.io/issuer-kind": spec["issuerRef"]["kind"],
            "cert-manager.io/issuer-group": spec["issuerRef"]["group"],
        }
        owner = {
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "name": metadata["name"],
            "uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": spec["secretName"],
                "labels": {**template.get("labels", {}), "controller.cert-manager.io/fao": "true"},
                "annotations": {**template.get("annotations", {}), **notes},
                **({"ownerReferences": [owner]} if self._owns_secrets else {}),
            },
            "type": old["type"] if old is not None else "kubernetes.io/tls",
            "data": data,
        }
        path = self._path("secrets", spec["secretName"], group="/api/v1")
        manager = "cert-manager-certificates-issuing"
        self._plane.must("PATCH", f"{path}?fieldManager={manager}&force=true", body, APPLY)

    def _tell(
        self,
        certificate: dict[str, Any],
        ready: tuple[str, str | None, str] | None,
        *,
        issuing: tuple[str, str | None, str] | None,
        **more: Any,
    ) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        old = {one["type"]: one for one in certificate.get("status", {}).get("conditions", [])}
        for name, condition in (("Ready", ready), ("Issuing", issuing)):
            if condition is not None:
                status, reason, message = condition
                old[name] = {
                    "type": name, "status": status, "reason": reason or "", "message": message,
                    "lastTransitionTime": now, "observedGeneration": certificate["metadata"]["generation"],
                }  # fmt: skip
        if ready is not None and ready[0] == "True":
            old.pop("Issuing", None)
        path = self._path("certificates", certificate["metadata"]["name"])
        body = {"status": {"conditions": list(old.values()), **more}}
        self._plane.must("PATCH", f"{path}/status?fieldValidation=Strict", body, MERGE)

    def _secret(self, certificate: dict[str, Any]) -> dict[str, Any] | None:
        status, found = self._plane.api("GET", self._path("secrets", certificate["spec"]["secretName"], "/api/v1"))
        assert status in (200, 404), found
        return found if status == 200 else None

    def _path(self, kind: str, name: str = "", group: str = GROUP) -> str:
        return f"{group}/namespaces/{self._namespace}/{kind}" + (f"/{name}" if name else "")


def _request(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what a CertificateRequest would hold: a change of the rest makes no other certificate."""
    rest = ("secretTemplate", "renewBefore", "renewBeforePercentage")
    return {name: value for name, value in spec.items() if name not in rest}


def _new_key(wanted: dict[str, Any]) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if wanted["algorithm"] == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=wanted["size"])
    return ec.generate_private_key(CURVES[wanted["size"]]())
