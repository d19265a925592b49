"""`clientpolicy operator`: the operator with its port, from start to clean end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from clientpolicy_operator.app import Ended, Operator
from clientpolicy_operator.readings import Number, numbers
from clientpolicy_operator.settings import NAMES, Settings
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.registry import CollectorRegistry

from authz.edge import configuration, log
from authz.edge.kubernetes.connect import connect, is_in_cluster
from authz.edge.metrics import Histogram, Readings
from authz.edge.ops import OpsServer, Unbindable
from authz.edge.overrides import Misconfigured

logger = logging.getLogger(__name__)


def operate(config: Path | None) -> int:
    """Run until SIGTERM or SIGINT; return 0 after a clean end, 1 if the operator could not go on.

    Raises:
        Misconfigured: with every mistake.
        NoCluster: there is nothing to connect to.
    """
    settings = configuration.load(Settings, NAMES, config, os.environ)
    log.configure()
    logging.getLogger("kopf").setLevel(logging.ERROR)  # else a line an event
    return asyncio.run(_operate(settings))


class _Readings:
    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def numbers(self) -> Iterator[Number]:
        return numbers(self._operator)


async def _operate(settings: Settings) -> int:
    await (await connect()).session.close()  # credentials that cannot be read are told before anything begins
    operator = Operator(settings, connect, is_in_cluster=is_in_cluster())
    ops = OpsServer(_registry(operator), lambda: operator.missing, is_large=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        address = await ops.start(settings.listen.ops)
    except Unbindable as unbindable:
        await ops.stop()
        raise Misconfigured((f"listen.ops: {unbindable}",)) from None
    logger.info("listening", extra={"ops": address})
    try:
        await operator.run(stop)
    except Ended as ended:
        logger.error("the operator ends", extra={"error": str(ended)})  # noqa: TRY400 where says nothing
        return 1
    finally:
        await ops.stop()
    logger.info("ended")
    return 0


def _registry(operator: Operator) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(Readings(_Readings(operator)))
    times = operator.visit_times_s
    registry.register(Histogram("clientpolicy_reconcile_seconds", "Time of a visit of a policy.", times.histogram))
    return registry
