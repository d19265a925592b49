"""The walk-through as it goes: a table for people, or a JSON line a step for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from authz.demo.walk import Got, Step

Report = Callable[[str, Step, Got], None]
WIDE: Final = 128  # also the width in a file or a pipe
COLUMNS: Final = (1, 30, 33, 13, 13, 33)
COLUMNS_WHERE_NARROW: Final = (1, 33, 19, 22)


@contextmanager
def json_lines() -> Iterator[Report]:
    """Give a report of one line a step on standard output, and nothing else there."""

    def add(_: str, step: Step, got: Got) -> None:
        line = {"step": f"{step.name}: {step.asked}", "expect": step.expect, "got": got.value, "ok": got.ok}
        print(json.dumps(line), flush=True)

    yield add


class _Rows:
    """Rows printed as they come: one line each where there is room, else two."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths = COLUMNS if console.width >= WIDE else COLUMNS_WHERE_NARROW
        self._section = ""
        self.good: list[bool] = []
        self._print(*(Text(name, "bold") for name in ("", "step", "asked", "expected", "got", "")))

    def add(self, section: str, step: Step, got: Got) -> None:
        if section != self._section:
            self._console.print(Text(f"─ {section}", "dim"))
        self._section = section
        self.good.append(got.ok)
        good, bad = ("✓", "✗") if self._console.encoding.startswith("utf") else ("+", "x")
        mark = Text(good, "green") if got.ok else Text(bad, "bold red")
        note = Text(got.note, "dim" if got.ok else "bold red")
        self._print(mark, Text(step.name), Text(step.asked, "cyan"), Text(str(step.expect)), Text(str(got.value)), note)

    def _print(self, *cells: Text) -> None:
        mark, name, asked, expected, came, note = cells
        fitted: tuple[RenderableType, ...] = cells
        if self._widths is COLUMNS_WHERE_NARROW:
            fitted = (mark, Group(name, asked), expected, Group(came, note))
        row = Table.grid(padding=(0, 1, 0, 0))
        for width in self._widths:
            row.add_column(width=width, overflow="fold")
        row.add_row(*fitted)
        self._console.print(row)


@contextmanager
def table() -> Iterator[Report]:
    """Give a report that is a table, with a verdict below it."""
    rows = _Rows(Console() if sys.stdout.isatty() else Console(width=WIDE))
    yield rows.add
    verdict = f"{sum(rows.good)} of {len(rows.good)} steps as expected"
    Console().print(Text(verdict, "bold green" if all(rows.good) else "bold red"))


def report(*, as_json: bool) -> AbstractContextManager[Report]:
    """Return the report that was asked for; a character that the terminal lacks is replaced."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return json_lines() if as_json else table()
