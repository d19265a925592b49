"""`clientpolicy status` and `clientpolicy renew`: one policy of a cluster, as its owner asks for it day by day."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from clientpolicy_operator.api import Api, ApiError, policies_path
from clientpolicy_operator.conditions import TYPES
from clientpolicy_operator.told import RENEW, condition_of, int_of, map_of, previous_of

from authz.edge import clock
from authz.edge.kubernetes.connect import NoCluster, connect

_SHOWN: Final = ("secretName", "sha256", "serialNumber", "notBefore", "notAfter", "renewalTime", "revision")


class Unanswered(Exception):  # noqa: N818 what became of the question
    """There is no such policy, it has nothing to renew, or the API server refuses; safe to show."""


def manage(action: str, namespace: str, name: str) -> tuple[bool, list[str]]:
    """Do it; return whether all is well, and the lines to show.

    Raises:
        Unanswered: there is no answer.
    """
    return asyncio.run(_asked(_ACTIONS[action], namespace, name))


async def _status(api: Api, namespace: str, name: str) -> tuple[bool, list[str]]:
    """Return whether the policy is ready as it is written now, and how it stands."""
    found = await _policy(api, namespace, name)
    told = map_of(found.get("status"))
    generation = int_of(map_of(found.get("metadata")).get("generation"))
    is_seen = told.get("observedGeneration") == generation
    is_ready = is_seen and condition_of(told, "Ready").get("status") == "True"
    return is_ready, [f"{namespace}/{name}", *_lines(told, is_seen=is_seen)]


def _lines(told: Mapping[str, object], *, is_seen: bool) -> Iterator[str]:
    if not is_seen:
        yield "  the operator has not seen the last edit yet"
    for kind in TYPES:
        one = condition_of(told, kind)
        yield f"  {kind:<16} {one.get('status', 'Unknown'):<8} {one.get('reason', '')}: {one.get('message', '')}"
    certificate = map_of(told.get("certificate"))
    for field in _SHOWN:
        if field in certificate:
            yield f"  {field:<16} {certificate[field]}"
    for one in previous_of(told):
        yield f"  {'earlier':<16} {one.get('sha256')}, until {one.get('notAfter')}"


async def _renew(api: Api, namespace: str, name: str) -> tuple[bool, list[str]]:
    found = await _policy(api, namespace, name)
    certificate = map_of(map_of(found.get("spec")).get("certificate"))
    if certificate.get("issuerRef"):
        raise Unanswered(f"{namespace}/{name}: cert-manager renews it: cmctl renew -n {namespace} SECRETNAME")
    if certificate.get("source") not in ("Issued", "CSR"):
        raise Unanswered(f"{namespace}/{name}: source {certificate.get('source')}: no certificate is made for it")
    wish = {"metadata": {"annotations": {RENEW: clock.rfc3339(clock.now_us())}}}
    await api.patch(policies_path(namespace, name), wish)
    return True, [f"{namespace}/{name}: another certificate is asked for; the one that is stays valid until its end"]


async def _policy(api: Api, namespace: str, name: str) -> Mapping[str, object]:
    found = await api.get(policies_path(namespace, name))
    if found is None:
        raise Unanswered(f"{namespace}/{name}: no such ClientPolicy; -n NAMESPACE says where it is")
    return found


async def _asked(action: _Action, namespace: str, name: str) -> tuple[bool, list[str]]:
    api = Api(connect)
    try:
        return await action(api, namespace, name)
    except (ApiError, NoCluster) as failed:
        raise Unanswered(str(failed)) from None
    finally:
        await api.close()


_Action = Callable[[Api, str, str], Awaitable[tuple[bool, list[str]]]]
_ACTIONS: Final[Mapping[str, _Action]] = {"status": _status, "renew": _renew}
