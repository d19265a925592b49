"""ClientPolicy documents: good ones become values, bad ones every error at once, each with its field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import policy_document

from authz.policy import ClientPolicy, FieldError, Mode, Source, parse
from authz.policy.limits import OnStoreFailure

FULL: dict[str, Any] = {
    "clientId": "trusted-partner-app",
    "mode": "Shadow",
    "suspended": False,
    "identity": {
        "commonName": "trusted-partner-app",
        "organizations": ["Partner Ltd"],
        "uris": ["spiffe://healthtech.dev/client/trusted-partner-app", "https://partner.example.org/app"],
        "dnsNames": ["app.partner.example.org", "*.partner.example.org"],
        "emails": ["ops@partner.example.org"],
    },
    "certificate": {
        "source": "Issued",
        "duration": "720h",
        "renewBeforePercentage": 33,
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "profile": "ClientAuth",
        "secretName": "trusted-partner-app-tls",
        "secretTemplate": {"labels": {"a": "b"}, "annotations": {}},
        "secretDeletionPolicy": "Delete",
        "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": "corp"},
    },
    "revocation": {
        "fingerprints": [{"sha256": "AB" * 32, "reason": "KeyCompromise", "time": "2026-11-01T00:00:00Z"}],
        "issuedBefore": "2026-11-01T00:00:00Z",
    },
    "token": {"required": True, "issuers": ["health-auth"], "binding": "WhenPresent"},
    "scopes": ["patient/Patient.read", "patient/Observation.rs?category=lab", "system/*.read"],
    "otherScopes": ["export.run"],
    "routes": [
        {
            "name": "export-status",
            "match": {"methods": ["GET"], "pathPrefix": "/export/"},
            "scopes": {"allOf": ["system/*.read", "export.run"]},
        }
    ],
    "quotas": [
        {"name": "steady", "requests": 10, "per": "1s", "burst": 20, "onStoreFailure": "Closed"},
        {"name": "daily", "requests": 10000, "calendar": "Day"},
    ],
    "validity": {"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00+01:00"},
}


def document(**spec: Any) -> dict[str, Any]:
    return policy_document() | {"spec": spec}


def errors(value: object) -> tuple[FieldError, ...]:
    parsed = parse(value)
    assert isinstance(parsed, tuple)
    assert parsed
    return parsed


def test_full_document_becomes_values() -> None:
    policy = parse(document(**FULL))
    assert isinstance(policy, ClientPolicy)
    spec = policy.spec
    assert spec.mode is Mode.SHADOW
    assert spec.certificate.source is Source.ISSUED
    assert spec.certificate.duration == 720 * 3600 * 1_000_000
    assert spec.revocation.fingerprints[0].sha256 == "ab" * 32
    assert [scope.text for scope in spec.scopes] == FULL["scopes"]
    limits = [quota.limit() for quota in spec.quotas]
    assert [limit.name for limit in limits] == ["steady", "daily"]
    assert limits[0].on_store_failure is OnStoreFailure.CLOSED


def test_client_id_alone_is_enough() -> None:
    policy = parse(document(clientId="a"))
    assert isinstance(policy, ClientPolicy)
    assert policy.spec.certificate.source is Source.ISSUED
    assert policy.spec.token.required
    assert policy.spec.scopes == ()


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "clientId missing": ({"clientId": None}, "spec.clientId", "required"),
    "clientId with space": ({"clientId": "a b"}, "spec.clientId", "pattern"),
    "clientId empty": ({"clientId": ""}, "spec.clientId", ""),
    "unknown field": ({"clientID": "x"}, "spec.clientID", "no such field"),
    "mode": ({"mode": "enforce"}, "spec.mode", "Enforce"),
    "suspended a string": ({"suspended": "yes"}, "spec.suspended", "boolean"),
    "identity empty": ({"identity": {}}, "spec.identity", "commonName or at least one"),
    "two SPIFFE ids": ({"identity": {"uris": ["spiffe://a/b", "spiffe://a/c"]}}, "spec.identity.uris", "at most one"),
    "URI with comma": ({"identity": {"uris": ["spiffe://a/b,Hash=c"]}}, "spec.identity.uris[0]", "pattern"),
    "URI with semicolon": ({"identity": {"uris": ["spiffe://a/b;c"]}}, "spec.identity.uris[0]", "pattern"),
    "URI with quote": ({"identity": {"uris": ['spiffe://a/"b']}}, "spec.identity.uris[0]", "pattern"),
    "URI with space": ({"identity": {"uris": ["spiffe://a/b c"]}}, "spec.identity.uris[0]", "pattern"),
    "SPIFFE id of a port": ({"identity": {"uris": ["spiffe://a:1/b"]}}, "spec.identity.uris[0]", "SPIFFE"),
    "name with a newline": ({"identity": {"commonName": "a\nb"}}, "spec.identity.commonName", "pattern"),
    "name with a right-to-left override": (
        {"identity": {"commonName": "nimda\u202e"}},
        "spec.identity.commonName",
        "pattern",
    ),
    "name with a zero width space": (
        {"identity": {"commonName": "ad\u200bmin"}},
        "spec.identity.commonName",
        "pattern",
    ),
    "name for private use": ({"identity": {"commonName": "\ue000"}}, "spec.identity.commonName", "pattern"),
    "half a character": ({"identity": {"commonName": "a\ud800"}}, "", "Invalid JSON"),
    "organization with a C1 control": (
        {"identity": {"commonName": "a", "organizations": ["a\x9bb"]}},
        "spec.identity.organizations[0]",
        "pattern",
    ),
    "life beyond a year": ({"certificate": {"duration": "8784h1s"}}, "spec.certificate", "duration is at most 8784h"),
    "the CA's Secret": (
        {"certificate": {"secretName": "clientpolicy-ca"}},
        "spec.certificate.secretName",
        "the operator's own",
    ),
    "the trust bundle's Secret": (
        {"certificate": {"secretName": "clientpolicy-trust"}},
        "spec.certificate.secretName",
        "the operator's own",
    ),
    "quota per nothing": (
        {"quotas": [{"name": "a", "requests": 1, "per": "0s"}]},
        "spec.quotas[0].per",
        "at least one microsecond",
    ),
    "URI twice": ({"identity": {"uris": ["https://a", "https://a"]}}, "spec.identity.uris", "given twice: https://a"),
    "nine DNS names": ({"identity": {"dnsNames": [f"a{n}" for n in range(9)]}}, "spec.identity.dnsNames", "8"),
    "DNS name": ({"identity": {"dnsNames": ["a_b"]}}, "spec.identity.dnsNames[0]", "pattern"),
    "source": ({"certificate": {"source": "Self"}}, "spec.certificate.source", "'Issued'"),
    "External without fingerprints": ({"certificate": {"source": "External"}}, "spec.certificate", "1 to 8"),
    "fingerprints without External": ({"certificate": {"fingerprints": ["ab" * 32]}}, "spec.certificate", "External"),
    "short fingerprint": (
        {"certificate": {"source": "External", "fingerprints": ["ab"]}},
        "spec.certificate.fingerprints[0]",
        "expected 64 hexadecimal digits: the SHA-256 of the certificate in DER",
    ),
    "fingerprint with openssl's colons": (
        {"certificate": {"source": "External", "fingerprints": [":".join(["AB"] * 32)]}},
        "spec.certificate.fingerprints[0]",
        f"alone: {'ab' * 32}",
    ),
    "openssl's line": (
        {"revocation": {"fingerprints": [{"sha256": "sha256 Fingerprint=" + ":".join(["AB"] * 32)}]}},
        "spec.revocation.fingerprints[0].sha256",
        f"alone: {'ab' * 32}",
    ),
    "sha256sum's line": (
        {"certificate": {"source": "External", "fingerprints": ["ab" * 32 + "  a.der"]}},
        "spec.certificate.fingerprints[0]",
        f"alone: {'ab' * 32}",
    ),
    "blank fingerprint": (
        {"certificate": {"source": "External", "fingerprints": [" "]}},
        "spec.certificate.fingerprints[0]",
        "expected 64 hexadecimal digits: ",
    ),
    "long fingerprint": (
        {"certificate": {"source": "External", "fingerprints": ["a" * 600]}},
        "spec.certificate.fingerprints[0]",
        "at most 512",
    ),
    "name that is a page": ({"n" * 5000: 1}, f"spec.{'n' * 63}…", "no such field"),
    "fingerprint twice": (
        {"certificate": {"source": "External", "fingerprints": ["ab" * 32, "AB" * 32]}},
        "spec.certificate.fingerprints",
        "given twice",
    ),
    "CSR missing": ({"certificate": {"source": "CSR"}}, "spec.certificate", "csr goes with"),
    "CSR elsewhere": (
        {"certificate": {"csr": "-----BEGIN CERTIFICATE REQUEST-----"}},
        "spec.certificate",
        "csr goes with",
    ),
    "both renewals": (
        {"certificate": {"renewBefore": "1h", "renewBeforePercentage": 3}},
        "spec.certificate",
        "exclude each other",
    ),
    "renewal too early": ({"certificate": {"renewBefore": "721h"}}, "spec.certificate", "shorter than duration"),
    "duration": ({"certificate": {"duration": "30 days"}}, "spec.certificate.duration", "such as 90s"),
    "duration a number": ({"certificate": {"duration": 5}}, "spec.certificate.duration", "such as 90s"),
    "key size": (
        {"certificate": {"privateKey": {"algorithm": "RSA", "size": 256}}},
        "spec.certificate.privateKey",
        "one of 2048",
    ),
    "revoked twice": (
        {"revocation": {"fingerprints": [{"sha256": "ab" * 32}, {"sha256": "AB" * 32}]}},
        "spec.revocation.fingerprints",
        "given twice",
    ),
    "issuedBefore without zone": (
        {"revocation": {"issuedBefore": "2026-01-01T00:00:00"}},
        "spec.revocation.issuedBefore",
        "an instant such as 2026-11-01T00:00:00Z",
    ),
    "no issuers": ({"token": {"issuers": []}}, "spec.token.issuers", "at least 1"),
    "binding": ({"token": {"binding": "Maybe"}}, "spec.token.binding", "Required"),
    "scope": ({"scopes": ["patient/Patient.druc"]}, "spec.scopes[0]", "SMART"),
    "scope of another kind": ({"scopes": ["openid"]}, "spec.scopes[0]", "SMART"),
    "scope twice": ({"scopes": ["system/*.rs", "system/*.rs"]}, "spec.scopes", "given twice"),
    "clinical other scope": ({"otherScopes": ["patient/Patient.read"]}, "spec.otherScopes[0]", "spec.scopes"),
    "other scope with space": ({"otherScopes": ["a b"]}, "spec.otherScopes[0]", "visible ASCII"),
    "route without scopes": (
        {"routes": [{"name": "a", "match": {"path": "/a"}}]},
        "spec.routes[0].scopes",
        "required",
    ),
    "route with both rules": (
        {"routes": [{"name": "a", "match": {"path": "/a"}, "scopes": {"allOf": ["x"], "anyOf": ["y"]}}]},
        "spec.routes[0].scopes",
        "exactly one of allOf, anyOf",
    ),
    "route with empty rule": (
        {"routes": [{"name": "a", "match": {"path": "/a"}, "scopes": {"allOf": []}}]},
        "spec.routes[0].scopes.allOf",
        "at least 1",
    ),
    "route with two paths": (
        {"routes": [{"name": "a", "match": {"path": "/a", "pathPrefix": "/b"}, "scopes": {"anyOf": ["x"]}}]},
        "spec.routes[0].match",
        "exactly one of path, pathPrefix",
    ),
    "ambiguous route": (
        {"routes": [{"name": "a", "match": {"path": "/a/../b"}, "scopes": {"anyOf": ["x"]}}]},
        "spec.routes[0].match.path",
        "without query",
    ),
    "relative route": (
        {"routes": [{"name": "a", "match": {"path": "a"}, "scopes": {"anyOf": ["x"]}}]},
        "spec.routes[0].match.path",
        "absolute path",
    ),
    "namesake routes": (
        {"routes": [{"name": "a", "match": {"path": "/a"}, "scopes": {"anyOf": ["x"]}}] * 2},
        "spec.routes",
        "given twice: a",
    ),
    "quota that leases by calendar": (
        {"quotas": [{"name": "a", "requests": 1, "calendar": "Day", "maxOvershoot": 1}]},
        "spec.quotas[0]",
        "never overshot",
    ),
    "quota with a negative overshoot": (
        {"quotas": [{"name": "a", "requests": 1, "per": "1s", "maxOvershoot": -1}]},
        "spec.quotas[0]",
        "maxOvershoot is from 0",
    ),
    "quota of an unknown mode": (
        {"quotas": [{"name": "a", "requests": 1, "per": "1s", "mode": "Log"}]},
        "spec.quotas[0].mode",
        "Enforce",
    ),
    "quota without window": (
        {"quotas": [{"name": "a", "requests": 1}]},
        "spec.quotas[0]",
        "exactly one of per, calendar",
    ),
    "quota with two windows": (
        {"quotas": [{"name": "a", "requests": 1, "per": "1s", "calendar": "Day"}]},
        "spec.quotas[0]",
        "exactly one of per, calendar",
    ),
    "burst of a calendar": (
        {"quotas": [{"name": "a", "requests": 1, "calendar": "Day", "burst": 1}]},
        "spec.quotas[0]",
        "burst goes with per",
    ),
    "no requests": ({"quotas": [{"name": "a", "requests": 0, "per": "1s"}]}, "spec.quotas[0]", "from 1 to"),
    "inexact quota": (
        {"quotas": [{"name": "a", "requests": 999999937, "per": "24h"}]},
        "spec.quotas[0]",
        "computed exactly",
    ),
    "namesake quotas": (
        {"quotas": [{"name": "a", "requests": 1, "per": "1s"}] * 2},
        "spec.quotas",
        "given twice: a",
    ),
    "validity backwards": (
        {"validity": {"notBefore": "2027-01-01T00:00:00Z", "notAfter": "2026-01-01T00:00:00Z"}},
        "spec.validity",
        "earlier than",
    ),
    "None without a token": (
        {"certificate": {"source": "None"}, "token": {"required": False}},
        "spec",
        "token.required cannot be false",
    ),
    "None with binding": (
        {"certificate": {"source": "None"}, "token": {"binding": "Required"}},
        "spec",
        "needs a certificate",
    ),
    "long clientId without identity": ({"clientId": "a" * 65}, "spec", "identity is needed"),
}


@pytest.mark.parametrize(("change", "place", "message"), BAD.values(), ids=BAD.keys())
def test_bad_field_is_named_with_what_was_expected(change: dict[str, Any], place: str, message: str) -> None:
    spec = {key: value for key, value in ({"clientId": "a"} | change).items() if value is not None}
    (error,) = errors(document(**spec))
    assert error.place == place
    assert message in error.message


def test_all_errors_come_at_once() -> None:
    bad = document(clientId="a b", mode="x", scopes=["bad", "patient/Patient.read", "worse"], quotas=[{"name": "A"}])
    assert {error.place for error in errors(bad)} == {
        "spec.clientId",
        "spec.mode",
        "spec.scopes[0]",
        "spec.scopes[2]",
        "spec.quotas[0].name",
        "spec.quotas[0].requests",
    }


GOOD_URIS = (
    "spiffe://a/b",
    "spiffe://healthtech.dev/client/trusted-partner-app",
    "spiffe://a_b.c-d.1/A/b_c/.hidden/..two/a.b/...",
    f"spiffe://{'t' * 255}/a",
    f"spiffe://a/{'b' * 2037}",
    "https://partner.example.org/app?next=/a&b=%20",
    "https://user@Partner.example:8443",
    "https://[2001:db8::1]/",
    "urn:oid:1.2.3",
    "urn:a..b",
    "https://a/.well-known/b..c/...",
    "mailto:a@b.example",
    "spiffes://A",
)
BAD_SPIFFE_IDS = {
    "trust domain alone": "spiffe://a",
    "trailing slash": "spiffe://a/b/",
    "root": "spiffe://a/",
    "empty segment": "spiffe://a//b",
    "no trust domain": "spiffe:///b",
    "upper-case trust domain": "spiffe://A/b",
    "port": "spiffe://a:443/b",
    "user": "spiffe://u@a/b",
    "query": "spiffe://a/b?c=d",
    "dot segment": "spiffe://a/./b",
    "dot segment at the end": "spiffe://a/b/.",
    "parent": "spiffe://a/b/../c",
    "parent at the end": "spiffe://a/b/..",
    "encoding": "spiffe://a/%62",
    "encoded parent": "spiffe://a/%2e%2e/b",
    "another sign": "spiffe://a/b~c",
    "colon": "spiffe://a/b:c",
    "no authority": "spiffe:a/b",
    "long trust domain": f"spiffe://{'t' * 256}/a",
}
BAD_URIS = {
    "parent": "https://a/b/../c",
    "parent at the end": "https://a/b/..",
    "parent before a query": "https://a/b/..?c",
    "dot segment": "https://a/./b",
    "dot segment at the end": "https://a/.",
    "parent of a URN": "urn:../a",
    "encoded dots": "https://a/%2e%2E/b",
    "encoded slash": "https://a/b%2Fc",
    "encoded slash in lower case": "https://a/b%2fc",
    "encoded backslash": "https://a/b%5cc",
}
BAD_SPELLINGS = {
    "fragment": "https://a/b#c",
    "fragment of a SPIFFE id": "spiffe://a/b#c",
    "backslash": "https://a\\b",
    "upper-case scheme": "HTTPS://a/b",
    "SPIFFE in upper case": "SPIFFE://a/b",
    "SPIFFE in both cases": "Spiffe://a/b",
    "no scheme": "//a/b",
    "beyond ASCII": "https://\u00e4.example",
}


@pytest.mark.parametrize("uri", GOOD_URIS)
def test_good_uri_is_taken_as_it_is_written(uri: str) -> None:
    policy = parse(document(clientId="a", identity={"uris": [uri]}))
    assert isinstance(policy, ClientPolicy), policy
    assert policy.spec.identity is not None
    assert policy.spec.identity.uris == (uri,)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        *(pytest.param(uri, "expected a SPIFFE ID", id=f"SPIFFE: {name}") for name, uri in BAD_SPIFFE_IDS.items()),
        *(pytest.param(uri, "expected no dot segments", id=f"URI: {name}") for name, uri in BAD_URIS.items()),
        *(pytest.param(uri, "pattern", id=name) for name, uri in BAD_SPELLINGS.items()),
        pytest.param(f"spiffe://a/{'b' * 2038}", "at most 2048", id="too long"),
    ],
)
def test_uri_with_two_readings_is_refused(uri: str, message: str) -> None:
    (error,) = errors(document(clientId="a", identity={"uris": [uri]}))
    assert error.place == "spec.identity.uris[0]"
    assert message in error.message


def test_longest_life_is_a_leap_year() -> None:
    assert isinstance(parse(document(clientId="a", certificate={"duration": "8784h"})), ClientPolicy)


@pytest.mark.parametrize("name", ["Partner Ltd", "Ärzte & Söhne (Zürich) 株式会社", "a"])
def test_names_of_people_are_taken(name: str) -> None:
    policy = parse(document(clientId="a", identity={"commonName": name, "organizations": [name]}))
    assert isinstance(policy, ClientPolicy), policy


@pytest.mark.parametrize(
    "change",
    [{"apiVersion": "v1"}, {"kind": "Policy"}, {"metadata": {}}, {"metadata": {"name": "A"}}, {"spec": None}, {"x": 1}],
)
def test_envelope_is_checked(change: dict[str, Any]) -> None:
    assert errors(policy_document() | change)


def test_metadata_of_kubernetes_is_left_alone() -> None:
    metadata = {"name": "a", "uid": "x", "managedFields": [{}], "labels": {"a": "b"}}
    policy = parse(policy_document() | {"metadata": metadata, "status": {"conditions": []}})
    assert isinstance(policy, ClientPolicy)
    assert policy.metadata.namespace == "default"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON)
def test_any_document_is_a_policy_or_errors(value: object) -> None:
    assert errors(value)


@given(st.sampled_from(sorted(FULL)), JSON)
def test_any_value_of_any_field_is_a_policy_or_errors(name: str, value: object) -> None:
    parsed = parse(document(**(FULL | {name: value})))
    assert isinstance(parsed, ClientPolicy) or all(str(error) for error in parsed)


def test_what_is_no_json_is_an_error() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ({"spec": {1, 2}}, {"a": float("nan")}, deep):
        assert errors(value)[0].path == ()
