"""Gates: thresholds that accuracies have to reach, and a baseline that a report is compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import fraction
from freqrobust.gate.regression import Rules, check_rules, check_same_data, compare
from freqrobust.numerics.statistics import wilson
from freqrobust.results import cell_reference
from freqrobust.results.gate_record import GateRecord, ThresholdRow
from freqrobust.results.report import Report
from freqrobust.results.summary import model_prefixes

if TYPE_CHECKING:
    from freqrobust.results.cell_reference import CellReference
    from freqrobust.results.cells import Cell, WorstCase
    from freqrobust.results.records import DataRecord

EXAMPLE = "for example 'pgd:eps=8/255>=0.45' or 'smooth/worst>=0.3'"


@dataclass(frozen=True)
class Threshold:
    """``CELL>=SHARE``: every cell that the name stands for has to reach that accuracy.

    Raises:
        SpecError: the accuracy is no share.
    """

    cell: str
    required: float

    @property
    def text(self) -> str:
        return f"{self.cell}>={self.required:g}"

    def __post_init__(self) -> None:
        if not 0 <= self.required <= 1:
            hint = f"; did you mean {self.required / 100:g}?" if 1 < self.required <= 100 else ""
            raise SpecError(f"threshold {self.text!r}: an accuracy is a share in [0, 1]{hint}")


def parse_threshold(text: str) -> Threshold:
    """Read ``pgd>=0.45``; the names are those of :mod:`freqrobust.results.cell_reference`.

    Raises:
        SpecError: it is written differently, or asks for more than 1.
    """
    # the last comparison counts: specs have equal signs of their own, as in pgd:eps=8/255>=0.45
    at = text.rfind(">=")
    if at < 1:
        raise SpecError(f"threshold {text!r}: expected CELL>=SHARE, {EXAMPLE}")
    cell, number = text[:at].strip(), text[at + 2 :].strip()
    try:
        required = float(fraction(number))
    except ValueError:
        raise SpecError(f"threshold {text!r}: expected a number after >=, but got {number!r}, {EXAMPLE}") from None
    return Threshold(cell, required)


def least_right(required: float, n: int, confident: bool) -> int:
    """The fewest right samples, of ``n``, that reach a threshold; ``n + 1`` where none do.

    With ``confident`` the low end of the 95 % Wilson interval has to reach it.
    """
    if not confident:
        return math.ceil(required * n - 1e-9)
    low, high = 0, n + 1  # the low end grows with the count
    while low < high:
        middle = (low + high) // 2
        if middle > n or wilson(middle, n)[0] >= required - 1e-12:
            high = middle
        else:
            low = middle + 1
    return low


def threshold_row(
    reference: CellReference, measured: Cell | WorstCase, required: float, confident: bool, prefix: str = ""
) -> ThresholdRow:
    """One row of the gate; ``prefix`` names the model where there are several. A cell that failed has not passed."""
    if measured.accuracy is None or measured.ci95 is None:
        return unmeasured(reference, required, measured.n, getattr(measured, "error", None) or "it failed", prefix)
    low = measured.ci95[0]
    accuracy = f"the accuracy is {measured.accuracy:.1%}"
    if confident:
        accuracy = f"the low end of the 95% interval is {low:.1%} ({accuracy})"
    return ThresholdRow(
        name=prefix + reference.name,
        model=reference.model,
        passed=measured.correct >= least_right(required, measured.n, confident),
        measured=low if confident else measured.accuracy,
        required=required,
        text=f"{accuracy}, and at least {required:.1%} is required",
        n=measured.n,
        accuracy=measured.accuracy,
        ci95=measured.ci95,
        confident=confident,
    )


def unmeasured(reference: CellReference, required: float, n: int, reason: str, prefix: str) -> ThresholdRow:
    """The row of a cell that could not be measured, which has not passed."""
    name, text = prefix + reference.name, f"could not be measured: {reason}"
    return ThresholdRow(name=name, model=reference.model, passed=False, required=required, text=text, n=n)


class Gate:
    """Thresholds, a baseline, or both.

    Attributes:
        early: measuring a cell may stop before all samples.

    Args:
        thresholds: accuracies that have to be reached.
        confident: judge thresholds on the low end of the 95 % interval.
        baseline: the report to compare with, which is read at once.
        rules: what counts as a regression.

    Raises:
        ReportError: the baseline cannot be read.
    """

    early: ClassVar[bool] = False

    def __init__(
        self,
        thresholds: Iterable[Threshold] = (),
        *,
        confident: bool = False,
        baseline: str | Path | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.thresholds = list(thresholds)
        self.confident = confident
        self.rules = rules or Rules()
        self.name = str(baseline)
        self.baseline = Report.from_json(baseline) if baseline is not None else None
        self.planned: Sequence[CellReference] = ()

    def prepare(self, planned: Sequence[CellReference], data: DataRecord) -> None:
        """Refuse, before anything is measured, what could not be judged afterwards.

        Raises:
            GateError: the baseline is of different data.
            SpecError: a threshold or a rule names no cell of the run.
        """
        self.planned = planned
        for threshold in self.thresholds:
            cell_reference.find(threshold.cell, planned, "threshold")
        if self.baseline is not None:
            check_same_data(self.baseline.data, data, self.name)
            check_rules(self.rules, self.baseline, planned)

    def measure(self, model: Any, data: Any, **options: Any) -> Report:
        """The report to judge: everything, measured by :func:`freqrobust.evaluate`."""
        from freqrobust.harness.evaluate import evaluate

        return evaluate(model, data, **options)

    def judge(self, report: Report) -> GateRecord:
        """The verdict on a report, which has it afterwards."""
        rows = threshold_rows(report, self.thresholds, self.confident, self.planned)
        comparison = None
        if self.baseline is not None:
            comparison = compare(self.baseline, report, self.rules, name=self.name)
        passed = all(row.passed is not False for row in rows) and (comparison is None or comparison.passed)
        record = GateRecord(passed=passed, comparison=comparison, thresholds=rows)
        report.gate = record
        return record


def threshold_rows(
    report: Report, thresholds: Iterable[Threshold], confident: bool, planned: Sequence[CellReference] = ()
) -> list[ThresholdRow]:
    """A row for each cell that a threshold names; of several thresholds on one cell the highest counts.

    Args:
        planned: what was to be measured of each model. What is not in the report could not be measured.
    """
    measured = {reference.key: (reference, cell) for reference, cell in cell_reference.referenced(report)}
    known = {key: reference for key, (reference, _) in measured.items()}
    for number in range(len(report.models)):
        for reference in (replace(one, model=number) for one in planned):
            known.setdefault(reference.key, reference)
    prefixes = model_prefixes(report)
    rows = []
    for key, share in required_of(thresholds, list(known.values())).items():
        reference = known[key]
        prefix = prefixes[reference.model]
        if key in measured:
            rows.append(threshold_row(reference, measured[key][1], share, confident, prefix))
        else:  # the defense, or all of its attacks, failed
            errors = [c.error for c in report.cells if c.error and c.defense_spec == reference.defense_spec]
            reason = errors[0] if errors else "it is not in the report"
            rows.append(unmeasured(reference, share, report.data.n, reason, prefix))
    return rows


def required_of(thresholds: Iterable[Threshold], known: Sequence[CellReference]) -> dict[str, float]:
    """The accuracy that each cell, by its key, has to reach.

    Raises:
        SpecError: a threshold names none of them.
    """
    required: dict[str, float] = {}
    for threshold in thresholds:
        for reference in cell_reference.find(threshold.cell, known, "threshold"):
            required[reference.key] = max(required.get(reference.key, 0.0), threshold.required)
    return required


def parse_max_drops(texts: Iterable[str]) -> tuple[float, dict[str, float]]:
    """``0.01`` for all gate cells and ``pgd=0.02`` for one; the first, and the others by name, the last ones last.

    Raises:
        SpecError: no number.
    """
    everywhere, each = Rules.max_drop, dict[str, float]()
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            drop = float(fraction(number.strip()))
        except ValueError:
            raise SpecError(f"max-drop {text!r}: expected SHARE or CELL=SHARE, for example 0.01 or pgd=0.02") from None
        if equals:
            each.pop(name.strip(), None)
            each[name.strip()] = drop
        else:
            everywhere = drop
    return everywhere, each
