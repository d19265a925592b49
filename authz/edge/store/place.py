"""Where Redis is: a URL → what it takes to connect, or every mistake in it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
MEMORY: Final = "memory://"
PASSWORD_MAX_BYTES: Final = 4096
_ANY: Final = re.compile(".+", re.DOTALL)
_TRUTH: Final = re.compile("true|false")
_DATABASE: Final = re.compile("[0-9]{1,5}")
_EXPECTED: Final = {_ANY: "a value", _TRUTH: "true or false", _DATABASE: "the number of a database"}


class Kind(Enum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


SCHEMES: Final = {
    "redis": Kind.SINGLE,
    "rediss": Kind.SINGLE,
    "unix": Kind.SINGLE,
    "redis+sentinel": Kind.SENTINEL,
    "redis+cluster": Kind.CLUSTER,
}


class BadPlace(ValueError):  # noqa: N818 a property of the URL
    """A URL with mistakes, each in a line; never with a password in it."""


class _Contexts:
    """How to connect by TLS, made anew when one of its files changes: certificates and CAs are rotated."""

    def __init__(self) -> None:
        self._read: list[bytes] | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def context(self, place: Place) -> ssl.SSLContext:
        files = (place.ca_file, place.cert_file, place.key_file)
        read = [file.read_bytes() for file in files if file is not None]
        if read != self._read:
            self._context = _context(place)
            self._read = read
        return self._context


def _context(place: Place) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=place.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = place.check_hostname
    if place.cert_file is not None:
        context.load_cert_chain(place.cert_file, place.key_file)
    return context


@dataclass(frozen=True, kw_only=True)
class Place:
    kind: Kind
    addresses: tuple[tuple[str, int], ...] = ()  # of the node, the sentinels, or some nodes of the cluster
    path: str | None = None  # of a unix socket
    service: str = ""  # what the sentinels call the master
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    database: int = 0
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    check_hostname: bool = True
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    _contexts: _Contexts = field(default_factory=_Contexts, init=False, repr=False, compare=False)

    def secret(self) -> str | None:
        """Return the password, as its file has it now.

        Raises:
            OSError, ValueError: the file cannot be read, or holds no password.
        """
        return self.password if self.password_file is None else _read_password(self.password_file)

    def tls_context(self) -> ssl.SSLContext | None:
        """Return how to connect by TLS; None without it.

        Raises:
            OSError, ssl.SSLError: a file that cannot be used.
        """
        return self._contexts.context(self) if self.tls else None


def _read_password(file: Path) -> str:
    with file.open("rb") as opened:
        data = opened.read(PASSWORD_MAX_BYTES + 1)
    password = data.decode().removesuffix("\n").removesuffix("\r")
    if not password or len(data) > PASSWORD_MAX_BYTES:
        raise ValueError(f"expected a password of 1 to {PASSWORD_MAX_BYTES} bytes")
    return password


def read_place(url: str, folder: Path = Path(), password_file: Path | None = None) -> Place:
    """Return where a URL points; files that it names relatively are in `folder`.

    Raises:
        BadPlace: with every mistake.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadPlace("not a URL") from None
    kind = SCHEMES.get(parts.scheme)
    if kind is None:
        known = ", ".join(f"{scheme}://" for scheme in ("memory", *SCHEMES))
        raise BadPlace(f"expected a URL that begins with one of {known}")
    if "@" in parts.path or "@" in parts.query or "@" in parts.fragment:
        raise BadPlace("an @ behind the host: percent-encode `/`, `?`, `#` and `@` in a password (%2F, %3F, %23, %40)")
    mistakes: list[str] = []
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    options = _options(parts, kind, mistakes)
    path, addresses, service, database = _whereabouts(parts, kind, hosts, mistakes)

    def file(name: str) -> Path | None:
        if name not in options:
            return None
        found = folder / Path(options[name]).expanduser()
        if not found.is_file():
            mistakes.append(f"{name}: {found}: no such file")
        return found

    place = Place(
        kind=kind,
        addresses=addresses,
        path=path,
        service=service,
        username=unquote(username) or None,
        password=unquote(password) or None,
        password_file=password_file,
        database=int(options.get("db", database)),
        tls=parts.scheme == "rediss" or options.get("tls") == "true",
        ca_file=file("ssl_ca_certs"),
        cert_file=file("ssl_certfile"),
        key_file=file("ssl_keyfile"),
        check_hostname=options.get("ssl_check_hostname", "true") == "true",
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
    )
    _check(place, parts, options, mistakes)
    if mistakes:
        raise BadPlace("; ".join(mistakes))
    return place


