"""Secrets looked at one by one: whose change is noticed, and how many a second."""

from __future__ import annotations

from typing import Any

import pytest
from clientpolicy_operator.api import Forbidden
from clientpolicy_operator.facts import Document, Key
from clientpolicy_operator.patrol import LOOKS_PER_SECOND, Patrol
from clientpolicy_operator.roster import Roster
from partner import policy_document

A = ("partners", "a")


class Secrets:
    """As the API server shows them to who asks for metadata alone."""

    def __init__(self, versions: dict[str, str]) -> None:
        self.versions = versions
        self.asked: list[str] = []
        self.forbidden = False

    async def metadata(self, path: str) -> Document | None:
        self.asked.append(path)
        if self.forbidden:
            raise Forbidden(path)
        version = self.versions.get(path.rpartition("/")[2])
        return {"metadata": {"resourceVersion": version}} if version else None


def rostered(count: int = 1, *, ready: bool = True, **certificate: Any) -> Roster:
    roster = Roster(())
    for number in range(count):
        made = policy_document(
            "a" if number == 0 else f"a{number}", clientId=f"c{number}", certificate={"source": "Issued"} | certificate
        )
        made["metadata"] |= {"uid": f"u{number}", "resourceVersion": "1", "generation": 1}
        roster.note(made | {"status": {"conditions": [{"type": "Ready", "status": str(ready)}]}})
    return roster


async def changed(secrets: Secrets, roster: Roster, seen: dict[Key, str]) -> list[Key]:
    told: list[Key] = []
    await Patrol(secrets, roster, seen, told.append).round()  # type: ignore[arg-type] # all that it asks
    return told


@pytest.mark.parametrize(("seen", "there", "is_news"), [
    ("5", "5", False), ("5", "6", True), ("5", "", True), ("", "", False), ("", "7", True),
])  # fmt: skip
async def test_secret_that_is_not_as_it_was_verified_is_news(seen: str, there: str, *, is_news: bool) -> None:
    remembered = {A: seen}
    assert await changed(Secrets({"a-tls": there}), rostered(), remembered) == ([A] if is_news else [])
    assert remembered == {A: seen}, "until a visit verifies it"


@pytest.mark.parametrize(("there", "is_news"), [("5", False), ("", True)])
async def test_secret_of_the_operator_before_is_missed_at_once_and_else_verified_later(
    there: str, *, is_news: bool
) -> None:
    remembered: dict[Key, str] = {}
    secrets = Secrets({"a-tls": there})
    assert await changed(secrets, rostered(), remembered) == ([A] if is_news else [])
    assert remembered == ({} if is_news else {A: "5"})
    assert secrets.asked == ["/api/v1/namespaces/partners/secrets/a-tls"]


@pytest.mark.parametrize("certificate", [{"source": "External", "fingerprints": ["ab" * 32]}, {"source": "Issued"}])
async def test_what_has_no_secret_or_is_not_ready_yet_is_not_looked_at(certificate: dict[str, Any]) -> None:
    secrets = Secrets({})
    is_external = certificate["source"] == "External"
    assert await changed(secrets, rostered(ready=is_external, **certificate), {}) == []
    assert secrets.asked == []


async def test_secret_that_may_not_be_read_is_no_news_and_others_are_looked_at(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secrets = Secrets({})
    secrets.forbidden = True
    assert await changed(secrets, rostered(3), {}) == []
    assert len(secrets.asked) == 3
    assert [record.message for record in caplog.records] == ["Secrets not looked at"]


async def test_thousand_are_looked_at_within_a_minute_and_no_more_than_twenty_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [0.0]

    async def sleep(seconds: float) -> None:
        now_s[0] += seconds

    monkeypatch.setattr("clientpolicy_operator.clock.monotonic_s", lambda: now_s[0])
    monkeypatch.setattr("asyncio.sleep", sleep)
    secrets = Secrets({})
    await changed(secrets, rostered(1000), {})
    assert len(secrets.asked) == 1000
    assert now_s[0] == pytest.approx(999 / LOOKS_PER_SECOND)
    assert now_s[0] <= 60
