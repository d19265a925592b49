"""When a certificate begins, ends and is renewed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from clientpolicy_operator.facts import Leaf, Signer
from clientpolicy_operator.timing import fraction, reissue_time, renewal_time, retry_time, window
from hypothesis import given
from hypothesis import strategies as st
from one_policy import START, signer, subject

from authz.policy import ClientPolicy

BACK, HOUR = timedelta(minutes=5), timedelta(hours=1)
DAYS_30 = timedelta(days=30)
FIRST_UID = "uid-0"


def policy_of(certificate: dict[str, Any] | None = None, **spec: Any) -> ClientPolicy:
    policy = subject(certificate={"source": "Issued"} | (certificate or {}), **spec).policy
    assert policy is not None
    return policy


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ca(begin: datetime = START - timedelta(days=1), end: datetime = START + timedelta(days=3650)) -> Signer:
    return Signer(sha256="c", not_before=begin, not_after=end, switched=begin, spread_s=3600.0)


WINDOWS: dict[str, tuple[ClientPolicy, Signer, tuple[datetime, datetime] | None]] = {
    "as long as asked, backdated": (policy_of(), ca(), (START - BACK, START + DAYS_30)),
    "not before its CA": (policy_of(), ca(begin=START - HOUR / 60), (START - HOUR / 60, START + DAYS_30)),
    "not after its CA": (policy_of(), ca(end=START + HOUR), (START - BACK, START + HOUR)),
    "CA has ended": (policy_of(), ca(end=START), None),
    "not before issuedBefore": (
        policy_of(revocation={"issuedBefore": "2026-11-23T11:59:30.25Z"}),
        ca(),
        (at("2026-11-23T11:59:31Z"), START + DAYS_30),
    ),
    "issuedBefore is to come": (policy_of(revocation={"issuedBefore": "2026-11-23T12:00:01Z"}), ca(), None),
    "contract ends": (
        policy_of(validity={"notAfter": "2026-11-23T14:00:00.75+01:00"}),
        ca(),
        (START - BACK, START + HOUR),
    ),
    "contract has ended": (policy_of(validity={"notAfter": "2026-11-23T12:00:00Z"}), ca(), None),
    "contract begins": (
        policy_of(validity={"notBefore": "2026-12-01T00:00:00Z"}),
        ca(),
        (at("2026-12-01T00:00:00Z"), at("2026-12-31T00:00:00Z")),
    ),
    "contract ends at the end of all years": (
        policy_of(validity={"notAfter": "9999-12-31T23:59:59.5-23:59"}),
        ca(),
        (START - BACK, START + DAYS_30),
    ),
    "contract begins at the end of all years": (policy_of(validity={"notBefore": "9999-12-31T23:59:59.5Z"}), ca(), None),
    "contract ended in the first of all years": (policy_of(validity={"notAfter": "1000-01-01T00:00:00+23:00"}), ca(), None),
    "the longest": (policy_of({"duration": "8784h"}), ca(), (START - BACK, START + timedelta(days=366))),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "by", "span"), WINDOWS.values(), ids=WINDOWS)
def test_window(policy: ClientPolicy, by: Signer, span: tuple[datetime, datetime] | None) -> None:
    for microseconds in (0, 1, 999_999):
        assert window(policy, by, START + timedelta(microseconds=microseconds)) == span


def leaf(begin: datetime = START - BACK, end: datetime = START + DAYS_30) -> Leaf:
    return Leaf(sha256="a", serial="1", not_before=begin, not_after=end)


def uid_without_spread() -> str:
    return next(uid for uid in map("uid-{}".format, range(1_000_000)) if fraction(uid) < 1e-5)


EVEN = uid_without_spread()
RENEWALS: dict[str, tuple[dict[str, Any], timedelta]] = {
    "a third is left": ({}, DAYS_30 * 0.67),
    "half is left": ({"renewBeforePercentage": 50}, DAYS_30 * 0.5),
    "a hundredth is left": ({"renewBeforePercentage": 1}, DAYS_30 * 0.99),
    "so long before its end": ({"renewBefore": "240h"}, timedelta(days=20)),
    "a quarter has passed at least": ({"renewBeforePercentage": 99}, DAYS_30 * 0.25),
    "a quarter has passed at least, before its end": ({"renewBefore": "719h59m59s"}, DAYS_30 * 0.25),
    "far longer before its end than it lasts": ({"duration": "8784h", "renewBefore": "8783h"}, DAYS_30 * 0.25),
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "after"), RENEWALS.values(), ids=RENEWALS)
def test_renewal_is_by_what_is_left_of_the_life_it_has_had_since_it_was_signed(
    wanted: dict[str, Any], after: timedelta
) -> None:
    due = renewal_time(policy_of(wanted), leaf(), EVEN, ca())
    assert due is not None
    assert timedelta(0) <= START + after - due < timedelta(seconds=60)


SHORT: dict[str, dict[str, Any]] = {
    "nearly all of it left": {"duration": "1h", "renewBeforePercentage": 99},
    "a second after it begins": {"duration": "1h", "renewBefore": "59m59s"},
    "at the end": {"duration": "1h", "renewBeforePercentage": 1},
    "long": {"duration": "8784h", "renewBeforePercentage": 99},
}


@pytest.mark.parametrize("wanted", SHORT.values(), ids=SHORT)
@given(uid=st.text(max_size=8))
def test_renewal_leaves_every_certificate_before_it_its_whole_life(wanted: dict[str, Any], uid: str) -> None:
    """The status keeps four besides the current one; a renewal that is due at once would go on for ever."""
    policy, now, ends = policy_of(wanted), START, list[datetime]()
    for _ in range(8):
        span = window(policy, ca(end=START + timedelta(days=36500)), now)
        assert span is not None
        due = renewal_time(policy, leaf(*span), uid, ca(end=START + timedelta(days=36500)))
        assert due is not None
        assert now < due < span[1]
        ends.append(span[1])
        now = due
        assert sum(end > now for end in ends) <= 5


@given(uid=st.text(max_size=8), percentage=st.integers(1, 99))
def test_spread_is_earlier_by_a_twentieth_at_most_and_stays(uid: str, percentage: int) -> None:
    policy = policy_of({"renewBeforePercentage": percentage})
    due, latest = (renewal_time(policy, leaf(), one, ca()) for one in (uid, EVEN))
    assert due is not None
    assert latest is not None
    assert latest - (latest - START) * 0.051 <= due <= latest + timedelta(minutes=1)
    assert due == renewal_time(policy, leaf(), uid, ca())
    assert due.microsecond == 0


BOUND: dict[str, tuple[ClientPolicy, Signer]] = {
    "its CA ends": (policy_of(), ca(end=START + DAYS_30)),
    "the contract ends": (policy_of(validity={"notAfter": (START + DAYS_30).isoformat()}), ca()),
    "the contract ends within the second": (
        policy_of(validity={"notAfter": (START + DAYS_30 + timedelta(milliseconds=5)).isoformat()}),
        ca(),
    ),
}


@pytest.mark.parametrize(("policy", "by"), BOUND.values(), ids=BOUND)
def test_what_could_not_last_longer_is_not_renewed(policy: ClientPolicy, by: Signer) -> None:
    assert renewal_time(policy, leaf(), "uid", by) is None


def test_contract_that_ends_within_its_life_is_not_renewed_either() -> None:
    span = window(policy_of(validity={"notAfter": (START + HOUR).isoformat()}), ca(), START)
    assert span is not None
    assert renewal_time(policy_of(validity={"notAfter": (START + HOUR).isoformat()}), leaf(*span), "uid", ca()) is None


@given(st.text())
def test_fraction_is_below_one_and_an_objects_own(uid: str) -> None:
    assert 0 <= fraction(uid) < 1
    assert fraction(uid) == fraction(uid)
    assert START <= reissue_time(signer(), uid) < START + HOUR


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(-1, 5), (0, 5), (1, 5), (2, 10), (5, 80), (10, 2560), (11, 3600), (17, 3600), (10**9, 3600)],
)
def test_attempts_grow_rarer_up_to_an_hour(attempts: int, seconds: int) -> None:
    assert retry_time(START, attempts) == START + timedelta(seconds=seconds)
