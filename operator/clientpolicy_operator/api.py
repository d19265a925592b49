"""Requests to the Kubernetes API in plain JSON; every failure is one of five kinds, and says no more than is safe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, Protocol

from aiohttp import ClientError, ClientSession, ClientTimeout
from aiohttp.http_exceptions import HttpProcessingError

from authz.policy import API_VERSION
from clientpolicy_operator import clock
from clientpolicy_operator.facts import Document

REQUEST_TIMEOUT_S: Final = 20.0
SKEW_MAX_S: Final = 240.0  # certificates begin five minutes ago (authority.BACKDATED), less what an answer takes
PAGE: Final = 200  # objects; a hostile one is some 300 kB
MERGE_PATCH: Final = "application/merge-patch+json"
JSON: Final = "application/json"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_MESSAGE_MAX: Final = 500
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _TOO_MANY, _FAILED = 401, 403, 404, 409, 429, 500


class ApiError(Exception):
    """What the API server answered instead of success."""


class NotFound(ApiError):  # noqa: N818 it is what the server said
    """404: the object, its namespace or its kind is not there."""


class Conflict(ApiError):  # noqa: N818 it is what the server said
    """409: somebody else was first; look again."""


class Forbidden(ApiError):  # noqa: N818 it is what the server said
    """403: RBAC, or a quota on objects, does not let us."""


class Refused(ApiError):  # noqa: N818 it is what the server said
    """Another 4xx: what we sent is not taken, now or ever."""


class Unavailable(ApiError):  # noqa: N818 it is what the server said
    """429, 5xx or no answer: later, after `retry_after_s` at least."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Connection(Protocol):
    @property
    def server(self) -> str: ...

    @property
    def session(self) -> ClientSession: ...


Connect = Callable[[], Awaitable[Connection]]


class _Asked(NamedTuple):
    method: str
    path: str
    query: Mapping[str, str] | None
    body: Document | None
    headers: Mapping[str, str]


