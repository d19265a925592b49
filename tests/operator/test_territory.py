"""Who serves a namespace: whoever came first, until it is handed over or its own namespace is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clientpolicy_operator import clock, territory
from clientpolicy_operator.api import Api, ApiError, Conflict, Forbidden, NotFound, Unavailable
from clientpolicy_operator.facts import Document
from clientpolicy_operator.territory import Territory

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


class Cluster(Api):
    """Leases and namespaces in memory; `refusals` are raised by the request that they name."""

    def __init__(self) -> None:
        super().__init__(lambda: pytest.fail("no cluster"))
        self.objects: dict[str, Document] = {"/api/v1/namespaces/other": {}}
        self.refusals: dict[str, ApiError] = {}
        self.asked: list[str] = []

    def hold(self, namespace: str, holder: object) -> None:
        self.objects[f"{LEASES.format(namespace)}/clientpolicy-served"] = {"spec": {"holderIdentity": holder}}

    def holder(self, namespace: str) -> object:
        spec = self.objects[f"{LEASES.format(namespace)}/clientpolicy-served"]["spec"]
        assert isinstance(spec, dict)
        return spec["holderIdentity"]

    def _ask(self, method: str, path: str) -> None:
        self.asked.append(f"{method} {path}")
        if refusal := self.refusals.pop(f"{method} {path}", None):
            raise refusal

    async def get(self, path: str, **query: str) -> Document | None:
        self._ask("GET", path)
        assert not query
        await asyncio.sleep(0)
        return self.objects.get(path)

    async def create(self, path: str, body: Document) -> Document:
        self._ask("POST", path)
        assert isinstance(body["metadata"], dict)
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise Conflict(name)
        self.objects[name] = body
        return body

    async def replace(self, path: str, body: Document) -> Document:
        self._ask("PUT", path)
        self.objects[path] = body
        return body


class Watch:
    """A monotonic clock that stands still unless it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(clock, "monotonic_s", lambda: self.now_s)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def ours(cluster: Cluster) -> Territory:
    return Territory(cluster, "ours", resync_s=600.0)


@pytest.mark.parametrize(
    ("held", "other", "after"),
    [
        (None, None, "ours"),
        ("ours", None, "ours"),
        ("", None, "ours"),
        (7, None, "ours"),
        ("other", "other", "other"),
        ("long-gone", None, "ours"),
        ("../../apis/x", "../../apis/x", "../../apis/x"),
    ],
    ids=["nobody's", "ours", "given up", "no name", "another's", "of one that is gone", "no namespace's name"],
)
async def test_namespace_is_of_who_came_first(held: object, other: str | None, after: object) -> None:
    cluster = Cluster()
    if held is not None:
        cluster.hold("a", held)
    assert await ours(cluster).other("a") == other
    assert cluster.holder("a") == after
    assert not any(".." in asked for asked in cluster.asked), "what stands in a Lease is no part of a path"


async def test_lease_that_is_ours_is_not_written_again() -> None:
    cluster = Cluster()
    cluster.hold("a", "ours")
    await ours(cluster).other("a")
    assert cluster.asked == [f"GET {LEASES.format('a')}/clientpolicy-served"]


async def test_of_two_at_once_one_serves() -> None:
    cluster = Cluster()
    cluster.objects["/api/v1/namespaces/ours"] = {}
    both = [ours(cluster), Territory(cluster, "other", resync_s=600.0)]
    assert await asyncio.gather(*(one.other("a") for one in both)) == [None, "ours"]


async def test_handed_over_and_back(watch: Watch) -> None:
    """Another's Lease is looked at every half minute, one of ours at every resync."""
    cluster = Cluster()
    cluster.hold("a", "other")
    mine = ours(cluster)
    assert await mine.other("a") == "other"
    del cluster.objects[f"{LEASES.format('a')}/clientpolicy-served"]
    watch.now_s += 29
    assert await mine.other("a") == "other"
    watch.now_s += 2
    assert await mine.other("a") is None
    cluster.hold("a", "other")
    watch.now_s += 599
    assert await mine.other("a") is None
    watch.now_s += 2
    assert await mine.other("a") == "other"


@pytest.mark.parametrize(
    ("method", "refusal"),
    [("GET", Forbidden("no right")), ("POST", Forbidden("it is being terminated")), ("POST", NotFound("no namespace"))],
)
async def test_who_may_not_look_serves_as_before(method: str, refusal: ApiError) -> None:
    cluster = Cluster()
    name = "/clientpolicy-served" if method == "GET" else ""
    cluster.refusals[f"{method} {LEASES.format('a')}{name}"] = refusal
    assert await ours(cluster).other("a") is None


async def test_who_may_not_see_namespaces_takes_nothing_over() -> None:
    cluster = Cluster()
    cluster.hold("a", "long-gone")
    cluster.refusals["GET /api/v1/namespaces/long-gone"] = Forbidden("no right")
    assert await ours(cluster).other("a") == "long-gone"


async def test_survey_takes_what_is_free_and_tells_what_is_not() -> None:
    cluster = Cluster()
    cluster.hold("b", "other")
    cluster.refusals[f"POST {LEASES.format('d')}"] = Conflict("others write")
    mine = ours(cluster)
    assert not mine.is_shut_out
    await mine.survey(["c", "a", "b", "d", "a"])
    assert mine.others == {"b": "other"}
    assert not mine.is_shut_out
    assert cluster.holder("a") == cluster.holder("c") == cluster.holder("d") == "ours"


async def test_shut_out_is_who_serves_nothing() -> None:
    cluster = Cluster()
    cluster.hold("a", "other")
    mine = ours(cluster)
    await mine.survey(["a"])
    assert mine.is_shut_out


async def test_survey_waits_for_an_api_server_that_is_away() -> None:
    cluster = Cluster()
    cluster.refusals[f"GET {LEASES.format('a')}/clientpolicy-served"] = Unavailable("away")
    with pytest.raises(Unavailable):
        await ours(cluster).survey(["a"])


async def test_known_namespaces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(territory, "KNOWN_MAX", 3)
    cluster = Cluster()
    for name in "abcdef":
        cluster.hold(name, "other")
    mine = ours(cluster)
    for name in "abcdef":
        assert await mine.other(name) == "other"
    assert mine.others.keys() == set("def")
    assert await mine.other("a") == "other", "what was forgotten is asked for again"


async def test_lease_as_written() -> None:
    cluster = Cluster()
    await ours(cluster).other("a")
    made: Any = cluster.objects[f"{LEASES.format('a')}/clientpolicy-served"]
    assert made["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "clientpolicy",
        "app.kubernetes.io/component": "territory",
    }
    assert made["spec"]["holderIdentity"] == "ours"
    assert made["spec"]["acquireTime"].endswith(".000000Z"), "a MicroTime"
