"""The verdict of a gate as tables for a terminal."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from freqrobust.core.text import one_line
from freqrobust.gate.regression import points
from freqrobust.plugins.specs import UNDEFENDED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from freqrobust.results.gate_record import Comparison, GateRecord, RegressionRow, ThresholdRow

#: Width of what goes to a file or a pipe.
PIPED_WIDTH = 120
#: Names up to this length are never broken.
WHOLE = 18
_VERDICTS = {True: "ok", False: "FAIL", None: ""}
_STYLES = {True: "", False: "bold red", None: "dim"}


def console_for(target: IO[str]) -> tuple[Console, bool]:
    """A console on an open file, and whether it is a plain one: not a terminal."""
    from rich.console import Console

    terminal = target.isatty()
    columns = os.environ.get("COLUMNS", "")
    width = None if terminal else int(columns) if columns.isdigit() and int(columns) >= 40 else PIPED_WIDTH
    return Console(file=target, width=width, highlight=False, emoji=False, markup=False), not terminal


def gate_text(record: GateRecord, width: int) -> str:
    """The tables as text, for the message of a failed test."""
    from rich.console import Console

    text = io.StringIO()
    print_gate(record, Console(file=text, width=width, highlight=False, emoji=False, markup=False), plain=True)
    return text.getvalue()


def print_gate(record: GateRecord, console: Console, *, plain: bool) -> None:
    """Thresholds, changes from the baseline, and one line that says whether the gate passed."""
    if not record.rows:
        return
    if record.thresholds:
        console.print("Thresholds: accuracy in percent", style="bold")
        console.print(_thresholds(record.thresholds, plain))
        for row in record.thresholds:
            if row.measured is None:
                console.print(one_line(f"{row.name}: {row.text}"), style="red")
        console.print()
    if record.comparison is not None:
        print_comparison(record.comparison, console, plain=plain)
    judged = [row for row in record.rows if row.passed is not None]
    failed = sum(row.passed is False for row in judged)
    verdict = "passed" if record.passed else f"FAILED: {failed} of {len(judged)}"
    console.print(f"gate: {verdict}", style="bold green" if record.passed else "bold red")


def print_comparison(comparison: Comparison, console: Console, *, plain: bool, title: str | None = None) -> None:
    """The changes from a baseline, worst first."""
    heading = title or f"Against {comparison.baseline}: accuracy in percent, worst first"
    console.print(one_line(heading), style="bold")
    for line in comparison.models:
        console.print(one_line(line))
    console.print(_changes(comparison.rows, plain))
    for note in (*_footnotes(comparison), *(one_line(f"note: {note}") for note in comparison.notes)):
        console.print(note)
    console.print()


def _footnotes(comparison: Comparison) -> list[str]:
    judged = [row for row in comparison.rows if row.passed is not None]
    if not judged:
        return []
    lines = [
        f"-/+: samples lost and gained. p: one-sided paired tests of no drop; Holm: corrected over the {len(judged)} gate cells. A regression has "
        f"a corrected p of at most {comparison.alpha:g} and a drop above its limit ({_limits(comparison)}). Rows "
        "without a corrected p are information."
    ]
    churns = [row.churn for row in judged if row.churn is not None]
    if churns:
        low, high = 100 * min(churns), 100 * max(churns)
        share = f"{low:.1f}" if high - low < 0.05 else f"{low:.1f} to {high:.1f}"
        lines.append(
            f"sees: the smallest drop, in points, that is found with {comparison.power:.0%} power at alpha "
            f"{comparison.alpha:g}/{len(judged)}, if {share} % of the samples improve all the same; none: more than "
            "there is to lose"
        )
    return lines


def _limits(comparison: Comparison) -> str:
    several = sorted({row.required for row in comparison.rows if row.required is not None})
    return ", ".join(f"{100 * drop:g}" for drop in several) + " points"


def _table(plain: bool, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table as RichTable

    table = RichTable(box=box.ASCII2 if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("cell", overflow="fold", min_width=WHOLE)
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _cell(name: str) -> str:
    """A cell's name; the undefended model goes without saying, and long names may break after commas and colons."""
    short = one_line(name).removeprefix(f"{UNDEFENDED} / ")
    return short.replace(",", ", ").replace(":", ": ", 1) if len(short) > WHOLE else short


def _thresholds(rows: Sequence[ThresholdRow], plain: bool) -> Table:
    from rich.text import Text

    early = any(row.sequential is not None for row in rows)
    table = _table(plain, ["measured", "95 % interval", "required", *(["samples"] if early else []), ""])
    for row in sorted(rows, key=lambda r: r.passed is not False):
        values = ["-", "-"]
        if row.accuracy is not None and row.ci95 is not None:
            values = [f"{100 * row.accuracy:.1f}", f"[{100 * row.ci95[0]:.1f}, {100 * row.ci95[1]:.1f}]"]
        required = f"{'low end ' if row.confident else ''}{100 * (row.required or 0):g}"
        seen = [f"{row.sequential.seen} of {row.sequential.of}" if row.sequential else str(row.n)] if early else []
        style = _STYLES[row.passed]
        texts = [_cell(row.name), *values, required, *seen, _VERDICTS[row.passed]]
        table.add_row(*(Text(text, style=style) for text in texts))
    return table


def _changes(rows: Sequence[RegressionRow], plain: bool) -> Table:
    from rich.text import Text

    table = _table(plain, ["was", "now", "change", "-/+", "p", "Holm", "sees", ""])
    for row in rows:
        style = _STYLES[row.passed]
        texts = [
            _cell(row.name),
            f"{100 * (row.baseline or 0):.1f}",
            f"{100 * (row.new or 0):.1f}",
            points(-(row.measured or 0)),
            f"{row.newly_wrong}/{row.newly_right}",
            _p(row.p_value),
            _p(row.p_adjusted),
            _sees(row),
            _VERDICTS[row.passed],
        ]
        table.add_row(*(Text(text, style=style) for text in texts))
    return table


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def _sees(row: RegressionRow) -> str:
    if row.passed is None or row.test != "mcnemar":
        return ""
    if row.minimum_detectable_drop is None or row.minimum_detectable_drop > (row.baseline or 0):
        return "none"
    return f"{100 * row.minimum_detectable_drop:.1f}"
