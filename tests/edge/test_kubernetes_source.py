"""Policies from a real Kubernetes API: listed, watched, and held through whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cluster import Policies, accepted, allow_reading, external, forbid_reading, issued, policy_object
from control_plane import ControlPlane
from fault_proxy import FaultProxy
from kubernetes_api import KubernetesApi
from watch_gate import Query, WatchGate, failure

from authz.core.certificate import identify
from authz.edge import clock
from authz.edge.kubernetes import api, reflector
from authz.edge.kubernetes.connect import Connection, connect
from authz.edge.kubernetes.objects import Held, meta_of
from authz.edge.kubernetes.reflector import Timing
from authz.edge.kubernetes.source import KubernetesPolicies
from authz.edge.source import NoPolicies
from authz.model import Presented, Refused

QUICK = Timing(watch_s=3, silent_s=4)
INEXACT = [{"name": "q", "requests": 1, "per": "9000h", "burst": 100}]  # the schema cannot refuse it, authz does


def sha(number: int) -> str:
    return f"{number:064x}"


class Watched:
    """A running source, as a decision sees it."""

    def __init__(self, source: KubernetesPolicies) -> None:
        self.source = source
        self.swaps = 0

    def changed(self) -> None:
        self.swaps += 1

    def reason(self, sha256: str) -> str:
        if self.source.policies is None:
            return "not ready"
        try:
            identify(Presented(sha256, None), self.source.policies, clock.now_us())
        except Refused as refused:
            return refused.reason.value
        return "identified"

    def number(self, name: str, **labels: str) -> float:
        return next(
            value for _, one, _, told, value in self.source.numbers() if (one, told) == (f"clientpolicy_{name}", labels)
        )

    def errors(self, kind: str) -> float:
        return self.number("policy_watch_errors", kind=kind)

    async def until(self, what: Callable[[], object], within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while not what():
                await asyncio.sleep(0.005)

    async def becomes(self, sha256: str, reason: str, within_s: float = 30) -> None:
        with suppress(TimeoutError):
            await self.until(lambda: self.reason(sha256) == reason, within_s)
        assert self.reason(sha256) == reason


@asynccontextmanager
async def watching(config: Path, *namespaces: str, timing: Timing | None = None, **how: Any) -> AsyncIterator[Watched]:
    """Run a source with somebody's credentials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(config))
        source = KubernetesPolicies(namespaces, may_shadow=True, timing=timing, **how)
        watched = Watched(source)
        await source.open()
        running = asyncio.create_task(source.run(watched.changed))
        try:
            yield watched
            assert not running.done()
        finally:
            running.cancel()
            async with asyncio.timeout(5):
                await asyncio.gather(running, return_exceptions=True)
            await source.close()
            await asyncio.sleep(0.1)  # TLS says goodbye


@pytest.fixture
def ours(plane: KubernetesApi, namespace: str) -> Policies:
    return Policies(plane, namespace)


@pytest.fixture(scope="module")
def reader(plane: KubernetesApi) -> Path:
    """Somebody who may get, list and watch ClientPolicies everywhere, and nothing else."""
    return allow_reading(plane, "authz")


@pytest.fixture
async def gate(plane: KubernetesApi, tmp_path: Path) -> AsyncIterator[WatchGate]:
    async with WatchGate(plane, tmp_path) as gate:
        yield gate


