"""What control parameters do, written a second time, name by name."""

from __future__ import annotations

import pytest

from authz.core.control_parameters import HEADERS, OWN, SERVERS, effect_of
from authz.model import Effect

FHIR: dict[Effect, str] = {
    Effect.NARROWS: "_ _id _lastUpdated _tag _profile _security _text _content _list _in _source _language _sort"
    " _count _summary _total _elements _score _maxresults _format _pretty _since _at",
    Effect.TYPES: "_type",
    Effect.REACHES: "_include _revinclude _has _filter _contained _containedType _query _graph X-Provenance",
    Effect.DELETES_FURTHER: "_cascade _expunge _hardDelete hardDelete _purge _purgeHistory _remove-references",
    Effect.UNKNOWN: "ct includesCt sessionID page pageToken continuationToken cursor excludedResourceTypes"
    " includeAssociatedData X-Request-Partition-IDs X-FHIR-TENANT-ID X-FHIR-DSID"
    " X-Medplum-On-Behalf-Of",
}
KINDS: dict[str, dict[Effect, str]] = {
    "hapi": {
        Effect.CURSOR: "_getpages",
        Effect.NARROWS: "_getpagesoffset _pageId _bundletype _offset",
        Effect.REFUSE: "_mdm",
    },
    "microsoft": {Effect.CURSOR: "ct includesCt", Effect.NARROWS: "_before _includesCount"},
    "google": {Effect.CURSOR: "_page_token pageToken"},
    "oracle": {
        Effect.CURSOR: "-pageContext",
        Effect.NARROWS: "-pageDirection -encounter -location -status -timing-boundsPeriod -date-or-req-period",
    },
    "epic": {Effect.CURSOR: "sessionID"},
    "medplum": {Effect.CURSOR: "_cursor", Effect.NARROWS: "_offset _fields _compartment"},
}


def by_name(effects: dict[Effect, str]) -> dict[str, Effect]:
    return {name.lower(): effect for effect, names in effects.items() for name in names.split()}


def test_fhirs_own_and_what_steers() -> None:
    assert by_name(FHIR) == OWN


def test_servers_own() -> None:
    assert {kind: by_name(effects) for kind, effects in KINDS.items()} == SERVERS


def test_headers_that_stand_for_a_parameter() -> None:
    assert HEADERS == {
        "x-cascade": "_cascade",
        "x-provenance": "x-provenance",
        "x-request-partition-ids": "x-request-partition-ids",
        "x-fhir-tenant-id": "x-fhir-tenant-id",
        "x-fhir-dsid": "x-fhir-dsid",
        "x-medplum-on-behalf-of": "x-medplum-on-behalf-of",
    }


@pytest.mark.parametrize(
    ("code", "kind", "effect"),
    [
        ("code", "hapi", Effect.NARROWS),
        ("_new", "hapi", Effect.UNKNOWN),
        ("-new", "hapi", Effect.UNKNOWN),
        ("new-", "hapi", Effect.NARROWS),
        ("_MDM", "hapi", Effect.REFUSE),
        ("_mdm", "epic", Effect.UNKNOWN),
        ("_INCLUDE", "hapi", Effect.REACHES),
        ("ct", "microsoft", Effect.CURSOR),
        ("ct", "hapi", Effect.UNKNOWN),
        ("SessionId", "epic", Effect.CURSOR),
    ],
)
def test_server_goes_before_fhir_and_case_does_not_count(code: str, kind: str, effect: Effect) -> None:
    assert effect_of(code, SERVERS[kind]) is effect
