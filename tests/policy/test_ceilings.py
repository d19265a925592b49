"""Ceilings: what a namespace may grant, bound by bound, and that nothing slips over one by being written otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partner import policy_document

from authz.policy import ClientPolicy, FieldError, parse
from authz.policy import ceilings as ceilings_module
from authz.policy.ceilings import Ceiling, beyond, within

# The example of design §5.
PARTNERS: dict[str, Any] = {
    "namespaces": ["partner-*"],
    "clientIds": ["partner-*"],
    "sanPrefixes": ["spiffe://healthtech.dev/client/partner-"],
    "scopes": ["patient/*.rs"],
    "modes": ["Enforce"],
    "requestsPerSecond": 100,
}
FITTING: dict[str, Any] = {
    "clientId": "partner-a",
    "scopes": ["patient/Patient.rs", "patient/Observation.read"],
    "otherScopes": [],
    "identity": {"uris": ["spiffe://healthtech.dev/client/partner-a"]},
    "quotas": [{"name": "q", "requests": 100, "per": "1s"}],
}


def policy(namespace: str = "partner-a", **spec: Any) -> ClientPolicy:
    document = policy_document(**(FITTING | spec))
    document["metadata"]["namespace"] = namespace
    parsed = parse(document)
    assert isinstance(parsed, ClientPolicy), parsed
    return parsed


def ceilings(*values: dict[str, Any]) -> tuple[Ceiling, ...]:
    return tuple(Ceiling.model_validate(value) for value in values)


def places(errors: tuple[FieldError, ...]) -> list[str]:
    return [error.place for error in errors]


def test_without_ceilings_every_namespace_may_do_all() -> None:
    assert beyond(policy("anywhere", clientId="x", scopes=["system/*.*"]), ()) == ()


def test_what_fits_passes() -> None:
    assert beyond(policy(), ceilings(PARTNERS)) == ()
    assert beyond(policy(identity=None, quotas=[{"name": "q", "requests": 60, "per": "1m"}]), ceilings(PARTNERS)) == ()


@pytest.mark.parametrize("namespace", ["default", "partner", "xpartner-a", "Partner-a"])
def test_namespace_that_no_ceiling_matches_may_do_nothing(namespace: str) -> None:
    document = policy()
    elsewhere = document.model_copy(update={"metadata": document.metadata.model_copy(update={"namespace": namespace})})
    assert places(beyond(elsewhere, ceilings(PARTNERS))) == ["metadata.namespace"]


RATE: dict[str, Any] = {"name": "q", "requests": 100, "per": "1s"}
BEYOND: dict[str, tuple[dict[str, Any], list[str]]] = {
    "another's client id": ({"clientId": "hospital"}, ["spec.clientId"]),
    "a client id that contains the pattern": ({"clientId": "xpartner-a"}, ["spec.clientId"]),
    "another's common name": ({"identity": {"commonName": "hospital"}}, ["spec.identity.commonName"]),
    "another's SPIFFE id": (
        {"identity": {"uris": ["spiffe://healthtech.dev/client/hospital"]}},
        ["spec.identity.uris[0]"],
    ),
    "a DNS name": ({"identity": {"dnsNames": ["hospital.example.org"]}}, ["spec.identity.dnsNames[0]"]),
    "an e-mail": ({"identity": {"emails": ["a@example.org"]}}, ["spec.identity.emails[0]"]),
    "more letters": ({"scopes": ["patient/Patient.rs", "patient/Patient.cruds"]}, ["spec.scopes[1]"]),
    "v1 of more letters": ({"scopes": ["patient/Patient.write"]}, ["spec.scopes[0]"]),
    "another context": ({"scopes": ["system/Patient.rs"]}, ["spec.scopes[0]"]),
    "another scope": ({"otherScopes": ["export.run"]}, ["spec.otherScopes[0]"]),
    "shadow": ({"mode": "Shadow"}, ["spec.mode", "spec.quotas"]),
    "no quota": ({"quotas": []}, ["spec.quotas"]),
    "too fast": ({"quotas": [{"name": "q", "requests": 101, "per": "1s"}]}, ["spec.quotas"]),
    "too fast by a fraction": ({"quotas": [{"name": "q", "requests": 6001, "per": "1m"}]}, ["spec.quotas"]),
    "calendar alone": ({"quotas": [{"name": "q", "requests": 1, "calendar": "Day"}]}, ["spec.quotas"]),
    "in shadow alone": ({"quotas": [RATE | {"mode": "Shadow"}]}, ["spec.quotas[0].mode", "spec.quotas"]),
    "a quota in shadow beside one that counts": (
        {"quotas": [RATE, RATE | {"name": "r", "mode": "Shadow"}]},
        ["spec.quotas[1].mode"],
    ),
    "much at once": ({"quotas": [RATE | {"burst": 10**9 - 1}]}, ["spec.quotas"]),
    "one too many at once": ({"quotas": [RATE | {"burst": 6000}]}, ["spec.quotas"]),
    "one too many by overshoot": ({"quotas": [RATE | {"burst": 5999, "maxOvershoot": 1}]}, ["spec.quotas"]),
    "much by overshoot": ({"quotas": [RATE | {"maxOvershoot": 10**9}]}, ["spec.quotas"]),
    "an hour's worth at once": ({"quotas": [{"name": "q", "requests": 360_000, "per": "1h"}]}, ["spec.quotas"]),
    "open without a store": ({"quotas": [RATE | {"onStoreFailure": "Open"}]}, ["spec.quotas"]),
    "a half here and a half there": (
        {"quotas": [RATE | {"burst": 10**6}, RATE | {"name": "r", "requests": 1000}]},
        ["spec.quotas"],
    ),
    "all at once": (
        {"clientId": "x", "mode": "Shadow", "scopes": ["user/*.rs"]},
        ["spec.mode", "spec.clientId", "spec.scopes[0]", "spec.quotas"],
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_goes_beyond_is_told_by_field(name: str) -> None:
    spec, expected = BEYOND[name]
    found = beyond(policy(**spec), ceilings(PARTNERS))
    assert places(found) == expected
    assert all("expected" in error.message for error in found)


SHADOWED: dict[str, dict[str, Any]] = {
    "policy": {"mode": "Shadow"},
    "quota": {"quotas": [RATE | {"mode": "Shadow"}]},
    "both": {"mode": "Shadow", "quotas": [RATE | {"mode": "Shadow"}]},
}


@pytest.mark.parametrize("name", SHADOWED)
def test_ceiling_that_says_nothing_of_modes_lets_nothing_be_shadowed(name: str) -> None:
    """Else a tenant shadows its policy, and passes every other bound."""
    spec = SHADOWED[name]
    (silent,) = ceilings({"namespaces": ["*"]})
    assert places(beyond(policy(**spec), (silent,))) == places(
        beyond(policy(**spec), ceilings({"namespaces": ["*"], "modes": ["Enforce"]}))
    )
    assert beyond(policy(**spec), (silent,))
    assert beyond(policy(**spec), ceilings({"namespaces": ["*"], "modes": ["Enforce", "Shadow"]})) == ()
    assert beyond(policy(), (silent,)) == ()


@pytest.mark.parametrize("name", SHADOWED)
def test_quota_that_is_shadowed_at_any_level_bounds_no_rate(name: str) -> None:
    both = ceilings(PARTNERS | {"modes": ["Enforce", "Shadow"]})
    assert places(beyond(policy(**SHADOWED[name]), both)) == ["spec.quotas"]
    assert beyond(policy(quotas=[RATE, RATE | {"name": "r", "mode": "Shadow"}]), both) == ()


def test_modes_of_shadow_alone_ask_for_it_of_the_policy_and_not_of_its_quotas() -> None:
    (error,) = beyond(policy(), ceilings({"namespaces": ["*"], "modes": ["Shadow"]}))
    assert error.place == "spec.mode"


def test_what_bounds_the_rate_is_said_whole() -> None:
    (error,) = beyond(policy(quotas=[]), ceilings(PARTNERS))
    assert error.message.endswith(
        "expected an enforced quota of at most 100 per 1s and 6000 at once (capacity + maxOvershoot), "
        "not onStoreFailure: Open"
    )


@pytest.mark.parametrize(
    "quotas",
    [
        [RATE | {"burst": 5999}],
        [RATE | {"burst": 4999, "maxOvershoot": 1000}],
        [RATE | {"onStoreFailure": "Closed"}],
        [{"name": "q", "requests": 360_000, "per": "1h", "burst": 0}],
        [RATE | {"burst": 10**6}, RATE | {"name": "r"}, {"name": "d", "requests": 10**6, "calendar": "Day"}],
    ],
)
def test_one_quota_within_the_bound_is_enough(quotas: list[dict[str, Any]]) -> None:
    assert beyond(policy(quotas=quotas), ceilings(PARTNERS)) == ()


@given(
    st.lists(
        st.sampled_from(["a", "/", "..", ".", "%2e", "%2F", "%5c", "%", "\\", "?", "#", ":", "@", "A"]), max_size=8
    )
)
def test_no_uri_that_is_taken_leaves_its_prefix_when_it_is_resolved(parts: list[str]) -> None:
    for prefix in ("spiffe://healthtech.dev/client/partner-", "https://healthtech.dev/client/partner-"):
        uri = prefix + "".join(parts)
        parsed = parse(policy_document(**(FITTING | {"identity": {"uris": [uri]}})))
        if isinstance(parsed, ClientPolicy):
            assert urljoin(uri.replace("spiffe:", "https:"), unquote(urlsplit(uri).path)).startswith(
                prefix.replace("spiffe:", "https:")
            )


@pytest.mark.parametrize("more", ["/../admin", "a?x=1#y", "a?x=1", "a#y", "/..", "a/%2e%2e/admin", "a/"])
def test_prefix_of_a_spiffe_id_cannot_be_left(more: str) -> None:
    uri = PARTNERS["sanPrefixes"][0] + more
    (error,) = _refused(policy_document(**(FITTING | {"identity": {"uris": [uri]}})))
    assert error.place == "spec.identity.uris[0]"


def _refused(document: dict[str, Any]) -> tuple[FieldError, ...]:
    parsed = parse(document)
    assert isinstance(parsed, tuple), parsed
    return parsed


def test_a_policy_must_fit_into_one_ceiling_whole() -> None:
    """Half into one and half into the other is into none; what is told is measured by the nearer."""
    reads = {"namespaces": ["partner-*"], "clientIds": ["partner-*"], "scopes": ["patient/*.rs"]}
    writes = {"namespaces": ["*"], "clientIds": ["writer-*"], "scopes": ["patient/*.cruds"]}
    both = ceilings(reads, writes)
    assert beyond(policy(), both) == ()
    assert beyond(policy(clientId="writer-a", scopes=["patient/Patient.cruds"]), both) == ()
    assert places(beyond(policy(scopes=["patient/Patient.cruds"]), both)) == ["spec.scopes[0]"]


def test_other_scopes_are_listed_by_name() -> None:
    ceiling = ceilings(PARTNERS | {"scopes": ["patient/*.rs", "export.run"]})
    assert beyond(policy(otherScopes=["export.run"]), ceiling) == ()


def test_empty_scopes_let_nothing_be_granted() -> None:
    assert places(beyond(policy(scopes=["patient/Patient.r"]), ceilings(PARTNERS | {"scopes": []}))) == [
        "spec.scopes[0]"
    ]
    assert beyond(policy(scopes=[]), ceilings(PARTNERS | {"scopes": []})) == ()


SCOPES = st.lists(
    st.builds(
        lambda context, kind, letters: f"{context}/{kind}.{letters}",
        st.sampled_from(["patient", "user", "system"]),
        st.sampled_from(["Patient", "Observation", "*"]),
        st.sampled_from(["r", "s", "rs", "cruds", "read", "write", "*"]),
    ),
    unique=True,
    max_size=5,
)


@given(SCOPES, SCOPES, st.data())
def test_less_scope_never_goes_beyond_and_a_wider_ceiling_never_forbids(
    granted: list[str], most: list[str], data: st.DataObject
) -> None:
    narrow, wide = ceilings(PARTNERS | {"scopes": most}), ceilings(PARTNERS | {"scopes": [*most, "user/*.cruds"]})
    if not beyond(policy(scopes=granted), narrow):
        kept = data.draw(st.lists(st.sampled_from(granted), unique=True)) if granted else []
        assert not beyond(policy(scopes=kept), narrow)
        assert not beyond(policy(scopes=granted), wide)


@given(st.text(max_size=8), st.text("ab*.-", min_size=1, max_size=6))
def test_only_the_star_is_special_in_a_pattern(client_id: str, pattern: str) -> None:
    """By comparison with a matcher that walks both texts."""

    def matches(text: str, rest: str) -> bool:
        if not rest:
            return not text
        if rest[0] == "*":
            return any(matches(text[cut:], rest[1:]) for cut in range(len(text) + 1))
        return bool(text) and text[0] == rest[0] and matches(text[1:], rest[1:])

    document = policy()
    renamed = document.model_copy(update={"spec": document.spec.model_copy(update={"client_id": client_id})})
    told = places(beyond(renamed, ceilings({"namespaces": ["*"], "clientIds": [pattern]})))
    assert told == ([] if matches(client_id, pattern) else ["spec.clientId"])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("namespaces", lambda count: ["a"] * count),
        ("clientIds", lambda count: ["a"] * count),
        ("sanPrefixes", lambda count: ["a"] * count),
    ],
)
def test_patterns_are_from_1_to_64(field: str, values: Callable[[int], list[str]]) -> None:
    taken = [count for count in range(67) if _is_ceiling({"namespaces": ["*"], field: values(count)})]
    assert taken == list(range(1, 65))


@pytest.mark.parametrize("field", ["namespaces", "clientIds", "sanPrefixes"])
def test_pattern_has_1_to_256_characters(field: str) -> None:
    taken = [length for length in (0, 1, 256, 257) if _is_ceiling({"namespaces": ["*"], field: ["a" * length]})]
    assert taken == [1, 256]


def test_other_bounds_of_a_ceiling() -> None:
    def taken(field: str, *values: object) -> list[object]:
        return [value for value in values if _is_ceiling({"namespaces": ["*"], field: value})]

    assert taken("requestsPerSecond", 0, 1, 10**9, 10**9 + 1) == [1, 10**9]
    assert [len(scopes) for scopes in ([], ["a"] * 64, ["a"] * 65) if taken("scopes", scopes)] == [0, 64]
    assert taken("modes", [], ["Enforce"], ["Shadow", "Enforce"]) == [["Enforce"], ["Shadow", "Enforce"]]
    assert not _is_ceiling({"namespaces": ["*"], "request_per_second": 5})
    assert not _is_ceiling({})
    (ceiling,) = ceilings({"namespaces": ["*"]})
    with pytest.raises(ValueError, match="frozen"):
        ceiling.namespaces = ("a",)  # type: ignore[misc]


def _is_ceiling(value: dict[str, Any]) -> bool:
    try:
        ceilings(value)
    except ValueError:
        return False
    return True


BOUND = "beyond the platform's ceiling for this namespace: expected "
WORDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "mode": ({"mode": "Shadow", "quotas": [RATE]}, {"modes": ["Enforce"]}, "one of Enforce"),
    "client id": ({"clientId": "x"}, {"clientIds": ["a-*", "b"]}, "one of a-*, b"),
    "SAN": ({"identity": {"uris": ["a:b"]}}, {"sanPrefixes": ["b:", "c:"]}, "something that begins with b:, c:"),
    "scope": ({"scopes": ["user/*.r"]}, {"scopes": ["patient/*.r", "x"]}, "at most patient/*.r, x"),
    "other scope": ({"otherScopes": ["y"], "scopes": []}, {"scopes": ["patient/*.r", "x"]}, "at most patient/*.r, x"),
    "nothing": ({"scopes": ["user/*.r"]}, {"scopes": []}, "at most none"),
}


@pytest.mark.parametrize("name", WORDS)
def test_ceiling_says_what_it_lets(name: str) -> None:
    spec, ceiling, words = WORDS[name]
    (error,) = beyond(policy(**({"identity": None} | spec)), ceilings({"namespaces": ["*"]} | ceiling))
    assert error.message == BOUND + words


def test_patterns_kept_are_bounded() -> None:
    compiled = vars(ceilings_module)["_compiled"]
    for number in range(1_030):
        beyond(policy(), ceilings({"namespaces": [str(number)]}))
    assert compiled.cache_info().currsize == 1_024
    compiled.cache_clear()


def test_only_a_policy_that_fits_is_one() -> None:
    fitting, wrong = policy(), policy(clientId="x")
    assert within(fitting, ceilings(PARTNERS)) == (fitting, ())
    assert within(wrong, ceilings(PARTNERS)) == (None, beyond(wrong, ceilings(PARTNERS)))
    errors = _refused(policy_document(clientId="a b"))
    assert within(errors, ceilings(PARTNERS)) == (None, errors)
    assert within(errors, ()) == (None, errors)