def through(proxy: FaultProxy, config: Path, folder: Path) -> Path:
    """Return a kubeconfig that goes through a proxy."""
    read = yaml.safe_load(config.read_text())
    read["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    path = folder / "proxied.kubeconfig"
    path.write_text(yaml.safe_dump(read))
    return path


async def test_every_edit_acts_on_the_next_request(ours: Policies, reader: Path) -> None:
    ours.create("one", accepted(sha(11), sha(12)), certificate=external(sha(11), sha(12)))
    async with watching(reader) as watched:
        await watched.becomes(sha(11), "identified")
        assert watched.reason(sha(12)) == "identified"
        ours.edit("one", suspended=True)
        await watched.becomes(sha(11), "client_suspended", 2)
        ours.edit("one", suspended=False)
        await watched.becomes(sha(11), "identified", 2)
        ours.edit("one", revocation={"fingerprints": [{"sha256": sha(11)}]})
        await watched.becomes(sha(11), "certificate_revoked", 2)
        ours.edit("one", certificate=external(sha(11)))
        await watched.becomes(sha(12), "certificate_unknown", 2)  # though the status still lists it
        ours.create("two", issued(sha(13)))
        await watched.becomes(sha(13), "identified", 2)
        ours.delete("two")
        await watched.becomes(sha(13), "certificate_unknown", 2)


async def test_fingerprint_is_trusted_from_the_status_alone(ours: Policies, reader: Path) -> None:
    async with watching(reader, ours.namespace) as watched:
        await watched.becomes(sha(21), "certificate_unknown")
        ours.create("one", certificate=external(sha(21)))
        ours.create("two", issued(sha(22)))
        await watched.becomes(sha(22), "identified")
        assert watched.reason(sha(21)) == "certificate_unknown"
        ours.status("one", accepted(sha(21)))
        await watched.becomes(sha(21), "identified")


async def test_policy_that_waits_for_a_finalizer_is_deleted(ours: Policies, reader: Path) -> None:
    ours.create("one", issued(sha(31)))
    ours.annotate("one", ["example.org/wait"])
    async with watching(reader, ours.namespace) as watched:
        await watched.becomes(sha(31), "identified")
        ours.delete("one")
        await watched.becomes(sha(31), "certificate_unknown")
        async with watching(reader, ours.namespace) as fresh:
            await fresh.becomes(sha(31), "certificate_unknown")
        ours.annotate("one", None)


async def test_recreated_namesake_inherits_nothing(ours: Policies, reader: Path) -> None:
    ours.create("one", issued(sha(41)))
    async with watching(reader, ours.namespace) as watched:
        await watched.becomes(sha(41), "identified")
        ours.delete("one")
        ours.create("one", issued(sha(42)), quotas=INEXACT)
        await watched.becomes(sha(42), "policy_invalid")
        assert watched.reason(sha(41)) == "certificate_unknown"


async def test_invalid_edit_keeps_the_last_good_version_and_is_told_once(
    ours: Policies, reader: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours.create("one", issued(sha(51)))
    ours.create("two", issued(sha(52)), quotas=INEXACT)
    async with watching(reader, ours.namespace) as watched:
        await watched.becomes(sha(51), "identified")
        assert watched.reason(sha(52)) == "policy_invalid"
        ours.edit("one", quotas=INEXACT)
        await watched.until(lambda: watched.number("policy_errors") == 2)
        ours.status("one", issued(sha(53), sha(51)))
        await watched.becomes(sha(53), "identified")
        ours.edit("one", suspended=True)
        await watched.becomes(sha(53), "client_suspended")
        assert watched.number("policies", standing="active") == 1
        assert watched.number("policies", standing="invalid") == 1
    told = [
        (record.message, record.__dict__["policy"], record.__dict__["generation"])
        for record in caplog.records
        if "policy invalid" in record.message
    ]
    assert told == [
        ("policy invalid; its client is refused", f"{ours.namespace}/two", 1),
        ("policy invalid; its last good version holds", f"{ours.namespace}/one", 2),
        ("policy invalid; its last good version holds", f"{ours.namespace}/one", 3),
    ]  # fmt: skip


async def test_conflict_is_judged_by_authz_itself(ours: Policies, reader: Path) -> None:
    old = ours.create("old", issued(sha(61)), clientId="shared")
    await asyncio.sleep(1.1)  # creationTimestamps have whole seconds
    young = ours.create("young", {"conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]} | issued(sha(62)), clientId="shared")  # fmt: skip
    assert old["metadata"]["creationTimestamp"] < young["metadata"]["creationTimestamp"]
    async with watching(reader, ours.namespace) as watched:
        await watched.becomes(sha(62), "policy_conflict")
        assert watched.reason(sha(61)) == "identified"
        assert watched.number("policies", standing="conflict") == 1
        ours.delete("old")
        await watched.becomes(sha(62), "identified")


async def test_only_the_named_namespaces_are_read_and_all_of_them_before_it_is_ready(plane: KubernetesApi) -> None:
    """RBAC of one namespace each; the second list is forbidden at first."""
    one, two, other = (Policies(plane, plane.new_namespace()) for _ in range(3))
    for policies, number in ((one, 71), (two, 72), (other, 73)):
        policies.create("app", issued(sha(number)), clientId=policies.namespace)
    config = allow_reading(plane, "two-namespaces", one.namespace)
    async with watching(config, one.namespace, two.namespace) as watched:
        await watched.until(lambda: watched.errors("forbidden") >= 2)
        assert watched.source.policies is None
        assert watched.swaps == 0
        assert watched.source.trouble.startswith("forbidden: 403: ")
        allow_reading(plane, "two-namespaces", two.namespace)
        await watched.becomes(sha(72), "identified")
        assert watched.reason(sha(71)) == "identified"
        assert watched.reason(sha(73)) == "certificate_unknown"
        assert watched.source.trouble == ""
        one.edit("app", suspended=True)
        two.delete("app")
        await watched.becomes(sha(71), "client_suspended")
        await watched.becomes(sha(72), "certificate_unknown")


async def test_rule_removed_live_keeps_the_last_snapshot_until_it_is_back(
    plane: KubernetesApi, ours: Policies, caplog: pytest.LogCaptureFixture
) -> None:
    ours.create("one", issued(sha(81)))
    config = allow_reading(plane, "loses-its-rule")
    caplog.set_level(logging.INFO)
    async with watching(config, timing=QUICK) as watched:
        await watched.becomes(sha(81), "identified")
        forbid_reading(plane, "loses-its-rule")
        await watched.until(lambda: watched.errors("forbidden") >= 3)
        ours.edit("one", suspended=True)
        age_s = watched.number("policies_age_seconds")
        await watched.until(lambda: watched.number("policies_age_seconds") > age_s + 0.5)
        assert watched.reason(sha(81)) == "identified"
        told = [record.__dict__["kind"] for record in caplog.records if "not watched" in record.message]
        assert told.count("forbidden") == 1
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "loses-its-rule"},
                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "loses-its-rule"},
                   "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "loses-its-rule"}]}  # fmt: skip
        plane.must("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
        await watched.becomes(sha(81), "client_suspended")
        assert "policies watched again" in [record.message for record in caplog.records]


async def test_outage_compaction_and_deletions_meanwhile(own_plane: ControlPlane, tmp_path: Path) -> None:
    """The version that the watch would go on from is gone: everything is listed anew, and nothing was cleared first."""
    ours = Policies(own_plane, own_plane.new_namespace())
    for number in (91, 92, 93):
        ours.create(f"app-{number}", issued(sha(number)))
    async with (
        FaultProxy(own_plane.port) as proxy,
        watching(through(proxy, own_plane.kubeconfig, tmp_path)) as watched,
    ):
        await watched.becomes(sha(91), "identified")
        proxy.shut()
        ours.delete("app-91")
        ours.edit("app-92", suspended=True)
        ours.create("app-94", issued(sha(94)))
        own_plane.compact()
        await asyncio.to_thread(own_plane.stop_api)
        await watched.until(lambda: watched.errors("unreachable") >= 2)
        held = [watched.reason(sha(number)) for number in (91, 92, 93, 94)]
        assert held == ["identified", "identified", "identified", "certificate_unknown"]
        assert watched.number("policies_age_seconds") > 0
        await asyncio.to_thread(own_plane.start_api)
        seen: set[tuple[str, ...]] = set()
        proxy.heal()
        async with asyncio.timeout(30):
            while watched.reason(sha(94)) != "identified":
                seen.add(tuple(watched.reason(sha(number)) for number in (91, 92, 93, 94)))
                await asyncio.sleep(0)
        assert seen <= {tuple(held)}  # one swap: before it all is as it was
        now = [watched.reason(sha(number)) for number in (91, 92, 93, 94)]
        assert now == ["certificate_unknown", "client_suspended", "identified", "identified"]
        assert watched.errors("gone") >= 1
        assert watched.number("policy_relists") == 1
        ours.edit("app-93", suspended=True)
        await watched.becomes(sha(93), "client_suspended", 2)


async def test_api_server_killed_and_started_again(own_plane: ControlPlane) -> None:
    ours = Policies(own_plane, own_plane.new_namespace())
    ours.create("one", issued(sha(101)))
    async with watching(own_plane.kubeconfig) as watched:
        await watched.becomes(sha(101), "identified")
        own_plane.stop_api()
        await watched.until(lambda: watched.errors("unreachable") >= 3)
        await watched.until(lambda: watched.number("policies_age_seconds") > 1)
        assert watched.reason(sha(101)) == "identified"
        await asyncio.to_thread(own_plane.start_api)
        ours.edit("one", suspended=True)
        await watched.becomes(sha(101), "client_suspended")
        assert watched.number("policies_age_seconds") < 60


async def test_silent_watch_is_given_up(ours: Policies, reader: Path, tmp_path: Path) -> None:
    ours.create("one", issued(sha(111)))
    timing = Timing(watch_s=60, silent_s=1)
    host, port = ours.plane.place
    async with (
        FaultProxy(port, host) as proxy,
        watching(through(proxy, reader, tmp_path), ours.namespace, timing=timing) as watched,
    ):
        await watched.becomes(sha(111), "identified")
        proxy.replies.drop = True
        ours.edit("one", suspended=True)
        await watched.until(lambda: watched.errors("silent") >= 1)
        assert watched.reason(sha(111)) == "identified"
        proxy.heal()
        proxy.cut()  # whatever began while it was silent
        await watched.becomes(sha(111), "client_suspended")


async def test_bookmark_moves_the_version_to_go_on_from(gate: WatchGate, plane: KubernetesApi, ours: Policies) -> None:
    """Others' edits make ours old; with bookmarks that needs no list."""
    elsewhere = Policies(plane, plane.new_namespace())
    elsewhere.create("noise")
    timing = Timing(watch_s=6, silent_s=8)  # a bookmark comes two seconds before the end
    async with watching(gate.kubeconfig, ours.namespace, timing=timing) as watched:
        await watched.until(lambda: gate.watches)
        elsewhere.edit("noise", suspended=True)
        await watched.until(lambda: len(gate.watches) >= 2)
        first, second = gate.watches[:2]
        assert first["allowWatchBookmarks"] == "true"
        assert int(second["resourceVersion"]) > int(first["resourceVersion"])
        assert watched.number("policy_relists") == 0


async def test_watch_that_told_nothing_is_followed_by_a_list(gate: WatchGate, ours: Policies) -> None:
    """Else an API that was restored from a backup would stay silent for ever."""
    async with watching(gate.kubeconfig, ours.namespace, timing=Timing(watch_s=1, silent_s=3)) as watched:
        await watched.until(lambda: watched.number("policy_relists") >= 2)
        assert watched.source.trouble == ""


def line(kind: str, document: Any) -> bytes:
    return json.dumps({"type": kind, "object": document}).encode() + b"\n"


def error(code: int) -> bytes:
    return line("ERROR", {"kind": "Status", "code": code, "message": "by the test"})


SLIPPED: dict[str, tuple[bytes, str]] = {
    "expired": (error(410), "gone"),
    "an error": (error(500), "reported"),
    "an error without a code": (line("ERROR", None), "reported"),
    "no JSON": (b"{\n", "unreadable"),
    "no object": (b"5\n", "unreadable"),
    "another type": (line("RENAMED", policy_object()), "unreadable"),
    "an event of nothing": (line("MODIFIED", None), "unreadable"),
    "an event of nobody": (line("DELETED", {"metadata": {"name": "app"}}), "unreadable"),
    "a bookmark of nothing": (line("BOOKMARK", {"metadata": {}}), "unreadable"),
    "an oversized line": (b"x" * 9_000_000 + b"\n", "oversized"),
}


@pytest.mark.parametrize(("slipped", "kind"), SLIPPED.values(), ids=SLIPPED)
async def test_line_that_is_no_event_is_got_over(gate: WatchGate, ours: Policies, slipped: bytes, kind: str) -> None:
    ours.create("one", issued(sha(121)))
    gate.lines = [slipped]
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(121), "identified")
        await watched.until(lambda: watched.errors(kind) == 1)
        assert watched.reason(sha(121)) == "identified"
        ours.edit("one", suspended=True)
        await watched.becomes(sha(121), "client_suspended", 5)
        assert watched.number("policy_relists") == (kind in ("gone", "reported"))


async def test_watch_that_cannot_be_resumed_gives_way_to_a_list(gate: WatchGate, ours: Policies) -> None:
    ours.create("one", issued(sha(131)))
    gate.instead = lambda query: failure(504) if "watch" in query else None
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(131), "identified")
        ours.edit("one", suspended=True)
        await watched.becomes(sha(131), "client_suspended")
        assert watched.errors("unavailable") >= reflector.RESUMES_MAX


@pytest.mark.parametrize(("code", "kind"), [(429, "throttled"), (500, "unavailable"), (503, "unavailable"), (404, "not_found"), (302, "refused")])  # fmt: skip
async def test_refusals_are_waited_out(gate: WatchGate, ours: Policies, code: int, kind: str) -> None:
    ours.create("one", issued(sha(141)))
    answers: Iterator[web.Response] = iter(
        [failure(code, Location="/readyz", **{"Retry-After": "1"}) for _ in range(2)]
    )
    gate.instead = lambda _: next(answers, None)
    began_s = clock.monotonic_s()
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(141), "identified")
        assert watched.errors(kind) == 2
        assert clock.monotonic_s() - began_s >= 2  # as it was asked to


