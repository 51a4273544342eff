"""What a run is judged by: accuracies that have to be reached, and a baseline that must not be fallen behind."""

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
from freqrobust.results.summary import model_labels

if TYPE_CHECKING:
    from freqrobust.gate.planned import Target
    from freqrobust.results.cells import Cell, WorstCase
    from freqrobust.results.records import DataRecord

EXAMPLE = "for example 'pgd:eps=8/255>=0.45' or 'smooth/worst>=0.3'"


@dataclass(frozen=True)
class Threshold:
    """``TARGET>=SHARE``: each cell that the target names has to reach that accuracy.

    Raises:
        SpecError: the accuracy is no share.
    """

    target: str
    required: float

    @property
    def text(self) -> str:
        return f"{self.target}>={self.required:g}"

    def __post_init__(self) -> None:
        if not 0 <= self.required <= 1:
            hint = f"; did you mean {self.required / 100:g}?" if 1 < self.required <= 100 else ""
            raise SpecError(f"threshold {self.text!r}: an accuracy is a share in [0, 1]{hint}")


def parse_threshold(text: str) -> Threshold:
    """Read ``pgd>=0.45``; the names are those of :mod:`freqrobust.gate.planned`.

    Raises:
        SpecError: it is written differently, or asks for more than 1.
    """
    # the last comparison counts: specs have equal signs of their own, as in pgd:eps=8/255>=0.45
    at = text.rfind(">=")
    if at < 1:
        raise SpecError(f"threshold {text!r}: expected TARGET>=SHARE, {EXAMPLE}")
    target, number = text[:at].strip(), text[at + 2 :].strip()
    try:
        required = float(fraction(number))
    except ValueError:
        raise SpecError(f"threshold {text!r}: expected a number after >=, but got {number!r}, {EXAMPLE}") from None
    return Threshold(target, required)


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


def judged_threshold(
    target: Target, found: Cell | WorstCase, required: float, confident: bool, label: str = ""
) -> ThresholdRow:
    """One row of the gate; ``label`` names the model where there are several. A cell that failed was not reached."""
    accuracy, ci95 = found.accuracy, found.ci95
    name = f"{label}: {target.name}" if label else target.name
    if accuracy is None or ci95 is None:
        reason = getattr(found, "error", None) or "it failed"
        text = f"could not be measured: {reason}"
        return ThresholdRow(name=name, model=target.model, passed=False, required=required, text=text, n=found.n)
    passed = found.correct >= least_right(required, found.n, confident)
    measured = ci95[0] if confident else accuracy
    what = f"{accuracy:.1%}, at least {ci95[0]:.1%} with confidence" if confident else f"{accuracy:.1%}"
    return ThresholdRow(
        name=name,
        model=target.model,
        passed=passed,
        measured=measured,
        required=required,
        text=f"{what}; required {required:.1%}: {'reached' if passed else 'not reached'}",
        n=found.n,
        accuracy=accuracy,
        ci95=ci95,
        confident=confident,
    )


class Gate:
    """Thresholds, a baseline, or both.

    Attributes:
        early: measuring stops before all samples, where it can.

    Args:
        thresholds: accuracies that have to be reached.
        confident: judge thresholds on the low end of the 95 % interval.
        baseline: the report that must not be fallen behind; read at once.
        rules: what counts as falling behind.

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
        self.planned: Sequence[Target] = ()
        self.report: Report | None = None

    def prepare(self, planned: Sequence[Target], data: DataRecord) -> None:
        """Refuse, before anything is measured, what could not be judged afterwards.

        Raises:
            GateError: the baseline is of other data.
            SpecError: a threshold or a rule names no cell of the run.
        """
        self.planned = planned
        for threshold in self.thresholds:
            cell_reference.find(threshold.target, planned, "threshold")
        if self.baseline is not None:
            check_same_data(self.baseline.data, data, self.name)
            check_rules(self.rules, self.baseline, planned)

    def measure(self, model: Any, data: Any, **options: Any) -> Report:
        """What is judged: everything, by :func:`freqrobust.evaluate`."""
        from freqrobust.harness.evaluate import evaluate

        return evaluate(model, data, **options)

    def judge(self, report: Report) -> GateRecord:
        """The verdict on a report, which is kept as ``self.report`` with the verdict in it."""
        rows = threshold_rows(report, self.thresholds, self.confident, self.planned)
        comparison = None
        if self.baseline is not None:
            comparison = compare(self.baseline, report, self.rules, name=self.name)
        passed = all(row.passed is not False for row in rows) and (comparison is None or comparison.passed)
        record = GateRecord(passed=passed, comparison=comparison, thresholds=rows)
        report.gate = record
        self.report = report
        return record


def threshold_rows(
    report: Report, thresholds: Iterable[Threshold], confident: bool, planned: Sequence[Target] = ()
) -> list[ThresholdRow]:
    """A row for each cell that a threshold names; of several thresholds on one cell the highest counts.

    Args:
        planned: what was to be measured of each model. What is not in the report failed, and is not reached.
    """
    cells: list[tuple[Target, Cell | WorstCase]] = [(cell_reference.of_cell(cell), cell) for cell in report.cells]
    cells += [(cell_reference.of_worst(row), row) for row in report.worst_case]
    measured = {target.key: found for target, found in cells}
    known = {target.key: target for target, _ in cells}
    for number in range(len(report.models)):
        for target in (replace(one, model=number) for one in planned):
            known.setdefault(target.key, target)
    labels = model_labels(report) if len(report.models) > 1 else [""]
    rows = []
    for key, share in required_of(thresholds, list(known.values())).items():
        target, found = known[key], measured.get(key)
        label = labels[target.model]
        if found is None:
            rows.append(unmeasured(target, share, report, label))
        else:
            rows.append(judged_threshold(target, found, share, confident, label))
    return rows


def unmeasured(target: Target, required: float, report: Report, label: str) -> ThresholdRow:
    """The row of a target that is not in the report: the defense or all of its attacks failed."""
    reasons = [c.error for c in report.cells if c.error and c.defense_spec == target.defense_spec]
    text = f"could not be measured: {reasons[0] if reasons else 'it is not in the report'}"
    name = f"{label}: {target.name}" if label else target.name
    return ThresholdRow(name=name, model=target.model, passed=False, required=required, text=text, n=report.data.n)


def required_of(thresholds: Iterable[Threshold], known: Sequence[Target]) -> dict[str, float]:
    """The accuracy that each target, by its key, has to reach.

    Raises:
        SpecError: a threshold names none of them.
    """
    required: dict[str, float] = {}
    for threshold in thresholds:
        for target in cell_reference.find(threshold.target, known, "threshold"):
            required[target.key] = max(required.get(target.key, 0.0), threshold.required)
    return required


def parse_max_drops(texts: Iterable[str]) -> tuple[float, tuple[tuple[str, float], ...]]:
    """``0.01`` for all gate cells and ``pgd=0.02`` for one; the first, and the others by name.

    Raises:
        SpecError: no number.
    """
    everywhere, each = Rules.max_drop, []
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            drop = float(fraction(number.strip()))
        except ValueError:
            raise SpecError(f"max-drop {text!r}: expected SHARE or CELL=SHARE, for example 0.01 or pgd=0.02") from None
        if equals:
            each.append((name.strip(), drop))
        else:
            everywhere = drop
    return everywhere, tuple(each)
