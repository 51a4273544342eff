"""The report as tables for a terminal: the headline, then every cell, defenses side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.core.percent import points
from freqrobust.core.text import one_line
from freqrobust.reports import _short as short
from freqrobust.reports._corruption_grid import corruption_grid, corruption_headline
from freqrobust.reports._grid import Grid, GridEntry, breakable, new_table, print_grid, say
from freqrobust.reports.comparing import Comparing
from freqrobust.reports.text import (
    AGAINST,
    CERTIFIED,
    OBLIVIOUS,
    OVERSTATED,
    accuracy,
    conditions,
    describe_normalization,
    describe_published,
    difference,
    digits,
)
from freqrobust.results.cells import Cell
from freqrobust.results.gate_view import GateTable, gate_tables, gate_verdict
from freqrobust.results.robustness_curve import budgets, robustness_curves
from freqrobust.results.robustness_tables import UPPER_BOUND, summary_columns, summary_row, unit
from freqrobust.results.summary import (
    Measure,
    at_chance,
    attacks,
    entry_labels,
    entry_of,
    headline,
    level,
    model_labels,
    oblivious_attacks,
    verdict_text,
    warning_lines,
    warning_text,
)
from freqrobust.results.view import details, footnotes, name_of, ranges

if TYPE_CHECKING:
    from rich.console import Console

    from freqrobust.results.certificates import Counted
    from freqrobust.results.corruptions import CorruptionSummary
    from freqrobust.results.diagnosis import Check, Diagnosis
    from freqrobust.results.records import ModelRecord
    from freqrobust.results.report import Report

#: How the verdicts of each level are shown.
#: Columns of the changes from a baseline that a narrow terminal does not show, in the order in which they are left out.
_LEFT_OUT = ("p", "newly_correct", "newly_misclassified", "minimum_detectable_drop", "p_corrected")
_STYLES = {"good": "green", "neutral": "bold", "inconclusive": "yellow", "bad": "red"}
#: Width of what goes to a file or a pipe.
PIPED_WIDTH = 160


class Table(Comparing):
    """Accuracy in percent with its 95 % interval, and the paired difference from the undefended model."""

    show: Literal["all", "gate"] = Field("all", description="show the whole report, or only what the gate judged")
    width: int | None = Field(None, ge=40, description="columns; default: the terminal's, or 160 when piped")
    full: bool = Field(False, description="show all tables and notes, not only the headline and the verdicts")
    details: bool = Field(False, description="show every value of every cell: passes, seconds, batch size, ...")
    header: bool = Field(True, description="begin with what was evaluated")

    def render(self, report: Report, target: IO[str]) -> None:
        printer = _Printer(report, self._console(target), not target.isatty(), self.details)
        if self.show == "all" and (self.full or self.details):
            printer.print()
        elif self.show == "all":
            printer.print_short(self.header)
        printer.print_gate(everything=self.full or self.details)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        from rich.text import Text

        board, console = self.board(reports), self._console(target)
        say(console, f"Leaderboard: {board.by}, accuracy in percent, 95 % interval", style="bold")
        names = [s.name + (f" ({s.verdict})" if s.verdict else "") for s in board.standings]
        label = min(max(len(breakable(one_line(name))) for name in names), max(18, console.width // 3))
        room = console.width - label - 10
        fitting = max(1, room // 18)
        for start in range(0, len(board.labels), fitting):
            table = new_table(plain=not target.isatty())
            table.add_column("rank", justify="right", no_wrap=True)
            table.add_column("", overflow="fold", max_width=label)
            labels = board.labels[start : start + fitting]
            for column in labels:
                table.add_column(Text(one_line(column)), justify="right", min_width=14, overflow="fold")
            for standing, name in zip(board.standings, names, strict=True):
                texts = [standing.rank_text, name]
                for column in labels:
                    one = standing.measures.get(column)
                    texts.append(accuracy(one, digits(reports[standing.report])) if one is not None else "-")
                table.add_row(*(Text(breakable(one_line(text))) for text in texts))
            console.print(table)
            console.print()
        for note in board.notes:
            say(console, note)
        if board.remarks:
            console.print()
        for remark in board.remarks:
            say(console, remark)

    def _console(self, target: IO[str]) -> Console:
        import os

        from rich.console import Console

        terminal = target.isatty()
        width = self.width
        if width is None and not terminal:
            columns = os.environ.get("COLUMNS", "")
            width = int(columns) if columns.isdigit() and int(columns) >= 40 else PIPED_WIDTH
        return Console(file=target, width=width, highlight=False, emoji=False, markup=False)


class _Printer:
    def __init__(self, report: Report, console: Console, plain: bool, details: bool) -> None:
        self.report = report
        self.details = details
        self.console = console
        self.plain = plain
        self.digits = digits(report)
        self.labels = {entry: one_line(label) for entry, label in entry_labels(report).items()}
        self.notes: dict[str, None] = {}
        self.folded = [summary for summary in report.corruptions if sum(len(r.accuracies) for r in summary.rows) > 1]

    def print(self) -> None:
        report = self.report
        if len(report.models) == 1:
            model = report.models[0]
            say(self.console, f"{model.arch} ({model.spec}) on {conditions(report)}", style="bold")
            self._describe(model)
        else:
            say(self.console, f"{len(report.models)} models on {conditions(report)}", style="bold")
            for label, model in zip(model_labels(report), report.models, strict=True):
                say(self.console, f"{label}: {model.arch} ({model.spec})")
                self._describe(model, "  ")
        self.console.print()
        self._print(self._headline("Headline: accuracy in percent, 95 % interval", headline(report)))
        every = self._cells()
        if every:
            self._print(self._grid("Every cell: accuracy in percent, 95 % interval", every))
        self._robustness()
        for summary in self.folded:
            whose = f"defense {summary.defense_spec}" if len(report.models) == 1 else self._label(summary)
            self._print(corruption_grid(summary, whose))
        oblivious = self._oblivious()
        if oblivious.entries:
            self._print(oblivious)
        self._verdicts()
        if self.details:
            self._details()
        certified = [CERTIFIED] if report.certificates else []
        notes = [*self.notes, *certified, *map(str, footnotes(report))]
        if ranges(report):
            notes.append(f"Other values, from the smallest to the largest cell: {'; '.join(ranges(report))}")
        for note in notes:
            say(self.console, note)
        for warning in report.warnings:
            say(self.console, f"warning: {warning_text(report, warning)}", style="yellow")
        if notes or report.warnings:
            self.console.print()

    def print_short(self, header: bool) -> None:
        """One table, and a line for each verdict and warning."""
        report, width = self.report, self.console.width
        if header:
            for line in short.header(report):
                say(self.console, line, style="bold" if line.startswith(report.models[0].arch) else None)
        self.console.print()
        measures = headline(report)
        others = short.unrepresented(report, measures, [m for m in attacks(report) if self._all_folded(m)])
        grid = self._headline(
            "Accuracy in percent, 95 % interval", [*measures, *(others if len(others) <= short.FEW else [])]
        )
        grid, left_out = short.fitted_grid(grid, width)
        print_grid(self.console, grid, self.plain)
        self._robustness()
        self._short_verdicts()
        notes = [note for note in self.notes if note != UPPER_BOUND and not note.startswith("failed: ")]
        failures = short.failure_lines(report, self.labels)
        if report.certificates:
            notes.append(CERTIFIED.partition(". ")[0])
        if left_out:
            notes.append(f"{left_out}: with --full")
        if len(others) > short.FEW:
            names = ", ".join(dict.fromkeys(one_line(m.label).partition(":")[0] for m in others))
            notes.append(f"{len(others)} other attacks ({names}): with --full")
        for line in failures[: short.MOST_FAILURES]:
            say(self.console, line, style="red")
        if len(failures) > short.MOST_FAILURES:
            say(self.console, f"failed: {len(failures) - short.MOST_FAILURES} others, with --full", style="red")
        for note in notes:
            say(self.console, short.fitting(note, width))
        warnings = warning_lines(report)
        for line in warnings:
            say(self.console, short.fitting(line, width), style="yellow")
        if notes or failures or warnings:
            self.console.print()

    def _short_verdicts(self) -> None:
        from rich.text import Text

        lines, width = short.verdicts(self.report), self.console.width
        if not lines:
            return
        names = short.without_parameters(self.labels.values())
        self.console.print("Verdicts on the robust accuracies", style="bold")
        for line in lines:
            for about in map(one_line, (line.about, names.get(line.about, line.about))):
                rest = short.fitting(line.verdict + line.rest, width - len(about) - 2).removeprefix(line.verdict)
                if not rest.endswith(" ..."):
                    break
            self.console.print(Text(f"{about}: ").append(line.verdict, style=_STYLES[line.level]).append(rest))
        narrow = {entry: names[label] for entry, label in self.labels.items()}
        forms = (short.oblivious_lines(self.report, labels) for labels in (self.labels, narrow))
        for text, shorter in zip(*forms, strict=True):
            line_text = short.fitting(text, width)
            say(self.console, short.fitting(shorter, width) if line_text.endswith(" ...") else line_text)
        self.console.print()

    def print_gate(self, everything: bool) -> None:
        """The tables of the gate, a cell a row, and whether it passed.

        On a terminal where a table would be cut into several, it has the columns that the decision is read from, unless
        ``everything`` is wanted.
        """
        gate = self.report.gate
        if gate is None or not gate.rows:
            return
        for table in gate_tables(gate):
            columns, left_out = dict(table.columns), []
            for key in () if everything or self.plain else _LEFT_OUT:
                if key in columns and len(_gate_grid(table, columns).chunks(self.console.width)) > 1:
                    left_out.append(columns.pop(key))
            print_grid(self.console, _gate_grid(table, columns), self.plain)
            for note in table.notes:
                if not any(head.startswith(f"{note.partition(':')[0]} (") for head in left_out):  # explains that column
                    say(self.console, note)
            if left_out:
                say(self.console, f"columns that do not fit: {', '.join(left_out)} (--report out.html shows them)")
            self.console.print()
        say(self.console, gate_verdict(gate), style="bold green" if gate.passed else "bold red")

    def _print(self, grid: Grid) -> None:
        """Defenses side by side, or one below the other where that takes fewer tables."""
        width = self.console.width
        print_grid(self.console, min(grid, grid.transposed(), key=lambda g: len(g.chunks(width))), self.plain)

    def _robustness(self) -> None:
        """A line for each robustness curve."""
        for norm, measured in robustness_curves(self.report).items():
            up_to = budgets(norm, measured)[-1]
            heads = summary_columns(norm, up_to)[1:]  # the headline has the clean accuracy
            rows = [(self.labels[one.entry], summary_row(one.curve, up_to)[1:]) for one in measured]
            entries = {
                (name, head): GridEntry({"": text})
                for name, texts in rows
                for head, text in zip(heads, texts, strict=True)
            }
            title = f"Robustness curves: distances ({unit(norm)}) with 95 % intervals"
            print_grid(self.console, Grid(title, [name for name, _ in rows], heads, entries), self.plain)
            self.notes[UPPER_BOUND] = None

    def _headline(self, title: str, measures: Sequence[Measure]) -> Grid:
        grid = self._grid(title, measures)
        for summary in self.folded:
            for row, entry in corruption_headline(summary, self.report).items():
                if row not in grid.rows:
                    grid.rows.append(row)
                grid.entries[row, self._label(summary)] = entry
        return grid

    def _cells(self) -> list[Measure]:
        """Every attack but those that a table by corruption and severity shows."""
        found = [m for m in attacks(self.report) if not self._all_folded(m)]
        return [] if self.folded and [m.label for m in found] == ["clean"] else found  # the headline has it

    def _all_folded(self, measure: Measure) -> bool:
        """Whether the table by corruption and severity shows it."""
        return all(self._is_folded(cell) for cell in measure.found.values())

    def _is_folded(self, cell: Counted) -> bool:
        if not isinstance(cell, Cell) or cell.attack != "corruption" or cell.accuracy is None:
            return False
        name, severity = cell.attack_params["name"], str(cell.attack_params["severity"])
        return any(severity in row.accuracies for s in self.folded for row in s.rows if row.name == name)

    def _label(self, one: CorruptionSummary | Diagnosis) -> str:
        return self.labels[entry_of(one)]

    def _describe(self, model: ModelRecord, indent: str = "") -> None:
        say(self.console, f"normalisation: {describe_normalization(model)}", indent=indent)
        if model.published is not None:
            say(self.console, f"published: {describe_published(model.published)}", indent=indent)

    def _grid(self, title: str, measures: Sequence[Measure]) -> Grid:
        entries = {
            (one_line(measure.label), self.labels[entry]): self._entry(one)
            for measure in measures
            for entry, one in measure.found.items()
        }
        return Grid(title, [one_line(measure.label) for measure in measures], list(self.labels.values()), entries)

    def _entry(self, one: Counted) -> GridEntry:
        name = self.labels[entry_of(one)]
        if one.accuracy is None:
            self.notes[f"failed: {name} / {name_of(one)}: {getattr(one, 'error', '')}"] = None
            return GridEntry({"": "failed"}, failed=True)
        mark = ""
        if at_chance(one):
            mark = "~"
            self.notes["~ no better than chance (the accuracy if predictions and labels were independent)"] = None
        parts = {"": accuracy(one, self.digits, mark)}
        if one.difference is not None:
            parts[AGAINST] = difference(one.difference, self.digits)
        return GridEntry(parts)

    def _oblivious(self) -> Grid:
        """Accuracy under adaptive and oblivious attacks side by side."""
        entries: dict[tuple[str, str], GridEntry] = {}
        for pair in oblivious_attacks(self.report):
            adaptive, oblivious = self._entry(pair.adaptive), self._entry(pair.oblivious)
            parts = {"": adaptive.parts[""], "oblivious": oblivious.parts[""]}
            if pair.overstated_by is not None:
                parts[OVERSTATED] = points(pair.overstated_by)
            key = (one_line(pair.adaptive.attack_spec), self.labels[pair.entry])
            entries[key] = GridEntry(parts, adaptive.failed or oblivious.failed)
        rows, columns = (list(dict.fromkeys(key[i] for key in entries)) for i in (0, 1))
        return Grid(OBLIVIOUS, rows, columns, entries)

    def _details(self) -> None:
        table = details(self.report)
        if table is None:
            return
        names = [one_line(f"{attack} ({label})") for label, attack, *_ in table.rows]
        entries = {
            (name, head): GridEntry({"": text})
            for name, row in zip(names, table.rows, strict=True)
            for head, text in zip(table.columns[2:], row[2:], strict=True)
        }
        self._print(Grid(table.title, names, table.columns[2:], entries))

    def _verdicts(self) -> None:
        """A sentence for each defense, and the result of each check where other attacks were run."""
        from rich.text import Text

        if not self.report.diagnostics:
            return
        checked = [d for d in self.report.diagnostics if d.depth == "full" and d.checks]
        if checked:
            rows = list(dict.fromkeys(check.name for d in checked for check in d.checks))
            names = [self._label(d) for d in checked]
            entries = {
                (c.name, name): _check_entry(c) for d, name in zip(checked, names, strict=True) for c in d.checks
            }
            self._print(Grid("Diagnostic checks: measured (at most)", rows, names, entries))
        self.console.print("Verdicts on the robust accuracies", style="bold")
        for diagnosis in self.report.diagnostics:
            label, verdict = self._label(diagnosis), diagnosis.verdict
            text = one_line(verdict_text(self.report, diagnosis)).removeprefix(f"{label}: ").removeprefix(verdict)
            self.console.print(Text(f"{label}: ").append(verdict, style=_STYLES[level(diagnosis)]).append(text))
        self.console.print()


def _gate_grid(table: GateTable, columns: dict[str, str]) -> Grid:
    """A table of the gate, with the result and these columns."""
    entries = {
        (row.record.name, head): GridEntry({"": text}, failed=row.record.passed is False)
        for row in table.rows
        for head, text in row.texts(columns)
    }
    names = [row.record.name for row in table.rows]
    return Grid(table.title, names, ["result", *columns.values()], entries, narrow=True)


def _check_entry(check: Check) -> GridEntry:
    """``passed 1 (3)``: measured, and the most that still passes."""
    if check.measured is None or check.threshold is None:
        return GridEntry({"": {"not applicable": "n/a", "information": "noted"}.get(check.status, check.status)})
    numbers = [f"{100 * v:.0f} %" if check.unit == "share" else f"{v:g}" for v in (check.measured, check.threshold)]
    return GridEntry({"": f"{check.status} {numbers[0]} ({numbers[1]})"}, failed=check.status == "failed")
