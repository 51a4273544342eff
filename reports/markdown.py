"""The report as Markdown for a pull request's comment: the headline first, the rest folded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from pydantic import Field

from freqrobust.core.text import one_line
from freqrobust.reports.comparing import Comparing
from freqrobust.reports.text import (
    CERTIFIED,
    accuracy,
    check_table,
    conditions,
    corruption_tables,
    difference,
    digits,
    oblivious_table,
    provenance,
    readings,
    robustness_tables,
    title,
)
from freqrobust.results.gate_view import gate_tables
from freqrobust.results.robustness_tables import UPPER_BOUND
from freqrobust.results.summary import (
    Measure,
    at_chance,
    attacks,
    diagnosed,
    entry_labels,
    headline,
    statements,
    verdict_label,
    warning_text,
)
from freqrobust.results.view import details, footnotes, name_of

if TYPE_CHECKING:
    from freqrobust.results.analysis import AnalysisTable
    from freqrobust.results.certificates import Counted
    from freqrobust.results.report import Report

#: Longest comment that GitHub takes, in characters.
COMMENT = 65_536
_PLAIN = re.compile(r"[A-Za-z0-9 .,:;=/()'\"+%-]*")
_MARKS = {"good": "**passed**", "neutral": "note", "inconclusive": "**inconclusive**", "bad": "**attention**"}


def escape(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no table cells, no HTML, nobody mentioned.

    What could mean something is written as its code point, which Markdown never takes for structure.

    Example:
        >>> escape("a|b <b> @all")
        'a&#124;b &#60;b&#62; &#64;&#8203;all'
    """
    line = re.sub(r"(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])", "\0", one_line(text))  # inside a word it means nothing
    return "".join("_" if c == "\0" else c if _PLAIN.fullmatch(c) or not c.isascii() else _entity(c) for c in line)


def _entity(character: str) -> str:
    code = f"&#{ord(character)};"
    return f"{code}&#8203;" if character == "@" else code  # a space of no width, or it notifies somebody


def code(text: object) -> str:
    """A spec or a name, set as code."""
    line = one_line(text)
    if line.strip() == line and line and re.fullmatch(r"[^`|\\]+", line):
        return f"`{line}`"
    return f"<code>{escape(line)}</code>"


@dataclass(frozen=True)
class _Section:
    """A folded part: its heading, and its blocks, which are left out from the last on where there is no room."""

    heading: str
    lines: list[str]

    def text(self, room: int) -> str | None:
        """The section in so many characters, with as many lines as fit; None where not even the first do."""
        start, end = f"<details>\n<summary>{self.heading}</summary>\n\n", "\n</details>\n"
        body = "\n".join(self.lines) + "\n"
        if len(start) + len(body) + len(end) <= room:
            return start + body + end
        cut = "\n(shortened: it would not fit into a comment)\n"
        kept, used = 0, len(start) + len(end) + len(cut)
        while kept < len(self.lines) and used + len(self.lines[kept]) + 1 <= room:
            used += len(self.lines[kept]) + 1
            kept += 1
        return start + "\n".join(self.lines[:kept]) + "\n" + cut + end if kept > 2 else None


class Markdown(Comparing):
    """Markdown for a comment on a pull request: verdict and headline first, everything else folded."""

    max_chars: int = Field(COMMENT, ge=1000, description="characters that it may take; details are cut to fit")

    def render(self, report: Report, target: IO[str]) -> None:
        lines = [f"### Robustness of {escape(title(report))}", ""]
        lines += [escape(conditions(report)), ""]
        lines += _verdicts(report)
        lines += _grid(report, headline(report), entries_down=True)
        worst = [f"- {escape(note)}" for note in footnotes(report) if note.worst_case]
        lines += ["", *worst] if worst else []
        self._write(lines, _sections(report), target)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        board = self.board(reports)
        lines = [f"### Robustness leaderboard: {escape(board.by)}", ""]
        lines += _row(["rank", "model and defense", *map(escape, board.labels)])
        lines += _rule(2, len(board.labels))
        for standing in board.standings:
            decimals = digits(reports[standing.report])
            numbers = [
                accuracy(standing.measures[label], decimals) if label in standing.measures else "-"
                for label in board.labels
            ]
            name = code(standing.name) + (f" ({escape(standing.verdict)})" if standing.verdict else "")
            lines += _row([standing.rank_text, name, *numbers])
        lines += ["", *(f"- {escape(note)}" for note in board.notes)]
        sections = [
            _Section(f"{escape(name)}: {section.heading}", section.lines)
            for name, report in reports.items()
            for section in _sections(report)
        ]
        self._write(lines, sections, target)

    def _write(self, lines: Sequence[str], sections: Sequence[_Section], target: IO[str]) -> None:
        text = "\n".join(lines) + "\n"
        left = f"\n{len(sections)} parts are left out: they would not fit into a comment\n"
        room = self.max_chars - len(left)
        if len(text) > room:
            text = text[: text.rfind("\n", 0, room)] + "\n"
        missing = 0
        for section in sections:
            part = section.text(room - len(text) - 1)
            if part is None:
                missing += 1
            else:
                text += "\n" + part
        if missing:
            text += f"\n{missing} parts are left out: they would not fit into a comment\n"
        target.write(text)


#: How a column is aligned.
_LEFT, _RIGHT = ["---"], ["---:"]


def _row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _rule(left: int, right: int) -> list[str]:
    return _row([*_LEFT * left, *_RIGHT * right])


def _verdicts(report: Report) -> list[str]:
    found = [f"- {_MARKS[one.level]}: {escape(one.text)}" for one in statements(report)]
    if report.warnings:
        count = len(report.warnings)
        found.append(f"- {count} warning{'s' if count > 1 else ''}, see below")
    return [*found, ""] if found else []


