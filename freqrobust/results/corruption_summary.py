"""Summaries of the accuracies on corruptions: means, mCE, relative mCE.

D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019. The corruption error of corruption ``c`` is ``CE_c = sum over s of E_sc / sum over s of R_sc`` with the
errors ``E`` of a model and ``R`` of the reference at severity ``s``; the relative one subtracts the clean error from
each. mCE and relative mCE are their means over the corruptions (sec. 4.3).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from freqrobust.core.errors import DataError, SpecError
from freqrobust.plugins.corruption_names import ATTACK, COMMON, EXTRA, SEVERITIES, constant_set, part_of
from freqrobust.plugins.specs import UNDEFENDED

if TYPE_CHECKING:
    from freqrobust.results.cells import Cell
    from freqrobust.results.corruptions import CorruptionRow, CorruptionSummary
    from freqrobust.results.records import DataRecord
    from freqrobust.results.report import Report

#: Errors of AlexNet on the published ImageNet-C files, means over the severities (repository hendrycks/robustness,
#: ImageNet-C/test.py), and on the clean validation set (Hendrycks and Dietterich 2019, table 1).
ALEXNET = dict(
    zip(
        COMMON,
        (
            *(0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324),
            *(0.564592, 0.853204, 0.646056, 0.717840, 0.606500),
        ),
        strict=True,
    )
)
ALEXNET_CLEAN = 0.435
#: The name of this reference, in place of the file of a report.
ALEXNET_NAME = "alexnet"
_IMAGENET = 50_000


@dataclass
class Reference:
    """Errors of the reference model, by which corruption errors are divided.

    Attributes:
        name: ``alexnet`` or the file of a report.
        clean: the clean error.
        means: mean error over all severities, by corruption.
        errors: error of a single cell, by the parameters of its corruption.
    """

    name: str
    clean: float
    means: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def mean_error(self, cells: Sequence[Cell]) -> float | None:
        """Mean error over these cells of one corruption; None where the error of a cell is unknown."""
        name = cells[0].attack_params["name"]
        if name in self.means:
            return self.means[name] if len(cells) == len(SEVERITIES) else None
        found = [self.errors.get(_key(cell.attack_params)) for cell in cells]
        known = [error for error in found if error is not None]
        return fmean(known) if len(known) == len(found) else None


def alexnet() -> Reference:
    """AlexNet on the published ImageNet-C files."""
    return Reference(ALEXNET_NAME, ALEXNET_CLEAN, dict(ALEXNET))


def read_reference(
    given: str | os.PathLike[str] | Report, data: DataRecord, wanted: Sequence[Mapping[str, Any]]
) -> Reference:
    """``alexnet``, a report or its file, as the reference for corruptions of these images.

    Args:
        given: the reference, or its name.
        data: the images of this run.
        wanted: the parameters of its corruptions.

    Raises:
        SpecError: there are no corruptions, or AlexNet's errors do not apply.
        DataError: the reference was measured on other images, or lacks corruptions.
        ReportError: the file is not a report.
    """
    from freqrobust.results.report import Report

    if not wanted:
        raise SpecError("a reference for the mCE needs corruptions to compare: give --suite corruptions")
    if isinstance(given, str) and given == ALEXNET_NAME:
        if not applies_alexnet(data, wanted):
            raise SpecError(
                "the published errors of AlexNet are for the complete ImageNet-C files only (50000 images, --suite "
                "corruptions:files=DIR); give the report of a reference model instead"
            )
        return alexnet()
    report = given if isinstance(given, Report) else Report.from_json(os.fspath(given))
    name = "report" if isinstance(given, Report) else os.fspath(given)
    if report.data.sha256 != data.sha256:
        raise DataError(
            f"{name} was measured on other images ({report.data.spec}, n = {report.data.n}) than this run "
            f"({data.spec}, n = {data.n})"
        )
    cells = [cell for cell in report.cells if cell.defense_spec == UNDEFENDED and cell.accuracy is not None]
    clean = [1 - cell.accuracy for cell in cells if cell.attack == "clean" and cell.accuracy is not None]
    errors = {_key(c.attack_params): 1 - c.accuracy for c in cells if c.attack == ATTACK and c.accuracy is not None}
    missing = [params for params in wanted if _key(params) not in errors]
    if missing or not clean:
        first = f"{missing[0]['name']} at severity {missing[0]['severity']}" if missing else "the clean accuracy"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{name} lacks {first}{more} of the undefended model, made in the same way")
    return Reference(name, clean[0], errors=errors)


def _key(params: Mapping[str, Any]) -> str:
    return str(sorted(params.items()))


def applies_alexnet(data: DataRecord, wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are the complete ImageNet-C files, for which AlexNet's errors are published."""
    found = {(params["name"], params["severity"]) for params in wanted if params.get("source") == "files"}
    complete = data.n == _IMAGENET and data.classes == 1000 and tuple(data.shape) == (3, 224, 224)
    return complete and {(name, severity) for name in COMMON for severity in SEVERITIES} <= found


