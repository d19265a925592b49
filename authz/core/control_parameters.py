"""What parameters do that are no search by content: one table of FHIR's own names and of those of known servers.

Names that begin with `_` or `-` steer a server. One that is in no table may do anything; other unknown names are search
parameters at most, and those only narrow. Names are compared without case, because some servers do.

Source: HL7 FHIR R4 (4.0.1) and R5 search.html, http.html; the vendors' pages named at each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from authz.model import Effect

_NARROWS: Final = (
    "_id", "_lastUpdated", "_tag", "_profile", "_security", "_text", "_content", "_list", "_in", "_source",
    "_language", "_sort", "_count", "_summary", "_total", "_elements", "_score", "_maxresults",
    "_format", "_pretty", "_since", "_at",
    "_",  # cache busters of browsers' libraries (jQuery's `cache: false`)
)  # fmt: skip
_REACHES: Final = (
    "_include", "_revinclude", "_has", "_filter", "_contained", "_containedType", "_query", "_graph",
    "X-Provenance",  # a header that creates a Provenance beside the resource (FHIR R4 provenance.html, section 6.3.4.5)
)  # fmt: skip
# Measured with HAPI 8.8.0: a cascade removed other patients' records. HAPI and Microsoft call the rest so.
_DELETES_FURTHER: Final = (
    "_cascade", "_expunge", "_hardDelete", "hardDelete", "_purge", "_purgeHistory", "_remove-references",
)  # fmt: skip
# Names of known servers that are no search parameters: pages, what an export or a delete takes, and headers.
_STEERING: Final = (
    "ct", "includesCt", "sessionID", "page", "pageToken", "continuationToken", "cursor",
    "excludedResourceTypes", "includeAssociatedData",
    # Headers that choose whose data: HAPI's partitions, LinuxForHealth's tenants and data stores, Medplum's other user
    "X-Request-Partition-IDs", "X-FHIR-TENANT-ID", "X-FHIR-DSID", "X-Medplum-On-Behalf-Of",
)  # fmt: skip

# Headers that say what a parameter of that name says, or that act as one.
HEADERS: Final[Mapping[str, str]] = {
    "x-cascade": "_cascade",
    "x-provenance": "x-provenance",
    "x-request-partition-ids": "x-request-partition-ids",
    "x-fhir-tenant-id": "x-fhir-tenant-id",
    "x-fhir-dsid": "x-fhir-dsid",
    "x-medplum-on-behalf-of": "x-medplum-on-behalf-of",
}


def _folded(effects: Mapping[Effect, tuple[str, ...]]) -> dict[str, Effect]:
    return {name.lower(): effect for effect, names in effects.items() for name in names}


OWN: Final[Mapping[str, Effect]] = _folded(
    {
        Effect.NARROWS: _NARROWS,
        Effect.TYPES: ("_type",),
        Effect.REACHES: _REACHES,
        Effect.DELETES_FURTHER: _DELETES_FURTHER,
        Effect.UNKNOWN: _STEERING,
    }
)

# What each server's own parameters do (`fhir.server.kind`).
SERVERS: Final[Mapping[str, Mapping[str, Effect]]] = {
    # HAPI FHIR 8.8.0, Constants.java; paging as it answered: see the table in docs/fhir.md
    "hapi": _folded(
        {
            Effect.CURSOR: ("_getpages",),
            Effect.NARROWS: ("_getpagesoffset", "_pageId", "_bundletype", "_offset"),
            Effect.REFUSE: ("_mdm",),  # widens a search to linked golden records
        }
    ),
    # Microsoft FHIR Server, KnownQueryParameterNames.cs
    "microsoft": _folded({Effect.CURSOR: ("ct", "includesCt"), Effect.NARROWS: ("_before", "_includesCount")}),
    # Google Cloud Healthcare API, fhirStores.fhir.search
    "google": _folded({Effect.CURSOR: ("_page_token", "pageToken")}),
    # Oracle Health Millennium Platform APIs, FHIR R4: parameters that begin with a hyphen are its own filters
    "oracle": _folded(
        {
            Effect.CURSOR: ("-pageContext",),
            Effect.NARROWS: (
                "-pageDirection", "-encounter", "-location", "-status", "-timing-boundsPeriod", "-date-or-req-period",
            ),
        }
    ),
    # Epic on FHIR: the next link of a searchset carries a session alone
    "epic": _folded({Effect.CURSOR: ("sessionID",)}),
    # Medplum, packages/core search.ts
    "medplum": _folded({Effect.CURSOR: ("_cursor",), Effect.NARROWS: ("_offset", "_fields", "_compartment")}),
}  # fmt: skip


def effect_of(code: str, declared: Mapping[str, Effect]) -> Effect:
    """Return what a parameter does; `declared` is what the platform says of its server, by names in lower case."""
    folded = code.lower()
    known = declared.get(folded) or OWN.get(folded)
    if known is not None:
        return known
    return Effect.UNKNOWN if folded[0] in "_-" else Effect.NARROWS