async def test_pages_that_expire_are_listed_anew(
    gate: WatchGate, ours: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "PAGE", 2)
    for number in range(5):
        ours.create(f"app-{number}", issued(sha(150 + number)))
    expired = [True]
    gate.instead = lambda query: failure(410) if "continue" in query and expired and expired.pop() else None
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(154), "identified")
        assert [watched.reason(sha(150 + number)) for number in range(5)] == ["identified"] * 5
        assert watched.errors("gone") == 1
        assert [query["limit"] for query in gate.asked if "watch" not in query] == ["2"] * 5


async def test_page_that_is_too_large_is_asked_for_in_parts(
    gate: WatchGate, ours: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "PAGE", 4)
    monkeypatch.setattr(api, "PAGE_MAX_BYTES", 5_000)
    for number in range(4):
        ours.create(f"app-{number}", issued(sha(160 + number)))
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(163), "identified")
        assert watched.errors("oversized") == 1


async def test_lists_that_are_none_are_waited_out(gate: WatchGate, ours: Policies) -> None:
    ours.create("one", issued(sha(171)))
    bad = iter([{}, {"items": []}, [], {"metadata": {"resourceVersion": "1"}, "items": 5}])
    versions: list[str] = []

    def instead(query: Query) -> web.Response | None:
        versions.append(query.get("resourceVersion", ""))
        answer: Any = next(bad, None) if "watch" not in query else None
        return web.json_response(answer) if answer is not None else None

    gate.instead = instead
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(171), "identified")
        assert watched.errors("unreadable") >= 3


