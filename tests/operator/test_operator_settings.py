"""The operator's configuration: nothing is required, the example is the default, every mistake is told at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from clientpolicy_operator.settings import NAMES, Settings
from hypothesis import given
from hypothesis import strategies as st

from authz.edge import configuration
from authz.edge.overrides import Misconfigured

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "operator.yaml"


def load(text: str, folder: Path, **environment: str) -> Settings:
    file = folder / "operator.yaml"
    file.write_text(text)
    return configuration.load(Settings, NAMES, file, environment)


def mistakes(text: str, folder: Path, **environment: str) -> list[str]:
    with pytest.raises(Misconfigured) as told:
        load(text, folder, **environment)
    return [one.removeprefix(f"{folder / 'operator.yaml'}: ") for one in told.value.mistakes]


def test_example_is_the_default_and_names_every_key() -> None:
    assert (
        configuration.load(Settings, NAMES, EXAMPLE, {}) == Settings() == configuration.load(Settings, NAMES, None, {})
    )

    def keys(value: Any) -> set[str]:
        return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()

    ceiling = {"namespaces", "clientIds", "sanPrefixes", "scopes", "modes", "requestsPerSecond"}
    assert keys(yaml.safe_load(EXAMPLE.read_text())) | ceiling == set(NAMES.values())


MISTAKES = """
namespace: Upper_Case
listen: {ops: 9193}
watch: {namespaces: [a, a], timeout: 5}
leader: {election: maybe, lease: 10ms}
authority: {life: 1000000000h, propagation: 0s, spread: "", crlRefresh: soon}
trust: {namespaces: [""]}
certificates: {workers: 0, signingsPerSecond: many, poll: 0.5s, color: red}
ceilings: [{namespaces: []}, {scopes: ["two words"]}]
leeway: 3
"""


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    found = mistakes(MISTAKES, tmp_path)
    assert sorted(one.split(": ")[0] for one in found) == [
        "authority.crlRefresh", "authority.life", "authority.propagation", "authority.spread", "ceilings[0].namespaces",
        "ceilings[1].namespaces", "ceilings[1].scopes[0]", "certificates.color", "certificates.poll",
        "certificates.signingsPerSecond", "certificates.workers", "leader.election", "leader.lease", "leeway",
        "listen.ops", "namespace", "trust.namespaces[0]", "watch.namespaces", "watch.timeout",
    ]  # fmt: skip
    assert "authority.life: expected at most 876000h, a hundred years" in found
    assert "watch.namespaces: given twice: a" in found
    assert "leader.lease: expected at least 1s" in found


AUTHORITIES: dict[str, tuple[str, str]] = {
    "life too short": ("life: 1h, renewBefore: 30m, spread: 1m, propagation: 1m", "life is at least 2h"),
    "renewed before it begins": ("life: 3h, renewBefore: 3h, spread: 1m", "longer than renewBefore"),
    "leaves re-issued after its end": ("renewBefore: 24h", "renewBefore is longer than propagation and spread"),
    "CRL that ends before it is made anew": ("crlRefresh: 85h", "crlRefresh is at most 84h"),
}


@pytest.mark.parametrize(("authority", "told"), AUTHORITIES.values(), ids=AUTHORITIES)
def test_times_of_the_ca_fit_together(authority: str, told: str, tmp_path: Path) -> None:
    (found,) = mistakes(f"authority: {{{authority}}}", tmp_path)
    assert told in found
    everything = mistakes("authority: {life: 1h, spread: 9000h, crlRefresh: 100h}", tmp_path)
    assert [one.count(";") for one in everything] == [2], "all three"


@pytest.mark.parametrize(
    ("written", "meant"), [("on", "on"), ("off", "off"), ('"on"', "on"), ("auto", "auto"), ("yes", "on")]
)
def test_election_may_be_written_as_yaml_reads_it(written: str, meant: str, tmp_path: Path) -> None:
    assert load(f"leader: {{election: {written}}}", tmp_path).leader.election == meant


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_election_may_come_from_the_environment(word: str, tmp_path: Path) -> None:
    assert load("", tmp_path, CLIENTPOLICY_LEADER__ELECTION=word).leader.election == word


def test_environment_overrides_any_key_whatever_its_case(tmp_path: Path) -> None:
    loaded = load(
        "namespace: a",
        tmp_path,
        CLIENTPOLICY_NAMESPACE="b",
        CLIENTPOLICY_AUTHORITY__RENEW_BEFORE="100h",
        CLIENTPOLICY_WATCH__NAMESPACES="[x, y]",
        CLIENTPOLICY_CERTIFICATES__SIGNINGSPERSECOND="7",
        CLIENTPOLICY_CEILINGS__0__NAMESPACES__0="partner-*",
    )
    assert (loaded.namespace, loaded.watch.namespaces) == ("b", ("x", "y"))
    assert loaded.authority.renew_before == timedelta(hours=100)
    assert loaded.certificates.signings_per_second == 7
    assert loaded.ceilings[0].namespaces == ("partner-*",)


@pytest.mark.parametrize(
    ("address", "is_good"),
    [("127.0.0.1:0", True), ("[::1]:9193", True), ("host:65535", True), ("host:65536", False), (":1", False),
     ("host", False), ("host:", False), ("host:-1", False)],
)  # fmt: skip
def test_addresses(address: str, *, is_good: bool, tmp_path: Path) -> None:
    text = yaml.safe_dump({"listen": {"ops": address}})
    if is_good:
        assert load(text, tmp_path).listen.ops == address
    else:
        assert mistakes(text, tmp_path) == ["listen.ops: expected HOST:PORT (port 0: any free one)"]


Junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["999999999999h", "1ns", "1h"]),
    lambda one: st.lists(one, max_size=2) | st.dictionaries(st.sampled_from([*NAMES.values(), "x"]), one, max_size=3),
    max_leaves=8,
)


@given(Junk)
def test_whatever_is_written_is_a_value_or_a_list_of_mistakes(value: Any) -> None:
    try:
        assert Settings.model_validate(value)
    except ValueError as told:
        assert str(told)
