from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import existing_cluster
import partner
import pytest
import redis_server
from control_plane import ControlPlane
from existing_cluster import ExistingCluster
from hypothesis import settings
from kubernetes_api import KubernetesApi

# envoy-data-plane's generated classes warn once, on import, of a pydantic form that they still use.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("authz.demo.envoy")

# The machine is shared: an example that takes long is no failure.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI nothing is skipped: a skip there is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if reporter is not None and skipped and os.environ.get("CI"):
        reporter.write_line(f"{len(skipped)} skipped, and CI skips nothing", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_server.RedisServer]:
    """One Redis for the session; tests use keys of their own."""
    redis_server.require(redis_server.PROGRAM)
    server = redis_server.RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesApi]:
    """One Kubernetes API server for the session, with the CRD; tests use namespaces of their own."""
    cluster = existing_cluster.named()
    with ExistingCluster(cluster) if cluster else ControlPlane(tmp_path_factory.mktemp("plane")) as running:
        running.install_crd()
        yield running


@pytest.fixture
def own_plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane that the test may stop, kill and compact."""
    with ControlPlane(tmp_path) as running:
        running.install_crd()
        yield running


@pytest.fixture
def namespace(plane: KubernetesApi) -> str:
    """A namespace of the test's own, in the session's control plane."""
    return plane.new_namespace()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[redis_server.RedisServer]:
    """A Redis that the test may stop, pause and kill."""
    redis_server.require(redis_server.PROGRAM)
    server = redis_server.RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path: Path) -> partner.Site:
    return partner.Site(tmp_path)
