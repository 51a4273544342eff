"""Findings as Markdown, for documentation pages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from freqrobust.core.text import one_line
from freqrobust.experiments.text import all_settings, estimate_text, measured_table, verdict_line

if TYPE_CHECKING:
    from freqrobust.results.findings import Findings


def escape(text: object) -> str:
    """Text that Markdown shows as it is.

    Example:
        >>> escape("a|b *c* d_e _f_")
        'a\\\\|b \\\\*c\\\\* d_e \\\\_f\\\\_'
    """
    return re.sub(r"[\\`*<>\[\]|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", one_line(text))


def markdown(findings: Findings, picture: str | None = None) -> str:
    """One page: settings, measured values, tables, trends, notes.

    Args:
        findings: what to show.
        picture: the file of the picture, as a link of the page; None without a picture.
    """
    parts = [f"# {escape(findings.name)}", f"{escape(findings.source)}. Scale `{findings.scale}`."]
    if findings.trends:
        parts.append(f"{verdict_line(findings).capitalize()}.")
        rows = [
            [one.statement, f"**{one.verdict}**", f"{escape(one.measure)}: {escape(estimate_text(one))}"]
            for one in findings.trends
        ]
        escaped = [[escape(statement), *others] for statement, *others in rows]
        parts.append(_table(["trend", "verdict", "what decides, with its 95 % interval"], escaped, right=False))
    if findings.measured:
        table = measured_table(findings.measured)
        parts += ["## Published and measured", _escaped_table(table.columns, table.rows)]
    for table in findings.tables:
        parts += [f"## {escape(table.title)}", _escaped_table(table.columns, table.rows)]
    if picture is not None:
        alt = findings.picture.alt if findings.picture is not None else findings.name
        parts.append(f"![{escape(alt)}]({picture})")
    parts += ["## Settings", "\n".join(f"- {escape(k)}: {escape(v)}" for k, v in all_settings(findings).items())]
    if findings.notes:
        parts += ["## Notes", "\n".join(f"- {escape(note)}" for note in findings.notes)]
    return "\n\n".join(parts) + "\n"


def _escaped_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return _table([escape(one) for one in columns], [[escape(one) for one in row] for row in rows])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: bool = True) -> str:
    bar = ["---", *(["---:" if right else "---"] * (len(columns) - 1))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, bar, *rows])
