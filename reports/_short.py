"""The short form of the table: what is read first. Everything else is in the full form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from freqrobust.core.percent import points
from freqrobust.core.text import brief, one_line
from freqrobust.reports._grid import Grid, GridEntry, breakable
from freqrobust.reports.text import AGAINST, conditions, describe_published
from freqrobust.results.cells import Cell
from freqrobust.results.certificates import CertificateRecord, Counted
from freqrobust.results.records import ModelRecord
from freqrobust.results.report import Report
from freqrobust.results.summary import (
    Entry,
    Level,
    Measure,
    attacks,
    diagnosed,
    entry_of,
    level,
    model_labels,
    oblivious_attacks,
)
from freqrobust.results.view import name_of

#: Attacks that the headline does not stand for are rows of the table where there are so few of them.
FEW = 4
#: Lines of failures before the others are only counted.
MOST_FAILURES = 3


class Line(NamedTuple):
    """A line of the short form: what it is about, a verdict that is marked by its level, and the rest."""

    about: str
    level: Level
    verdict: str
    rest: str = ""


def fitting(text: str, width: int) -> str:
    """A sentence on one line: without its last parts where it is too long, and cut where even that does not help.

    Example:
        >>> fitting("no problem found by 5 quick checks (14 of 100 samples robust); no more", 40)
        'no problem found by 5 quick checks'
        >>> fitting("one part only, which is too long", 20)
        'one part only, ...'
    """
    line = one_line(text)
    if len(line) <= width:
        return line
    ends = [match.start() for match in re.finditer(r"; | \(", line[: width + 1]) if match.start() >= 0.25 * width]
    if ends:
        return line[: ends[-1]]
    room = max(width - 4, 1)
    return f"{line[:room].rpartition(' ')[0] or line[:room]} ..."


def without_parameters(labels: Iterable[str]) -> dict[str, str]:
    """Labels for narrow lines: the names of defenses without their parameters, where they remain different.

    Example:
        >>> without_parameters(["undefended", "bit-depth:bits=4+lowpass:radius=3", "smooth:rho=1", "smooth:rho=2"])
        {'undefended': 'undefended', 'bit-depth:bits=4+lowpass:radius=3': 'bit-depth+lowpass', \
'smooth:rho=1': 'smooth:rho=1', 'smooth:rho=2': 'smooth:rho=2'}
    """
    names = {label: re.sub(r":[^+: ]*=[^+ ]*", "", label) for label in labels}
    counts = Counter(names.values())
    return {label: name if counts[name] == 1 else label for label, name in names.items()}


def header(report: Report) -> list[str]:
    """What was evaluated, in a line for each model and one for the data."""
    lines = []
    for label, model in zip(model_labels(report), report.models, strict=True):
        name = f"{label}: " if len(report.models) > 1 and label not in (model.spec, brief(model.spec)) else ""
        lines.append(f"{name}{model.arch} ({brief(model.spec)}), normalisation {_normalization(model)}")
        if model.published is not None:
            lines.append(f"published: {describe_published(model.published)}")
    conditions_ = conditions(report)
    return [*lines, conditions_.replace(report.data.spec, brief(report.data.spec), 1)]


def _normalization(model: ModelRecord) -> str:
    record = model.normalize
    if not record.mean:
        return "inside the model"
    if record.preset:
        return record.preset
    return f"mean {', '.join(f'{m:g}' for m in record.mean)}, std {', '.join(f'{s:g}' for s in record.std)}"


def unrepresented(report: Report, shown: Iterable[Measure], folded: Iterable[Measure]) -> list[Measure]:
    """The attacks that no row of the headline is or contains."""
    of_rows = {id(cell) for measure in shown for cell in measure.found.values()}
    skipped = {measure.label for measure in folded}
    found = []
    for measure in attacks(report):
        cells = [cell for cell in measure.found.values() if isinstance(cell, Cell)]
        if measure.label not in skipped and all(
            id(cell) not in of_rows and cell.threat is None and cell.distances is None for cell in cells
        ):
            found.append(measure)
    return found


def fitted_grid(grid: Grid, width: int) -> tuple[Grid, str | None]:
    """The table with as much as fits into one: differences and intervals, else intervals alone, else neither.

    Returns:
        The grid, and what was left out.
    """
    differences = any(AGAINST in entry.parts for entry in grid.entries.values())
    forms = (grid, grid.transposed())
    for kept, left_out in (
        (forms, None),
        ([_without(form) for form in forms], "differences" if differences else None),
        ([_bare(form) for form in forms], "intervals and differences" if differences else "intervals"),
    ):
        fits = [form for form in kept if len(form.chunks(width)) == 1]
        if fits:
            return min(fits, key=_breaks_headings), left_out
    return min((_without(form) for form in forms), key=lambda form: len(form.chunks(width))), "differences"


def _breaks_headings(grid: Grid) -> bool:
    """Whether words of a heading are longer than its column."""
    widths = {column: sum(grid.widths(column).values()) for column in grid.columns}
    return any(len(word) > width for column, width in widths.items() for word in breakable(column).split())


def _without(grid: Grid) -> Grid:
    """A grid without differences."""
    entries = {key: GridEntry({"": entry.parts[""]}, entry.failed) for key, entry in grid.entries.items()}
    return Grid(grid.title, grid.rows, grid.columns, entries)


def _bare(grid: Grid) -> Grid:
    """A grid without differences and intervals, with columns that are as narrow as possible."""
    entries = {
        key: GridEntry({"": entry.parts[""].partition(" [")[0]}, entry.failed) for key, entry in grid.entries.items()
    }
    return Grid(grid.title.partition(",")[0], grid.rows, grid.columns, entries, narrow=True)


def verdicts(report: Report) -> list[Line]:
    """The verdict on each robust accuracy, and by how much oblivious attacks overstate it."""
    return [
        Line(
            diagnosed(report, one),
            level(one),
            one.verdict,
            one.sentence.removeprefix(one.verdict) if one.sentence.startswith(one.verdict) else f": {one.sentence}",
        )
        for one in report.diagnostics
    ]


def oblivious_lines(report: Report, labels: Mapping[Entry, str]) -> list[str]:
    """By how much oblivious attacks overstate robust accuracies at most, for each defense where they do."""
    largest: dict[Entry, tuple[float, str]] = {}
    for pair in oblivious_attacks(report):
        if pair.overstated_by is not None:
            new = pair.overstated_by, pair.adaptive.attack_spec
            largest[pair.entry] = max(largest.get(pair.entry, new), new)
    if not largest:
        return []
    lines = [
        f"{labels[entry]}: oblivious attacks overstate it by up to {points(share).lstrip('+')} points ({attack})"
        for entry, (share, attack) in largest.items()
        if share > 0
    ]
    return lines or ["oblivious attacks overstate no robust accuracy"]


def failure_lines(report: Report, labels: Mapping[Entry, str]) -> list[str]:
    """A line for each reason why cells or certificates of a model and defense failed."""
    failed: dict[tuple[str, str], dict[str, None]] = {}
    records: list[Counted] = [*report.cells, *report.certificates]
    for record in records:
        if isinstance(record, Cell | CertificateRecord) and record.status == "failed":
            label = labels.get(entry_of(record), record.defense_spec)
            failed.setdefault((label, record.error or ""), {})[name_of(record)] = None
    return [
        f"failed: {label} / {next(iter(names))}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {error}"
        for (label, error), names in failed.items()
    ]
