"""The headline as a LaTeX table, in the form papers use: a defense a row, a measure a column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

from pydantic import Field

from freqrobust.core.percent import interval, percent
from freqrobust.core.text import one_line
from freqrobust.numerics.statistics import Z95
from freqrobust.numerics.threat import Threat
from freqrobust.reports.comparing import Comparing
from freqrobust.reports.text import conditions, digits, title
from freqrobust.results.gate_view import gate_tables
from freqrobust.results.robustness_curve import budgets, robustness_curves
from freqrobust.results.robustness_tables import estimate_text, unit
from freqrobust.results.summary import (
    Entry,
    Measure,
    attacks,
    entry_labels,
    eps_text,
    headline,
    statements,
    warning_text,
)
from freqrobust.results.view import footnotes, ranges

if TYPE_CHECKING:
    from freqrobust.results.certificates import Counted
    from freqrobust.results.records import ThreatRecord
    from freqrobust.results.report import Report

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "#": r"\#",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "[": r"{[}",
    "]": r"{]}",
    "*": r"{*}",
}
#: Longest text that is set; TeX cannot measure boxes of more than about 5 m.
_LONGEST = 300
#: A table that is wider than the line is scaled down to it; others keep their size.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}


def escape(text: object) -> str:
    """Text that LaTeX sets as it is, without ligatures; what is not ASCII becomes its code point.

    Example:
        >>> escape("a_b & 50%")
        'a\\\\_b \\\\& 50\\\\%'
    """
    line = one_line(text)
    line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
    shown = "".join(_SPECIAL.get(c, c if c.isascii() else f"{{[}}U+{ord(c):04X}{{]}}") for c in line)
    return re.sub(r"([-,])(?=\1)", r"\1{}", shown)  # dashes and quotes that several characters become


class LaTeX(Comparing):
    """The headline for a paper: defenses as rows; clean, LFC, attacks and worst cases as columns (booktabs)."""

    interval: bool = Field(False, description="show the 95 % interval below each number")
    bold: bool = Field(
        True, description="set the best of a column in bold, and all that do not differ from it significantly"
    )
    threats: Literal["largest", "all"] = Field("largest", description="show the largest eps of each norm, or all")
    caption: str | None = Field(None, description="caption of the table; default: what was measured")
    label: str = Field("tab:robustness", pattern=r"^[A-Za-z0-9:.-]+$", description="label of the table")
    document: bool = Field(False, description="a complete document instead of a table to include")

    def render(self, report: Report, target: IO[str]) -> None:
        names = entry_labels(report)
        columns = _columns(report, self.threats)
        lines = self._rows(names, columns, digits(report))
        heads = [escape("Model and defense" if len(report.models) > 1 else "Defense"), *map(_head, columns)]
        caption = self.caption or f"Accuracy in percent of {title(report)}, {conditions(report)}."
        notes = [statement.text for statement in statements(report)] + [str(note) for note in footnotes(report)]
        notes += [f"over all cells: {text}" for text in ranges(report)]
        notes += [f"warning: {warning_text(report, warning)}" for warning in report.warnings]
        notes += [note for table in gate_tables(report.gate) for note in table.notes]
        tables = [_Tabular(heads, lines, caption, self.label), *self._robustness(report), *self._gate(report)]
        self._write(tables, notes, target)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        board = self.board(reports)
        found = {m.label: m for report in reports.values() for m in headline(report)}
        columns = _shown([found[label] for label in board.labels], self.threats, keep=board.by)
        lines = []
        for standing in board.standings:
            decimals = digits(reports[standing.report])
            numbers = [standing.measures.get(column.label) for column in columns]
            cells = [self._number(one, decimals, best=False) for one in numbers]
            lines.append([escape(standing.rank_text).replace("-", "--"), escape(standing.name), *cells])
        heads = ["Rank", "Model and defense", *map(_head, columns)]
        caption = self.caption or f"Accuracy in percent, ranked by {board.by}. Ranks are all that the samples allow."
        self._write([_Tabular(heads, lines, caption, self.label)], [*board.notes, *board.remarks], target)

    def _rows(self, names: Mapping[Entry, str], columns: Sequence[Measure], decimals: int) -> list[list[str]]:
        best = [_best(column) if self.bold else set[Entry]() for column in columns]
        return [
            [
                escape(name),
                *(self._number(c.found.get(entry), decimals, entry in b) for c, b in zip(columns, best, strict=True)),
            ]
            for entry, name in names.items()
        ]

    def _number(self, one: Counted | None, decimals: int, best: bool) -> str:
        if one is None:
            return "--"
        if one.accuracy is None or one.ci95 is None:
            return "failed"
        text = percent(one.accuracy)
        text = rf"\textbf{{{text}}}" if best else text
        return self._with_interval(text, interval(one.ci95, decimals))

    def _with_interval(self, text: str, ends: str) -> str:
        return f"{text} {{\\scriptsize {{{ends}}}}}" if self.interval else text

    def _write(self, tables: Sequence[_Tabular], notes: Sequence[str], target: IO[str]) -> None:
        lines = [
            "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
            *(f"% {escape(note)}" for note in notes),
            *(line for table in tables for line in table.lines()),
        ]
        if self.document:
            packages = ["\\usepackage[T1]{fontenc}", "\\usepackage{textcomp}"]
            packages += ["\\usepackage{booktabs}", "\\usepackage{graphicx}"]
            lines = ["\\documentclass{article}", *packages, "\\begin{document}", *lines, "\\end{document}"]
        target.write("\n".join(lines) + "\n")

    def _robustness(self, report: Report) -> Iterator[_Tabular]:
        """A table for the robustness curves of each norm: accuracies by eps, median distance, half-accuracy eps."""
        names, decimals = entry_labels(report), digits(report)
        for norm, measured in robustness_curves(report).items():
            eps = budgets(norm, measured)
            heads = [escape("Model and defense" if len(report.models) > 1 else "Defense")]
            heads += [f"{{{_NORMS[norm]} {escape(Threat(norm, one).eps_text)}}}" for one in eps]
            heads += ["{Median distance}", "{Half-accuracy eps}"]
            rows = []
            for one in measured:
                rates = [one.curve.at(budget) for budget in eps]
                cells = [self._with_interval(percent(r.accuracy), interval(r.ci95, decimals)) for r in rates]
                for estimate in (one.curve.median(), one.curve.half_accuracy_eps()):
                    value, _, ends = estimate_text(norm, estimate).partition(" ")
                    cells.append(self._with_interval(value, ends) if ends else "--")
                rows.append([escape(names[one.entry]), *cells])
            caption = f"Robustness curves: robust accuracy in percent by eps, and distances ({unit(norm)})"
            found_by = ", ".join(dict.fromkeys(attack for one in measured for attack in one.attacks))
            yield _Tabular(heads, rows, f"{caption}. Upper bounds, found by {found_by}.", f"{self.label}-{norm}-curve")

    def _gate(self, report: Report) -> Iterator[_Tabular]:
        """A table for each of the gate's."""
        for number, table in enumerate(gate_tables(report.gate), 1):
            heads = ["Cell", "Result", *(f"{{{escape(_capitalized(head))}}}" for head in table.columns.values())]
            rows = [[row.record.name, *(text for _, text in row.texts(table.columns))] for row in table.rows]
            escaped = [[escape(text) for text in row] for row in rows]
            yield _Tabular(heads, escaped, f"{table.title}.", f"{self.label}-gate-{number}")


