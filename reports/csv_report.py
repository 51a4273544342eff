"""The report as a table for other programs: one row a cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING

from freqrobust.core.text import one_line
from freqrobust.results.gate_view import gate_tables
from freqrobust.results.reporter import Reporter
from freqrobust.results.summary import Entry, model_labels, remarks, warning_text

if TYPE_CHECKING:
    from freqrobust.results.cells import Cell, WorstCase
    from freqrobust.results.diagnosis import Diagnosis
    from freqrobust.results.report import Report

#: What a spreadsheet takes for the beginning of a formula, the full-width forms too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CSVReport(Reporter):
    """One row a cell and a worst case (RFC 4180), for spreadsheets and data frames; rates are shares."""

    def render(self, report: Report, target: IO[str]) -> None:
        self.render_many({"": report}, target)

    def render_many(self, reports: Mapping[str, Report], target: IO[str]) -> None:
        rows = [row for name, report in reports.items() for row in _rows(name, report)]
        if not any(row["report"] for row in rows):
            for row in rows:
                del row["report"]
        header = list(dict.fromkeys(key for row in rows for key in row))
        target.write(_line(header))
        for row in rows:
            target.write(_line(row.get(key) for key in header))


def _line(values: Iterable[object]) -> str:
    return ",".join(map(field, values)) + "\r\n"


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


def _rows(name: str, report: Report) -> list[dict[str, object]]:
    labels = model_labels(report)
    every: list[Cell | WorstCase] = [*report.cells, *report.worst_case]
    diagnoses = {Entry(one.model, one.defense_spec): one for one in report.diagnostics}
    return [
        {
            "report": name,
            **_common(report, labels, one),
            **_own(one),
            **_said(one, diagnoses),
            "warnings": _warnings(report, one) or None,
        }
        for one in every
    ] + [{"report": name, **row} for row in _gate(report, labels)]


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


def _said(one: Cell | WorstCase, diagnoses: Mapping[Entry, Diagnosis]) -> dict[str, object]:
    """The notes of a row; and the verdict, where it is about a robust accuracy."""
    diagnosis = diagnoses.get(Entry(one.model, one.defense_spec)) if getattr(one, "kind", None) != "shift" else None
    return {
        "by_checks": getattr(one, "by_checks", None),
        "notes": "; ".join(remarks(one)) or None,
        "verdict": diagnosis.verdict if diagnosis else None,
        "verdict_sentence": diagnosis.sentence if diagnosis else None,
    }


def _warnings(report: Report, one: Cell | WorstCase) -> str:
    """The warnings about a cell; those about no cell are in the row of the clean accuracy of what they are about."""
    attack = getattr(one, "attack_spec", None)
    return "; ".join(
        warning_text(report, warning)
        for warning in report.warnings
        if warning.model == one.model
        and warning.defense in (None, one.defense_spec)
        and (warning.attack or "clean") == attack
    )


def _common(report: Report, labels: list[str], one: Cell | WorstCase) -> dict[str, object]:
    return {
        "model": labels[one.model],
        "arch": report.models[one.model].arch,
        "data": report.data.spec,
        "split": report.data.split,
        "seed": report.seed,
        "defense": one.defense_spec,
    }


def _own(one: Cell | WorstCase) -> dict[str, object]:
    from freqrobust.results.cells import Cell

    cell = one if isinstance(one, Cell) else None
    low, high = one.ci95 or (None, None)
    points, ends = (one.difference.points, one.difference.ci95) if one.difference else (None, (None, None))
    examples = cell.perturbation if cell else None
    return {
        "attack": cell.attack_spec if cell else "worst case",
        "kind": cell.kind if cell else "worst case",
        "norm": one.threat.norm if one.threat else None,
        "eps": one.threat.eps if one.threat else None,
        "radius": cell.attack_params.get("radius") if cell else None,
        "knowledge": cell.knowledge if cell else None,
        "status": cell.status if cell else "ok",
        "n": one.n,
        "correct": one.correct if one.accuracy is not None else None,
        "accuracy": one.accuracy,
        "ci95_low": low,
        "ci95_high": high,
        "difference": points,
        "difference_ci95_low": ends[0],
        "difference_ci95_high": ends[1],
        "by_chance": cell.by_chance if cell else None,
        "agreement": cell.agreement if cell else None,
        "gradients": cell.gradients if cell else None,
        "votes": cell.votes if cell else None,
        "inherited": cell.inherited if cell else None,
        "linf_max": examples.linf_max if examples else None,
        "l2_mean": examples.l2_mean if examples else None,
        "seconds": cell.seconds if cell else None,
        "forwards": cell.forwards if cell else None,
        "backwards": cell.backwards if cell else None,
        "error": cell.error if cell else None,
    }
