"""What is asked of the Kubernetes API: pages of a list, and a watch; every failure is of one kind, and safe to show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

import orjson
from aiohttp import ClientError, ClientResponse, ClientTimeout
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from kubernetes_asyncio.config import ConfigException

from authz.edge.kubernetes.connect import Connection, NoCluster
from authz.policy import API_VERSION

ANSWER_TIMEOUT_S: Final = 20.0  # for the whole of a page, and for a watch to begin
PAGE_MAX_BYTES: Final = 8 * 2**20  # of 500 ordinary objects it has 2 MB; decoded, a page takes some five times as much
RETRY_AFTER_MAX_S: Final = 10.0
_MESSAGE_MAX: Final = 300
_OK, _UNAUTHORIZED, _FAILED = 200, 401, 500
Connect = Callable[[], Awaitable[Connection]]


class Kind(Enum):
    """Kinds of trouble; the values are labels of a metric."""

    CREDENTIALS = "credentials"  # there are none, or they cannot be read
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"  # the CRD is not installed
    GONE = "gone"  # the version to go on from is no longer kept
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"  # 5xx
    REFUSED = "refused"  # any other answer
    UNREACHABLE = "unreachable"  # no answer, or one that broke off
    REPORTED = "reported"  # an ERROR event
    UNREADABLE = "unreadable"  # not what a list or a watch looks like
    OVERSIZED = "oversized"
    SILENT = "silent"  # a watch that says nothing, not even that it is over
    ENDED = "ended"  # a watch that was over too soon


class Trouble(Exception):  # noqa: N818 it is what came of asking
    """Why a list or a watch came to nothing."""

    def __init__(self, kind: Kind, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Used:
    """A connection and how many answers are being read from it.

    It is not closed before: aiohttp leaves whoever reads from a session that is closed waiting.
    """

    connection: Connection
    users: int = 0
    is_refused: bool = False

    async def release(self) -> None:
        self.users -= 1
        if self.is_refused and not self.users:
            await self.connection.session.close()


class Api:
    """One API server; credentials that it no longer takes are read anew for the next request."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._used: _Used | None = None
        self._connecting = asyncio.Lock()

    async def open(self) -> None:
        """Find credentials; nothing is asked of the server yet.

        Raises:
            NoCluster: there are none.
        """
        await self._connected()

    async def close(self) -> None:
        used, self._used = self._used, None
        if used is not None:
            await used.connection.session.close()

    @property
    def server(self) -> str:
        return self._used.connection.server if self._used is not None else ""

    async def page(self, path: str, query: Mapping[str, str]) -> dict[str, object]:
        """Return a decoded answer of bounded size.

        Raises:
            Trouble: it cannot be had.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._asked(path, query) as answer:
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > PAGE_MAX_BYTES:
                        raise Trouble(Kind.OVERSIZED, f"a page of more than {PAGE_MAX_BYTES} bytes")
        except TimeoutError:
            raise Trouble(Kind.UNREACHABLE, f"no page within {ANSWER_TIMEOUT_S:g} s") from None
        return decoded(body)

    @asynccontextmanager
    async def watch(self, path: str, query: Mapping[str, str], silent_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the lines of a watch as they come, until the server ends it.

        Raises:
            Trouble: it cannot begin, breaks off, or is silent for longer than `silent_s`.
        """
        async with self._asked(path, query) as answer, aclosing(_lines(answer, silent_s)) as lines:
            yield lines

    @asynccontextmanager
    async def _asked(self, path: str, query: Mapping[str, str]) -> AsyncIterator[ClientResponse]:
        try:
            used = await self._connected()
        except NoCluster as none:
            raise Trouble(Kind.CREDENTIALS, str(none)) from None
        used.users += 1
        try:
            answer = await _answer(used.connection, path, query)
            try:
                if answer.status != _OK:
                    if answer.status == _UNAUTHORIZED:
                        self._refuse(used)
                    raise await _refusal(answer)
                yield answer
            except (ClientError, HttpProcessingError, OSError) as failed:
                raise Trouble(Kind.UNREACHABLE, f"the answer broke off ({type(failed).__name__})") from None
            finally:
                answer.close()
        finally:
            await used.release()

    async def _connected(self) -> _Used:
        async with self._connecting:
            if self._used is None:
                self._used = _Used(await self._connect())
            return self._used

    def _refuse(self, used: _Used) -> None:
        used.is_refused = True
        if self._used is used:
            self._used = None


async def _answer(connection: Connection, path: str, query: Mapping[str, str]) -> ClientResponse:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            # A redirect is not followed: it would take the credentials to wherever it points.
            return await connection.session.get(
                connection.server + path, params=query, allow_redirects=False, timeout=ClientTimeout(total=None)
            )
    except ConfigException as failed:  # of a credential plugin, on the way
        raise Trouble(Kind.CREDENTIALS, _shortened(str(failed))) from None
    except (
        ClientError,
        HttpProcessingError,
        OSError,
        RuntimeError,
    ) as failed:  # RuntimeError: a session that is closed
        raise Trouble(Kind.UNREACHABLE, f"no answer ({type(failed).__name__})") from None


async def _lines(answer: ClientResponse, silent_s: float) -> AsyncGenerator[bytes, None]:
    while True:
        try:
            async with asyncio.timeout(silent_s):
                line = await answer.content.readline()
        except TimeoutError:
            raise Trouble(Kind.SILENT, f"nothing heard for {silent_s:g} s") from None
        except LineTooLong:
            raise Trouble(Kind.OVERSIZED, "a line of a watch is too long") from None
        except RuntimeError as failed:
            raise Trouble(Kind.UNREACHABLE, f"the watch broke off ({type(failed).__name__})") from None
        if not line:
            return
        yield line


def decoded(text: bytes | bytearray) -> dict[str, object]:
    """Return the JSON object that a text holds.

    Raises:
        Trouble: it holds none.
    """
    try:
        value = orjson.loads(text)
    except ValueError:
        raise Trouble(Kind.UNREADABLE, "not JSON") from None
    if not isinstance(value, dict):
        raise Trouble(Kind.UNREADABLE, "not a JSON object")
    return value


async def _refusal(answer: ClientResponse) -> Trouble:
    """Return what a status means; the server's own words are kept short."""
    status, body = answer.status, b""
    with suppress(ClientError, OSError, TimeoutError):
        async with asyncio.timeout(1):
            body = await answer.content.read(65_536)
    try:
        told = str(decoded(body).get("message", ""))
    except Trouble:
        told = ""
    message = _shortened(f"{status}: {told or answer.reason or 'no reason'}")
    match status:
        case 401:
            kind = Kind.UNAUTHORIZED
        case 403:
            kind = Kind.FORBIDDEN
        case 404:
            kind = Kind.NOT_FOUND
        case 410:
            kind = Kind.GONE
        case 429:
            kind = Kind.THROTTLED
        case _:
            kind = Kind.UNAVAILABLE if status >= _FAILED else Kind.REFUSED
    return Trouble(kind, message, _seconds(answer.headers.get("Retry-After", "")))


def _seconds(header: str) -> float:
    return min(float(header), RETRY_AFTER_MAX_S) if header.isdecimal() and header.isascii() else 0.0


def _shortened(text: str) -> str:
    return " ".join(text.split())[:_MESSAGE_MAX]


def policies_path(namespace: str | None) -> str:
    """Return the path of a namespace's ClientPolicies, or of all (None)."""
    within = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"/apis/{API_VERSION}{within}/clientpolicies"