async def test_listed_object_that_is_nobody_is_left_out(gate: WatchGate, ours: Policies) -> None:
    items: list[Any] = [None, {"metadata": {}}, policy_object(status=issued(sha(181)))]
    listed = {"metadata": {"resourceVersion": "1"}, "items": items}
    gate.instead = lambda query: web.json_response(listed) if "watch" not in query else None
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(181), "identified")
        assert watched.errors("unreadable") == 2


async def test_refused_credentials_are_read_anew(gate: WatchGate, ours: Policies) -> None:
    ours.create("one", issued(sha(191)))
    answers = iter([failure(401)])
    gate.instead = lambda query: next(answers, None) if "watch" in query else None
    connected: list[Connection] = []

    async def counted() -> Connection:
        connected.append(await connect())
        return connected[-1]

    async with watching(gate.kubeconfig, ours.namespace, connect=counted) as watched:
        await watched.becomes(sha(191), "identified")
        await watched.until(lambda: len(connected) == 2)
        assert connected[0].session.closed
        ours.edit("one", suspended=True)
        await watched.becomes(sha(191), "client_suspended")
        assert watched.errors("unauthorized") == 1


async def test_renewed_credentials_leave_no_other_watch_hanging(
    gate: WatchGate, ours: Policies, plane: KubernetesApi
) -> None:
    other = Policies(plane, plane.new_namespace())
    ours.create("one", issued(sha(195)))
    other.create("one", issued(sha(196)))
    answers = iter([None, failure(401)])
    gate.instead = lambda query: next(answers, None) if "watch" in query else None
    async with watching(gate.kubeconfig, ours.namespace, other.namespace) as watched:
        await watched.until(lambda: watched.errors("unauthorized") == 1)
        await watched.becomes(sha(195), "identified")
        for policies, number in ((ours, 195), (other, 196)):
            policies.edit("one", suspended=True)
            await watched.becomes(sha(number), "client_suspended", 10)


