"""``check``: what a project file describes, evaluated and judged."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from freqrobust.core.command_config import CheckConfig
from freqrobust.core.config import EvalConfig
from freqrobust.core.errors import GateError
from freqrobust.core.files import cache_root, check_writable, user_path
from freqrobust.core.progress import Progress, as_progress
from freqrobust.gate.planned import planned
from freqrobust.gate.project import NAME, UPDATE_COMMAND, Project, ProjectError, find_project, read_project, working_in
from freqrobust.gate.sequential import SequentialGate
from freqrobust.gate.thresholds import Gate
from freqrobust.harness.devices import resolve_device
from freqrobust.harness.provenance import data_record
from freqrobust.harness.request import Request
from freqrobust.results.analysis_record import ReportError
from freqrobust.results.gate_record import GateRecord
from freqrobust.results.report import Report


@dataclass(frozen=True)
class CheckResult:
    """What ``check`` found.

    Attributes:
        report: the report.
        gate: the thresholds and the comparison with the baseline, row by row.
        project: the project file.
        baseline: the baseline that was written; None where none was.
    """

    report: Report
    gate: GateRecord
    project: Path
    baseline: Path | None = None

    @property
    def passed(self) -> bool:
        """No threshold was missed, there is no regression, and no cell failed."""
        return self.gate.passed and self.report.status == "complete"


def check(
    project: str | os.PathLike[str] | None = None,
    *,
    sequential: bool = False,
    update_baseline: bool = False,
    batch_size: int | Literal["auto"] | None = None,
    device: Any = None,
    run_dir: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> CheckResult:
    """Run the evaluation that a project file describes, and compare it with its thresholds and its baseline.

    It is what ``freqrobust check`` does. Nothing is printed, and nothing is written but the baseline with
    ``update_baseline`` and the files of a ``run_dir``. Paths in the file are relative to its folder.

    Example:
        >>> result = check()  # doctest: +SKIP
        >>> [row.text for row in result.gate.thresholds if row.passed is False]  # doctest: +SKIP

    Args:
        project: a ``freqrobust.toml`` or its folder; by default the file is searched for in the current folder and above.
        sequential: check only the thresholds, and stop measuring each cell as soon as its result is certain.
        update_baseline: replace the baseline by the new report, if no cell failed.
        batch_size: replaces the value of the file.
        device: replaces the value of the file.
        run_dir: replaces the value of the file; finished cells are kept there.
        progress: as in :func:`freqrobust.evaluate`.

    Raises:
        FreqRobustError: the project file, the model or the data is wrong, or the report cannot be judged.
    """
    given = {"batch_size": batch_size, "device": device, "run_dir": run_dir}
    config = CheckConfig(update_baseline=update_baseline, sequential=sequential, **given)
    path, here = _project_file(project), Path.cwd()
    described = read_project(path)
    if run_dir is not None:
        given["run_dir"] = here / user_path(run_dir, "run_dir")
    with working_in(path.parent):
        gate, _ = open_gate(described, config)
        evaluation = described.eval.replace(**{name: value for name, value in given.items() if value is not None})
        with as_progress(progress) as progress:
            report = _measured(evaluation, gate, progress)
        record = gate.judge(report)
        written = write_baseline(described, report) if update_baseline else None
    return CheckResult(report, record, path, path.parent / written if written is not None else None)


def _project_file(project: Any) -> Path:
    if project is None:
        return find_project()
    path = user_path(project, "project")
    path = (path / NAME if path.is_dir() else path).resolve()
    if not path.is_file():
        raise ProjectError(f"there is no {path}; freqrobust init writes one")
    return path


def _measured(config: EvalConfig, gate: Gate, progress: Progress) -> Report:
    """The report that the gate judges."""
    cache = user_path(config.cache_dir, "cache_dir") if config.cache_dir is not None else cache_root()
    request = Request.of(config).load(resolve_device(config.device), cache, progress)
    gate.prepare(planned(request.chains, request.attacks, config.oblivious), data_record(request.data))
    report = gate.measure(request.models, request.data, **request.settings(), progress=progress)
    report.config = request.options.record()
    return report


def open_gate(project: Project, config: CheckConfig) -> tuple[Gate, Report | None]:
    """What judges the report, and the baseline that will be replaced; called in the folder of the project file.

    Raises:
        GateError: there is nothing to judge by, or the baseline cannot be read or replaced.
    """
    baseline, confident = project.gate.baseline, project.gate.confident
    old = None
    if config.update_baseline:
        if baseline is None:
            raise GateError(f'{NAME} names no baseline to update: add baseline = "robustness.json" to [gate]')
        if config.sequential:
            raise GateError("--update-baseline needs every sample, and --sequential does not measure every sample")
        check_writable(baseline, "baseline")
    if config.sequential:
        rates = project.sequential
        return SequentialGate(
            project.required, confident=confident, false_pass=rates.false_pass, false_fail=rates.false_fail
        ), None
    if baseline is None and not project.required:
        raise GateError(f"{NAME} has neither a baseline nor [thresholds]: there is nothing to check")
    if baseline is not None and not config.update_baseline and not user_path(baseline, "baseline").exists():
        raise GateError(f"there is no baseline {baseline}: {UPDATE_COMMAND} writes it")
    compared = None if config.update_baseline else baseline
    gate = Gate(project.required, confident=confident, baseline=compared, rules=project.rules)
    if config.update_baseline and baseline is not None and user_path(baseline, "baseline").exists():
        try:
            old = Report.from_json(baseline)
        except ReportError as error:  # it is not overwritten
            raise GateError(
                f"the baseline is not overwritten, because it cannot be read ({error}); remove it first"
            ) from error
    return gate, old


def write_baseline(project: Project, report: Report) -> Path | None:
    """Replace the baseline by a report; one with cells that failed replaces nothing, and None is returned."""
    if project.gate.baseline is None or report.status != "complete":
        return None
    report.model_copy(update={"gate": None}).to_json(project.gate.baseline)
    return user_path(project.gate.baseline, "baseline")
