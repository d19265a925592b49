"""Whose a resource of the kit is, found from what it says and not from any table of ours."""

from __future__ import annotations

from typing import Any

from fhir.asking import names
from fhir.server import resources

PATIENT = "123"


def key(resource: dict[str, Any]) -> str:
    return f"{resource['resourceType']}/{resource.get('id')}"


def is_his(resource: dict[str, Any]) -> bool:
    """Return whether a resource is in the record of patient 123; one that came in part is judged by what it was loaded as.

    He is named in it; or it hangs on him by its id, as Binary and Provenance do. Another Patient never is, whoever it
    links to.
    """
    if resource["resourceType"] == "Patient":
        return resource.get("id") == PATIENT
    whole = resources().get(key(resource), resource)
    return f"Patient/{PATIENT}" in names(whole) or str(whole.get("id")).startswith(f"{PATIENT}-")


def how_many(resource_type: str) -> int:
    """Return how many resources of a type are his."""
    return sum(is_his(one) for one in resources().values() if one["resourceType"] == resource_type)