async def test_credentials_that_vanish_are_waited_for(gate: WatchGate, ours: Policies) -> None:
    ours.create("one", issued(sha(201)))
    config = gate.kubeconfig

    def lose(query: Query) -> web.Response | None:
        if "watch" not in query:
            return None
        config.unlink(missing_ok=True)
        return failure(401)

    gate.instead = lose
    async with watching(config, ours.namespace) as watched:
        await watched.becomes(sha(201), "identified")
        await watched.until(lambda: watched.errors("credentials") >= 2)
        gate.instead = lambda _: None
        assert gate.kubeconfig == config
        ours.edit("one", suspended=True)
        await watched.becomes(sha(201), "client_suspended")


async def test_mass_edit_is_few_swaps(ours: Policies, gate: WatchGate) -> None:
    gate.lines = [
        line("ADDED", policy_object(f"app-{number}", namespace=ours.namespace, status=issued(sha(number + 1000))))
        for number in range(500)
    ]
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(1499), "identified")
        assert watched.swaps < 100


async def test_deletion_of_an_earlier_namesake_is_not_this_ones(gate: WatchGate, ours: Policies) -> None:
    ours.create("one", issued(sha(211)))
    gate.lines = [line("DELETED", policy_object("one", namespace=ours.namespace, meta={"uid": "earlier"}))]
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(211), "identified")
        ours.create("two", issued(sha(212)))
        await watched.becomes(sha(212), "identified")  # so the line before it was read
        assert watched.reason(sha(211)) == "identified"


