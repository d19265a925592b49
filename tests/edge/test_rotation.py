"""What Redis is reached with is rotated while it is used: password, CA and client certificate, each from its file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from partner import NOW_US
from redis import Redis
from redis_places import acl_redis, make_tls, tls_redis
from redis_server import PROGRAM, require

from authz.core.quota import Within
from authz.edge.store.control import read_counters
from authz.edge.store.place import PASSWORD_MAX_BYTES, BadPlace, Place, read_place
from authz.edge.store.redis import RedisStore
from authz.policy.limits import Calendar, calendar_limit

COUNTED = (calendar_limit(name="counted", requests=10**9, calendar=Calendar.MONTH),)
RULES = ["~*", "&*", "+@all"]


@pytest.fixture(autouse=True)
def _redis_is_there() -> None:
    require(PROGRAM)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[RedisStore]:
    store = RedisStore(place, timeout_s=0.1)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def passes(store: RedisStore) -> None:
    for _ in range(1500):
        if isinstance(await store.spend("k", COUNTED, now_us=NOW_US), Within):
            return
        await asyncio.sleep(0.01)
    pytest.fail(store.nodes[0].trouble)


async def trouble(store: RedisStore, told: str) -> None:
    for _ in range(1500):
        if told in store.nodes[0].trouble.lower():
            return
        await asyncio.sleep(0.01)
    pytest.fail(store.nodes[0].trouble)


@pytest.mark.parametrize("first", ["the file", "Redis"])
@pytest.mark.parametrize("user", ["", "quota"])
async def test_password_is_read_again_when_it_is_rotated(tmp_path: Path, first: str, user: str) -> None:
    """Whichever is changed first: while they differ Redis says WRONGPASS, and what it says is told."""
    file = tmp_path / "password"
    file.write_text("old\n")
    with acl_redis(tmp_path, user or "default", "old", RULES) as (server, admin):
        place = read_place(f"redis://{user}@127.0.0.1:{server.port}" if user else server.url, password_file=file)
        async with opened(place) as store:
            await passes(store)

            def change(what: str) -> None:
                if what == "the file":
                    file.write_bytes(b"n\xc3\xa9w word\r\n")
                else:
                    admin.acl_setuser(user or "default", enabled=True, reset_passwords=True, passwords=["+néw word"])
                    admin.client_kill_filter(_type="normal", skipme=True)

            change(first)
            if first == "Redis":
                await trouble(store, "wrongpass")
            change({"the file": "Redis", "Redis": "the file"}[first])
            await passes(store)
            assert await asyncio.to_thread(read_counters, place, store.redis_key("k"))


@pytest.mark.parametrize("broken", ["gone", "empty", "binary"])
async def test_password_file_that_is_broken_for_a_while_is_told_and_read_again(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "password"
    file.write_text("pw")
    with acl_redis(tmp_path, "quota", "pw", RULES) as (server, admin):
        async with opened(read_place(f"redis://quota@127.0.0.1:{server.port}", password_file=file)) as store:
            await passes(store)
            file.unlink()
            if broken != "gone":
                file.write_bytes(b"" if broken == "empty" else b"\xff\xff")
            await asyncio.to_thread(admin.execute_command, "CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
            await trouble(store, {"gone": "no such file", "empty": "expected a password", "binary": "utf-8"}[broken])
            file.write_text("pw")
            await passes(store)


@pytest.mark.parametrize("client_certificate", [False, True])
async def test_ca_and_certificate_are_read_again_when_they_are_rotated(
    tmp_path: Path, *, client_certificate: bool
) -> None:
    """A server of a new CA takes the place of the old one; the files follow later."""
    for name in ("old", "new", "used"):
        (tmp_path / name).mkdir()
    old, new = make_tls(tmp_path / "old"), make_tls(tmp_path / "new")

    def use(folder: Path) -> None:
        for file in folder.glob("*.pem"):
            shutil.copy(file, tmp_path / "used" / file.name)

    use(tmp_path / "old")
    used = tmp_path / "used"
    mine = f"&ssl_certfile={used}/server.pem&ssl_keyfile={used}/server-key.pem" if client_certificate else ""
    with tls_redis(tmp_path / "old", old, client_certificate=client_certificate) as port:
        place = read_place(f"rediss://127.0.0.1:{port}?ssl_ca_certs={used}/ca.pem{mine}")
        async with opened(place) as store:
            await passes(store)
            before = place.tls_context()
            assert place.tls_context() is before  # nothing changed
            with tls_redis(tmp_path / "new", new, client_certificate=client_certificate) as other:
                object.__setattr__(place, "addresses", (("127.0.0.1", other),))
                await asyncio.to_thread(cut, tmp_path / "old")
                await trouble(store, "certificate verify failed")
                use(tmp_path / "new")
                await passes(store)


def cut(folder: Path) -> None:
    with Redis(unix_socket_path=str(folder / "redis.sock")) as plain:
        plain.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")


BAD = {
    "two passwords": ("redis://:x@h", b"pw", "expected one of them"),
    "no password": ("redis://h", b"\n", "passwordFile: .*: expected a password of 1 to 4096 bytes"),
    "too long": ("redis://h", b"x" * (PASSWORD_MAX_BYTES + 1), "passwordFile: .*: expected a password of 1 to 4096"),
    "binary": ("redis://h", b"\xff", "passwordFile: .*: expected UTF-8 text"),
    "no file": ("redis://h", None, "passwordFile: .*: No such file"),
}


@pytest.mark.parametrize(("url", "content", "expected"), BAD.values(), ids=BAD.keys())
def test_password_file_that_cannot_be_used_is_told(
    tmp_path: Path, url: str, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadPlace, match=expected):
        read_place(url, password_file=file)


def test_password_of_a_file_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hush")
    place = read_place("redis://u@h", password_file=tmp_path / "password")
    assert place.secret() == "hush"
    assert "hush" not in repr(place)
