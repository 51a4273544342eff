"""The report as tables for a terminal: the headline, then every cell, defenses side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from pydantic import Field

from freqrobust.plugin import Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from freqrobust.results import Cell, CorruptionSummary, PublishedRecord, Report, ThreatRecord, WorstCase

#: Width of what goes to a file or a pipe.
PIPED_WIDTH = 160


@dataclass(frozen=True)
class _Entry:
    """What a table says about one cell: parts, each with a column of its own. The first one has no head."""

    parts: dict[str, str]
    failed: bool = False


@dataclass(frozen=True)
class _Grid:
    """Numbers by row and column; a missing one is shown as a dash."""

    title: str
    rows: list[str]
    columns: list[str]
    entries: dict[tuple[str, str], _Entry]

    def transposed(self) -> _Grid:
        return _Grid(self.title, self.columns, self.rows, {(b, a): entry for (a, b), entry in self.entries.items()})

    def widths(self, column: str) -> dict[str, int]:
        """Width of each part that the entries of a column have."""
        found: dict[str, int] = {}
        for (_, c), entry in self.entries.items():
            if c == column:
                for part, text in entry.parts.items():
                    found[part] = max(found.get(part, 0), len(text), len(part))
        return found or {"": 6}

    def label_width(self, width: int) -> int:
        return min(max(len(breakable(row)) for row in self.rows), max(18, width // 3))

    def chunks(self, width: int) -> list[list[str]]:
        """The columns, cut into tables that fit the width."""
        chunks: list[list[str]] = [[]]
        used = start = self.label_width(width) + 2
        for column in self.columns:
            needed = sum(w + 3 for w in self.widths(column).values())
            if chunks[-1] and used + needed > width:
                chunks.append([])
                used = start
            chunks[-1].append(column)
            used += needed
        return chunks


class Table(Reporter):
    """Accuracy in percent with its 95 % interval, and the paired difference from the undefended model."""

    width: int | None = Field(None, ge=40, description="columns; default: the terminal's, or 160 when piped")

    def render(self, report: Report, target: IO[str]) -> None:
        import os

        from rich.console import Console

        terminal = target.isatty()
        width = self.width
        if width is None and not terminal:
            columns = os.environ.get("COLUMNS", "")
            width = int(columns) if columns.isdigit() and int(columns) >= 40 else PIPED_WIDTH
        console = Console(file=target, width=width, highlight=False, emoji=False, markup=False)
        _Printer(report, console, plain=not terminal).print()


class _Printer:
    def __init__(self, report: Report, console: Console, plain: bool) -> None:
        self.report = report
        self.console = console
        self.plain = plain
        self.digits = 1 if report.data.n >= 2000 else 0
        self.defenses = list(dict.fromkeys(cell.defense_spec for cell in report.cells))
        self.notes: dict[str, None] = {}
        self.folded = [summary for summary in report.corruptions if sum(len(r.accuracies) for r in summary.rows) > 1]

    def print(self) -> None:
        report = self.report
        model, data = report.models[0], report.data
        self.console.print(
            f"{model.arch} ({model.spec}) on {data.spec} [{data.split}], n = {data.n}, seed {report.seed}, "
            f"{report.environment.device}, {report.environment.precision}",
            style="bold",
        )
        self.console.print(f"normalisation: {describe_normalization(report)}")
        if model.published is not None:
            self.console.print(f"published: {describe_published(model.published)}")
        self.console.print()
        self._show(self._headline())
        every = self._cells()
        if every.rows:
            self._show(every)
        for summary in self.folded:
            self._show(self._corruptions(summary))
        unaware = self._unaware()
        if unaware is not None:
            self._show(unaware)
        for note in self.notes:
            self.console.print(note)
        for warning in report.warnings:
            where = f"{warning.defense}: " if warning.defense else ""
            self.console.print(f"warning: {where}{warning.message} ({warning.code})", style="yellow")

    def _headline(self) -> _Grid:
        found: dict[str, Sequence[Cell | WorstCase]] = {"clean": [c for c in self.report.cells if c.attack == "clean"]}
        radius = headline_radius(self.report)
        low = [c for c in self.report.cells if _is_lfc(c, radius)]
        if low:
            found[f"LFC, radius {radius:g}"] = low
        for threat in threats(self.report):
            found[f"worst case {threat_text(threat)}"] = [w for w in self.report.worst_case if w.threat == threat]
        grid = self._grid("Headline: accuracy in percent, 95 % interval", found)
        for summary in self.folded:
            for row, text in corruption_headline(summary, self.report).items():
                if row not in grid.rows:
                    grid.rows.append(row)
                grid.entries[row, summary.defense_spec] = text
        return grid

    def _cells(self) -> _Grid:
        found: dict[str, list[Cell | WorstCase]] = {}
        for cell in self.report.cells:
            if cell.knowledge == "adaptive" and not self._is_folded(cell):
                found.setdefault(cell.attack_spec, []).append(cell)
        if self.folded and list(found) == ["clean"]:
            found = {}  # the headline has it
        return self._grid("Every cell: accuracy in percent, 95 % interval", found)

    def _is_folded(self, cell: Cell) -> bool:
        """Whether a table by corruption and severity shows the cell."""
        if cell.attack != "corruption" or cell.accuracy is None:
            return False
        name, severity = cell.attack_params["name"], str(cell.attack_params["severity"])
        return any(severity in row.accuracies for s in self.folded for row in s.rows if row.name == name)

    def _corruptions(self, summary: CorruptionSummary) -> _Grid:
        """One row a corruption, one column a severity."""
        columns = [*sorted({s for row in summary.rows for s in row.accuracies}), "mean"]
        columns += ["CE"] if summary.reference is not None else []
        entries: dict[tuple[str, str], _Entry] = {}
        for row in summary.rows:
            values = {**row.accuracies, "mean": row.accuracy, "CE": row.ce}
            entries |= {(row.name, column): _plain(values.get(column)) for column in columns}
        for column in columns[: columns.index("mean")]:
            known = [row.accuracies[column] for row in summary.rows if column in row.accuracies]
            if len(known) == len(summary.rows):
                entries["mean", column] = _plain(sum(known) / len(known))
        entries["mean", "mean"], entries["mean", "CE"] = _plain(summary.mean_accuracy), _plain(summary.mce)
        title = f"Corruptions ({made_by(summary)}), defense {summary.defense_spec}: accuracy in percent by severity"
        return _Grid(title, [*(row.name for row in summary.rows), "mean"], columns, entries)

    def _grid(self, title: str, found: Mapping[str, Sequence[Cell | WorstCase]]) -> _Grid:
        entries = {(row, one.defense_spec): self._entry(one) for row, several in found.items() for one in several}
        return _Grid(title, list(found), self.defenses, entries)

    def _entry(self, one: Cell | WorstCase) -> _Entry:
        if one.accuracy is None or one.ci95 is None:
            self.notes[
                f"failed: {one.defense_spec} / {getattr(one, 'attack_spec', '')}: {getattr(one, 'error', '')}"
            ] = None
            return _Entry({"": "failed"}, failed=True)
        for note in getattr(one, "notes", None) or []:
            self.notes[f"{one.defense_spec} / {getattr(one, 'attack_spec', '')}: {note}"] = None
        low, high = one.ci95
        mark = ""
        chance = getattr(one, "by_chance", None)
        if chance is not None and low <= chance:
            mark = "~"
            self.notes["~ no better than chance (what independent predictions and labels would give)"] = None
        value = f"{100 * one.accuracy:.1f}{mark} {self._interval(low, high)}"
        parts = {"": value}
        if one.difference is not None:
            low, high = one.difference.ci95
            parts["against none"] = f"{100 * one.difference.points:+.1f} {self._interval(low, high)}"
        return _Entry(parts)

    def _unaware(self) -> _Grid | None:
        """Adaptive and oblivious accuracy side by side; None when there are no oblivious cells."""
        adaptive = {(c.attack_spec, c.defense_spec): c for c in self.report.cells if c.knowledge == "adaptive"}
        entries: dict[tuple[str, str], _Entry] = {}
        for cell in self.report.cells:
            key = (cell.attack_spec, cell.defense_spec)
            if cell.knowledge != "oblivious" or key not in adaptive:
                continue
            aware, unaware = self._entry(adaptive[key]), self._entry(cell)
            parts = {"": aware.parts[""], "unaware": unaware.parts[""]}
            if cell.accuracy is not None and (accuracy := adaptive[key].accuracy) is not None:
                parts["gap"] = f"{100 * (cell.accuracy - accuracy):+.1f}"
            entries[key] = _Entry(parts, aware.failed or unaware.failed)
        if not entries:
            return None
        rows, columns = (list(dict.fromkeys(key[i] for key in entries)) for i in (0, 1))
        return _Grid("False security: examples made on the undefended model (unaware)", rows, columns, entries)

    def _interval(self, low: float, high: float) -> str:
        return f"[{100 * low:.{self.digits}f}, {100 * high:.{self.digits}f}]".replace("-0,", "0,").replace("-0]", "0]")

    def _show(self, grid: _Grid) -> None:
        """Defenses side by side, or one below the other where that takes fewer tables."""
        width = self.console.width
        grid = min(grid, grid.transposed(), key=lambda g: len(g.chunks(width)))
        for number, columns in enumerate(grid.chunks(width)):
            self.console.print(grid.title + (" (continued)" if number else ""), style="bold")
            self.console.print(self._table(grid, columns))
            self.console.print()

    def _table(self, grid: _Grid, columns: list[str]) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            box=box.ASCII2 if self.plain else box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
        )
        label = grid.label_width(self.console.width)
        table.add_column("", overflow="fold", min_width=min(label, 16), max_width=label)
        widths = {column: grid.widths(column) for column in columns}
        for column in columns:
            for part, width in widths[column].items():
                table.add_column(Text(part or breakable(column)), justify="right", min_width=width, overflow="fold")
        for row in grid.rows:
            texts = [Text(breakable(row))]
            for column in columns:
                entry = grid.entries.get((row, column), _Entry({"": "-"}))
                for part in widths[column]:
                    style = "red" if entry.failed else "dim" if part else ""
                    texts.append(Text(entry.parts.get(part, ""), style=style))
            table.add_row(*texts)
        return table


def _plain(share: float | None) -> _Entry:
    """A share in percent, without an interval."""
    return _Entry({"": f"{100 * share:.1f}" if share is not None else "-"})


def made_by(summary: CorruptionSummary) -> str:
    """Where the corrupted images come from: ``generated, cifar constants`` or ``files``."""
    if summary.source == "files":
        return "published files"
    return f"generated, {summary.constants} constants" + ("" if summary.eight_bit else ", not truncated to 8 bits")


def corruption_headline(summary: CorruptionSummary, report: Report) -> dict[str, _Entry]:
    """Mean accuracy over the corruptions, with the difference from the undefended model, and mCE."""
    cells = sum(len(row.accuracies) for row in summary.rows)
    what = f"{'extra ' if summary.part == 'extra' else ''}corruptions ({made_by(summary)}), mean of {cells}"
    mean = _plain(summary.mean_accuracy)
    none = [
        other
        for other in report.corruptions
        if other.defense_spec == "none" and (other.part, made_by(other)) == (summary.part, made_by(summary))
    ]
    if summary.defense_spec != "none" and none and None not in (summary.mean_accuracy, none[0].mean_accuracy):
        points = 100 * (float(summary.mean_accuracy or 0) - float(none[0].mean_accuracy or 0))
        mean = _Entry({**mean.parts, "against none": f"{points:+.1f}"})
    found = {what: mean}
    if summary.reference is not None and summary.mce is not None:
        found[f"mCE against {summary.reference}"] = _plain(summary.mce)
        found["relative mCE"] = _plain(summary.relative_mce)
    return found


def breakable(spec: str) -> str:
    """A spec that a table may break after its commas and colons, rather than inside a word."""
    return spec.replace(",", ", ").replace(":", ": ", 1) if len(spec) > 26 else spec


def threats(report: Report) -> list[ThreatRecord]:
    """The threats of the worst cases, in order, each once."""
    found: list[ThreatRecord] = []
    for row in report.worst_case:
        if row.threat not in found:
            found.append(row.threat)
    return found


def threat_text(threat: ThreatRecord) -> str:
    """``linf 8/255``."""
    in_255 = threat.eps * 255
    if threat.norm == "linf" and abs(in_255 * 2 - round(in_255 * 2)) < 1e-6:
        return f"{threat.norm} {in_255:g}/255"
    return f"{threat.norm} {threat.eps:g}"


def headline_radius(report: Report) -> float:
    """The radius of the headline's LFC, for this report's image size."""
    from freqrobust.suites import HEADLINE_RADIUS, scaled_radius

    return scaled_radius(HEADLINE_RADIUS, tuple(report.data.shape))


def _is_lfc(cell: Cell, radius: float) -> bool:
    params = cell.attack_params
    return (
        cell.attack == "lfc"
        and params.get("radius") == radius
        and params.get("shape") == "circle"
        and not params.get("clip")
    )


def describe_normalization(report: Report) -> str:
    """The normalisation and where it came from, in words."""
    record = report.models[0].normalize
    if record.source == "none" and not record.mean:
        return "inside the model given"
    numbers = f"mean {', '.join(f'{m:g}' for m in record.mean)}, std {', '.join(f'{s:g}' for s in record.std)}"
    preset = f"{record.preset} ({numbers})" if record.preset else numbers
    sources = {
        "given": "as given",
        "checkpoint": "from the checkpoint",
        "architecture": "what this architecture's published weights use",
        "trial": "the best of those tried",
        "none": "none needed",
    }
    scores = ", ".join(f"{name} {score:.1%}" for name, score in record.scores.items())
    return f"{preset}, {sources[record.source]}" + (f"; tried: {scores}" if scores else "")


def describe_published(published: PublishedRecord) -> str:
    """What the model's source reports for it, in words."""
    threat = " ".join(part for part in (published.threat_model, published.eps) if part)
    figures = {
        "clean": published.clean,
        f"AutoAttack ({threat})": published.autoattack,
        "corruptions": published.corruptions,
    }
    text = ", ".join(f"{name} {share:.2%}" for name, share in figures.items() if share is not None)
    return f"{text} ({published.source}, on its whole test set)"
