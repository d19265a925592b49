"""Issuers' keys from a real HTTP server: rotation, outages, withdrawal, and no fetch in a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from issuers import Issuer, fetching, issuing, kids, running, settings, told, until, verify
from partner import jwk, jwks, rsa_key

from authz.edge import clock
from authz.edge import keys as edge_keys
from authz.edge.keys import KeyRing, Reading
from authz.edge.settings import IssuerSettings
from authz.model import Reason, Refused


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as issuer:
        yield issuer


@pytest.fixture
async def ring(issuer: Issuer) -> AsyncIterator[KeyRing]:
    async with fetching(settings(issuer)) as ring:
        yield ring


def reason(issuer: Issuer, ring: KeyRing) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(issuer, ring)
    return refused.value.reason


async def test_keys_are_fetched_and_swapped_whole(issuer: Issuer, ring: KeyRing) -> None:
    assert ring.missing == ("a",)
    before = ring.trusted
    await ring.load_once()
    assert ring.missing == ()
    assert ring.trusted is not before
    assert kids(ring.by_name["a"]) == ["k1"]
    issuer.documents["/jwks"] = jwks(jwk(rsa_key("next"), "k2"))
    await ring.load_once()
    assert kids(ring.by_name["a"]) == ["k2"]


async def test_good_keys_beside_bad_ones_are_kept(issuer: Issuer, ring: KeyRing) -> None:
    issuer.documents["/jwks"] = {"keys": [jwk(rsa_key(), "k1"), jwk(rsa_key("x"), "k2", use="enc"), {"kty": "oct"}]}
    await ring.load_once()
    assert kids(ring.by_name["a"]) == ["k1"]


async def test_one_key_listed_twice_is_counted_once(issuer: Issuer, ring: KeyRing) -> None:
    issuer.documents["/jwks"] = {"keys": [jwk(rsa_key(), "k1"), jwk(rsa_key(), "k2")]}
    await ring.load_once()
    assert ring.by_name["a"].usable == 1


# ---- what cannot be read changes nothing ------------------------------------------------------------------------

STAYS = "an issuer's keys were not read; the last good set stays"
NONE_YET = "an issuer's keys were not read; there are none yet, and none of its tokens is accepted"
NONE_NOW = "an issuer's keys were not read; they are withdrawn or too old, and none of its tokens is accepted"


async def test_last_good_keys_outlive_an_outage_and_are_named_only_where_there_are_some(
    issuer: Issuer, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ring.by_name["a"]
    why = f"{issuer.url}/jwks: answered with HTTP status 404"
    issuer.documents["/jwks"] = None
    assert ring.waiting == ("issuer a: no keys yet",)
    for _ in range(2):
        assert await keys.refresh() is Reading.FAILED
        assert told(caplog) == [(NONE_YET, why)]
        assert reason(issuer, ring) is Reason.ISSUER_UNAVAILABLE
    assert ring.waiting == (f"issuer a: no keys yet ({why})",)
    issuer.documents["/jwks"] = jwks()
    assert await keys.refresh() is Reading.TAKEN
    assert ring.waiting == ()
    issuer.documents["/jwks"] = None
    told(caplog)
    for failures in (1, 2):
        assert await keys.refresh() is Reading.FAILED
        assert told(caplog) == [(STAYS, why)]
        assert keys.failures == failures
        assert verify(issuer, ring)
    assert ring.waiting == ()
    issuer.documents["/jwks"] = jwks()
    assert await keys.refresh() is Reading.TAKEN
    assert (keys.failures, keys.errors, keys.trouble) == (0, 4, "")


async def test_keys_that_are_too_old_are_not_called_good(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with fetching(settings(issuer, jwksMaxAge="1h")) as ring:
        await ring.load_once()
        now_us = clock.now_us()
        issuer.documents["/jwks"] = None
        for later_s, usable, message in ((3599, 1, STAYS), (3601, 0, NONE_NOW)):
            monkeypatch.setattr(clock, "now_us", lambda later_s=later_s: now_us + later_s * 1_000_000)
            told(caplog)
            await ring.load_once()
            assert [message for message, _ in told(caplog)] == [message]
            assert ring.by_name["a"].usable == usable


@pytest.mark.parametrize(("max_age", "expected_s"), [("24h", 300), ("10m", 300), ("5m", 150), ("1m", 30)])
async def test_keys_are_looked_at_before_they_are_too_old(issuer: Issuer, max_age: str, expected_s: float) -> None:
    async with fetching(settings(issuer, jwksMaxAge=max_age)) as ring:
        assert ring.by_name["a"].refresh_s == expected_s


# ---- a set that can be read and has no usable key ---------------------------------------------------------------

EMPTY: dict[str, Any] = {"keys": []}
WITHOUT_A_USABLE_KEY: dict[str, Any] = {
    "empty": EMPTY,
    "symmetric": {"keys": [{"kty": "oct", "k": "x"}]},
    "for encryption": {"keys": [jwk(rsa_key(), "k1", use="enc")]},
    "short": {"keys": [jwk(rsa_key("short", 1024), "k1")]},
    "private": {"keys": [jwk(rsa_key(), "k1", d="x")]},
    "nonsense": {"keys": [None, 5, "key", {}, []]},
}


@pytest.mark.parametrize("document", WITHOUT_A_USABLE_KEY.values(), ids=WITHOUT_A_USABLE_KEY.keys())
async def test_set_without_a_usable_key_withdraws_the_last_one_once_it_is_read_again(
    issuer: Issuer, ring: KeyRing, document: Any, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ring.by_name["a"]
    await ring.load_once()
    issuer.documents["/jwks"] = document
    told(caplog)
    assert await keys.refresh() is Reading.DOUBTED
    assert verify(issuer, ring)
    ((message, why),) = told(caplog)
    assert message == "an issuer's key set has no usable key; it is read again before it counts"
    assert why.startswith("no usable key: ")
    assert await keys.refresh() is Reading.TAKEN
    assert (keys.usable, ring.missing) == (0, ())  # readiness is about the start
    assert reason(issuer, ring) is Reason.TOKEN_KEY_UNKNOWN
    message = "an issuer's key set was read twice without a usable key; none of its tokens is accepted"
    assert told(caplog)[-1] == (message, why)
    assert await keys.refresh() is Reading.TAKEN
    assert told(caplog) == []
    issuer.documents["/jwks"] = None
    assert await keys.refresh() is Reading.FAILED
    assert [message for message, _ in told(caplog)] == [NONE_NOW]
    issuer.documents["/jwks"] = jwks()
    assert await keys.refresh() is Reading.TAKEN
    assert verify(issuer, ring)


READINGS: dict[str, tuple[tuple[Any, ...], int]] = {
    "one slip": ((EMPTY, jwks()), 1),
    "two slips apart": ((EMPTY, jwks(), EMPTY), 1),
    "two readings": ((EMPTY, EMPTY), 0),
    "an outage is no reading": ((EMPTY, None, b"<html>", {}, b'{"keys":['), 1),
    "an outage between two readings": ((EMPTY, None, EMPTY), 0),
    "an outage alone": ((None, {}, b"", b'{"keys":['), 1),
}


@pytest.mark.parametrize(("documents", "usable"), READINGS.values(), ids=READINGS.keys())
async def test_keys_are_withdrawn_by_two_readings_and_nothing_less(
    issuer: Issuer, ring: KeyRing, documents: tuple[Any, ...], usable: int
) -> None:
    await ring.load_once()
    for document in documents:
        issuer.documents["/jwks"] = document
        await ring.load_once()
    assert ring.by_name["a"].usable == usable


async def test_issuer_that_starts_without_a_usable_key_is_waited_for(issuer: Issuer, ring: KeyRing) -> None:
    issuer.documents["/jwks"] = EMPTY
    for expected in (Reason.ISSUER_UNAVAILABLE, Reason.TOKEN_KEY_UNKNOWN):
        await ring.load_once()
        assert ring.waiting == ("issuer a: no keys yet (no usable key: the set is empty)",)
        assert reason(issuer, ring) is expected
    issuer.documents["/jwks"] = jwks()
    await ring.load_once()
    assert ring.waiting == ()


@pytest.mark.parametrize("source", ["jwksUri", "jwksFile"])
async def test_second_reading_comes_after_ten_seconds_whoever_asks(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    assert edge_keys.CONFIRM_S == 10
    monkeypatch.setattr(edge_keys, "CONFIRM_S", 0.3)
    for name in ("COOLDOWN_S", "REFRESH_S", "FILE_LOOK_S"):
        monkeypatch.setattr(edge_keys, name, 0.02)
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks())
    more = {} if source == "jwksUri" else {"jwksUri": None, "jwksFile": str(file)}
    async with fetching(settings(issuer, **more)) as ring, running(ring):
        keys = ring.by_name["a"]
        await until(lambda: keys.usable == 1)
        file.write_text('{"keys": []}')
        issuer.documents["/jwks"] = EMPTY
        await until(lambda: keys.trouble != "")
        doubted_s, fetches = clock.monotonic_s(), keys.fetches
        while keys.usable:
            keys.want()
            await asyncio.sleep(0.005)
        assert keys.fetches == fetches + 1
        assert clock.monotonic_s() - doubted_s > 0.25
        file.write_bytes(jwks())
        issuer.documents["/jwks"] = jwks()
        await until(lambda: keys.usable == 1)


# ---- when keys are read -----------------------------------------------------------------------------------------


async def test_file_is_read_again_when_it_changes(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "FILE_LOOK_S", 0.05)
    monkeypatch.setattr(edge_keys, "RETRY_S", (0.05,))
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks())
    async with fetching(settings(issuer, jwksUri=None, jwksFile=str(file))) as ring, running(ring):
        keys = ring.by_name["a"]
        await until(lambda: kids(keys) == ["k1"])
        file.write_text("{")
        await until(lambda: keys.trouble.startswith(f"{file}: not a JSON Web Key Set: "))
        file.unlink()
        await until(lambda: keys.trouble == f"{file}: No such file or directory")
        assert kids(keys) == ["k1"]
        file.write_bytes(jwks(jwk(rsa_key("next"), "k2")))
        await until(lambda: kids(keys) == ["k2"])


async def test_unknown_kids_are_one_fetch_and_no_sooner_than_the_cool_down(
    issuer: Issuer, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "COOLDOWN_S", 0.2)
    async with running(ring):
        await until(lambda: len(issuer.asked) == 1)
        issuer.documents["/jwks"] = jwks(jwk(rsa_key("next"), "k2"))
        for _ in range(1000):
            ring.want("a")
        await until(lambda: kids(ring.by_name["a"]) == ["k2"])
        assert len(issuer.asked) == 2


async def test_outage_is_retried_and_a_flood_of_unknown_kids_does_not_hurry_it(
    issuer: Issuer, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_keys, "RETRY_S", (0.2, 30.0))
    issuer.documents["/jwks"] = None
    async with running(ring):
        await until(lambda: len(issuer.asked) == 2)
        for _ in range(20):
            ring.want("a")
            await asyncio.sleep(0.005)
        assert len(issuer.asked) == 2


async def test_recorded_requests_see_keys_of_their_own_time(ring: KeyRing) -> None:
    assert ring.trusted_at(5)[ring.by_name["a"].issuer.issuer].keys is None
    await ring.load_once()
    ((_, trusted),) = ring.trusted_at(5).items()
    assert trusted.keys is not None
    assert not trusted.keys.is_stale(5)


def test_scope_and_scp_count_where_nobody_chose_a_claim() -> None:
    base = {"name": "a", "issuer": "https://a", "audiences": ["x"]}
    chosen = base | {"claims": {"scope": "permissions"}}
    assert edge_keys.issuer_of(IssuerSettings.model_validate(base)).scope_claims == ("scope", "scp")
    assert edge_keys.issuer_of(IssuerSettings.model_validate(chosen)).scope_claims == ("permissions",)