async def test_invalid_policy_is_told_once_though_its_list_broke_off(
    gate: WatchGate, ours: Policies, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reflector, "PAGE", 1)
    ours.create("a", issued(sha(213)), quotas=INEXACT)
    ours.create("b", issued(sha(214)))
    answers = iter([failure(500)])
    gate.instead = lambda query: next(answers, None) if "continue" in query else None
    async with watching(gate.kubeconfig, ours.namespace) as watched:
        await watched.becomes(sha(214), "identified")
        assert watched.errors("unavailable") == 1
    assert [record.message for record in caplog.records].count("policy invalid; its client is refused") == 1


async def test_half_a_list_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though an event from another namespace comes while it is being taken over."""
    monkeypatch.setattr(reflector, "SLICE_S", 0.0)
    source = KubernetesPolicies(("a", "b"), may_shadow=True)
    for one in source._reflectors:  # noqa: SLF001
        one.is_listed = True
    seen: set[int] = set()

    def held(number: int, namespace: str) -> Held:
        document = policy_object(f"app-{number}", namespace=namespace, status=issued(sha(number)))
        meta = meta_of(document)
        assert meta is not None
        found = source.look(document, meta)
        assert found is not None
        return found

    def changed() -> None:
        assert source.policies is not None
        seen.add(sum(one.client.policy.startswith("a/") for one in source.policies.by_fingerprint.values()))

    publishing = asyncio.create_task(source._publish(changed))  # noqa: SLF001
    listed = [held(number, "a") for number in range(2_000)]
    taking = asyncio.create_task(source.replace("a", {one.meta.name for one in listed}, listed))
    for number in range(2_000, 2_050):
        source.put(held(number, "b"))
        await asyncio.sleep(0.001)
    await taking
    async with asyncio.timeout(20):
        while 2_000 not in seen:
            await asyncio.sleep(0.001)
    publishing.cancel()
    assert seen <= {0, 2_000}


async def test_load_lists_once(
    ours: Policies, reader: Path, plane: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.create("one", issued(sha(221)))
    monkeypatch.setenv("KUBECONFIG", str(reader))
    policies = await KubernetesPolicies((ours.namespace,), may_shadow=True).load()
    assert set(policies.by_fingerprint) == {sha(221)}
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig_for("nobody")))
    with pytest.raises(NoPolicies, match=r"forbidden: 403: clientpolicies.authz.healthtech.dev is forbidden"):
        await KubernetesPolicies((), may_shadow=True).load()
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(NoPolicies, match="no credentials for a Kubernetes API"):
        await KubernetesPolicies((), may_shadow=True).load()