def _number(one: Counted | None, decimals: int) -> str:
    if one is None:
        return "-"
    text = accuracy(one, decimals, "&#126;" if at_chance(one) else "")
    return f"{text}<br>{difference(one.difference, decimals)}" if one.difference is not None else text


def _grid(report: Report, measures: Sequence[Measure], entries_down: bool) -> list[str]:
    """A table of all entries and measures, in percent."""
    names, decimals = entry_labels(report), digits(report)
    numbers = {(e, m.label): _number(m.found.get(e), decimals) for e in names for m in measures}
    if entries_down:
        lines = _row(["", *(escape(m.label) for m in measures)]) + _rule(1, len(measures))
        for entry, name in names.items():
            lines += _row([code(name), *(numbers[entry, m.label] for m in measures)])
    else:
        lines = _row(["", *map(code, names.values())]) + _rule(1, len(names))
        for measure in measures:
            lines += _row([code(measure.label), *(numbers[entry, measure.label] for entry in names)])
    shown = [one for measure in measures for one in measure.found.values()]
    note = "Accuracy in percent with its 95 % interval."
    if any(measure.threat is not None and measure.certificate is None for measure in measures):
        note += " A worst case is the robust accuracy: correct under every attack within the perturbation budget."
    if any(measure.certificate is not None for measure in measures):
        note += f" {CERTIFIED}"
    if any(one.difference is not None for one in shown):
        note += " Below it, the paired difference from the undefended model."
    if any(map(at_chance, shown)):
        note += " &#126; is no better than chance."
    return [*lines, "", note]


def _sections(report: Report) -> list[_Section]:
    sections = [*_gate(report)]
    if report.warnings:
        lines = [f"- {escape(warning_text(report, warning))}" for warning in report.warnings]
        sections.append(_Section(f"Warnings ({len(lines)})", lines))
    sections += _diagnostics(report)
    curves = list(robustness_tables(report))
    if curves:
        sections.append(_robustness(curves))
    for table in corruption_tables(report):
        sections.append(_Section(f"Corruptions, {escape(table.title)}", _plain(table)))
    sections += _analyses(report)
    cells = attacks(report)
    failed = [
        f"- {code(c.defense_spec)} / {code(c.attack_spec)} failed: {escape(c.error)}"
        for c in report.cells
        if c.status == "failed"
    ]
    failed += [
        f"- {code(c.defense_spec)} / {escape(name_of(c))} failed: {escape(c.error)}"
        for c in report.certificates
        if c.status == "failed"
    ]
    sections.append(_Section(f"Every cell ({len(cells)} attacks)", _grid(report, cells, entries_down=False) + failed))
    oblivious = oblivious_table(report)
    if oblivious is not None:
        sections.append(_Section(escape(oblivious.title), _plain(oblivious, specs=2)))
    notes = [f"- {escape(note)}" for note in footnotes(report)]
    if notes:
        sections.append(_Section(f"Notes on cells and worst cases ({len(notes)})", notes))
    table_of_details = details(report)
    if table_of_details is not None:
        sections.append(_Section(escape(table_of_details.title), _plain(table_of_details, specs=2)))
    rows = [line for key, value in provenance(report) for line in _row([key, escape(value)])]
    sections.append(_Section("Provenance", [*_row(["", ""]), *_rule(2, 0), *rows]))
    return sections


def _gate(report: Report) -> list[_Section]:
    sections = []
    for table in gate_tables(report.gate):
        lines = _row(["cell", "result", *map(escape, table.columns.values())]) + _rule(2, len(table.columns))
        for row in table.rows:
            result, *values = (text for _, text in row.texts(table.columns))
            mark = f"**{result}**" if row.record.passed is False else result
            lines += _row([code(row.record.name), mark, *map(escape, values)])
        lines += ["", *(f"- {escape(note)}" for note in table.notes)] if table.notes else []
        sections.append(_Section(escape(table.title), lines))
    return sections


def _diagnostics(report: Report) -> list[_Section]:
    found = []
    for diagnosis in report.diagnostics:
        table = check_table(diagnosis)
        lines = [escape(diagnosis.sentence), "", *_row(table.columns), *_rule(len(table.columns), 0)]
        for name, status, *rest in table.rows:
            lines += _row([escape(name), f"**{status}**" if status == "failed" else status, *map(escape, rest)])
        heading = f"Diagnostics of {escape(diagnosed(report, diagnosis))}: {verdict_label(diagnosis)}"
        found.append(_Section(heading, lines))
    return found


def _plain(table: AnalysisTable, specs: int = 0) -> list[str]:
    """A table as it is; the first ``specs`` columns are set as code."""
    left = max(1, specs)
    lines = _row([escape(column) for column in table.columns]) + _rule(left, len(table.columns) - left)
    for row in table.rows:
        lines += _row([*map(code, row[:specs]), *map(escape, row[specs:])])
    return lines


def _robustness(tables: Sequence[AnalysisTable]) -> _Section:
    lines = [UPPER_BOUND]
    for table in tables:
        lines += ["", f"**{escape(table.title)}**", "", *_plain(table, specs=1)]
    return _Section("Robustness curves", lines)


def _analyses(report: Report) -> list[_Section]:
    found = []
    for record in report.analyses:
        lines = [f"- {escape(line)}" for line in readings(record)]
        for table in record.tables:
            lines += ["", f"**{escape(table.title)}**", "", *_plain(table)]
        if record.picture is not None:
            lines += ["", "Its picture is in the HTML report."]
        found.append(_Section(f"Analysis: {escape(record.spec)}", lines))
    return found
