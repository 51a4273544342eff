"""``compare``: two reports on the same samples, and which accuracies dropped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from freqrobust.core.errors import GateError
from freqrobust.gate import regression
from freqrobust.gate.project import GateTable
from freqrobust.results.gate_record import Comparison
from freqrobust.results.report import Report

ReportOrFile = Report | str | os.PathLike[str]


def compare(
    baseline: ReportOrFile,
    new: ReportOrFile,
    *,
    cells: str | Sequence[str] = (regression.DEFAULT,),
    alpha: float = 0.05,
    max_drop: float | str = 0.01,
    max_drops: Mapping[str, float | str] | None = None,
    strict: bool = False,
) -> Comparison:
    """Find regressions: accuracies that dropped significantly, and by more than is allowed.

    Both reports are of the same samples, so every test is paired (exact McNemar tests, corrected by Holm over the gate
    cells; ``docs/statistics.md``). Nothing is printed or written.

    Example:
        >>> comparison = compare("robustness.json", report, max_drop=0.02)  # doctest: +SKIP
        >>> comparison.passed, [row.name for row in comparison.rows if row.passed is False]  # doctest: +SKIP

    Args:
        baseline: the old report, or its JSON file.
        new: the new report, or its JSON file.
        cells: the cells that can fail, by names such as ``clean``, ``pgd:eps=8/255`` or ``smooth/worst``; ``default``
            stands for the clean accuracy, LFC 12 and the worst case per threat, of every defense.
        alpha: the probability of a false alarm, over all gate cells together.
        max_drop: the allowed drop of an accuracy, as a share.
        max_drops: the allowed drop of single cells, by their names, which makes them gate cells.
        strict: different seeds, versions, devices or cells are errors.

    Returns:
        The comparison; ``passed`` is False where there is a regression.

    Raises:
        FreqRobustError: a report cannot be read, the reports are of different data, or an option is wrong.
    """
    given: dict[str, Any] = {"cells": cells, "max_drop": max_drop, "max_drops": dict(max_drops or {})}
    rules = GateTable(**given, alpha=alpha, strict=strict).rules
    old, name = _read(baseline, "baseline"), "baseline" if isinstance(baseline, Report) else os.fspath(baseline)
    return regression.compare(old, _read(new, "new"), rules, name=name)


def _read(report: ReportOrFile, what: str) -> Report:
    if isinstance(report, Report):
        return report
    if not isinstance(report, str | os.PathLike):
        raise GateError(f"{what} should be a Report or the path of its JSON file, but got {type(report).__name__}")
    return Report.from_json(report)
