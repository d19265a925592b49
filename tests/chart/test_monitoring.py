"""Alerts and dashboard ask for what authz and the operator tell, and for nothing else."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.model import Reason

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "clientpolicy"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards" / "clientpolicy.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
DRAWN = [target["expr"] for panel in PANELS for target in panel["targets"]]
ASKED = [*(alert["expr"] for alert in ALERTS), *DRAWN]
MADE_BY = {"CounterMetricFamily": "counter", "HistogramMetricFamily": "histogram", "Histogram": "histogram"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def families(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return the kind and name of each metric that a module makes: `yield "gauge", "name", ...`, or a family by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Tuple(elts=[ast.Constant(value="counter" | "gauge" as kind), ast.Constant(value=str(name)), *_]):
                yield kind, name
            case ast.Call(func=ast.Name(id=made), args=[ast.Constant(value=str(name)), *_]) if made in MADE_BY:
                yield MADE_BY[made], name


def exported() -> set[str]:
    return {
        name + suffix
        for package in ("authz", "operator")
        for path in (ROOT / package).rglob("*.py")
        for kind, name in families(ast.parse(path.read_text()))
        for suffix in SUFFIXES[kind]
    }


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\bclientpolicy_\w+", expression))


def test_metrics_are_found_where_they_are_made() -> None:
    assert {
        "clientpolicy_decisions_total", "clientpolicy_decision_seconds_bucket", "clientpolicy_store_up",
        "clientpolicy_store_call_seconds_sum", "clientpolicy_reconcile_seconds_bucket", "clientpolicy_signings_total",
    } <= exported()  # fmt: skip


def test_what_is_asked_for_is_exported() -> None:
    assert set().union(*map(asked, ASKED)) - exported() == set()


def test_cases_of_the_alerts_feed_what_is_exported() -> None:
    cases = yaml.safe_load((CHART / "tests" / "alerts.yaml").read_text())
    fed = set().union(*(asked(series) for case in cases for series in case["series"]))
    assert fed - exported() == set()


def test_each_metric_to_watch_has_an_alert_or_a_panel() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("## What to watch")[2].partition("\n## ")[0]
    watched = asked(table)
    assert watched
    asked_for = {re.sub("_bucket$", "", name) for name in set().union(*map(asked, ASKED))}
    assert watched - asked_for == set()


def test_values_of_labels_are_real() -> None:
    reasons = {reason.value for reason in Reason} | {"abandoned"}
    verdicts = {"allow", "deny", "shadow", "abandoned"}
    for label, real in (("reason", reasons), ("verdict", verdicts), ("result", {"settled", "failed"})):
        found = re.findall(rf'\b{label}[!=]?[=~]"([^"]+)"', " ".join(ASKED))
        assert found
        assert {value for values in found for value in values.split("|")} <= real


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_alert_says_what_it_means(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"ClientPolicy\w+", alert["alert"])
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert alert["annotations"].keys() == {"summary", "description"}
    selectors = re.findall(r"\bclientpolicy_\w+(\{[^}]*\})?", alert["expr"])
    jobs = ('job="clientpolicy-authz"', 'job="clientpolicy-operator"')
    assert all(any(job in selector for job in jobs) for selector in selectors), "the chart narrows `job` to its release"


def test_alerts_have_names_of_their_own() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)


def test_panels_look_at_the_chosen_namespaces_and_do_not_overlap() -> None:
    for expression in DRAWN:
        assert expression.count("clientpolicy_") == expression.count('{namespace=~"$namespace"')
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24  # Grafana's columns
        taken |= cells
