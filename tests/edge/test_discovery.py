"""Where keys are, as a real server's metadata says it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from issuers import Issuer, fetching, issuing, kids, metadata_of, running, settings, told, until
from partner import jwk, jwks, rsa_key

from authz.edge import keys as edge_keys

OPENID, OAUTH = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as issuer:
        yield issuer


@pytest.mark.parametrize("suffix", [OPENID, OAUTH])
async def test_keys_are_discovered_from_the_issuer(issuer: Issuer, suffix: str) -> None:
    issuer.documents[suffix] = metadata_of(issuer)
    async with fetching(settings(issuer, jwksUri=None)) as ring:
        await ring.load_once()
        assert kids(ring.by_name["a"]) == ["k1"]


async def test_rfc_8414_metadata_stands_between_host_and_path(issuer: Issuer) -> None:
    name = f"{issuer.url}/tenant/"
    issuer.documents[f"{OAUTH}/tenant"] = metadata_of(issuer, issuer=name)
    async with fetching(settings(issuer, issuer=name, jwksUri=None)) as ring:
        await ring.load_once()
        assert kids(ring.by_name["a"]) == ["k1"]


METADATA: dict[str, tuple[Any, str]] = {
    "of another issuer": ({"issuer": "https://evil.example.org"}, "names another issuer"),
    "of the issuer with a slash": ({"issuer": "/"}, "names another issuer"),
    "of nobody": ({"issuer": None}, "names another issuer"),
    "of a list": ({"issuer": []}, "names another issuer"),
    "without jwks_uri": ({"jwks_uri": None}, "has no jwks_uri"),
    "jwks_uri a number": ({"jwks_uri": 5}, "has no jwks_uri"),
    "jwks_uri over http elsewhere": ({"jwks_uri": "http://keys.example.org/jwks"}, "http://keys.example.org/jwks: expected https://"),
    "jwks_uri a file": ({"jwks_uri": "file:///etc/passwd"}, "file:///etc/passwd: expected a URL with a host"),
    "jwks_uri relative": ({"jwks_uri": "/jwks"}, "expected a URL with a host"),
    "jwks_uri with credentials": ({"jwks_uri": "https://me:secret@keys.example.org/jwks"}, "https://keys.example.org/jwks: expected a URL with a host and without credentials"),
    "jwks_uri endless": ({"jwks_uri": "ftp://keys.example.org/" + "x" * 10_000}, f"(ftp://keys.example.org/{'x' * 177}: expected https://"),
    "jwks_uri malformed": ({"jwks_uri": "https://[x"}, "a malformed URL: not a URL"),
    "not an object": ([], "not a metadata document: not an object"),
    "HTML": (b"<html>", "not a metadata document: Expecting value"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), METADATA.values(), ids=METADATA.keys())
async def test_bad_metadata_gives_no_keys_and_its_reason_is_told(issuer: Issuer, changes: Any, reason: str) -> None:
    document = changes
    if isinstance(changes, dict):
        document = metadata_of(issuer, **changes)
        document["issuer"] = f"{issuer.url}/" if document["issuer"] == "/" else document["issuer"]
    issuer.documents[OPENID] = document
    async with fetching(settings(issuer, jwksUri=None)) as ring:
        await ring.load_once()
        assert ring.missing == ("a",)
        assert reason in ring.waiting[0]
        assert "secret" not in ring.waiting[0]
        assert "/jwks" not in issuer.asked
        issuer.documents[OPENID] = metadata_of(issuer)
        await ring.load_once()
        assert ring.missing == ()


async def test_what_is_wrong_at_each_place_is_told(issuer: Issuer) -> None:
    issuer.documents[OPENID] = metadata_of(issuer, issuer="https://evil.example.org")
    async with fetching(settings(issuer, jwksUri=None)) as ring:
        await ring.load_once()
        assert ring.by_name["a"].trouble == (
            f"jwks_uri not discovered: {issuer.url}{OPENID}: the metadata names another issuer; "
            f"{issuer.url}{OAUTH}: answered with HTTP status 404"
        )


# ---- keys move ----------------------------------------------------------------------------------------------------

MOVED = jwks(jwk(rsa_key("next"), "k2"))


@pytest.mark.parametrize("old", [jwks(), None, b"<html>"], ids=["still there", "gone", "a page"])
async def test_keys_that_move_are_found_again(issuer: Issuer, old: bytes | None) -> None:
    """Also where the old place still answers: a key that was withdrawn at the new one must not live on there."""
    issuer.documents[OPENID] = metadata_of(issuer)
    async with fetching(settings(issuer, jwksUri=None)) as ring:
        keys = ring.by_name["a"]
        await ring.load_once()
        assert kids(keys) == ["k1"]
        issuer.documents |= {"/jwks": old, "/new": MOVED, OPENID: metadata_of(issuer, jwks_uri=f"{issuer.url}/new")}
        await ring.load_once()
        assert kids(keys) == ["k2"]


async def test_keys_that_move_are_found_by_the_running_refresher(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "RETRY_S", (0.05,))
    for name in ("REFRESH_S", "COOLDOWN_S"):
        monkeypatch.setattr(edge_keys, name, 0.05)
    issuer.documents[OAUTH] = metadata_of(issuer)
    async with fetching(settings(issuer, jwksUri=None)) as ring, running(ring):
        keys = ring.by_name["a"]
        await until(lambda: kids(keys) == ["k1"])
        del issuer.documents["/jwks"]
        await until(lambda: keys.failures > 1)
        issuer.documents |= {"/new": MOVED, OAUTH: metadata_of(issuer, jwks_uri=f"{issuer.url}/new")}
        await until(lambda: kids(keys) == ["k2"])


METADATA_OUTAGES: dict[str, Any] = {
    "gone": None,
    "a page": b"<html>",
    "of another issuer": {"issuer": "https://evil.example.org", "jwks_uri": "https://evil.example.org/jwks"},
    "without jwks_uri": {"jwks_uri": None},
}


@pytest.mark.parametrize("outage", METADATA_OUTAGES.values(), ids=METADATA_OUTAGES.keys())
async def test_keys_stay_where_they_were_while_the_metadata_cannot_be_read(
    issuer: Issuer, outage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.documents[OPENID] = metadata_of(issuer)
    async with fetching(settings(issuer, jwksUri=None)) as ring:
        await ring.load_once()
        issuer.documents |= {
            "/jwks": MOVED,
            OPENID: metadata_of(issuer, **outage) if isinstance(outage, dict) else outage,
        }
        told(caplog)
        await ring.load_once()
        assert kids(ring.by_name["a"]) == ["k2"]
        message, reason = told(caplog)[0]
        assert message == "an issuer's metadata were not read; its keys are looked for where they were"
        assert reason.startswith(f"jwks_uri not discovered: {issuer.url}{OPENID}: ")
