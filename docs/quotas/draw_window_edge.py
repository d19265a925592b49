"""Draw how a calendar window admits twice at its edge, from a run of the real model (`authz.core.quota`).

Usage: python docs/quotas/draw_window_edge.py [--check]

Both quotas allow 60 requests in an hour, and both see the same calls: one a second from 10:50 to 11:10. Writes
window-edge.svg beside this file; with --check it writes nothing, and exits with 1 if that file is another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from authz.core.quota import SECOND_US, State, Within, spend
from authz.policy.limits import Calendar, CalendarLimit, Limit, calendar_limit, rate_limit

TARGET: Final = Path(__file__).with_name("window-edge.svg")
HOUR_S: Final = 3_600
EDGE_S: Final = int(datetime(2026, 11, 23, 11, tzinfo=UTC).timestamp())
FIRST_S, LAST_S = EDGE_S - 600, EDGE_S + 600
REQUESTS: Final = 60
BURST: Final = 9


@dataclass(frozen=True)
class Run:
    """What one quota admitted of the calls; instants in s since the epoch."""

    title: str
    limit: Limit
    admitted_s: tuple[int, ...]

    def worst(self, span_s: int = HOUR_S) -> int:
        """Return the most that any interval of this length admitted."""
        at = self.admitted_s
        return max(sum(first <= other < first + span_s for other in at) for first in at)


def run(title: str, limit: Limit) -> Run:
    state: State = {}
    admitted = []
    for at_s in range(FIRST_S, LAST_S + 1):
        outcome, after = spend(state, (limit,), at_s * SECOND_US)
        if isinstance(outcome, Within):
            admitted.append(at_s)
            state = after or {}
    return Run(title, limit, tuple(admitted))


def runs() -> tuple[Run, Run, Run]:
    per_us = HOUR_S * SECOND_US
    return (
        run("calendar: Hour", calendar_limit(name="hourly", requests=REQUESTS, calendar=Calendar.HOUR)),
        run("per: 1h", rate_limit(name="full", requests=REQUESTS, per_us=per_us)),
        run(f"per: 1h, burst: {BURST}", rate_limit(name="small", requests=REQUESTS, per_us=per_us, burst=BURST)),
    )


def bound(one: Run) -> int:
    """Return what any hour may admit by the formula in docs/quotas.md."""
    if isinstance(one.limit, CalendarLimit):
        return 2 * one.limit.requests
    return one.limit.full // one.limit.unit + one.limit.requests


# ---- the picture ------------------------------------------------------------------------------------------------

WIDTH, ROW, TOP, LEFT, RIGHT = 860, 128, 66, 190, 150
PLOT: Final = WIDTH - LEFT - RIGHT


def x_of(at_s: float) -> float:
    return LEFT + (at_s - FIRST_S) / (LAST_S - FIRST_S) * PLOT


def draw(found: Sequence[Run]) -> str:
    height = TOP + ROW * len(found) + 34
    most = max(len(one.admitted_s) for one in found)
    told = "; ".join(f"{one.title} admitted {len(one.admitted_s)}" for one in found)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="14">'
        ),
        "<title>The same calls around the edge of an hour, under three quotas of 60 an hour</title>",
        f"<desc>One call a second from 10:50 to 11:10 UTC: {told}.</desc>",
        (
            "<style>.ink{fill:#1f2328}.soft{fill:#59636e}.line{stroke:#59636e}.admitted{fill:#0969da;fill-opacity:.25;"
            "stroke:#0969da;stroke-width:2}.over{fill:#cf222e;fill-opacity:.22;stroke:#cf222e;stroke-width:2}"
            "@media(prefers-color-scheme:dark){.ink{fill:#e6edf3}.soft{fill:#9198a1}.line{stroke:#9198a1}}</style>"
        ),
        (
            '<text class="ink" x="16" y="26" font-size="16" font-weight="600">One call a second around 11:00, '
            f"three quotas of {REQUESTS} requests an hour</text>"
        ),
        '<text class="soft" x="16" y="48">Height: requests admitted since 10:50</text>',
    ]
    for number, one in enumerate(found):
        parts += row(one, TOP + ROW * number, most)
    bottom = TOP + ROW * len(found)
    edge = f'x1="{x_of(EDGE_S):.1f}" y1="{TOP}" x2="{x_of(EDGE_S):.1f}" y2="{bottom}"'
    parts.append(f'<line class="line" {edge} stroke-dasharray="4 4"/>')
    for at_s in (FIRST_S, EDGE_S, LAST_S):
        clock = datetime.fromtimestamp(at_s, UTC).strftime("%H:%M")
        parts.append(f'<text class="soft" x="{x_of(at_s):.1f}" y="{bottom + 20}" text-anchor="middle">{clock}</text>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def row(one: Run, top: int, most: int) -> list[str]:
    """Return one quota's part: its name, the steps of what it admitted, and the sum."""
    base, tall = top + ROW - 14, ROW - 34
    steps = [f"M{x_of(FIRST_S):.1f},{base}"]
    for count, at_s in enumerate(one.admitted_s):
        steps.append(f"V{base - count / most * tall:.1f}H{x_of(at_s):.1f}V{base - (count + 1) / most * tall:.1f}")
    steps.append(f"H{x_of(LAST_S):.1f}V{base}Z")
    admitted = len(one.admitted_s)
    style = "over" if admitted > REQUESTS + BURST + 1 else "admitted"
    end = base - admitted / most * tall
    return [
        f'<text class="ink" x="16" y="{base - 30}" font-weight="600">{one.title}</text>',
        f'<text class="soft" x="16" y="{base - 10}">any hour: at most {bound(one)}</text>',
        f'<line class="line" x1="{LEFT}" y1="{base}" x2="{LEFT + PLOT}" y2="{base}"/>',
        f'<path class="{style}" d="{"".join(steps)}"/>',
        f'<text class="ink" x="{LEFT + PLOT + 10}" y="{end + 5:.1f}" font-weight="600">{admitted} in 20 min</text>',
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="only say whether the picture is up to date")
    drawn = draw(runs())
    if parser.parse_args().check:
        if TARGET.exists() and TARGET.read_text(encoding="utf-8") == drawn:
            return 0
        print(f"{TARGET.name} is not what the model draws: run {Path(__file__).name}", file=sys.stderr)
        return 1
    TARGET.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