def _check(place: Place, parts: SplitResult, options: dict[str, str], mistakes: list[str]) -> None:
    """Note what does not go together."""
    if place.username and not place.password and place.password_file is None:
        mistakes.append("a user without a password")
    if place.password and place.password_file is not None:
        mistakes.append("a password here and one in passwordFile: expected one of them")
    if parts.fragment:
        mistakes.append("nothing is expected after #")
    if not place.tls and any(name.startswith("ssl_") for name in options):
        mistakes.append("ssl_ options go with rediss://, or with tls=true")
    if (place.cert_file is None) is not (place.key_file is None):
        mistakes.append("ssl_certfile and ssl_keyfile go together")
    if mistakes:
        return
    try:
        place.tls_context()
    except OSError as failed:  # ssl.SSLError is one
        mistakes.append(f"the files for TLS cannot be used: {failed.strerror or failed}")
    try:
        place.secret()
    except UnicodeDecodeError:
        mistakes.append(f"passwordFile: {place.password_file}: expected UTF-8 text")
    except (OSError, ValueError) as failed:
        told = failed.strerror if isinstance(failed, OSError) else failed
        mistakes.append(f"passwordFile: {place.password_file}: {told}")


def _options(parts: SplitResult, kind: Kind, mistakes: list[str]) -> dict[str, str]:
    """Return the options of a URL, each of a known name and a possible value."""
    known: dict[str, re.Pattern[str]] = {
        "ssl_ca_certs": _ANY,
        "ssl_certfile": _ANY,
        "ssl_keyfile": _ANY,
        "ssl_check_hostname": _TRUTH,
    }
    if kind is Kind.SENTINEL:
        known |= {"sentinel_username": _ANY, "sentinel_password": _ANY}
    if kind is not Kind.CLUSTER:
        known["db"] = _DATABASE
    if kind is not Kind.SINGLE:
        known["tls"] = _TRUTH
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            mistakes.append(f"{name}: no such option; there are {', '.join(sorted(known))}")
        elif name in found:
            mistakes.append(f"{name}: given twice")
        elif not known[name].fullmatch(value):
            mistakes.append(f"{name}: expected {_EXPECTED[known[name]]}")
        else:
            found[name] = value
    return found


def _whereabouts(
    parts: SplitResult, kind: Kind, hosts: str, mistakes: list[str]
) -> tuple[str | None, tuple[tuple[str, int], ...], str, int]:
    """Return the socket's path, the addresses, the service and the database of a URL."""
    if parts.scheme == "unix":
        if hosts or not parts.path:
            mistakes.append("expected unix:///path/of/socket")
        return unquote(parts.path), (), "", 0
    service, database = "", unquote(parts.path.strip("/"))
    if kind is Kind.SENTINEL:
        service, _, database = database.partition("/")
        if not service:
            mistakes.append("expected redis+sentinel://host:port,host:port/SERVICE, the name of the master")
    if kind is Kind.CLUSTER and database:
        mistakes.append("a cluster has no databases: nothing is expected after the hosts")
    elif database and not _DATABASE.fullmatch(database):
        mistakes.append(f"/{database}: expected {_EXPECTED[_DATABASE]}")
    default = SENTINEL_PORT if kind is Kind.SENTINEL else PORT
    addresses = tuple(_address(host, default, mistakes) for host in hosts.split(","))
    if kind is Kind.SINGLE and len(addresses) > 1:
        mistakes.append("one host only; several go with redis+sentinel:// or redis+cluster://")
    return None, addresses, service, int(database) if _DATABASE.fullmatch(database) else 0


def _address(text: str, default: int, mistakes: list[str]) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or "@" in text:
        mistakes.append("expected host:port")
        return "", default
    return unquote(host), default if port is None else port