@dataclass(frozen=True)
class _Tabular:
    """A table; its headings, in braces where numbers are below, and its rows are LaTeX already."""

    heads: list[str]
    rows: list[list[str]]
    caption: str
    label: str

    def lines(self) -> list[str]:
        left = sum(not head.startswith("{") for head in self.heads)
        return [
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{escape(self.caption)}}}",
            f"  \\label{{{self.label}}}",
            f"  {_FITTED}",
            f"  \\begin{{tabular}}{{{'l' * left}{'r' * (len(self.heads) - left)}}}",
            "    \\toprule",
            f"    {' & '.join(self.heads)} \\\\",
            "    \\midrule",
            *(f"    {' & '.join(row)} \\\\" for row in self.rows),
            "    \\bottomrule",
            "  \\end{tabular}}",
            "\\end{table}",
        ]


def _columns(report: Report, threats: str) -> list[Measure]:
    """Clean, LFC, then threat by threat the attacks of that budget, their worst case and what is certified."""
    measures = headline(report)
    columns = [m for m in measures if m.threat is None and m.certificate is None]
    for measure in _shown([m for m in measures if m.threat is not None], threats):
        if measure.certificate is None:
            columns += [_named(m, measure.threat) for m in attacks(report) if _has(m, measure.threat)]
        columns.append(measure)
    return columns + [m for m in measures if m.threat is None and m.certificate is not None]


def _shown(measures: Sequence[Measure], threats: str, keep: str | None = None) -> list[Measure]:
    """Without the smaller eps of each norm, unless all are asked for."""
    largest: dict[str, float] = {}
    for one in measures:
        if one.threat is not None:
            largest[one.threat.norm] = max(one.threat.eps, largest.get(one.threat.norm, 0.0))
    return [
        m
        for m in measures
        if threats == "all" or m.threat is None or m.threat.eps == largest[m.threat.norm] or m.label == keep
    ]


def _has(measure: Measure, threat: ThreatRecord | None) -> bool:
    return any(one.threat == threat for one in measure.found.values())


def _named(measure: Measure, threat: ThreatRecord | None) -> Measure:
    """A column of one attack, headed by its name and its budget."""
    one = next(iter(measure.found.values()))
    return Measure(getattr(one, "attack", measure.label).upper(), measure.found, threat)


def _capitalized(label: str) -> str:
    """With a capital letter, unless it is a symbol such as ``p``."""
    return label[:1].upper() + label[1:] if len(label) > 1 else label


def _head(column: Measure) -> str:
    """In braces, so that a head that begins with a bracket is not taken for an option."""
    label, threat = column.label, column.threat
    if threat is None:
        return f"{{{escape(_capitalized(label))}}}"
    name = "Worst" if label.startswith("worst case") else label
    name = f"Certified ({column.certificate})" if column.certificate is not None else name
    return f"{{{escape(name)}, {_NORMS.get(threat.norm, escape(threat.norm))} {escape(eps_text(threat))}}}"


def _best(column: Measure) -> set[Entry]:
    """The entries with the highest accuracy of a column, and those that do not differ from it significantly.

    None where that is all of them.
    """
    from freqrobust.results.leaderboard import compare

    known = {entry: one for entry, one in column.found.items() if one.accuracy is not None}
    if len(known) < 2:
        return set()
    top = max(known.values(), key=lambda one: one.accuracy or 0.0)
    best = {entry for entry, one in known.items() if one is top or compare(top, one, Z95)[0] <= 0}
    return best if len(best) < len(known) else set()
