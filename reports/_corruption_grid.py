"""Accuracies under corruptions: a table by corruption and severity, and what the headline has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freqrobust.core.percent import points
from freqrobust.plugins.specs import UNDEFENDED
from freqrobust.reports._grid import Grid, GridEntry
from freqrobust.reports.text import AGAINST

if TYPE_CHECKING:
    from freqrobust.results.corruptions import CorruptionSummary
    from freqrobust.results.report import Report


def corruption_grid(summary: CorruptionSummary, whose: str) -> Grid:
    """One row a corruption, one column a severity."""
    columns = [*sorted({s for row in summary.rows for s in row.accuracies}), "mean"]
    columns += ["CE"] if summary.reference is not None else []
    entries: dict[tuple[str, str], GridEntry] = {}
    for row in summary.rows:
        values = {**row.accuracies, "mean": row.accuracy, "CE": row.ce}
        entries |= {(row.name, column): _plain(values.get(column)) for column in columns}
    for column in columns[: columns.index("mean")]:
        known = [row.accuracies[column] for row in summary.rows if column in row.accuracies]
        if len(known) == len(summary.rows):
            entries["mean", column] = _plain(sum(known) / len(known))
    entries["mean", "mean"], entries["mean", "CE"] = _plain(summary.mean_accuracy), _plain(summary.mce)
    title = f"Corruptions ({_made_by(summary)}), {whose}: accuracy in percent by severity"
    return Grid(title, [*(row.name for row in summary.rows), "mean"], columns, entries)


def _plain(share: float | None) -> GridEntry:
    """A share in percent, without an interval."""
    return GridEntry({"": f"{100 * share:.1f}" if share is not None else "-"})


def _made_by(summary: CorruptionSummary) -> str:
    """Where the corrupted images come from: ``generated, cifar constants`` or ``files``."""
    if summary.source == "files":
        return "published files"
    return f"generated, {summary.constants} constants" + ("" if summary.eight_bit else ", not truncated to 8 bits")


def corruption_headline(summary: CorruptionSummary, report: Report) -> dict[str, GridEntry]:
    """Mean accuracy over the corruptions, with the difference from the undefended model, and mCE."""
    cells = sum(len(row.accuracies) for row in summary.rows)
    what = f"{'' if summary.part == 'common' else f'{summary.part} '}corruptions ({_made_by(summary)}), mean of {cells}"
    mean = _plain(summary.mean_accuracy)
    undefended = [
        other.mean_accuracy
        for other in report.corruptions
        if other.defense_spec == UNDEFENDED
        and other.model == summary.model
        and (other.part, _made_by(other)) == (summary.part, _made_by(summary))
    ]
    reference = undefended[0] if undefended and summary.defense_spec != UNDEFENDED else None
    if summary.mean_accuracy is not None and reference is not None:
        mean = GridEntry({**mean.parts, AGAINST: points(summary.mean_accuracy - reference)})
    found = {what: mean}
    if summary.reference is not None and summary.mce is not None:
        found[f"mCE against {summary.reference}"] = _plain(summary.mce)
        found["relative mCE"] = _plain(summary.relative_mce)
    return found
