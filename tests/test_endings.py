"""SIGTERM ends both programs, whatever they are at: a few times each here, 200 times by `make endings`."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from control_plane import ControlPlane
from kubernetes_api import KubernetesApi
from operator_process import OperatorProcess, Tenant, shifted
from partner import Site
from redis_places import ClusterPlace, SentinelPlace
from redis_server import PROGRAM, RedisServer, require
from test_serve import Service

ENDINGS = int(os.environ.get("ENDINGS", "3"))
WITHIN_S = 25.0  # Kubernetes kills after 30
EDITED = ("a", "b", "c", "d")


def moments() -> Iterator[float]:
    """Yield how long to leave each process at its work, s: the same ones in each run."""
    golden = (5**0.5 - 1) / 2  # its multiples spread over [0, 1) however many there are
    return (1.5 * (number * golden % 1) for number in range(ENDINGS))


@contextmanager
def edited(tenant: Tenant) -> Iterator[None]:
    """Change the policies all the time, so that there is always something to do."""
    over = threading.Event()

    def edit() -> None:
        number = 0
        while not over.wait(0.02):
            number += 1
            with suppress(Exception):
                tenant.patch(EDITED[number % len(EDITED)], suspended=bool(number & 4))

    for name in EDITED:
        tenant.apply(name)
    editor = threading.Thread(target=edit)
    editor.start()
    try:
        yield
    finally:
        over.set()
        editor.join()


@pytest.mark.parametrize("offset", ["", "+3h"])
def test_operator_ends(plane: KubernetesApi, tmp_path: Path, offset: str) -> None:
    tenant, system = Tenant(plane, plane.new_namespace()), plane.new_namespace()
    environment = shifted(offset) if offset else {}
    with edited(tenant):
        for moment in moments():
            with OperatorProcess(
                tmp_path, plane.kubeconfig, system, tenant.namespace, environment=environment
            ) as operator:
                operator.live()
                time.sleep(moment)
                assert operator.stop() == 0


def test_operator_ends_while_the_api_server_is_frozen(own_plane: ControlPlane, tmp_path: Path) -> None:
    """Neither a policy that is being looked at nor the Lease can be finished, and the end does not wait for it."""
    tenant = Tenant(own_plane, own_plane.new_namespace())
    with OperatorProcess(
        tmp_path, own_plane.kubeconfig, own_plane.new_namespace(), tenant.namespace, leader={"election": "on"}
    ) as operator:
        operator.ready()
        tenant.apply()
        with own_plane.frozen():
            assert operator.stop(WITHIN_S) == 0


async def end(site: Site, moment: float, **config: object) -> None:
    service = Service(site, **config)
    try:
        await service.ready()
        time.sleep(moment)  # noqa: ASYNC251 nothing else runs here
        assert await service.stop() == 0
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            service.process.send_signal(signal.SIGKILL)


async def test_authz_ends_with_one_redis(site: Site, redis: RedisServer) -> None:
    for moment in moments():
        await end(site, moment, store={"url": redis.url})


async def test_authz_ends_with_sentinels(site: Site, tmp_path: Path) -> None:
    require(PROGRAM)
    with SentinelPlace(tmp_path) as place:
        for moment in moments():
            await end(site, moment, store={"url": place.url})


async def test_authz_ends_with_a_cluster(site: Site, tmp_path: Path) -> None:
    require(PROGRAM)
    with ClusterPlace(tmp_path) as place:
        for moment in moments():
            await end(site, moment, store={"url": place.url})


async def test_authz_ends_with_policies_of_a_cluster(
    site: Site, plane: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    tenant = Tenant(plane, plane.new_namespace())
    with edited(tenant):
        for moment in moments():
            await end(site, moment, policies={"source": "kubernetes", "namespaces": [tenant.namespace]})