class Api:
    """One API server; credentials that it no longer takes are read anew, once a request."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self.writes = 0
        self.errors: dict[str, int] = {}  # by the class of what was raised
        self.skew_s = (
            0.0  # how far the server's clock is ahead of ours, as its last answer said; it tells whole seconds
        )

    def now(self) -> datetime:
        """Return the wall clock's instant, by the server's clock where ours cannot be right."""
        now = clock.now()
        return now + timedelta(seconds=self.skew_s) if self.is_skewed else now

    @property
    def is_skewed(self) -> bool:
        return abs(self.skew_s) > SKEW_MAX_S

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._connection is not None:
            await self._connection.session.close()
            self._connection = None

    async def get(self, path: str, **query: str) -> Document | None:
        """Return the object, None where there is none."""
        try:
            return await self._request("GET", path, query=query)
        except NotFound:
            return None

    async def metadata(self, path: str) -> Document | None:
        """Return the object's metadata alone, None where there is no such object."""
        try:
            return await self._request("GET", path, accept=METADATA)
        except NotFound:
            return None

    async def pages(self, path: str, **query: str) -> AsyncIterator[list[Document]]:
        """Yield the objects of a list, a page at a time."""
        more: dict[str, str] = {}
        while True:
            listed = await self._request("GET", path, query={"limit": str(PAGE), **query, **more})
            yield list(listed.get("items") or ())
            token = listed.get("metadata", {}).get("continue")
            if not token:
                return
            more = {"continue": token}

    async def create(self, path: str, body: Document) -> Document:
        return await self._write("POST", path, body)

    async def replace(self, path: str, body: Document) -> Document:
        """Write the whole object; its metadata.resourceVersion says which one it replaces."""
        return await self._write("PUT", path, body)

    async def patch(self, path: str, body: Document) -> Document:
        """Write a merge patch (RFC 7396)."""
        return await self._write("PATCH", path, body, MERGE_PATCH)

    async def delete(self, path: str, *, uid: str) -> None:
        """Delete the object if it is this very one."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            await self._write("DELETE", path, body)
        except NotFound:
            return

    async def _write(self, method: str, path: str, body: Document, kind: str = JSON) -> Document:
        self.writes += 1
        return await self._request(method, path, body=body, kind=kind)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        kind: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        asked = _Asked(method, path, query, body, {"Content-Type": kind, "Accept": accept})
        try:
            return await self._asked(asked)
        except NotFound:
            raise  # an answer like any other
        except ApiError as failed:
            name = type(failed).__name__
            self.errors[name] = self.errors.get(name, 0) + 1
            raise

    async def _asked(self, asked: _Asked) -> dict[str, Any]:
        connection = await self._connected()
        status, headers, answer = await self._send(connection, asked)
        if status == _UNAUTHORIZED:
            connection = await self._renewed(connection)
            status, headers, answer = await self._send(connection, asked)
        if status < 300:  # noqa: PLR2004 success
            return answer
        message = f"{asked.method} {asked.path}: {_told(answer) or status}"
        match status:
            case 404:
                raise NotFound(message)
            case 409:
                raise Conflict(message)
            case 401 | 403:
                raise Forbidden(message)
            case _ if status == _TOO_MANY or status >= _FAILED:
                raise Unavailable(message, _seconds(headers.get("Retry-After", "")))
            case _:
                raise Refused(message)

    async def _send(self, connection: Connection, asked: _Asked) -> tuple[int, Mapping[str, str], dict[str, Any]]:
        try:
            async with connection.session.request(
                asked.method,
                connection.server + asked.path,
                params=asked.query,
                data=None if asked.body is None else json.dumps(asked.body).encode(),
                headers=asked.headers,
                timeout=ClientTimeout(total=REQUEST_TIMEOUT_S),
                allow_redirects=False,  # credentials go nowhere else
            ) as answer:
                text = await answer.read()
                self._compare_clocks(answer.headers.get("Date", ""))
                return answer.status, answer.headers, _decoded(text)
        except (ClientError, HttpProcessingError, TimeoutError, OSError) as failed:
            raise Unavailable(f"{asked.method} {asked.path}: no answer ({type(failed).__name__})") from None

    def _compare_clocks(self, date: str) -> None:
        try:
            self.skew_s = (parsedate_to_datetime(date) - clock.now()).total_seconds()
        except (TypeError, ValueError):
            return

    async def _connected(self) -> Connection:
        async with self._renewing:
            if self._connection is None:
                self._connection = await self._connect()
            return self._connection

    async def _renewed(self, old: Connection) -> Connection:
        async with self._renewing:
            if self._connection is old:
                self._connection = await self._connect()
                self._retire(old)
            assert self._connection is not None  # noqa: S101 only ever replaced
            return self._connection

    def _retire(self, old: Connection) -> None:
        """Close it when nobody can be reading from it any more: who does would wait for ever."""

        async def close() -> None:
            try:
                await asyncio.sleep(2 * REQUEST_TIMEOUT_S)
            finally:
                await old.session.close()

        task = asyncio.create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _decoded(text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _told(answer: Mapping[str, Any]) -> str:
    return " ".join(str(answer.get("message", "")).split())[:_MESSAGE_MAX]


def _seconds(header: str) -> float:
    return min(float(header), 60.0) if header.isdecimal() else 0.0


def policies_path(namespace: str | None = None, name: str = "", subresource: str = "") -> str:
    """Return the path of ClientPolicies: all of them, a namespace's, one, or one's subresource."""
    parts = [
        f"/apis/{API_VERSION}",
        f"namespaces/{namespace}" if namespace else "",
        "clientpolicies",
        name,
        subresource,
    ]
    return "/".join(part for part in parts if part)


def core_path(namespace: str, kind: str, name: str = "") -> str:
    """Return the path of objects of the core group, such as `secrets`."""
    return f"/api/v1/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")


def merge_patch(old: Document, new: Document) -> dict[str, Any]:
    """Return what makes the new one of the old one (RFC 7396): changed values, and null for what is gone."""
    changes: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                changes[name] = inner
        elif value != before:
            changes[name] = value
    return changes
