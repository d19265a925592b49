"""What FHIR servers read differently: control parameters, far-reaching deletes, filters, writes beside the patient."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from alphabet import ALNUM, taken
from scoped import DELEGATE, DENY, READ, client, decide, reason

from authz.core.control_parameters import OWN, SERVERS
from authz.model import Effect, Fhir, Reason, Refused, SearchByPost

WITHIN = DENY._replace(is_everything_within=True)


def served_by(kind: str) -> Fhir:
    return DENY._replace(parameters=SERVERS[kind])


# Parameters that are in no table: (request, scopes that are not enough, the one more that is)
STEERED = [
    ("GET /fhir/Observation?patient=123&_mdm=true", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?patient=123&-custom=1", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?patient=123&_with=x", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?patient=123&_WITH=x", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?patient=123&_with:not=x", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?_getpages=u", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?sessionID=u", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?-pageContext=u", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?_page_token=u", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Observation?patient=123&ct=u", "user/Observation.rs", "user/*.s"),
    ("GET /fhir/Patient/123?_mdm=true", "user/Patient.rs", "user/*.r"),
    ("GET /fhir/Patient/123?_cascade=delete", "user/Patient.rs", "user/*.r"),
    ("PUT /fhir/Patient/123?_x=y", "user/Patient.u", "user/*.u"),
    ("DELETE /fhir/Observation?code=x&_x=y", "user/Observation.ds", "user/*.ds"),
    ("POST /fhir/Patient?_x=y", "user/Patient.c", "user/*.c"),
    ("GET /fhir/Patient/123/_history?_x=y", "user/Patient.r", "user/*.r"),
    ("GET /fhir/Patient/123/Observation?_x=y", "user/Observation.s", "user/*.s"),
    ("GET /fhir/Observation/5?_include=Observation:subject:Patient", "user/Observation.r", "user/Patient.r"),
    ("GET /fhir/Patient/123?name.x=y", "user/Patient.r", "user/*.s"),
    ("GET /fhir?_type=Observation&_getpages=u", "user/Observation.s", "user/*.s"),
    ("GET /fhir?_type=Observation&_TYPE=Patient", "user/Observation.s", "user/*.s"),
    ("GET /fhir?_getpages=u", "user/Patient.s", "user/*.s"),
]


@pytest.mark.parametrize(("line", "scope", "more"), STEERED)
def test_parameter_in_no_table_needs_every_type(line: str, scope: str, more: str) -> None:
    assert reason(line, scope, patient=None) is Reason.SCOPE_MISSING
    assert decide(line, scope, more, patient=None)


PATIENTS = [(line, "patient/*.cruds") for line, _, _ in STEERED if "DELETE" not in line and "POST" not in line]


@pytest.mark.parametrize(("line", "scope"), PATIENTS)
def test_parameter_in_no_table_is_undecidable_under_patient_scopes(line: str, scope: str) -> None:
    assert reason(line, scope) is Reason.COMPARTMENT_UNDECIDABLE


NARROWING = [
    "GET /fhir/Observation?patient=123&_=1700000000",
    "GET /fhir/Observation?patient=123&_lastUpdated=ge2026&_tag=x&_profile=x&_security=x&_source=x",
    "GET /fhir/Observation?patient=123&_count=5&_sort=-date,code&_total=none&_summary=true&_elements=code",
    "GET /fhir/Observation?patient=123&_text=x&_content=y&_language=de&_list=42",
    "GET /fhir/Observation?patient=123&_format=json&_pretty=true",
    "GET /fhir/Observation?patient=123&unknown=1",
    "GET /fhir/Patient/123?_format=json&_pretty=true&_summary=data&_elements=name",
    "GET /fhir/Patient/123/_history?_since=2026-01-01&_count=5&_at=2026",
    "GET /fhir/Patient/123?_id=123",
    "GET /fhir/Patient/123?x=y",
]


@pytest.mark.parametrize("line", NARROWING)
def test_fhirs_own_parameters_and_unknown_searches_narrow(line: str) -> None:
    assert decide(line, *READ).compartment is None
    assert decide(line, "user/Patient.rs", "user/Observation.rs", patient=None)


BESIDE = [
    "GET /fhir/Patient/123?_id=124",
    "GET /fhir/Patient/123?patient=124",
    "GET /fhir/Patient/123/_history?subject=Patient/124",
    "GET /fhir/Patient/123/$everything?_id=124",
    "GET /fhir/Patient/123/$everything?patient=124",
]


@pytest.mark.parametrize("line", BESIDE)
def test_path_and_parameter_that_disagree_are_a_mismatch(line: str) -> None:
    assert reason(line, *READ, fhir=WITHIN) is Reason.PATIENT_MISMATCH


SERVERS_OWN = [
    ("hapi", "GET /fhir/Observation?patient=123&_offset=20", True),
    (
        "hapi",
        "GET /fhir/Observation?_getpages=u&_getpagesoffset=20&_count=20&_pretty=true&_bundletype=searchset",
        False,
    ),
    ("microsoft", "GET /fhir/Observation?patient=123&ct=u", False),
    ("google", "GET /fhir/Observation?patient=123&_page_token=u", False),
    ("oracle", "GET /fhir/Observation?patient=123&-encounter=1&-location=2&-status=final", True),
    ("oracle", "GET /fhir/Observation?patient=123&-pageContext=u&-pageDirection=NEXT", False),
    ("epic", "GET /fhir/Observation?sessionID=u", False),
    ("medplum", "GET /fhir/Observation?patient=123&_offset=20&_fields=code", True),
    ("medplum", "GET /fhir/Observation?patient=123&_cursor=u", False),
]


@pytest.mark.parametrize(("kind", "line", "decidable"), SERVERS_OWN)
def test_servers_own_parameters_do_what_their_row_says(kind: str, line: str, decidable: bool) -> None:  # noqa: FBT001
    """A page needs what its search needed; under patient/ scopes nobody knows whose page it is."""
    fhir = served_by(kind)
    assert decide(line, "user/Observation.s", patient=None, fhir=fhir)
    if decidable:
        assert decide(line, *READ, fhir=fhir).compartment is None
    else:
        assert reason(line, *READ, fhir=fhir) is Reason.COMPARTMENT_UNDECIDABLE


@pytest.mark.parametrize("kind", SERVERS)
def test_page_of_the_whole_server_needs_every_type(kind: str) -> None:
    fhir = served_by(kind)
    for cursor in [name for name, effect in SERVERS[kind].items() if effect is Effect.CURSOR]:
        line = f"GET /fhir?_type=Observation&{cursor}=u"
        assert reason(line, "system/Observation.s", patient=None, fhir=fhir) is Reason.SCOPE_MISSING
        assert decide(line, "system/*.s", patient=None, fhir=fhir)
        assert reason(f"GET /fhir/Patient/123?{cursor}=u", *READ, fhir=fhir) is Reason.COMPARTMENT_UNDECIDABLE
        beside = f"GET /fhir/Patient/123/Observation?{cursor}=u"
        assert reason(beside, "user/Observation.s", patient=None, fhir=fhir) is Reason.SCOPE_MISSING


def test_platform_says_what_its_parameters_do() -> None:
    fhir = DENY._replace(
        parameters={"_with": Effect.NARROWS, "_next": Effect.CURSOR, "code": Effect.REFUSE, "_include": Effect.REFUSE}
    )
    assert decide("GET /fhir/Observation?patient=123&_with=x", *READ, fhir=fhir)
    assert decide("GET /fhir/Observation?_NEXT=x", "user/Observation.s", fhir=fhir)
    for query in ("code=x", "CODE:in=x", "_include=*"):
        for scopes in (READ, ("system/*.cruds",)):
            line = f"GET /fhir/Observation?patient=123&{query}"
            assert reason(line, *scopes, fhir=fhir) is Reason.INTERACTION_UNSUPPORTED
    assert reason("GET /fhir/Patient/123?code=x", *READ, fhir=fhir) is Reason.INTERACTION_UNSUPPORTED


def test_own_parameters_are_told_apart_from_servers() -> None:
    assert all(name == name.lower() for table in (OWN, *SERVERS.values()) for name in table)
    for kind, table in SERVERS.items():
        shared = {name for name in table if OWN.get(name, Effect.UNKNOWN) is not Effect.UNKNOWN}
        assert not shared, kind


FURTHER = [
    ("DELETE /fhir/Patient/123?_cascade=delete", {}),
    ("DELETE /fhir/Patient/123?_CASCADE=delete", {}),
    ("DELETE /fhir/Patient/123?_cascade:x=delete", {}),
    ("DELETE /fhir/Patient/123?hardDelete=true", {}),
    ("DELETE /fhir/Patient/123?_hardDelete=true", {}),
    ("DELETE /fhir/Patient/123?_expunge=true", {}),
    ("DELETE /fhir/Patient/123?_purgeHistory=true", {}),
    ("DELETE /fhir/Patient/123?_remove-references=true", {}),
    ("DELETE /fhir/Patient/123?a=b;_cascade=delete", {}),
    ("DELETE /fhir/Patient/123", {"steering": ("_cascade",)}),
    ("DELETE /fhir/Patient?identifier=x&_cascade=delete", {}),
    ("DELETE /fhir/Patient?identifier=x&_expunge=true", {}),
]


@pytest.mark.parametrize(("line", "headers"), FURTHER)
@pytest.mark.parametrize(
    "scopes",
    [
        ["patient/*.cruds"],
        ["user/*.cruds"],
        ["system/Patient.cruds", "system/Observation.cruds"],
        ["system/*.ds?code=x", "system/Patient.cruds"],
        ["system/*.cru", "user/*.cruds"],
    ],
)
def test_delete_that_reaches_further_needs_to_delete_everything(
    line: str, headers: dict[str, Any], scopes: list[str]
) -> None:
    for fhir in (DENY, DELEGATE):
        assert reason(line, *scopes, fhir=fhir, **headers) is Reason.SCOPE_MISSING


@pytest.mark.parametrize(("line", "headers"), FURTHER)
def test_delete_that_reaches_further_passes_with_the_right_to_delete_everything(
    line: str, headers: dict[str, Any]
) -> None:
    more = ["system/*.rs"] if ";" in line else ["system/Patient.s"]
    assert decide(line, "system/*.d", *more, patient=None, **headers)


def test_plain_delete_needs_no_more_than_its_type() -> None:
    assert decide("DELETE /fhir/Patient/123", "patient/Patient.d").compartment is None
    assert decide("DELETE /fhir/Observation/5", "user/Observation.d", patient=None)
    assert reason("GET /fhir/Patient/123", *READ, steering=("_cascade",)) is Reason.COMPARTMENT_UNDECIDABLE


def test_challenge_for_a_far_reaching_delete_asks_no_patients_app_for_system_scopes() -> None:
    line = "DELETE /fhir/Patient/123?_cascade=delete"
    for scopes, patient, expected in (
        (["patient/*.cruds"], "123", ()),
        (["user/*.cruds"], "123", ()),
        (["user/*.cruds"], None, ()),
        (["system/Patient.d"], None, ("system/*.d",)),
    ):
        with pytest.raises(Refused) as refused:
            decide(line, *scopes, patient=patient)
        assert refused.value.needed == expected


FILTER = "patient/Observation.rs?category=laboratory"
FILTERED = {
    "once": ("category=laboratory", True),
    "twice the same": ("category=laboratory&category=laboratory", True),
    "beside others": ("category=laboratory&code=x&_count=5", True),
    "not at all": ("code=x", False),
    "and another value": ("category=laboratory&category=vital-signs", False),
    "another value first": ("category=vital-signs&category=laboratory", False),
    "in other case": ("category=laboratory&CATEGORY=vital-signs", False),
    "the same in other case": ("category=laboratory&Category=laboratory", False),
    "with a modifier": ("category=laboratory&category:not=laboratory", False),
    "with a chain": ("category=laboratory&category.x=laboratory", False),
    "comma-joined": ("category=laboratory,vital-signs", False),
    "empty": ("category=laboratory&category=", False),
    "ambiguous": ("category=laboratory&code=x;category=vital-signs", False),
}


@pytest.mark.parametrize(("query", "passes"), FILTERED.values(), ids=FILTERED.keys())
@pytest.mark.parametrize("path", ["Observation?patient=123&", "Patient/123/Observation?"])
def test_filter_holds_only_if_every_occurrence_is_granted(path: str, query: str, passes: bool) -> None:  # noqa: FBT001
    line = f"GET /fhir/{path}{query}"
    if passes:
        assert decide(line, FILTER).compartment is None
    else:
        assert reason(line, FILTER) is Reason.SCOPE_MISSING


def test_two_filters_of_one_parameter_need_both() -> None:
    scope = "patient/Observation.rs?category=a&category=b"
    assert decide("GET /fhir/Observation?patient=123&category=a&category=b", scope)
    assert reason("GET /fhir/Observation?patient=123&category=a", scope) is Reason.SCOPE_MISSING


def test_everything_follows_links_unless_the_platform_says_that_it_does_not() -> None:
    line = "GET /fhir/Patient/123/$everything?_count=10&start=2020-01-01"
    assert reason(line, *READ) is Reason.COMPARTMENT_UNDECIDABLE
    assert decide(line, *READ, fhir=DELEGATE).compartment == "Patient/123"
    assert decide(line, *READ, fhir=WITHIN).compartment is None
    assert reason(line + "&_mdm=true", *READ, fhir=WITHIN) is Reason.COMPARTMENT_UNDECIDABLE
    assert reason("GET /fhir/Patient/124/$everything", *READ, fhir=WITHIN) is Reason.PATIENT_MISMATCH
    assert decide(line, "user/*.rs", patient=None)


OUTSIDE = [
    "POST /fhir/Patient",
    "POST /fhir/Organization",
    "PUT /fhir/Practitioner/7",
    "PATCH /fhir/Location/7",
    "DELETE /fhir/Practitioner/7",
    "POST /fhir/ValueSet",
    "PUT /fhir/Organization?identifier=x",
    "DELETE /fhir/Medication?code=x",
    "POST /fhir/Slot",
]


@pytest.mark.parametrize("line", OUTSIDE)
def test_write_in_no_patients_compartment_is_a_mismatch_even_for_a_server_that_enforces(line: str) -> None:
    for fhir in (DENY, DELEGATE):
        assert reason(line, "patient/*.cruds", fhir=fhir) is Reason.PATIENT_MISMATCH
    assert reason("POST /fhir/Patient", "patient/*.cruds", if_none_exist="_id=5") is Reason.PATIENT_MISMATCH
    assert decide(line, "user/*.cruds", patient=None)


def test_write_inside_the_compartment_is_the_servers_to_judge() -> None:
    inside = ("POST /fhir/Observation", "PUT /fhir/Observation/5", "PUT /fhir/Patient?identifier=x")
    perhaps = ("POST /fhir/Task", "POST /fhir/Binary", "PUT /fhir/Device/7", "POST /fhir/Bundle")  # may name a patient
    for line in inside + perhaps:
        assert reason(line, "patient/*.cruds") is Reason.COMPARTMENT_UNDECIDABLE
        assert decide(line, "patient/*.cruds", fhir=DELEGATE).compartment == "Patient/123"


def test_platform_adds_a_type_to_the_compartment() -> None:
    patient = frozenset({"Patient"})
    fhir = DENY._replace(pins={"Task": {"patient": patient}, "Observation": {"x": patient}})
    assert reason("GET /fhir/Task?patient=123", *READ) is Reason.COMPARTMENT_UNDECIDABLE
    assert decide("GET /fhir/Task?patient=123", *READ, fhir=fhir).compartment is None
    assert decide("GET /fhir/Patient/123/Task", *READ, fhir=fhir).compartment is None
    assert reason("GET /fhir/Task?patient=124", *READ, fhir=fhir) is Reason.PATIENT_MISMATCH
    assert reason("POST /fhir/Task", "patient/*.c", fhir=fhir) is Reason.COMPARTMENT_UNDECIDABLE
    assert decide("GET /fhir/Observation?patient=123", *READ, fhir=fhir).compartment is None


CONDITIONS = ["_id=5", "identifier=x", "?identifier=x", "patient=123", "identifier=a,b=c"]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditional_create_answers_with_what_it_finds_so_no_patient_scope_opens_it(condition: str) -> None:
    for fhir in (DENY, DELEGATE):
        line = "POST /fhir/Observation"
        assert reason(line, "patient/*.cruds", fhir=fhir, if_none_exist=condition) is Reason.COMPARTMENT_UNDECIDABLE
        assert reason(line, "user/Observation.c", patient=None, if_none_exist=condition) is Reason.SCOPE_MISSING
        assert decide(line, "user/*.crs", patient=None, if_none_exist=condition)


def test_condition_is_judged_as_the_search_that_it_is() -> None:
    line, scope = "POST /fhir/Observation", "user/Observation.cs"
    assert decide(line, scope, patient=None, if_none_exist="identifier=x")
    for condition in ("subject.name=x", "_has:Provenance:target:agent=x", "_mdm=true", "identifier=x,_filter=y"):
        assert reason(line, scope, patient=None, if_none_exist=condition) is Reason.SCOPE_MISSING
    assert reason(line, scope, patient=None, if_none_exist="patient[]=1") is Reason.REQUEST_MALFORMED
    assert decide("GET /fhir/Observation", "user/Observation.s", patient=None, if_none_exist="patient[]=1")


INCLUDED = [
    ("GET /fhir/Observation?patient=123&_revinclude=Provenance:target", "patient/Provenance.s"),
    ("GET /fhir/Observation?patient=123&_include=Observation:performer:Practitioner", "patient/Practitioner.r"),
    ("GET /fhir/Patient?_id=123&_has:Observation:patient:code=x", "patient/Observation.s"),
    ("GET /fhir/Observation?patient=123&_revinclude=Provenance:target,AuditEvent:entity", "patient/Provenance.s patient/AuditEvent.s"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "needed"), INCLUDED)
def test_included_type_needs_its_scope_also_where_the_server_enforces(line: str, needed: str) -> None:
    kind = line.split("/")[2].partition("?")[0]
    with pytest.raises(Refused) as refused:
        decide(line, f"patient/{kind}.rs", fhir=DELEGATE)
    assert (refused.value.reason, " ".join(refused.value.needed)) == (Reason.SCOPE_MISSING, needed)
    assert decide(line, f"patient/{kind}.rs", *needed.split(), fhir=DELEGATE).compartment == "Patient/123"
    assert reason(line, f"patient/{kind}.rs") is Reason.COMPARTMENT_UNDECIDABLE


def test_provenance_in_a_header_is_one_more_resource_to_create() -> None:
    line = "PUT /fhir/Observation/5"
    assert reason(line, "user/Observation.u", patient=None, steering=("x-provenance",)) is Reason.SCOPE_MISSING
    assert decide(line, "user/Observation.u", "user/Provenance.c", patient=None, steering=("x-provenance",))
    assert (
        reason("PUT /fhir/Patient/123", "patient/*.cruds", steering=("x-provenance",)) is Reason.COMPARTMENT_UNDECIDABLE
    )


@pytest.mark.parametrize(
    "header", ["x-request-partition-ids", "x-fhir-tenant-id", "x-fhir-dsid", "x-medplum-on-behalf-of"]
)
def test_header_that_is_refused_is_refused_beside_a_form_that_was_not_seen(header: str) -> None:
    refused = DENY._replace(parameters={header: Effect.REFUSE})
    line = "POST /fhir/Observation/_search"
    for form in (None, b"code=x"):
        more: dict[str, Any] = {"form": form, "steering": (header,)}
        assert reason(line, "system/*.cruds", patient=None, fhir=refused, **more) is Reason.INTERACTION_UNSUPPORTED


@pytest.mark.parametrize(
    "header", ["x-request-partition-ids", "x-fhir-tenant-id", "x-fhir-dsid", "x-medplum-on-behalf-of"]
)
def test_header_that_chooses_whose_data_may_reach_anything(header: str) -> None:
    steering: dict[str, Any] = {"steering": (header,)}
    assert reason("GET /fhir/Patient/123", *READ, **steering) is Reason.COMPARTMENT_UNDECIDABLE
    assert (
        reason("GET /fhir/Observation?code=x", "user/Observation.s", patient=None, **steering) is Reason.SCOPE_MISSING
    )
    assert decide("GET /fhir/Observation?code=x", "user/*.s", patient=None, **steering)
    declared = DENY._replace(parameters={header: Effect.NARROWS})
    assert decide("GET /fhir/Patient/123", *READ, fhir=declared, **steering).compartment is None


CHALLENGES = [
    # (request, token, policy, patient) → what a challenge asks for
    ("GET /fhir/Observation?patient=123", ["patient/Patient.rs"], None, "123", ["patient/Observation.s"]),
    ("GET /fhir/Observation?code=x", ["patient/Patient.rs"], None, "123", ["user/Observation.s"]),
    ("GET /fhir/Observation?code=x", ["user/Patient.rs"], None, "123", ["user/Observation.s"]),
    ("GET /fhir/Observation?code=x", ["patient/Patient.read"], None, None, ["user/Observation.read"]),
    ("GET /fhir/Observation?code=x", ["openid"], None, None, ["system/Observation.s"]),
    ("GET /fhir/Observation?code=x", ["system/Patient.rs"], None, None, ["system/Observation.s"]),
    ("GET /fhir/Observation?patient=123", ["patient/*.rs"], ["patient/Patient.rs"], "123", []),
    ("GET /fhir/Patient/123/$everything", ["patient/*.rs", "user/*.s"], ["patient/Patient.rs"], "123", ["user/*.r"]),
    ("GET /fhir/Observation/1", ["system/*.rs"], ["system/Patient.rs"], None, []),
    ("GET /fhir/Observation", ["user/Observation.rs"], ["user/Patient.rs"], None, []),
    ("GET /fhir/Observation", ["user/Patient.rs"], ["user/Observation.rs"], None, ["user/Observation.s"]),
    ("GET /fhir/Patient/124", ["patient/Observation.rs"], None, "123", ["user/Patient.r"]),
    ("PUT /fhir/Practitioner/7", ["patient/Patient.u"], None, "123", ["user/Practitioner.u"]),
    ("POST /fhir/Patient", ["patient/Observation.c"], None, "123", ["user/Patient.c"]),
    ("DELETE /fhir/Patient/1?_cascade=delete", ["system/*.cruds"], ["system/Patient.cruds"], None, []),
    ("DELETE /fhir/Patient/1?_cascade=delete", ["system/Patient.d"], None, None, ["system/*.d"]),
]


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("GET /fhir/Observation/1", "user/Observation.read"),
        ("GET /fhir/Observation?code=x", "user/Observation.read"),
        ("POST /fhir/Observation", "user/Observation.write"),
        ("PUT /fhir/Observation/1", "user/Observation.write"),
        ("DELETE /fhir/Observation/1", "user/Observation.write"),
    ],
)
def test_challenge_speaks_the_version_of_the_token(line: str, needed: str) -> None:
    for scope, expected in (("user/Patient.*", needed), ("user/Patient.cruds", needed.partition(".")[0])):
        with pytest.raises(Refused) as refused:
            decide(line, scope, patient=None)
        assert refused.value.needed[0].startswith(expected)


@pytest.mark.parametrize(("line", "token", "policy", "patient", "expected"), CHALLENGES)
def test_challenge_asks_for_what_would_do_and_can_be_had(
    line: str, token: list[str], policy: list[str] | None, patient: str | None, expected: list[str]
) -> None:
    more: dict[str, Any] = {"policy": client(*policy)} if policy is not None else {}
    with pytest.raises(Refused) as refused:
        decide(line, *token, patient=patient, **more)
    assert refused.value.reason is Reason.SCOPE_MISSING
    assert list(refused.value.needed) == expected
    if not expected:
        assert "the policy does not grant it" in refused.value.detail


@pytest.mark.parametrize("line", ["GET /fhir/Patient/124", "PUT /fhir/Practitioner/7", "POST /fhir/Patient"])
def test_challenge_asks_for_no_patient_scope_that_could_never_do(line: str) -> None:
    with pytest.raises(Refused) as refused:
        decide(line, "patient/Observation.rs", fhir=DELEGATE)
    assert all(scope.startswith("user/") for scope in refused.value.needed)


@pytest.mark.parametrize("by", SearchByPost)
@pytest.mark.parametrize(
    ("pin", "scope"), [("patient=123", READ[0]), ("category=laboratory", "user/Observation.rs?category=laboratory")]
)
def test_search_by_post_is_pinned_where_the_server_looks(by: SearchByPost, pin: str, scope: str) -> None:
    fhir = DENY._replace(search_by_post=by)
    for place, query, form in (
        ("query", f"?{pin}", b""),
        ("form", "", pin.encode()),
        ("both", f"?{pin}", pin.encode()),
    ):
        line = f"POST /fhir/Observation/_search{query}"
        if by is SearchByPost.BOTH or place in ("both", by.value):
            assert decide(line, scope, form=form, fhir=fhir).compartment is None
        else:
            refused = (Reason.COMPARTMENT_UNDECIDABLE, Reason.SCOPE_MISSING)
            assert reason(line, scope, form=form, fhir=fhir) in refused


@pytest.mark.parametrize("by", SearchByPost)
@pytest.mark.parametrize(("query", "form"), [("?patient=124", b"patient=123"), ("?patient=123", b"patient=124")])
def test_search_by_post_that_names_another_patient_anywhere_is_a_mismatch(
    by: SearchByPost, query: str, form: bytes
) -> None:
    line = f"POST /fhir/Observation/_search{query}"
    assert reason(line, *READ, form=form, fhir=DENY._replace(search_by_post=by)) is Reason.PATIENT_MISMATCH


def test_filter_counts_only_in_a_form_that_was_seen_and_beside_no_cursor() -> None:
    scope = "patient/Observation.rs?category=laboratory"
    line = "POST /fhir/Observation/_search?category=laboratory&patient=123"
    assert reason(line, scope, form=None, fhir=DELEGATE) is Reason.SCOPE_MISSING
    line = "GET /fhir/Observation?category=laboratory&sessionID=x"
    assert reason(line, "user/Observation.rs?category=laboratory", fhir=served_by("epic")) is Reason.SCOPE_MISSING
    assert decide(line, "user/Observation.rs", fhir=served_by("epic"))


def test_filter_by_a_parameter_that_the_type_does_not_have_opens_nothing() -> None:
    line, scope = "GET /fhir/Observation?sensitivity=low", "user/Observation.rs?sensitivity=low"
    assert reason(line, scope, patient=None) is Reason.SCOPE_MISSING
    assert decide(line, scope, patient=None, fhir=DENY._replace(parameters={"sensitivity": Effect.NARROWS}))
    assert reason("GET /fhir/Patient/123/*?category=x", "user/*.rs?category=x") is Reason.SCOPE_MISSING
    added = DENY._replace(pins={"Task": {"for-patient": frozenset({"Patient"})}})
    assert decide("GET /fhir/Task?for-patient=9", "user/Task.rs?for-patient=9", patient=None, fhir=added)


TYPES = [
    ("GET /fhir/Observation?_type=Patient", "user/Observation.rs"),
    ("GET /fhir/Observation?patient=123&_type=Condition", "patient/Observation.rs"),
    ("GET /fhir/Observation?patient=123&_type=Observation,Condition", "patient/Observation.rs"),
    ("GET /fhir/Observation?patient=123&_type:not=Observation", "patient/Observation.rs"),
    ("GET /fhir/Patient/123/Observation?_type=Condition", "patient/Observation.rs"),
    ("GET /fhir/Patient/123?_type=Observation", "patient/Patient.rs"),
    ("DELETE /fhir/Patient?_id=124&_type=Observation", "user/Patient.cruds"),
    ("GET /fhir/Patient/123/_history?_type=Observation", "patient/Patient.rs"),
]


@pytest.mark.parametrize(("line", "scope"), TYPES)
def test_type_beside_a_path_of_another_type_may_reach_that(line: str, scope: str) -> None:
    assert reason(line, scope) in (Reason.SCOPE_MISSING, Reason.COMPARTMENT_UNDECIDABLE)
    assert decide(line, "user/*.cruds", patient=None)


def test_type_of_the_path_narrows() -> None:
    assert decide("GET /fhir/Observation?patient=123&_type=Observation", *READ).compartment is None
    assert decide("GET /fhir/Patient/123/Observation?_type=Observation", *READ).compartment is None
    assert decide("POST /fhir/Observation/_search", *READ, form=b"patient=123&_type=Observation").compartment is None
    assert decide("GET /fhir/Patient/123/$everything?_type=Observation", *READ, fhir=WITHIN).compartment is None


DELETED = [
    ("DELETE /fhir/Patient?_id=124&_revinclude=Observation:subject", ["user/Patient.cruds", "user/Observation.rs"], "user/Observation.d"),
    ("DELETE /fhir/Patient?_lastUpdated=lt2021&_revinclude=*:*", ["user/Patient.cruds", "user/*.rs"], "user/*.d"),
    (
        "DELETE /fhir/DiagnosticReport?_id=1&_include=DiagnosticReport:based-on:ServiceRequest",
        ["user/DiagnosticReport.cruds", "user/ServiceRequest.rs"],
        "user/ServiceRequest.d",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "scopes", "more"), DELETED)
def test_delete_takes_what_its_search_includes(line: str, scopes: list[str], more: str) -> None:
    assert reason(line, *scopes, patient=None) is Reason.SCOPE_MISSING
    assert decide(line, *scopes, more, patient=None)


def test_delegated_delete_takes_what_its_search_includes() -> None:
    delegated = "DELETE /fhir/Observation?patient=123&_revinclude=Provenance:target"
    scopes = ["patient/Observation.cruds", "patient/Provenance.rs"]
    assert reason(delegated, *scopes, fhir=DELEGATE) is Reason.SCOPE_MISSING
    assert decide(delegated, *scopes, "patient/Provenance.d", fhir=DELEGATE)


FORM_TYPE: dict[str, Any] = {"has_body": True, "has_form_type": True}
BODIES = [
    ("GET /fhir/Observation?patient=123", FORM_TYPE),
    ("GET /fhir/Observation?patient=123", {"has_form_type": True}),
    ("GET /fhir/Observation?patient=123", {"has_body": True}),
    ("HEAD /fhir/Patient/123", {"has_body": True}),
    ("DELETE /fhir/Observation?_id=1", {"has_body": True}),
    ("POST /fhir/Observation", FORM_TYPE),
    ("PUT /fhir/Patient/123", FORM_TYPE),
    ("PATCH /fhir/Patient/123", FORM_TYPE),
]


@pytest.mark.parametrize(("line", "body"), BODIES)
def test_body_that_some_servers_read_as_parameters_is_refused(line: str, body: dict[str, Any]) -> None:
    assert reason(line, "system/*.cruds", patient=None, **body) is Reason.REQUEST_MALFORMED


def test_body_that_fhir_has_passes() -> None:
    for line in ("POST /fhir/Observation", "PUT /fhir/Patient/123", "PATCH /fhir/Patient/123"):
        assert decide(line, "system/*.cruds", patient=None, has_body=True)
    line = "POST /fhir/Observation/_search"
    assert decide(line, *READ, form=b"patient=123", **FORM_TYPE).compartment is None


@pytest.mark.parametrize("frame", ["9{}3", "Patient/9{}3"])
def test_value_that_is_no_reference_pins_nothing(frame: str) -> None:
    def is_read(value: str) -> bool:
        return reason(f"GET /fhir/Observation?patient={quote(value)}", *READ) is Reason.PATIENT_MISMATCH

    assert taken(frame, is_read) == set(ALNUM + ".-,")  # a comma joins two ids


ELSEWHERE = [
    "DELETE /fhir/Observation?patient=124",
    "PUT /fhir/Patient?_id=124",
    "GET /fhir?_type=Observation&patient=124",
    "GET /fhir/Observation/5?patient=124",
    "GET /fhir/Observation/5?subject=Patient/124",
    "GET /fhir/Encounter/5/Observation?patient=124",
    "GET /fhir/Observation/_history?patient=124",
]


@pytest.mark.parametrize("line", ELSEWHERE)
def test_request_that_names_another_patient_is_a_mismatch_whatever_it_is(line: str) -> None:
    for fhir in (DENY, DELEGATE):
        assert reason(line, "patient/*.cruds", fhir=fhir) is Reason.PATIENT_MISMATCH
    same = line.replace("124", "123")
    assert reason(same, "patient/*.cruds") is Reason.COMPARTMENT_UNDECIDABLE
    assert decide(same, "patient/*.cruds", fhir=DELEGATE).compartment == "Patient/123"


def test_id_of_another_type_is_no_patient() -> None:
    assert decide("PUT /fhir/Observation?_id=5", "patient/*.cruds", fhir=DELEGATE).compartment == "Patient/123"
