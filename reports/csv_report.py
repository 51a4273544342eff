"""The report as a table for other programs: one row a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING

from freqrobust.core.text import one_line
from freqrobust.results.cells import Cell
from freqrobust.results.gate_view import gate_tables
from freqrobust.results.record_rows import identity, rates, verdict
from freqrobust.results.reporter import Reporter
from freqrobust.results.robustness_curve import budgets, robustness_curves
from freqrobust.results.summary import entry_of, model_labels, warning_text
from freqrobust.results.view import facts

if TYPE_CHECKING:
    from freqrobust.results.certificates import Counted
    from freqrobust.results.report import Report

#: What a spreadsheet takes for the beginning of a formula, the full-width forms too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CSVReport(Reporter):
    """One row a cell, a worst case, a certificate and an eps of a robustness curve (RFC 4180); rates are shares."""

    def render(self, report: Report, target: IO[str]) -> None:
        self.render_many({"": report}, target)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        rows = [row for name, report in reports.items() for row in _rows(name, report)]
        header = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "report" or any(reports)]
        lines: list[list[object]] = [[*header], *([row.get(key) for key in header] for row in rows)]
        target.writelines(",".join(map(field, line)) + "\r\n" for line in lines)


def field(value: object) -> str:
    """A field: numbers bare, text in quotes, and with an apostrophe before what would be run as a formula.

    Text is always quoted, as some spreadsheets also split fields at semicolons.

    Example:
        >>> print(field(0.25), field(None), field("=1+1"))
        0.25  "'=1+1"
    """
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    text = one_line(value)
    if text.startswith(_FORMULA):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"'


def _rows(name: str, report: Report) -> Iterator[dict[str, object]]:
    """A dictionary for each cell, then for each worst case and certificate; what a row lacks is left out of it."""
    labels = model_labels(report)
    diagnoses = {entry_of(diagnosis): diagnosis for diagnosis in report.diagnostics}
    records: list[Counted] = [*report.cells, *report.worst_case, *report.certificates]
    for record in records:
        yield {
            "report": name,
            **identity(report, record, labels),
            **rates(record),
            **{
                fact.key: fact.text or None if isinstance(fact.value, list | dict) else fact.value
                for fact in facts(record)
            },
            **verdict(record, diagnoses),
            "warnings": _warnings(report, record) or None,
        }
    yield from ({"report": name, **row} for row in (*_curves(report, labels), *_gate(report, labels)))


def _curves(report: Report, labels: list[str]) -> Iterator[dict[str, object]]:
    """A row for each eps of each robustness curve."""
    for norm, measured in robustness_curves(report).items():
        for one in measured:
            for rate in map(one.curve.at, budgets(norm, measured)):
                yield {
                    "model": labels[one.entry.model],
                    "arch": report.models[one.entry.model].arch,
                    "data": report.data.spec,
                    "split": report.data.split,
                    "seed": report.seed,
                    "defense": one.entry.defense,
                    "attack": "robustness curve",
                    "kind": "robustness curve",
                    "norm": norm,
                    "eps": rate.eps,
                    "status": "ok",
                    "n": rate.n,
                    "correct": rate.robust,
                    "accuracy": rate.accuracy,
                    "ci95_low": rate.ci95[0],
                    "ci95_high": rate.ci95[1],
                    "notes": f"found by {', '.join(one.attacks)}",
                }


def _gate(report: Report, labels: list[str]) -> Iterator[dict[str, object]]:
    """A row for each row of the gate; its columns are there only where there is a gate."""
    for table in gate_tables(report.gate):
        for row in table.rows:
            record = row.record
            low, high = getattr(record, "ci95", None) or (None, None)
            values = {key: row.values[key] for key in table.columns if key not in ("accuracy", "interval", "samples")}
            yield {
                "model": labels[record.model],
                "data": report.data.spec,
                "split": report.data.split,
                "seed": report.seed,
                "kind": record.kind,
                "n": record.n,
                "accuracy": getattr(record, "accuracy", None),
                "ci95_low": low,
                "ci95_high": high,
                "notes": record.text,
                "gate_cell": record.name,
                "gate_result": row.result,
                **{
                    f"gate_{key}": None if v.text == "-" else v.text if v.number is None else v.number
                    for key, v in values.items()
                },
            }


def _warnings(report: Report, record: Counted) -> str:
    """The warnings about a cell; those about no cell are in the row of the clean accuracy of what they are about."""
    attack = record.attack_spec if isinstance(record, Cell) else None
    return "; ".join(
        warning_text(report, warning)
        for warning in report.warnings
        if warning.model == record.model
        and warning.defense in (None, record.defense_spec)
        and (warning.attack or "clean") == attack
    )
