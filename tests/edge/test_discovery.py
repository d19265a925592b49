"""Where keys are, as a real server's metadata says it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from issuers import Issuer, fetching, issuing, kids, metadata_of, settings

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


async def test_what_is_wrong_at_each_place_is_told(issuer: Issuer) -> None:
    issuer.documents[OPENID] = metadata_of(issuer, issuer="https://evil.example.org")
    async with fetching(settings(issuer, jwksUri=None)) as ring:
        await ring.load_once()
        assert ring.by_name["a"].trouble == (
            f"jwks_uri not discovered: {issuer.url}{OPENID}: the metadata names another issuer; "
            f"{issuer.url}{OAUTH}: answered with HTTP status 404"
        )
