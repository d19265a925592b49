"""The CRD on a real API server: good policies are taken, each bad one is refused with words that a person understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import KubernetesApi, policies_in

from authz.edge.manifests import read_documents
from authz.policy import ClientPolicy, parse

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "policies").glob("*.yaml"))
HEX = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"


def policy(name: str = "app", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "authz.healthtech.dev/v1alpha1",
        "kind": "ClientPolicy",
        "metadata": {"name": name},
        "spec": {"clientId": name} | spec,
    }


GOOD: dict[str, dict[str, Any]] = {
    "nothing but the client": {},
    "External": {"certificate": {"source": "External", "fingerprints": [HEX]}},
    "request of older tools": {"certificate": {"source": "CSR", "csr": "-----BEGIN NEW CERTIFICATE REQUEST-----"}},
    "None": {"certificate": {"source": "None"}},
    "Spiffe": {"certificate": {"profile": "Spiffe"}, "identity": {"uris": ["spiffe://a.example/b"]}},
    "RSA": {"certificate": {"privateKey": {"algorithm": "RSA", "size": 2048}}},
    "renewBefore": {"certificate": {"duration": "2h", "renewBefore": "30m"}},
    "scopes": {"scopes": ["patient/*.cruds", "system/Observation.rs?category=laboratory&code=a|b", "user/*.*"]},
    "quotas": {
        "quotas": [
            {"name": "a", "requests": 1, "per": "1.5h", "burst": 0},
            {"name": "b", "requests": 5, "calendar": "Day"},
        ]
    },
    "route": {"routes": [{"name": "a", "match": {"path": "/x"}, "scopes": {"anyOf": ["export.run"]}}]},
    "names of people": {"identity": {"commonName": "Ärzte & Söhne (Zürich) 株式会社", "organizations": ["Ü"]}},
    "URIs": {
        "identity": {"uris": ["spiffe://a_b.c-d.1/A/b_c/..two/...", "https://A@B.example:1/?c=/a&b=%20", "urn:a..b"]}
    },
    "a leap year": {"certificate": {"duration": "8784h", "renewBefore": "8783h59m"}},
    "shortest window": {"quotas": [{"name": "a", "requests": 1, "per": "1us"}]},
    "validity": {"validity": {"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z"}},
}

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no client": ({"clientId": None}, "spec.clientId"),
    "client with a space": ({"clientId": "a b"}, "spec.clientId: Invalid value"),
    "client too long for a name": ({"clientId": "c" * 65}, "identity is needed: without it clientId becomes the common name"),
    "unknown mode": ({"mode": "Audit"}, 'spec.mode: Unsupported value: "Audit": supported values: "Enforce", "Shadow"'),
    "identity of nobody": ({"identity": {"organizations": ["a"]}}, "needs a commonName or at least one of uris, dnsNames, emails"),
    "two SPIFFE ids": ({"identity": {"uris": ["spiffe://a/b", "spiffe://a/c"]}}, "at most one spiffe:// URI"),
    "URI with a comma": ({"identity": {"uris": ["https://a,b"]}}, "spec.identity.uris[0]"),
    "URI in upper case": ({"identity": {"uris": ["HTTPS://a"]}}, "expected a URI: a lower-case scheme"),
    "SPIFFE in upper case": ({"identity": {"uris": ["SPIFFE://a/b"]}}, "expected a URI: a lower-case scheme"),
    "URI with a fragment": ({"identity": {"uris": ["https://a/b#c"]}}, "expected a URI"),
    "SPIFFE id that leaves its place": ({"identity": {"uris": ["spiffe://healthtech.dev/client/partner-/../admin"]}}, "expected a SPIFFE ID"),
    "SPIFFE id with a query": ({"identity": {"uris": ["spiffe://healthtech.dev/client/partner-a?x=1"]}}, "expected a SPIFFE ID"),
    "SPIFFE id with an encoding": ({"identity": {"uris": ["spiffe://a/%2e"]}}, "expected a SPIFFE ID"),
    "trust domain alone": ({"identity": {"uris": ["spiffe://a"]}}, "expected a SPIFFE ID"),
    "URI with a dot segment": ({"identity": {"uris": ["https://a/b/../c"]}}, "expected no dot segments"),
    "URI with an encoded slash": ({"identity": {"uris": ["https://a/b%2fc"]}}, "expected no dot segments, and none of %2E, %2F, %5C"),
    "name that turns around": ({"identity": {"commonName": "nimda\u202e"}}, "spec.identity.commonName: Invalid value"),
    "name with what is not seen": ({"identity": {"commonName": "ad\u200bmin"}}, "spec.identity.commonName: Invalid value"),
    "organization with a C1 control": ({"identity": {"commonName": "a", "organizations": ["a\x9bb"]}}, "spec.identity.organizations[0]: Invalid value"),
    "nine DNS names": ({"identity": {"dnsNames": [f"a{n}.example" for n in range(9)]}}, "must have at most 8 items"),
    "twice the same name": ({"identity": {"dnsNames": ["a.example", "a.example"]}}, "spec.identity.dnsNames[1]: Duplicate value"),
    "CSR without csr": ({"certificate": {"source": "CSR"}}, "csr goes with source: CSR, and only with it"),
    "csr that is none": ({"certificate": {"source": "CSR", "csr": "hello"}}, "spec.certificate.csr"),
    "External without fingerprints": ({"certificate": {"source": "External"}}, "fingerprints (1 to 8) go with source: External"),
    "Issued with fingerprints": ({"certificate": {"fingerprints": [HEX]}}, "fingerprints (1 to 8) go with source: External"),
    "fingerprint with colons": ({"certificate": {"source": "External", "fingerprints": ["0f:1e"]}}, "spec.certificate.fingerprints[0]"),
    "fingerprint as openssl prints it": ({"certificate": {"source": "External", "fingerprints": [":".join(["0F"] * 32)]}}, "expected 64 hexadecimal digits alone, without openssl's colons"),
    "fingerprint as sha256sum prints it": ({"revocation": {"fingerprints": [{"sha256": HEX + "  a.der"}]}}, "expected 64 hexadecimal digits alone, without openssl's colons and sha256sum's file name"),
    "External with an issuer": ({"certificate": {"source": "External", "fingerprints": [HEX], "issuerRef": {"name": "a"}}}, "issuerRef goes with source: Issued"),
    "both renewals": ({"certificate": {"renewBefore": "1h", "renewBeforePercentage": 30}}, "renewBefore and renewBeforePercentage exclude each other"),
    "renewal before the beginning": ({"certificate": {"renewBefore": "720h"}}, "renewBefore must be shorter than duration"),
    "renewal too late": ({"certificate": {"renewBefore": "1m"}}, "at least 5m"),
    "life of a minute": ({"certificate": {"duration": "1m"}}, "at least 1h"),
    "duration in days": ({"certificate": {"duration": "30d"}}, 'spec.certificate.duration: Invalid value: "30d": expected a duration such as 90s, 15m or 720h'),
    "life beyond a year": ({"certificate": {"duration": "8784h1s"}}, "duration is at most 8784h"),
    "life beyond what a number holds": ({"certificate": {"duration": "999999999999h"}}, "duration is at most 8784h"),
    "the CA's Secret": ({"certificate": {"secretName": "clientpolicy-ca"}}, "clientpolicy-ca and clientpolicy-trust are the operator's own"),
    "the trust bundle's Secret": ({"certificate": {"secretName": "clientpolicy-trust"}}, "clientpolicy-ca and clientpolicy-trust are the operator's own"),
    "RSA of 256 bits": ({"certificate": {"privateKey": {"algorithm": "RSA"}}}, "size is 256 or 384 for ECDSA, and 2048, 3072 or 4096 for RSA"),
    "Spiffe without an id": ({"certificate": {"profile": "Spiffe"}}, "Spiffe needs exactly one URI, spiffe://..., in identity.uris"),
    "None without token": ({"certificate": {"source": "None"}, "token": {"required": False}}, "identifies by token, so token.required cannot be false"),
    "None with binding": ({"certificate": {"source": "None"}, "token": {"binding": "Required"}}, "token.binding: Required needs a certificate"),
    "no issuers": ({"token": {"issuers": []}}, "should have at least 1 items"),
    "scope of nothing": ({"scopes": ["patient/Patient."]}, 'spec.scopes[0]: Invalid value: "patient/Patient.": expected a SMART clinical scope such as'),
    "letters out of order": ({"scopes": ["patient/Patient.sr"]}, "spec.scopes[0]"),
    "v1 with a filter": ({"scopes": ["patient/Patient.read?a=b"]}, "spec.scopes[0]"),
    "clinical scope among the others": ({"otherScopes": ["patient/Patient.read"]}, "a clinical scope belongs into spec.scopes"),
    "route without path": ({"routes": [{"name": "a", "match": {}, "scopes": {"anyOf": ["b"]}}]}, "needs exactly one of path, pathPrefix"),
    "route without scopes": ({"routes": [{"name": "a", "match": {"path": "/"}, "scopes": {}}]}, "needs exactly one of allOf, anyOf"),
    "two routes of a name": ({"routes": [{"name": "a", "match": {"path": "/"}, "scopes": {"anyOf": ["b"]}}] * 2}, "Duplicate value"),
    "quota without a window": ({"quotas": [{"name": "a", "requests": 1}]}, "needs exactly one of per, calendar"),
    "quota with two windows": ({"quotas": [{"name": "a", "requests": 1, "per": "1s", "calendar": "Day"}]}, "needs exactly one of per, calendar"),
    "calendar with burst": ({"quotas": [{"name": "a", "requests": 1, "calendar": "Day", "burst": 1}]}, "burst goes with per, not with calendar"),
    "calendar with overshoot": ({"quotas": [{"name": "a", "requests": 1, "calendar": "Day", "maxOvershoot": 1}]}, "maxOvershoot goes with per"),
    "quota per nothing": ({"quotas": [{"name": "a", "requests": 1, "per": "0s"}]}, "per is longer than 0s"),
    "quota per nothing in many words": ({"quotas": [{"name": "a", "requests": 1, "per": "0h00.0s"}]}, "per is longer than 0s"),
    "quota per day": ({"quotas": [{"name": "a", "requests": 1, "per": "1d"}]}, 'spec.quotas[0].per: Invalid value: "1d": expected a duration such as'),
    "no requests": ({"quotas": [{"name": "a", "requests": 0, "per": "1s"}]}, "should be greater than or equal to 1"),
    "too many requests": ({"quotas": [{"name": "a", "requests": 10**9 + 1, "per": "1s"}]}, "should be less than or equal to 1000000000"),
    "revoked by nobody": ({"revocation": {"fingerprints": [{"reason": "KeyCompromise"}]}}, "spec.revocation.fingerprints[0].sha256: Required value"),
    "issuedBefore yesterday": ({"revocation": {"issuedBefore": "yesterday"}}, "spec.revocation.issuedBefore"),
    "validity backwards": ({"validity": {"notBefore": "2027-01-01T00:00:00Z", "notAfter": "2026-01-01T00:00:00Z"}}, "notBefore must be earlier than notAfter"),
    "field that is none": ({"rateLimit": 5}, 'unknown field "spec.rateLimit"'),
}  # fmt: skip


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_are_taken(plane: KubernetesApi, namespace: str, file: Path) -> None:
    for document in read_documents(file.read_text()):
        value: Any = document.value
        value["metadata"]["namespace"] = namespace
        plane.must("POST", policies_in(namespace) + "?fieldValidation=Strict", value)


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_good_policy_is_taken_and_reads_the_same_with_its_defaults(
    plane: KubernetesApi, namespace: str, spec: dict[str, Any]
) -> None:
    sent = policy(**spec)
    stored = plane.must("POST", policies_in(namespace) + "?fieldValidation=Strict", sent)
    ours, theirs = parse(sent), parse(stored)
    assert isinstance(ours, ClientPolicy), ours
    assert isinstance(theirs, ClientPolicy), theirs
    assert theirs.spec == ours.spec


@pytest.mark.parametrize(("spec", "message"), BAD.values(), ids=BAD)
def test_bad_policy_is_refused_with_its_reason(
    plane: KubernetesApi, namespace: str, spec: dict[str, Any], message: str
) -> None:
    sent = policy(**spec)
    sent["spec"] = {key: value for key, value in sent["spec"].items() if value is not None}
    status, answer = plane.api("POST", policies_in(namespace) + "?fieldValidation=Strict", sent)
    assert status in (400, 422), answer
    assert message in answer["message"]
    assert not isinstance(parse(sent), ClientPolicy), "authz and the operator refuse it, too"


@pytest.mark.parametrize(
    "spec",
    [{"certificate": {"duration": "30d"}}, {"quotas": [{"name": "a", "requests": 1, "per": "1d"}]}],
    ids=["duration", "per"],
)
def test_what_is_no_duration_is_told_in_words_alone(plane: KubernetesApi, namespace: str, spec: dict[str, Any]) -> None:
    """Rules that compute with it say nothing about what the API server cannot read."""
    _, answer = plane.api("POST", policies_in(namespace), policy(**spec))
    told = [cause["message"] for cause in answer["details"]["causes"] if "should match" not in cause["message"]]
    (words,) = told
    assert words.endswith("expected a duration such as 90s, 15m or 720h")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"clientId": "other"}, "clientId cannot be changed"),
        ({}, {"certificate": {"secretName": "other"}}, "secretName cannot be changed"),
        (
            {"certificate": {"secretName": "one"}},
            {"certificate": {"secretName": "other"}},
            "secretName cannot be changed",
        ),
        ({"certificate": {"secretName": "one"}}, {"certificate": {}}, "secretName cannot be changed"),
        (
            {"certificate": {"source": "External", "fingerprints": [HEX]}},
            {"certificate": {"secretName": "other"}},
            "secretName cannot be changed",
        ),
    ],
)
def test_what_cannot_be_changed(
    plane: KubernetesApi, namespace: str, before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    stored = plane.must("POST", policies_in(namespace), policy(**before))
    stored["spec"] |= after
    status, answer = plane.api("PUT", policies_in(namespace, "app"), stored)
    assert status == 422
    assert message in answer["message"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"secretName": "app-tls"}),
        ({"secretName": "app-tls"}, {}),
        ({"secretName": "app-tls"}, {"secretName": "app-tls"}),
    ],
)
def test_name_that_a_secret_has_anyway_may_be_written_down(
    plane: KubernetesApi, namespace: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    stored = plane.must("POST", policies_in(namespace), policy(certificate=before))
    stored["spec"]["certificate"] = after
    plane.must("PUT", policies_in(namespace, "app"), stored)


@pytest.mark.parametrize(("value", "is_taken"), [
    ("", True), ("a", True), ("a.B_c-9", True), ("-a", False), ("a.", False), ("a b", False), ("ä", False), ("a/b", False),
])  # fmt: skip
def test_label_that_no_secret_can_have_is_refused(
    plane: KubernetesApi, namespace: str, value: str, *, is_taken: bool
) -> None:
    sent = policy(certificate={"secretTemplate": {"labels": {"team": value}}})
    status, answer = plane.api("POST", policies_in(namespace) + "?fieldValidation=Strict", sent)
    assert (status == 201) is is_taken, answer
    assert is_taken or "spec.certificate.secretTemplate.labels.team" in answer["message"]


def test_name_leaves_room_for_the_secrets(plane: KubernetesApi, namespace: str) -> None:
    status, answer = plane.api("POST", policies_in(namespace), policy() | {"metadata": {"name": "n" * 60 + ".n" * 95}})
    assert status == 422
    assert "metadata.name is at most 249 characters" in answer["message"]


def test_selected_shown_and_status_apart(plane: KubernetesApi, namespace: str) -> None:
    for name in ("one", "two"):
        plane.must("POST", policies_in(namespace), policy(name) | {"status": {"certificate": {"sha256": HEX}}})
    found = plane.must("GET", policies_in(namespace) + "?fieldSelector=spec.clientId%3Dtwo")["items"]
    assert [one["metadata"]["name"] for one in found] == ["two"]
    assert "status" not in found[0], "who may write a policy cannot write its status"
    plane.must(
        "PATCH",
        policies_in(namespace, "two"),
        {"status": {"certificate": {"sha256": HEX}}},
        "application/merge-patch+json",
    )
    assert "status" not in plane.must("GET", policies_in(namespace, "two"))
    table = plane.table(policies_in(namespace))
    assert [column["name"] for column in table["columnDefinitions"] if column["priority"] == 0] == [
        "Name", "Ready", "Mode", "Client", "Not-After", "Renewal", "Age",
    ]  # fmt: skip
