"""The small parts of a decision: public routes, the index of policies."""

from __future__ import annotations

from typing import Any

import pytest
from partner import partner_certificate, policy_document

from authz.core import roster
from authz.core.decide import Deny, conclude
from authz.core.public import PublicRoutes
from authz.core.quota import Unknown, Within
from authz.core.roster import Entry, enlist, enlist_invalid, index
from authz.model import Claims, Client, Confirmation, Grant, Presented, Reason, Refused, Standing
from authz.policy import ClientPolicy, Source, parse


def test_public_route_is_exact_or_below() -> None:
    routes = PublicRoutes(exact=frozenset({("GET", "/health")}), below=(("GET", "/docs/"),))
    assert routes.match("GET", "/health") == "GET /health"
    assert routes.match("GET", "/docs/a/b") == "GET /docs/*"
    for method, path in (
        ("HEAD", "/health"),
        ("GET", "/health/"),
        ("GET", "/docs/"),
        ("GET", "/docs"),
        ("POST", "/docs/a"),
        ("CONNECT", "/docs/a"),
    ):
        assert routes.match(method, path) is None


def entry(name: str, *, may_shadow: bool = True, **spec: Any) -> Entry:
    policy = parse(policy_document(name, **spec))
    assert isinstance(policy, ClientPolicy)
    return enlist(policy, may_shadow=may_shadow)


FIRST, SECOND = partner_certificate("first").fingerprint, partner_certificate("second").fingerprint


def standing(policies: Any, fingerprint: str) -> Standing:
    found: Standing = policies.by_fingerprint[fingerprint].client.standing
    return found


def test_where_nobody_may_shadow_no_quota_does() -> None:
    quotas = [{"name": "q", "requests": 1, "per": "1s", "mode": mode} for mode in ("Shadow", "Enforce")]
    for spec in ({"quotas": [one]} for one in quotas):
        forbidden = entry("first", may_shadow=False, mode="Shadow", **spec).client
        assert not forbidden.shadow
        assert [limit.enforced for limit in forbidden.limits] == [True]
    allowed = entry("first", mode="Shadow", quotas=quotas[:1]).client
    assert allowed.shadow
    assert [limit.enforced for limit in allowed.limits] == [False]


def test_clients_are_found_by_fingerprint() -> None:
    policies = index([entry("first"), entry("second")], 7)
    assert policies.generation == 7
    assert {key: one.client.id for key, one in policies.by_fingerprint.items()} == {FIRST: "first", SECOND: "second"}
    assert policies.by_token == {}


def test_of_files_that_claim_the_same_none_holds() -> None:
    same_id = index([entry("first"), entry("second", clientId="first")], 1)
    assert standing(same_id, FIRST) is Standing.CONFLICT
    assert standing(same_id, SECOND) is Standing.CONFLICT
    same_fingerprint = index(
        [entry("first"), entry("second", certificate={"source": "External", "fingerprints": [FIRST, SECOND]})], 1
    )
    assert standing(same_fingerprint, FIRST) is Standing.CONFLICT
    assert standing(same_fingerprint, SECOND) is Standing.CONFLICT


def test_client_without_certificate_is_found_by_token() -> None:
    policies = index([entry("first", certificate={"source": "None"})], 1)
    assert policies.by_fingerprint == {}
    assert policies.by_token["first"].source is Source.NONE


def test_issued_certificates_are_not_trusted_from_a_file() -> None:
    policies = index([entry("first", certificate={"source": "Issued"})], 1)
    assert policies.by_fingerprint == {}
    assert policies.by_token == {}


def test_invalid_policy_is_told_so_and_takes_nothing_from_others() -> None:
    bad = policy_document("second", certificate={"source": "External", "fingerprints": [SECOND.upper(), FIRST, 5, "x"]})
    found = enlist_invalid(bad, "p/second")
    assert found is not None
    policies = index([found, entry("first")], 1)
    assert standing(policies, FIRST) is Standing.ACTIVE
    assert standing(policies, SECOND) is Standing.INVALID
    by_token = enlist_invalid(policy_document("x", certificate={"source": "None"}), "p/x")
    assert by_token is not None
    assert index([by_token], 1).by_token["x"].standing is Standing.INVALID


@pytest.mark.parametrize(
    "document", [None, 5, {}, {"spec": []}, {"spec": {"clientId": 5}}, {"spec": {"certificate": 1}}]
)
def test_document_that_names_nobody_concerns_nobody(document: object) -> None:
    assert enlist_invalid(document, "p/x") is None
    strange = enlist_invalid({"spec": {"clientId": "a", "certificate": {"fingerprints": "x"}}}, "p/x")
    assert strange is not None
    assert strange.fingerprints == ()


def test_shadow_may_be_forbidden_for_everyone() -> None:
    assert entry("first", mode="Shadow").client.shadow
    assert not entry("first", mode="Shadow", may_shadow=False).client.shadow


def test_values_kept_once_are_bounded_and_stay_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "SHARED_MAX", 8)
    kept: dict[object, object] = {}
    monkeypatch.setattr(roster, "_shared", kept)
    for number in range(40):
        client = entry(f"client-{number}", otherScopes=[f"export.{number}"]).client
        assert client.other_scopes == {f"export.{number}"}
        assert len(kept) <= 8
    assert entry("a").client.scopes is entry("b").client.scopes


def test_restrictions_are_taken_over_in_microseconds() -> None:
    restricted = entry(
        "first",
        validity={"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-01T00:00:01.5Z"},
        revocation={"issuedBefore": "1970-01-01T00:00:01Z", "fingerprints": [{"sha256": "AB" * 32}]},
    ).client
    assert restricted.not_before_us == 1_767_225_600_000_000
    assert restricted.not_after_us == 1_767_225_601_500_000
    assert restricted.issued_before_us == 1_000_000
    assert restricted.revoked == {"ab" * 32}


def test_verdict_without_evidence_is_a_denial() -> None:
    refused = conclude(Refused(Reason.TOKEN_MISSING), Within(()), None, None)
    assert isinstance(refused, Deny)
    silent = conclude(Grant((), "x"), Unknown("x"), None, None)
    assert isinstance(silent, Deny)
    assert silent.refused.reason is Reason.STORE_UNAVAILABLE


def test_denial_keeps_what_was_established() -> None:
    client = Client(id="c", policy="p/c")
    claims = Claims("iss", "key", None, "c", (), None, 0, None, Confirmation.NONE)
    presented, quota = Presented("0" * 64, None), Within(())
    refused = Refused(Reason.TOKEN_EXPIRED)
    assert conclude(refused, quota, client, claims, presented) == Deny(refused, quota, client, claims, presented)
