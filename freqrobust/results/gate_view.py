"""A gate as every report shows it: tables with named columns, their notes, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from freqrobust.core.percent import interval, percent, points
from freqrobust.results.gate_record import Comparison, GateRecord, RegressionRow, ThresholdRow


class Value(NamedTuple):
    """One value of a table: as text, and the number to sort by and to compute with, if it is one."""

    text: str
    number: float | None = None


class GateRow(NamedTuple):
    """One row of a table: the record that it shows, its result in words, and its values by the keys of the columns."""

    record: RegressionRow | ThresholdRow
    result: str
    values: dict[str, Value]

    def texts(self, columns: dict[str, str]) -> list[tuple[str, str]]:
        """Headings and texts of the row: its result, then the values of ``columns``."""
        return [("result", self.result), *((head, self.values[key].text) for key, head in columns.items())]


@dataclass(frozen=True)
class GateTable:
    """A table of a gate. Every row also has a name and a result, which are not among the columns.

    Attributes:
        columns: headings by key, in order. Accuracies are in percent, differences in percentage points.
        notes: sentences that explain the table or name what it leaves out.
    """

    title: str
    columns: dict[str, str]
    rows: list[GateRow]
    notes: list[str]


def gate_tables(gate: GateRecord | None) -> list[GateTable]:
    """The thresholds, then the changes from the baseline; without a gate, nothing."""
    tables = []
    if gate is not None and gate.thresholds:
        tables.append(_thresholds(gate.thresholds))
    if gate is not None and gate.comparison is not None:
        tables.append(_changes(gate.comparison))
    return tables


def gate_verdict(gate: GateRecord) -> str:
    """``gate failed: 1 of 4 checks failed``."""
    judged = [row for row in gate.rows if row.passed is not None]
    failed = len(failed_rows(gate))
    if failed:
        return f"gate failed: {failed} of {len(judged)} checks failed"
    return f"gate passed: {len(judged)} of {len(judged)} checks passed"


def failed_rows(gate: GateRecord) -> list[RegressionRow | ThresholdRow]:
    """The rows because of which a gate failed."""
    return [row for row in gate.rows if row.passed is False]


def regression_result(row: RegressionRow, alpha: float) -> str:
    """What the test of one change says, in a few words."""
    if row.p_adjusted is None:
        return "not judged"
    if row.p_adjusted > alpha:
        return "no significant change" if (row.measured or 0) > 0 else "no drop"
    return "regression" if row.passed is False else "allowed drop"


def _thresholds(rows: Sequence[ThresholdRow]) -> GateTable:
    columns = {"accuracy": "accuracy", "interval": "95 % interval", "required": "required"}
    early = [row.sequential for row in rows if row.sequential is not None]
    if early:
        columns["samples"] = "samples"
    shown = [
        GateRow(row, "passed" if row.passed else "failed", _threshold_values(row))
        for row in sorted(rows, key=lambda row: row.passed is not False)
    ]
    notes = [f"{row.name}: {row.text}" for row in rows if row.measured is None]
    if any(row.confident for row in rows):
        notes.append("low end: the low end of the 95 % interval has to reach the required accuracy")
    if early:
        notes.append(
            "measuring a cell stopped when its threshold was decided; a decision differs from that on all samples with "
            f"a probability of at most {early[0].false_pass:g} (passed) or {early[0].false_fail:g} (failed)"
        )
    return GateTable("Thresholds: accuracy in percent", columns, shown, notes)


def _threshold_values(row: ThresholdRow) -> dict[str, Value]:
    samples = f"{row.sequential.seen} of {row.sequential.of}" if row.sequential is not None else str(row.n)
    return {
        "accuracy": _percent(row.accuracy),
        "interval": Value(interval(row.ci95, 1) if row.ci95 is not None else "-"),
        "required": Value(f"{'low end ' if row.confident else ''}{_general(row.required)}", row.required),
        "samples": Value(samples, row.n),
    }


def _changes(comparison: Comparison) -> GateTable:
    columns = {
        "baseline": "baseline",
        "new": "new",
        "change": "change",
        "allowed_drop": "allowed drop",
        "newly_misclassified": "newly misclassified",
        "newly_correct": "newly correct",
        "p": "p",
        "p_corrected": "corrected p",
        "minimum_detectable_drop": f"minimum detectable drop ({100 * comparison.power:g} % power)",
    }
    rows = [GateRow(row, regression_result(row, comparison.alpha), _change_values(row)) for row in comparison.rows]
    notes = [*comparison.models, *_explained(comparison), *(f"note: {note}" for note in comparison.notes)]
    title = f"Changes from the baseline {comparison.baseline}: accuracy in percent, worst first"
    return GateTable(title, columns, rows, notes)


def _change_values(row: RegressionRow) -> dict[str, Value]:
    detectable = Value("-")
    if row.passed is not None and row.test == "mcnemar":
        possible = row.minimum_detectable_drop is not None and row.minimum_detectable_drop <= (row.baseline or 0)
        detectable = _percent(row.minimum_detectable_drop) if possible else Value("none")
    drop = row.measured
    return {
        "baseline": _percent(row.baseline),
        "new": _percent(row.new),
        "change": Value("-") if drop is None else Value(points(-drop), -drop),
        "allowed_drop": Value(_general(row.required), row.required),
        "newly_misclassified": Value(str(row.newly_misclassified), row.newly_misclassified),
        "newly_correct": Value(str(row.newly_correct), row.newly_correct),
        "p": Value(p_text(row.p_value), row.p_value),
        "p_corrected": Value(p_text(row.p_adjusted), row.p_adjusted),
        "minimum_detectable_drop": detectable,
    }


def _explained(comparison: Comparison) -> list[str]:
    """What the p-values and the minimum detectable drop mean."""
    judged = [row for row in comparison.rows if row.passed is not None]
    if not judged:
        return []
    level = f"{comparison.alpha:g}"
    lines = [
        f"p: one-sided paired test of no drop; corrected p: corrected by Holm's method over the {_cells(judged)}; "
        f"a regression has a corrected p of at most {level} and a drop that is larger than the allowed drop"
    ]
    if len(judged) < len(comparison.rows):
        lines.append("not judged: shown for information only")
    churns = [row.churn for row in judged if row.churn is not None]
    if churns:
        low, high = percent(min(churns)), percent(max(churns))
        share = low if low == high else f"{low} to {high}"
        lines.append(
            f"minimum detectable drop: the smallest drop that is significant at {level}/{len(judged)} with "
            f"{comparison.power:.0%} power, if {share} % of the samples become correct; none: it is larger than the "
            "baseline"
        )
    return lines


def _cells(rows: Sequence[object]) -> str:
    return f"{len(rows)} gate cell{'' if len(rows) == 1 else 's'}"


def p_text(value: float | None) -> str:
    """A p-value; very small ones as a power of ten.

    Example:
        >>> p_text(0.0312), p_text(0.00001)
        ('0.031', '1e-5')
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def _percent(share: float | None) -> Value:
    return Value("-") if share is None else Value(percent(share), share)


def _general(share: float | None) -> str:
    """A share that a user wrote, in percent with the digits that it has."""
    return "-" if share is None else f"{100 * share:g}"
