"""`clientpolicy serve`: the service with its sockets, from start to drained end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from pathlib import Path
from typing import Final

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.registry import CollectorRegistry

from authz.app import Authz
from authz.edge import log
from authz.edge.audit import AuditLog
from authz.edge.ops import OpsServer, Unbindable
from authz.edge.overrides import Misconfigured
from authz.edge.settings import Settings, load
from authz.edge.source import NoPolicies
from authz.edge.tls import credentials
from authz.edge.transport import GrpcServer

logger = logging.getLogger(__name__)

GC_THRESHOLD: Final = 20_000  # new containers between two looks; a Check makes some 40 and leaves none behind


def serve(config: Path) -> int:
    """Run until SIGTERM or SIGINT; return 0 after a clean end, 1 if background work ended by itself.

    Raises:
        Misconfigured: with every mistake.
    """
    settings = load(config, os.environ)
    log.configure()
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_serve(settings, config.resolve().parent))


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's loop where there is one (not on Windows): it saves a seventh of the transport's CPU."""
    try:
        import uvloop  # noqa: PLC0415
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _serve(settings: Settings, folder: Path) -> int:
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    audit = _audit_log(settings.audit.path)
    authz = Authz(settings, folder, registry, audit)
    for caution in authz.cautions:
        logger.warning(
            "configuration opens more or does less than it seems", extra={"key": caution.place, "told": caution.message}
        )
    server = GrpcServer(authz.check, max_connection_age_us=settings.listen.max_connection_age)
    ops = OpsServer(registry, lambda: authz.missing, remarks=lambda: authz.remarks)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, audit.reopen)
    background: set[asyncio.Task[None]] = set()

    def announce() -> None:
        _settle_memory()
        background.add(asyncio.create_task(server.set_ready(ready=True)))

    authz.on_ready = announce
    try:
        await authz.open()
    except NoPolicies as none:
        raise Misconfigured((f"policies.source: {none}",)) from None
    try:
        await server.set_ready(ready=False)
        ops_address = await ops.start(settings.listen.ops)
        tls = settings.listen.tls
        secret = credentials(tls.cert, tls.key, tls.client_ca) if tls is not None else None
        grpc_address = await server.start(settings.listen.grpc, secret)
    except Unbindable as unbindable:
        await ops.stop()
        await authz.close()
        raise Misconfigured((f"listen: {unbindable}",)) from None
    _settle_memory()
    logger.info("listening", extra={"grpc": grpc_address, "ops": ops_address})
    facts = asyncio.create_task(authz.run())
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait((facts, ended), return_when=asyncio.FIRST_COMPLETED)
    crashed = facts.done()
    await server.drain()
    ended.cancel()
    facts.cancel()
    results = await asyncio.gather(facts, ended, *background, return_exceptions=True)
    await authz.close()
    await ops.stop()
    audit.close()
    loop.remove_signal_handler(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # else a closed loop leaves what ends a process
    if crashed:
        logger.error("background work ended", extra={"error": type(results[0]).__name__})
        return 1
    logger.info("drained")
    return 0


def _settle_memory() -> None:
    """Keep the collector from walking what is alive now and stays so, and from running on every few calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)


def _audit_log(path: str) -> AuditLog:
    try:
        return AuditLog(path)
    except OSError as failed:
        raise Misconfigured((f"audit.path: {path}: {failed.strerror}",)) from None
