"""ClientPolicies as a cluster has them → the index: whose fingerprint is whose, and who loses, however it came about."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
from cluster import accepted, external, issued, policy_object
from hypothesis import given
from hypothesis import strategies as st

from authz.core.certificate import identify
from authz.edge.kubernetes.census import Census, Fortune
from authz.edge.kubernetes.objects import meta_of, read
from authz.edge.kubernetes.source import ERRORS_TOLD_MAX, TOLD_MAX, KubernetesPolicies
from authz.model import Policies, Presented, Refused, Standing
from authz.policy.cautions import R4, cautions
from authz.policy.ceilings import Ceiling

A, B, C, D = (letter * 64 for letter in "abcd")
BEGIN_US, END_US = 1_767_225_600_000_000, 1_798_761_600_000_000  # 2026 and 2027 begin
OLD, NEW = {"creationTimestamp": "2025-01-01T00:00:00Z"}, {"creationTimestamp": "2026-06-01T00:00:00Z"}
ACTIVE, CONFLICT, INVALID = Standing.ACTIVE, Standing.CONFLICT, Standing.INVALID

Row = tuple[str, Standing, int | None, int | None]


class World:
    """What authz makes of what the API tells."""

    def __init__(self, *documents: dict[str, Any], ceilings: tuple[Ceiling, ...] = (), may_shadow: bool = True) -> None:
        self.census = Census()
        self.ceilings = ceilings
        self.may_shadow = may_shadow
        self.told: list[str] = []
        self.fortunes: list[Fortune] = []
        for document in documents:
            self.put(document)

    def put(self, document: dict[str, Any]) -> None:
        meta = meta_of(document)
        assert meta is not None
        before = self.census.get(meta.name)
        held, errors = read(document, meta, before, may_shadow=self.may_shadow, ceilings=self.ceilings)
        self.told = [str(error) for error in errors]
        self.census.put(held)

    def edit(self, document: dict[str, Any], status: Any = None, **spec: Any) -> dict[str, Any]:
        """Put a newer version of a document; a spec that is given makes it another generation."""
        newer = copy.deepcopy(document)
        newer["metadata"]["resourceVersion"] = str(int(newer["metadata"]["resourceVersion"]) + 1)
        newer["metadata"]["generation"] += bool(spec)
        newer["spec"] |= spec
        if status is not None:
            newer["status"] = status
        self.put(newer)
        return newer

    def policies(self) -> Policies:
        policies, self.fortunes = self.census.policies(1)
        return policies

    @property
    def prints(self) -> dict[str, Row]:
        return {
            sha256: (client.policy.removeprefix("partners/"), client.standing, begin, end)
            for sha256, (client, begin, end) in self.policies().by_fingerprint.items()
        }

    @property
    def tokens(self) -> dict[str, tuple[str, Standing]]:
        return {
            one.id: (one.policy.removeprefix("partners/"), one.standing) for one in self.policies().by_token.values()
        }

    def reason(self, sha256: str, now_us: int = BEGIN_US + 1) -> str:
        try:
            identify(Presented(sha256, None), self.policies(), now_us)
        except Refused as refused:
            return refused.reason.value
        return "identified"


NOBODY: dict[str, Row] = {}
FOUND: dict[str, tuple[dict[str, Any], dict[str, Row]]] = {
    "External, accepted": (
        policy_object(certificate=external(A, B), status=accepted(A, B)),
        {A: ("app", ACTIVE, None, None), B: ("app", ACTIVE, None, None)},
    ),
    "External, not accepted yet": (policy_object(certificate=external(A)), NOBODY),
    "External, removed from the spec": (
        policy_object(certificate=external(B), status=accepted(A, B)),
        {B: ("app", ACTIVE, None, None)},
    ),
    "External, and an issued one in the status": (policy_object(certificate=external(A), status=issued(A)), NOBODY),
    "Issued": (policy_object(status=issued(A)), {A: ("app", ACTIVE, BEGIN_US, END_US)}),
    "Issued, rolled": (
        policy_object(status=issued(A, B, C)),
        dict.fromkeys((A, B, C), ("app", ACTIVE, BEGIN_US, END_US)),
    ),
    "Issued, a previous one that is the current": (policy_object(status=issued(A, A)), {A: ("app", ACTIVE, BEGIN_US, END_US)}),
    "Issued, not issued yet": (policy_object(), NOBODY),
    "Issued, and fingerprints in the status": (policy_object(status=accepted(A)), NOBODY),
    "CSR": (
        policy_object(certificate={"source": "CSR", "csr": "-----BEGIN CERTIFICATE REQUEST-----"}, status=issued(A)),
        {A: ("app", ACTIVE, BEGIN_US, END_US)},
    ),
    "None, whatever the status": (
        policy_object(certificate={"source": "None"}, status={"certificate": issued(A)["certificate"] | {"fingerprints": [B]}}),
        NOBODY,
    ),
    "never valid": (
        policy_object(scopes=["bad"], status={"certificate": issued(A, B)["certificate"] | {"fingerprints": [C]}}),
        {C: ("app", INVALID, None, None), A: ("app", INVALID, BEGIN_US, END_US), B: ("app", INVALID, BEGIN_US, END_US)},
    ),
    "never valid, fingerprints in the spec alone": (policy_object(scopes=["bad"], certificate=external(A)), NOBODY),
}  # fmt: skip


@pytest.mark.parametrize(("document", "found"), FOUND.values(), ids=FOUND)
def test_fingerprints_come_from_the_status_alone(document: dict[str, Any], found: dict[str, Row]) -> None:
    assert World(document).prints == found


MALFORMED: dict[str, Any] = {
    "no map": 5,
    "no certificate": {},
    "certificate a list": {"certificate": []},
    "certificate null": {"certificate": None},
    "fingerprints no list": {"certificate": {"fingerprints": A}},
    "fingerprints of numbers": {"certificate": {"fingerprints": [1, None, {}, [A]]}},
    "upper case": {"certificate": {"fingerprints": [A.upper()], "sha256": A.upper()}},
    "too short": {"certificate": {"fingerprints": [A[1:]], "sha256": A[1:]}},
    "with a line end": {"certificate": {"fingerprints": [A + "\n"], "sha256": A + "\n"}},
    "sha256 a number": {"certificate": {"sha256": 5}},
    "previous no list": {"certificate": {"previous": {"sha256": A}}},
    "previous of no maps": {"certificate": {"previous": [A, None, 5]}},
    "previous without an end": {"certificate": {"previous": [{"sha256": A}]}},
    "previous with no instant as its end": {"certificate": {"previous": [{"sha256": A, "notAfter": "soon"}]}},
}


@pytest.mark.parametrize("status", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("certificate", [external(A, B), {"source": "Issued"}], ids=["External", "Issued"])
def test_malformed_status_counts_as_absent(status: Any, certificate: dict[str, Any]) -> None:
    assert World(policy_object(certificate=certificate, status=status)).prints == {}


def test_malformed_instants_count_as_absent() -> None:
    for bad in ("2026-01-01", "2026-13-01T00:00:00Z", "", 5, None):
        world = World(policy_object(status=issued(A, begin=bad, end=bad)))  # type: ignore[arg-type]
        assert world.prints == {A: ("app", ACTIVE, None, None)}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from([A, B]), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["certificate", "sha256", "fingerprints", "previous", "notAfter"]), inner, max_size=4)))  # fmt: skip
def test_no_status_raises(status: Any) -> None:
    for certificate in (external(A), {"source": "Issued"}, {"source": "None"}, {"source": "bad"}):
        assert set(World(policy_object(certificate=certificate, status=status)).prints) <= {A, B}


@pytest.mark.parametrize("document", [None, 5, {}, {"metadata": {}}, {"metadata": {"name": "a"}}, policy_object(meta={"uid": None}), policy_object(meta={"name": ""}), policy_object(meta={"resourceVersion": 5}), policy_object(meta={"creationTimestamp": None})])  # fmt: skip
def test_object_that_does_not_say_which_one_it_is_is_none(document: Any) -> None:
    assert meta_of(document) is None


def test_object_that_is_being_deleted_says_so() -> None:
    meta = meta_of(policy_object(meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    assert meta is not None
    assert meta.is_leaving


# Conflicts.


def test_the_oldest_holds_a_client_id_whatever_conditions_say() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1}
    world = World(
        policy_object("young", clientId="x", meta=NEW, status=issued(B) | ready),
        policy_object("old", clientId="x", meta=OLD, status=issued(A)),
    )
    assert world.prints == {A: ("old", ACTIVE, BEGIN_US, END_US), B: ("young", CONFLICT, BEGIN_US, END_US)}
    assert (world.reason(A), world.reason(B)) == ("identified", "policy_conflict")
    assert world.census.standings == {ACTIVE: 1, CONFLICT: 1, INVALID: 0}


def test_of_the_same_second_the_name_decides() -> None:
    world = World(*(policy_object(name, clientId="x", status=issued(sha256)) for name, sha256 in (("b", B), ("a", A))))
    assert world.prints == {A: ("a", ACTIVE, BEGIN_US, END_US), B: ("b", CONFLICT, BEGIN_US, END_US)}


def test_when_the_winner_goes_the_loser_takes_over() -> None:
    world = World(
        policy_object("old", clientId="x", meta=OLD, status=issued(A)),
        policy_object("young", clientId="x", meta=NEW, status=issued(B)),
    )
    assert world.reason(B) == "policy_conflict"
    world.census.drop("partners/old")
    assert world.prints == {B: ("young", ACTIVE, BEGIN_US, END_US)}
    world.put(policy_object("older", clientId="x", meta=OLD))
    assert world.reason(B) == "policy_conflict"


def test_changed_fortunes_are_told_once() -> None:
    world = World(policy_object("a", clientId="x", meta=OLD), policy_object("b", clientId="x", meta=NEW))
    world.policies()
    assert world.fortunes == [Fortune("partners/b", ("partners/a", ("clientId", "x")))]
    world.policies()
    assert world.fortunes == []
    world.census.drop("partners/a")
    world.policies()
    assert world.fortunes == [Fortune("partners/b", None)]


def test_external_fingerprint_listed_twice_is_the_oldest_ones() -> None:
    world = World(
        policy_object("young", meta=NEW, certificate=external(A, B), status=accepted(A, B)),
        policy_object("old", meta=OLD, certificate=external(A), status=accepted(A)),
    )
    assert world.prints == {A: ("old", ACTIVE, None, None), B: ("young", CONFLICT, None, None)}


def test_issued_certificate_cannot_be_claimed_from_outside() -> None:
    """However old the policy is that lists it, and whatever became of the one that it was made for."""
    squatter = policy_object("squatter", meta=OLD, certificate=external(A), status=accepted(A))
    for maker in (
        policy_object("partner", meta=NEW, status=issued(A)),
        policy_object("partner", meta=NEW, status=issued(B, A)),
        policy_object("partner", meta=NEW, status=issued(A), scopes=["bad"]),
    ):
        for documents in ((squatter, maker), (maker, squatter)):
            world = World(*documents)
            assert world.policies().by_fingerprint[A].client.policy != "partners/squatter" or (
                world.reason(A) == "policy_conflict"
            )
    assert World(squatter).reason(A) == "identified"


def test_one_issued_certificate_in_two_statuses_is_the_oldest_ones() -> None:
    young, old = policy_object("a", meta=NEW, status=issued(A)), policy_object("b", meta=OLD, status=issued(A))
    for documents in ((young, old), (old, young)):
        assert World(*documents).prints == {A: ("b", ACTIVE, BEGIN_US, END_US)}


def test_loser_that_claims_something_else_is_one_no_longer() -> None:
    young = policy_object("young", meta=NEW, status=issued(A), identity={"dnsNames": ["a.example"]})
    world = World(policy_object("old", meta=OLD, identity={"dnsNames": ["a.example"]}), young)
    assert world.reason(A) == "policy_conflict"
    world.edit(young, identity={"dnsNames": ["b.example"]})
    assert world.reason(A) == "identified"


def test_invalid_policy_takes_nothing_from_a_valid_one() -> None:
    world = World(
        policy_object("bad", meta=OLD, scopes=["bad"], clientId="x", status=accepted(A)),
        policy_object("good", meta=NEW, clientId="x", certificate=external(A), status=accepted(A)),
    )
    assert world.prints == {A: ("good", ACTIVE, None, None)}


def test_loser_shadows_no_winner_of_the_same_token() -> None:
    bare = {"source": "None"}
    world = World(
        policy_object(
            "bad", meta={"creationTimestamp": "2024-01-01T00:00:00Z"}, clientId="x", certificate=bare, scopes=["bad"]
        ),
        policy_object("young", meta=NEW, clientId="x", certificate=bare),
        policy_object("old", meta=OLD, clientId="x", certificate=bare),
    )
    assert world.tokens == {"x": ("old", ACTIVE)}
    world.census.drop("partners/old")
    assert world.tokens == {"x": ("young", ACTIVE)}
    world.census.drop("partners/young")
    assert world.tokens == {"x": ("bad", INVALID)}
    world.census.drop("partners/bad")
    assert world.tokens == {}


def test_loser_that_is_edited_stays_one() -> None:
    world = World(policy_object("old", clientId="x", meta=OLD))
    young = policy_object("young", clientId="x", meta=NEW, certificate=external(A), status=accepted(A))
    world.put(young)
    assert world.reason(A) == "policy_conflict"
    young = world.edit(young, suspended=True)
    assert world.reason(A) == "client_suspended"
    world.edit(young, suspended=False, otherScopes=["x"])
    assert world.reason(A) == "policy_conflict"


# Versions.


def test_suspension_revocation_and_validity_apply() -> None:
    first = policy_object(certificate=external(A), status=accepted(A))
    world = World(first)
    second = world.edit(first, suspended=True)
    assert world.reason(A) == "client_suspended"
    third = world.edit(second, suspended=False, revocation={"fingerprints": [{"sha256": A}]})
    assert world.reason(A) == "certificate_revoked"
    fourth = world.edit(third, revocation={}, validity={"notAfter": "2025-01-01T00:00:00Z"})
    assert world.reason(A) == "client_not_valid"
    world.edit(fourth, validity={})
    assert world.reason(A) == "identified"


def test_certificate_of_the_status_ends_with_its_own_instants() -> None:
    world = World(policy_object(status=issued(A), revocation={"issuedBefore": "2026-02-01T00:00:00Z"}))
    assert world.reason(A) == "certificate_revoked"
    world = World(policy_object(status=issued(A)))
    assert [world.reason(A, us) for us in (BEGIN_US - 1, BEGIN_US, END_US, END_US + 1)] == [
        "certificate_not_yet_valid", "identified", "identified", "certificate_expired",
    ]  # fmt: skip


def test_invalid_version_keeps_the_last_good_one_with_the_brakes() -> None:
    first = policy_object(certificate=external(A), status=accepted(A), otherScopes=["x"])
    world = World(first)
    second = world.edit(first, scopes=["bad"], otherScopes=["y"])
    assert world.told == [
        "spec.scopes[0]: expected a SMART clinical scope such as patient/Observation.rs or system/*.read"
    ]
    client = world.policies().by_fingerprint[A].client
    assert (client.standing, client.other_scopes) == (ACTIVE, frozenset({"x"}))
    assert world.census.errors == 1
    third = world.edit(second, suspended=True)
    assert world.reason(A) == "client_suspended"
    fourth = world.edit(third, suspended=False, revocation={"fingerprints": [{"sha256": A}]})
    assert world.reason(A) == "certificate_revoked"
    fifth = world.edit(fourth, suspended=False, revocation={}, validity={"notAfter": "2099-01-01T00:00:00Z"})
    assert world.reason(A) == "certificate_revoked"  # an invalid version restarts nothing
    client = world.policies().by_fingerprint[A].client
    assert (client.suspended, client.revoked) == (True, {A})
    world.edit(fifth, scopes=[])
    assert world.reason(A) == "identified"
    assert world.census.errors == 0


def test_client_is_of_the_version_that_holds() -> None:
    def generation(world: World) -> int | None:
        return world.policies().by_fingerprint[A].client.generation

    first = policy_object(certificate=external(A), status=accepted(A))
    world = World(first)
    begun: int = first["metadata"]["generation"]
    assert generation(world) == begun
    bad = world.edit(first, scopes=["bad"])
    assert generation(world) == begun
    world.edit(bad, scopes=[])
    assert generation(world) == begun + 2
    never_valid = policy_object(scopes=["bad"], status=issued(A))
    assert generation(World(never_valid)) == begun
    never_valid["metadata"].pop("generation")
    assert generation(World(never_valid)) is None


def test_invalid_version_still_holds_what_its_last_good_one_claims() -> None:
    old = policy_object("old", clientId="x", meta=OLD, status=issued(A))
    world = World(old, policy_object("young", clientId="x", meta=NEW, status=issued(B)))
    world.edit(old, scopes=["bad"])
    assert (world.reason(A), world.reason(B)) == ("identified", "policy_conflict")


def test_status_still_counts_while_the_spec_is_invalid() -> None:
    first = policy_object(status=issued(A))
    world = World(first)
    bad = world.edit(first, scopes=["bad"])
    world.edit(bad, status=issued(B, A))
    assert world.told == []  # said before
    assert set(world.prints) == {A, B}
    world.edit(bad, status=issued(B))
    assert set(world.prints) == {B}


def test_never_valid_policy_is_refused_and_nobody_else() -> None:
    world = World(
        policy_object("bad", scopes=["bad"], status=issued(A)), policy_object("good", status=issued(B))
    )  # fmt: skip
    assert (world.reason(A), world.reason(B)) == ("policy_invalid", "identified")
    assert world.census.standings == {ACTIVE: 1, CONFLICT: 0, INVALID: 1}
    assert World(policy_object(clientId=5, status=issued(A))).reason(A) == "policy_invalid"


CEILING = Ceiling.model_validate({"namespaces": ["partners"], "clientIds": ["app*"], "scopes": []})


def test_what_goes_beyond_the_ceilings_is_invalid() -> None:
    within = policy_object(status=issued(A))
    world = World(within, policy_object("other", status=issued(B)), ceilings=(CEILING,))
    assert (world.reason(A), world.reason(B)) == ("identified", "policy_invalid")
    world.edit(within, scopes=["system/*.read"])
    assert world.policies().by_fingerprint[A].client.scopes == ()
    assert "beyond the platform's ceiling" in world.told[0]
    assert (
        World(policy_object(namespace="strangers", status=issued(A)), ceilings=(CEILING,)).reason(A) == "policy_invalid"
    )


def test_each_valid_version_is_shown_once() -> None:
    shown: list[str] = []
    before = None
    first = policy_object(scopes=["system/*.r"], status=issued(A))
    bad = policy_object(scopes=["bad"], meta={"generation": 2, "resourceVersion": "2"})
    third = policy_object(scopes=["system/*.s"], meta={"generation": 3, "resourceVersion": "3"})
    for document in (first, first, bad, third, third):
        meta = meta_of(document)
        assert meta is not None
        before, _ = read(
            document, meta, before, may_shadow=True, ceilings=(),
            judged=lambda policy: shown.extend(scope.text for scope in policy.spec.scopes),
        )  # fmt: skip
    assert shown == ["system/*.r", "system/*.s"]


def test_source_tells_what_a_policy_does_not_do(caplog: pytest.LogCaptureFixture) -> None:
    source = KubernetesPolicies(may_shadow=True, cautions=partial(cautions, vocabulary=R4))
    many = policy_object(scopes=[f"system/No{'x' * 60}{letter}.r" for letter in "abcdefghijklmn"])
    for document in (policy_object(), many):
        meta = meta_of(document)
        assert meta is not None
        assert source.look(document, meta) is not None
    (record,) = caplog.records
    assert record.message == "policy opens more or does less than it seems"
    assert record.__dict__["policy"] == "partners/app"
    assert len(record.__dict__["cautions"]) == ERRORS_TOLD_MAX
    assert all(len(told) <= TOLD_MAX for told in record.__dict__["cautions"])


def test_recreated_namesake_inherits_nothing() -> None:
    first = policy_object(status=issued(A), certificate={"source": "Issued"})
    world = World(first)
    assert world.reason(A) == "identified"
    world.put(policy_object(scopes=["bad"], meta={"uid": "another", "resourceVersion": "9"}))
    assert world.prints == {}
    assert len(world.policies().by_fingerprint) == 0
    world.put(policy_object(scopes=["bad"], meta={"uid": "third", "resourceVersion": "10"}, status=issued(B)))
    assert world.reason(B) == "policy_invalid"  # the last good version was another's


def test_shadow_mode_needs_leave() -> None:
    for may_shadow in (True, False):
        world = World(policy_object(mode="Shadow", status=issued(A)), may_shadow=may_shadow)
        assert world.policies().by_fingerprint[A].client.shadow is may_shadow


def test_index_is_swapped_and_not_changed() -> None:
    world = World(policy_object(status=issued(A)))
    before = world.policies()
    world.put(policy_object("second", status=issued(B)))
    world.census.drop("partners/app")
    after = world.policies()
    assert (set(before.by_fingerprint), set(after.by_fingerprint)) == ({A}, {B})


# Any sequence of events ends as if the last state had been listed.

SPECS: list[dict[str, Any]] = [
    {"clientId": "x", "certificate": external(A, B)},
    {"clientId": "x", "certificate": external(C)},
    {"clientId": "y", "certificate": external(A)},
    {"clientId": "y", "certificate": external(B, C), "identity": {"dnsNames": ["a.example"]}},
    {"clientId": "z"},
    {"clientId": "x", "identity": {"dnsNames": ["a.example"]}},
    {"clientId": "x", "certificate": {"source": "None"}},
    {"clientId": "y", "certificate": {"source": "None"}, "suspended": True},
]
STATUSES: list[Any] = [None, accepted(A, B, C), accepted(B), issued(A), issued(B, C), issued(C, A)]
AGES = ["2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]

EVENTS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from(SPECS) | st.none(), st.sampled_from(STATUSES), st.sampled_from(AGES), st.booleans()),
    max_size=24,
)  # fmt: skip


def summary(world: World) -> object:
    policies = world.policies()
    index = {
        sha256: (one.client.policy, one.client.standing, one.client.suspended, one.client.source, one[1:])
        for sha256, one in policies.by_fingerprint.items()
    }
    tokens = {client_id: (one.policy, one.standing, one.suspended) for client_id, one in policies.by_token.items()}
    return index, tokens, world.census.standings, world.census.errors, len(world.census)


@given(EVENTS, st.randoms(use_true_random=False))
def test_any_sequence_of_events_ends_as_its_last_state_read_anew(events: list[Any], random: Any) -> None:
    world = World()
    state: dict[str, dict[str, Any]] = {}
    for version, (name, spec, status, created, is_looked_at) in enumerate(events):
        if spec is None:
            state.pop(name, None)
            world.census.drop(f"partners/{name}")
            continue
        known = state.get(name)
        age = known["metadata"]["creationTimestamp"] if known is not None else created
        meta = {"resourceVersion": str(version), "generation": version, "creationTimestamp": age}
        if known is not None and spec == known["spec"]:
            meta["generation"] = known["metadata"]["generation"]
        state[name] = policy_object(name, meta=meta, status=status, **spec)
        world.put(state[name])
        if is_looked_at:
            world.policies()
    last = list(state.values())
    random.shuffle(last)
    assert summary(world) == summary(World(*last))


@given(EVENTS)
def test_no_two_active_policies_share_a_client_id_or_a_fingerprint(events: list[Any]) -> None:
    state = {name: (spec, status, created) for name, spec, status, created, _ in events if spec is not None}
    world = World(
        *(policy_object(name, meta={"creationTimestamp": created}, status=status, **spec) for name, (spec, status, created) in state.items())
    )  # fmt: skip
    policies = world.policies()
    found = {*(one.client for one in policies.by_fingerprint.values()), *policies.by_token.values()}
    names: dict[str, set[str]] = {}
    for client in found:
        if client.standing is ACTIVE:
            names.setdefault(client.id, set()).add(client.policy)
    assert all(len(policies_of) == 1 for policies_of in names.values())
    for sha256, one in policies.by_fingerprint.items():  # trusted only where its own status says so
        told = state[one.client.policy.removeprefix("partners/")][1]["certificate"]
        assert sha256 in {
            told.get("sha256"),
            *told.get("fingerprints", ()),
            *(row["sha256"] for row in told.get("previous", ())),
        }
