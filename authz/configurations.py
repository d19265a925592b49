"""`clientpolicy config check`: the configurations of authz and of the operator, each by itself and both together.

What they say is judged, never the files that they name, which are in pods: certificates, key sets and policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clientpolicy_operator.settings import NAMES
from clientpolicy_operator.settings import Settings as OperatorSettings

from authz.edge import configuration
from authz.edge.cautions import cautions_of
from authz.edge.overrides import Misconfigured
from authz.edge.settings import Settings, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What keeps a program from starting (`mistakes`), and what opens more or does less than it seems (`cautions`)."""

    mistakes: tuple[str, ...]
    cautions: tuple[str, ...]


def judge(authz: Path | None, operator: Path | None, environment: Mapping[str, str]) -> Judgement:
    """Return what is wrong with the files that are given; `environment` lies over authz's, as when it serves."""
    mistakes: list[str] = []
    cautions: list[str] = []
    ours = theirs = None
    try:
        ours = load(authz, environment) if authz is not None else None
    except Misconfigured as wrong:
        mistakes.extend(wrong.mistakes)
    try:
        theirs = configuration.load(OperatorSettings, NAMES, operator, {}) if operator is not None else None
    except Misconfigured as wrong:
        mistakes.extend(wrong.mistakes)
    if ours is not None:
        cautions.extend(f"{authz}: {caution.place}: warning: {caution.message}" for caution in cautions_of(ours))
    if ours is not None and theirs is not None:
        mistakes.extend(f"{operator}: {wrong}" for wrong in _apart(ours, theirs))
        cautions.extend(f"{operator}: {told}" for told in _unserved(ours, theirs))
    return Judgement(mistakes=tuple(mistakes), cautions=tuple(cautions))


def _apart(ours: Settings, theirs: OperatorSettings) -> Iterator[str]:
    if set(ours.ceilings) != set(theirs.ceilings):
        yield "ceilings: not those of authz: expected the same, or one grants what the other refuses"


def _unserved(ours: Settings, theirs: OperatorSettings) -> Iterator[str]:
    """Tell of policies that authz would look for a status of that nobody writes."""
    served = set(theirs.watch.namespaces)
    if ours.policies.source != "kubernetes" or not served:
        return
    wanted = set(ours.policies.namespaces)
    if lacking := sorted(wanted - served):
        yield f"watch.namespaces: warning: authz reads policies of {', '.join(lacking)}, which nothing gives a status"
    elif not wanted:
        yield "watch.namespaces: warning: authz reads policies of every namespace; others than these get no status"
