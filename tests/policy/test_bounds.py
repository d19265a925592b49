"""Where each bound of the document lies: the last value that is taken, the next that is not, and what holds unsaid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from alphabet import taken
from partner import policy_document

from authz.policy import Binding, ClientPolicy, Mode, Source, parse
from authz.policy.document import Certificate, Identity, IssuerRef, PrivateKey, Quota, RevokedFingerprint, Spec
from authz.policy.limits import Calendar, OnStoreFailure

SPIFFE = {"certificate": {"profile": "Spiffe"}}
NO_CERTIFICATE = {"certificate": {"source": "None"}}
CSR = "-----BEGIN CERTIFICATE REQUEST-----"


def policy(**spec: Any) -> object:
    return parse(policy_document() | {"spec": {"clientId": "a", **spec}})


def fits(**spec: Any) -> bool:
    return isinstance(policy(**spec), ClientPolicy)


def spec_of(**spec: Any) -> Spec:
    found = policy(**spec)
    assert isinstance(found, ClientPolicy), found
    return found.spec


def certificate(**fields: Any) -> dict[str, Any]:
    return {"certificate": fields}


def quota(**fields: Any) -> dict[str, Any]:
    return {"quotas": [{"name": "a", "requests": 1, "per": "1s", **fields}]}


def route(match: dict[str, Any], scopes: Any = ("x",), rule: str = "anyOf") -> dict[str, Any]:
    return {"routes": [{"name": "a", "match": match, "scopes": {rule: list(scopes)}}]}


def names(count: int) -> list[str]:
    return [f"a{number}" for number in range(count)]


COUNTS: dict[str, tuple[Callable[[int], dict[str, Any]], int, int]] = {
    "organizations": (lambda n: {"identity": {"commonName": "a", "organizations": names(n)}}, 0, 8),
    "uris": (lambda n: {"identity": {"commonName": "a", "uris": [f"a:{x}" for x in names(n)]}}, 0, 8),
    "dnsNames": (lambda n: {"identity": {"commonName": "a", "dnsNames": names(n)}}, 0, 8),
    "emails": (lambda n: {"identity": {"commonName": "a", "emails": [f"{x}@a" for x in names(n)]}}, 0, 8),
    "SPIFFE IDs": (lambda n: {"identity": {"commonName": "a", "uris": [f"spiffe://a/{x}" for x in names(n)]}}, 0, 1),
    "labels": (lambda n: certificate(secretTemplate={"labels": dict.fromkeys(names(n), "b")}), 0, 32),
    "annotations": (lambda n: certificate(secretTemplate={"annotations": dict.fromkeys(names(n), "b")}), 0, 32),
    "fingerprints": (lambda n: certificate(source="External", fingerprints=[f"{x:064x}" for x in range(n)]), 1, 8),
    "revoked": (lambda n: {"revocation": {"fingerprints": [{"sha256": f"{x:064x}"} for x in range(n)]}}, 0, 32),
    "issuers": (lambda n: {"token": {"issuers": names(n)}}, 1, 8),
    "scopes": (lambda n: {"scopes": [f"user/A{'a' * x}.r" for x in range(n)]}, 0, 64),
    "otherScopes": (lambda n: {"otherScopes": names(n)}, 0, 64),
    "routes": (
        lambda n: {"routes": [{"name": x, "match": {"path": "/"}, "scopes": {"anyOf": ["x"]}} for x in names(n)]},
        0,
        32,
    ),
    "methods": (lambda n: route({"path": "/", "methods": ["A" * (x + 1) for x in range(n)]}), 1, 16),
    "anyOf": (lambda n: route({"path": "/"}, names(n)), 1, 16),
    "allOf": (lambda n: route({"path": "/"}, names(n), "allOf"), 1, 16),
    "quotas": (lambda n: {"quotas": [{"name": x, "requests": 1, "per": "1s"} for x in names(n)]}, 0, 8),
    "renewBeforePercentage": (lambda n: certificate(renewBeforePercentage=n), 1, 99),
    "clientId of an issued certificate": (lambda n: {"clientId": "a" * n}, 1, 64),
    "clientId of a CSR": (lambda n: {"clientId": "a" * n, **certificate(source="CSR", csr=CSR)}, 1, 64),
    "clientId with an identity": (lambda n: {"clientId": "a" * n, "identity": {"commonName": "a"}}, 1, 256),
    "clientId without a certificate": (lambda n: {"clientId": "a" * n, **NO_CERTIFICATE}, 1, 256),
    "csr": (lambda n: certificate(source="CSR", csr=(CSR + "a" * n)[:n]), len(CSR), 16_384),
    "kind of an issuer": (lambda n: certificate(issuerRef={"name": "a", "kind": "A" * n}), 1, 63),
    "reason of a revocation": (lambda n: {"revocation": {"fingerprints": [{"sha256": "ab" * 32, "reason": "A" * n}]}}, 1, 64),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "least", "most"), COUNTS.values(), ids=COUNTS)
def test_bound_is_where_it_says(spec: Callable[[int], dict[str, Any]], least: int, most: int) -> None:
    assert [fits(**spec(count)) for count in (least, most, most + 1)] == [True, True, False]
    assert least == 0 or not fits(**spec(least - 1))


def test_name_leaves_room_for_what_ends_in_tls() -> None:
    def named(length: int) -> object:
        return parse(policy_document() | {"metadata": {"name": ("a." * 200)[: length - 1] + "a"}})

    assert isinstance(named(249), ClientPolicy)
    assert not isinstance(named(250), ClientPolicy)


@pytest.mark.parametrize(
    ("frame", "spec"),
    [
        ("{}", lambda text: certificate(issuerRef={"name": "a", "kind": text})),
        ("A{}", lambda text: certificate(issuerRef={"name": "a", "kind": text})),
        ("{}", lambda text: {"revocation": {"fingerprints": [{"sha256": "ab" * 32, "reason": text}]}}),
        ("A{}", lambda text: {"revocation": {"fingerprints": [{"sha256": "ab" * 32, "reason": text}]}}),
    ],
    ids=["kind begins", "kind goes on", "reason begins", "reason goes on"],
)
def test_names_of_kinds_and_reasons_are_words(frame: str, spec: Callable[[str], dict[str, Any]]) -> None:
    upper, lower = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), set("abcdefghijklmnopqrstuvwxyz")
    assert taken(frame, lambda text: fits(**spec(text))) == (upper if frame == "{}" else upper | lower)


GOOD = {
    "csr after white space": certificate(source="CSR", csr=f" \n{CSR}"),
    "shortest life": certificate(duration="1h"),
    "longest life": certificate(duration="8784h"),
    "shortest renewal": certificate(duration="1h", renewBefore="5m"),
    "longest renewal": certificate(duration="1h", renewBefore="59m59s"),
    "EC": certificate(privateKey={"algorithm": "ECDSA", "size": 384}),
    "RSA": certificate(privateKey={"algorithm": "RSA", "size": 2048}),
    "bigger RSA": certificate(privateKey={"algorithm": "RSA", "size": 3072}),
    "biggest RSA": certificate(privateKey={"algorithm": "RSA", "size": 4096}),
    "key kept": certificate(privateKey={"rotationPolicy": "Never"}),
    "secret kept": certificate(secretDeletionPolicy="Retain"),
    "SPIFFE": {"identity": {"uris": ["spiffe://a/b"]}, **SPIFFE},
    "SPIFFE of a CSR": {"identity": {"uris": ["spiffe://a/b"]}, **certificate(profile="Spiffe", source="CSR", csr=CSR)},
    "SPIFFE elsewhere": certificate(profile="Spiffe", source="External", fingerprints=["ab" * 32]),
    "URI and SPIFFE ID": {"identity": {"uris": ["spiffe://a/b", "a:b"]}},
    "one of each name": {"identity": {"uris": ["a:b"]}},
    "DNS name alone": {"identity": {"dnsNames": ["a"]}},
    "email alone": {"identity": {"emails": ["a@b"]}},
    "by token": NO_CERTIFICATE,
    "bound token": {"token": {"binding": "Required"}},
    "no token": {"token": {"required": False}},
    "hour": {"quotas": [{"name": "a", "requests": 1, "calendar": "Hour"}]},
    "month": {"quotas": [{"name": "a", "requests": 1, "calendar": "Month", "onStoreFailure": "Open"}]},
    "overshoot": quota(maxOvershoot=5),
    "no overshoot by calendar": {"quotas": [{"name": "a", "requests": 1, "calendar": "Day", "maxOvershoot": 0}]},
    "a microsecond": {"validity": {"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-01T00:00:00.000001Z"}},
    "open end": {"validity": {"notBefore": "2026-01-01T00:00:00Z"}},
    "open beginning": {"validity": {"notAfter": "2026-01-01T00:00:00Z"}},
    "revoked at": {"revocation": {"fingerprints": [{"sha256": "ab" * 32, "time": "2026-01-01T00:00:00Z"}]}},
    "prefix": route({"pathPrefix": "/"}),
}
BAD = {
    "csr with a word before": certificate(source="CSR", csr=f"x{CSR}"),
    "csr with a word before the line": certificate(source="CSR", csr=f"x\n{CSR}"),
    "csr of an External": certificate(source="External", csr=CSR, fingerprints=["ab" * 32]),
    "fingerprints of a CSR": certificate(source="CSR", csr=CSR, fingerprints=["ab" * 32]),
    "life too short": certificate(duration="59m59.999999s"),
    "life too long": certificate(duration="8784h0m0.000001s"),
    "renewal too short": certificate(duration="1h", renewBefore="4m59.999999s"),
    "renewal as long as the life": certificate(duration="1h", renewBefore="1h"),
    "issuer of a CSR": certificate(source="CSR", csr=CSR, issuerRef={"name": "a"}),
    "issuer of an External": certificate(source="External", fingerprints=["ab" * 32], issuerRef={"name": "a"}),
    "issuer of none": certificate(source="None", issuerRef={"name": "a"}),
    "EC of RSA's size": certificate(privateKey={"algorithm": "ECDSA", "size": 2048}),
    "RSA of EC's size": certificate(privateKey={"algorithm": "RSA", "size": 384}),
    "EC of 521": certificate(privateKey={"algorithm": "ECDSA", "size": 521}),
    "RSA of 1024": certificate(privateKey={"algorithm": "RSA", "size": 1024}),
    "Ed25519": certificate(privateKey={"algorithm": "Ed25519"}),
    "another profile": certificate(profile="spiffe"),
    "another deletion": certificate(secretDeletionPolicy="Keep"),
    "another rotation": certificate(privateKey={"rotationPolicy": "Sometimes"}),
    "SPIFFE without identity": SPIFFE,
    "SPIFFE without URI": {"identity": {"commonName": "a"}, **SPIFFE},
    "SPIFFE with another URI": {"identity": {"uris": ["a:b"]}, **SPIFFE},
    "SPIFFE with two URIs": {"identity": {"uris": ["spiffe://a/b", "a:b"]}, **SPIFFE},
    "SPIFFE of a CSR without URI": certificate(profile="Spiffe", source="CSR", csr=CSR),
    "organization twice": {"identity": {"commonName": "a", "organizations": ["a", "a"]}},
    "DNS name twice": {"identity": {"dnsNames": ["a", "a"]}},
    "email twice": {"identity": {"emails": ["a@b", "a@b"]}},
    "organization alone": {"identity": {"organizations": ["a"]}},
    "issuer twice": {"token": {"issuers": ["a", "a"]}},
    "other scope twice": {"otherScopes": ["a", "a"]},
    "method twice": route({"path": "/", "methods": ["GET", "GET"]}),
    "match of nothing": route({}),
    "scopes of nothing": {"routes": [{"name": "a", "match": {"path": "/"}, "scopes": {}}]},
    "same instant": {"validity": {"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-01T00:00:00Z"}},
    "no zone": {"validity": {"notBefore": "2026-01-01T00:00:00"}},
    "no zone of a revocation": {"revocation": {"fingerprints": [{"sha256": "ab" * 32, "time": "2026-01-01T00:00:00"}]}},
    "quota of words": quota(requests="1"),
    "quota of parts": quota(requests=1.5),
    "required in words": {"token": {"required": "no"}},
    "week": {"quotas": [{"name": "a", "requests": 1, "calendar": "Week"}]},
    "another failure": quota(onStoreFailure="Fail"),
    "unknown field of a quota": quota(Burst=1),
    "snake case": {"certificate": {"renew_before": "1h"}},
}


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_what_fits_is_taken(spec: dict[str, Any]) -> None:
    assert isinstance(policy(**spec), ClientPolicy), policy(**spec)


@pytest.mark.parametrize("spec", BAD.values(), ids=BAD)
def test_what_does_not_fit_is_one_error(spec: dict[str, Any]) -> None:
    found = policy(**spec)
    assert isinstance(found, tuple)
    assert len(found) == 1


def test_what_holds_unsaid() -> None:
    spec = spec_of()
    assert (spec.mode, spec.suspended, spec.identity) == (Mode.ENFORCE, False, None)
    assert (spec.scopes, spec.other_scopes, spec.routes, spec.quotas) == ((), (), (), ())
    assert (spec.token.required, spec.token.issuers, spec.token.binding) == (True, None, Binding.WHEN_PRESENT)
    assert (spec.revocation.fingerprints, spec.revocation.issued_before) == ((), None)
    assert (spec.validity.not_before, spec.validity.not_after) == (None, None)
    made = spec.certificate
    assert (made.source, made.duration, made.profile) == (Source.ISSUED, 720 * 3_600_000_000, "ClientAuth")
    assert (made.renew_before, made.renew_before_percentage, made.secret_name) == (None, None, None)
    assert (made.private_key.algorithm, made.private_key.size, made.private_key.rotation_policy) == (
        "ECDSA",
        256,
        "Always",
    )
    assert (made.secret_template.labels, made.secret_template.annotations) == ({}, {})
    assert (made.secret_deletion_policy, made.issuer_ref, made.csr, made.fingerprints) == ("Delete", None, None, ())
    assert IssuerRef(name="a").model_dump() == {"group": "cert-manager.io", "kind": "Issuer", "name": "a"}
    assert RevokedFingerprint(sha256="ab" * 32).reason == "Unspecified"
    assert Identity(commonName="a").model_dump(exclude={"common_name"}) == {
        "organizations": (), "uris": (), "dns_names": (), "emails": (),
    }  # fmt: skip
    parsed = policy()
    assert isinstance(parsed, ClientPolicy)
    assert parsed.status is None
    assert isinstance(Certificate().private_key, PrivateKey)


def test_enumerations_are_the_words_of_the_api() -> None:
    assert [one.value for one in Source] == ["Issued", "CSR", "External", "None"]
    assert [one.value for one in Mode] == ["Enforce", "Shadow"]
    assert [one.value for one in Binding] == ["Required", "WhenPresent"]
    assert [one.value for one in Calendar] == ["Hour", "Day", "Month"]
    assert [one.value for one in OnStoreFailure] == ["Local", "Open", "Closed"]


def test_quota_becomes_the_limit_that_it_says() -> None:
    def limit(**fields: Any) -> Any:
        found = spec_of(quotas=[{"name": "a", "requests": 6, **fields}]).quotas[0]
        assert isinstance(found, Quota)
        return found.limit()

    rate = limit(per="2s", burst=1, mode="Shadow", onStoreFailure="Closed", maxOvershoot=3)
    assert (rate.name, rate.requests, rate.per_us, rate.capacity, rate.max_overshoot) == ("a", 6, 2_000_000, 2, 3)
    assert (rate.enforced, rate.on_store_failure) == (False, OnStoreFailure.CLOSED)
    plain = limit(per="2s")
    assert (plain.capacity, plain.max_overshoot, plain.enforced) == (6, 0, True)
    assert plain.on_store_failure is OnStoreFailure.LOCAL
    calendar = limit(calendar="Month", mode="Shadow", onStoreFailure="Open")
    assert (calendar.name, calendar.requests, calendar.calendar) == ("a", 6, Calendar.MONTH)
    assert (calendar.enforced, calendar.on_store_failure) == (False, OnStoreFailure.OPEN)
    assert limit(calendar="Day").enforced


def test_nothing_of_a_policy_changes() -> None:
    spec = spec_of()
    with pytest.raises(ValueError, match="frozen"):
        spec.suspended = True  # type: ignore[misc]
    parsed = policy()
    assert isinstance(parsed, ClientPolicy)
    with pytest.raises(ValueError, match="frozen"):
        parsed.metadata.name = "b"  # type: ignore[misc]


def test_names_of_kubernetes_are_text() -> None:
    assert not isinstance(parse(policy_document() | {"metadata": {"name": 5}}), ClientPolicy)
    assert not isinstance(parse(policy_document() | {"metadata": {"name": "a", "namespace": "A"}}), ClientPolicy)
    assert not isinstance(parse(policy_document() | {"kind": "clientpolicy"}), ClientPolicy)
    assert not isinstance(parse(policy_document() | {"apiVersion": "authz.healthtech.dev/v1"}), ClientPolicy)