def _corrupted(cells: Iterable[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.attack == ATTACK and cell.knowledge == "adaptive"]


def summaries(report: Report, reference: Reference | None) -> list[CorruptionSummary]:
    """One summary for each defense, each part of the benchmark and each source of the corrupted images."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in _corrupted(report.cells):
        part = part_of(cell.attack_params["name"])
        made = sorted((k, v) for k, v in cell.attack_params.items() if k not in ("name", "severity", "sha256"))
        groups.setdefault((cell.defense_spec, part, str(made)), []).append(cell)
    clean = {cell.defense_spec: cell.accuracy for cell in report.cells if cell.attack == "clean"}
    return [_summary(cells, report, clean[cells[0].defense_spec], reference) for cells in groups.values()]


def _summary(cells: list[Cell], report: Report, clean: float | None, reference: Reference | None) -> CorruptionSummary:
    from freqrobust.results.corruptions import CorruptionSummary

    first = cells[0]
    part = part_of(first.attack_params["name"])
    benchmark = {"common": COMMON, "extra": EXTRA, "other": ()}[part]
    measured = {cell.attack_params["name"] for cell in cells}
    names = [name for name in benchmark if name in measured] or sorted(measured)
    rows = [_row(name, [c for c in cells if c.attack_params["name"] == name], clean, reference) for name in names]
    means = [row.accuracy for row in rows if row.accuracy is not None]
    params: dict[str, Any] = first.attack_params
    source: Literal["generated", "files"] = "files" if params.get("source") == "files" else "generated"
    constants = params.get("constants")
    if constants == "auto":
        constants = constant_set(*report.data.shape[-2:])
    complete = all(len(row.accuracies) == len(SEVERITIES) for row in rows) and len(means) == len(rows)
    return CorruptionSummary(
        model=first.model,
        defense=first.defense,
        defense_spec=first.defense_spec,
        defense_params=first.defense_params,
        part=part,
        source=source,
        constants=constants if source == "generated" else None,
        eight_bit=bool(params.get("eight_bit", True)),
        complete=complete and set(benchmark) <= measured,
        n=first.n,
        rows=rows,
        mean_accuracy=fmean(means) if len(means) == len(rows) else None,
        mce=_mean([row.ce for row in rows]),
        relative_mce=_mean([row.relative_ce for row in rows]),
        reference=reference.name if reference is not None else None,
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _row(name: str, cells: list[Cell], clean: float | None, reference: Reference | None) -> CorruptionRow:
    from freqrobust.results.corruptions import CorruptionRow

    found = {int(cell.attack_params["severity"]): cell.accuracy for cell in cells}
    accuracies = {str(s): accuracy for s, accuracy in sorted(found.items()) if accuracy is not None}
    accuracy = fmean(accuracies.values()) if len(accuracies) == len(cells) else None
    row = CorruptionRow(name=name, accuracies=accuracies, accuracy=accuracy)
    theirs = reference.mean_error(cells) if reference is not None else None
    if accuracy is None or reference is None or theirs is None:
        return row
    if theirs > 0:
        row.ce = (1 - accuracy) / theirs
    if clean is not None and theirs > reference.clean:
        row.relative_ce = (clean - accuracy) / (theirs - reference.clean)
    return row
