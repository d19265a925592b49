"""gRPC: Envoy's Authorization/Check on bytes, and the standard health service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from authz.edge.ops import Unbindable

SERVICE: Final = "envoy.service.auth.v3.Authorization"
MESSAGE_MAX_BYTES: Final = 4 * 1024 * 1024  # gRPC's own default; Envoy's headers end at 60 KiB, bodies are opt-in
CALLS_MAX: Final = 8_192  # at once; more get RESOURCE_EXHAUSTED instead of memory
GRACE_S: Final = 10.0
QUIET_S: Final = 0.25  # longer than Envoy waits for an answer, so nothing that it still waits for is cut off

Check = Callable[[bytes], Awaitable[bytes]]


class NotReady(Exception):  # noqa: N818 a state, not an error of ours
    """There is no complete set of facts yet: the one case that is answered as an error, not as a denial."""


class _Authorization(grpc.GenericRpcHandler):
    """Hands bytes through: the decision parses and serialises on its own."""

    def __init__(self, check: Check) -> None:
        self.taken = 0
        self.in_flight = 0

        async def answer(request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
            self.taken += 1
            self.in_flight += 1
            try:
                return await check(request)
            except NotReady:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "not_ready")
            finally:
                self.in_flight -= 1

        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handler if handler_call_details.method == f"/{SERVICE}/Check" else None


def _aging(max_age_us: int | None) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options; it spreads ages by a tenth, so that connections do not all end at once."""
    if max_age_us is None:
        return ()
    return (
        ("grpc.max_connection_age_ms", max_age_us // 1000),
        ("grpc.max_connection_age_grace_ms", round(GRACE_S * 1000)),
    )


class GrpcServer:
    """`max_connection_age_us`: then a caller is asked to connect anew, and may reach another pod; calls go on."""

    def __init__(self, check: Check, *, max_connection_age_us: int | None = None) -> None:
        self._server = aio.server(
            options=(
                ("grpc.so_reuseport", 0),  # two servers on one port would share its calls without a word
                ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
                *_aging(max_connection_age_us),
            ),
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        self._authorization = _Authorization(check)
        self._server.add_generic_rpc_handlers((self._authorization,))
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str, credentials: grpc.ServerCredentials | None) -> str:
        """Listen, and return the address with the port that was taken.

        Raises:
            Unbindable: with the reason.
        """
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise Unbindable(f"cannot listen on {address}: is it taken?") from None
        await self._server.start()
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def set_ready(self, *, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)

    async def drain(self) -> None:
        """Tell that no more should come, answer what still comes until it is quiet, then stop.

        Stopping at once would cancel calls that have arrived but were not taken yet.
        """
        await self.set_ready(ready=False)
        for _ in range(round(GRACE_S / QUIET_S)):
            taken = self._authorization.taken
            await asyncio.sleep(QUIET_S)
            if taken == self._authorization.taken and not self._authorization.in_flight:
                break
        await self._server.stop(GRACE_S)
