"""``freqrobust check``: what the project file describes, evaluated and judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from freqrobust.core.errors import GateError
from freqrobust.core.files import check_writable, user_path
from freqrobust.core.text import one_line, print_error
from freqrobust.gate.project import NAME, UPDATE_COMMAND, Project, find_project, read_project, working_in
from freqrobust.results import cell_reference

if TYPE_CHECKING:
    from freqrobust.cli.eval import Request
    from freqrobust.gate.thresholds import Gate
    from freqrobust.results.report import Report


def execute(
    *,
    update: bool,
    sequential: bool,
    batch_size: str | None,
    device: str | None,
    run_dir: str | None,
    json_file: str | None,
    reports: Sequence[str],
    quiet: bool,
) -> int:
    """One ``freqrobust check``; the exit code.

    Raises:
        FreqRobustError: bad input.
    """
    from freqrobust.cli import eval

    path = find_project()
    project = read_project(path)
    here = Path.cwd()
    with working_in(path.parent):
        if update:
            if project.baseline is None:
                raise GateError(f'{NAME} names no baseline to update: add baseline = "robustness.json"')
            if sequential:
                raise GateError("--update-baseline needs every sample, and --sequential does not measure every sample")
            check_writable(project.baseline, "baseline")
        gate = _gate(project, update, sequential)
        old = _read_old(project) if update else None
        request = request_for(
            project,
            gate,
            run_dir=str(here / user_path(run_dir, "--run-dir")) if run_dir is not None else None,
            json=str(here / user_path(json_file, "--json")) if json_file is not None else None,
            reports=[_absolute(text, here) for text in reports],
            batch_size=batch_size,
            device=device,
            quiet=quiet,
        )
        code = eval.execute(request)
        if sequential and project.baseline is not None and not quiet:
            reason = "a sequential check does not measure every sample"
            print(one_line(f"the report was not compared with the baseline {project.baseline}: {reason}"))
        if not update or gate.report is None:
            return code
        return _update(project, old, gate.report, code, quiet)


def _absolute(text: str, here: Path) -> str:
    """``html=out.html``, with the path as seen from the folder that the command was given in."""
    from freqrobust.results.rendering import with_form

    text = with_form(text, "--report")
    form, equals, target = text.rpartition("=")
    return text if not equals or target in ("", "-") else f"{form}={here / target}"


def _gate(project: Project, update: bool, sequential: bool) -> Gate:
    from freqrobust.gate.sequential import SequentialGate
    from freqrobust.gate.thresholds import Gate

    confident = project.gate.confident
    if sequential:
        rates = project.sequential
        return SequentialGate(
            project.required, confident=confident, false_pass=rates.false_pass, false_fail=rates.false_fail
        )
    baseline = project.baseline
    if baseline is None and not project.thresholds:
        raise GateError(f"{NAME} has neither a baseline nor [thresholds]: there is nothing to check")
    if baseline is not None and not update and not user_path(baseline, "baseline").exists():
        raise GateError(f"there is no baseline {baseline}: {UPDATE_COMMAND} writes it")
    return Gate(project.required, confident=confident, baseline=None if update else baseline, rules=project.rules)


def request_for(
    project: Project,
    gate: Gate,
    *,
    run_dir: str | None = None,
    json: str | None = None,
    reports: Sequence[str] = (),
    batch_size: str | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Request:
    """The evaluation that a project describes."""
    from freqrobust.cli.eval import Request

    return Request(
        models=project.model,
        arch=project.arch,
        normalize=project.normalize,
        trust=project.trust_checkpoint,
        data=project.data,
        data_dir=project.data_dir,
        split=project.split,
        limit=project.limit,
        first=project.first,
        train_data=project.train_data,
        defenses=project.defenses,
        options={},
        attacks=project.attacks,
        suite=project.suite,
        baseline=project.undefended,
        oblivious=project.oblivious,
        diagnose=project.diagnose,
        batch_size=batch_size or str(project.batch_size),
        device=device or project.device,
        precision=project.precision,
        seed=project.seed,
        mce_reference=project.mce_reference,
        run_dir=run_dir,
        json=json,
        reports=reports,
        save_model=None,
        save_adversarial=None,
        quiet=quiet,
        gate=gate,
    )


def _read_old(project: Project) -> Report | None:
    """The baseline that is about to be replaced; one that cannot be read is not overwritten."""
    from freqrobust.results.analysis_record import ReportError
    from freqrobust.results.report import Report

    assert project.baseline is not None
    if not user_path(project.baseline, "baseline").exists():
        return None
    try:
        return Report.from_json(project.baseline)
    except ReportError as error:
        raise GateError(f"the baseline is not overwritten, as it cannot be read ({error}); remove it first") from error


def _update(project: Project, old: Report | None, report: Report, code: int, quiet: bool) -> int:
    """Write the baseline and show what changed; the exit code."""
    assert project.baseline is not None
    if report.status != "complete":
        print_error(f"the baseline {project.baseline} is left as it was, as some cells failed")
        return code
    report.model_copy(update={"gate": None}).to_json(project.baseline)
    if not quiet:
        _show(project, old, report)
    return code


def _show(project: Project, old: Report | None, report: Report) -> None:
    """The changes from the replaced baseline, and the drops that the new one makes detectable."""
    from freqrobust.gate import regression
    from freqrobust.results.gate_record import GateRecord
    from freqrobust.results.rendering import GATE_ON_SCREEN, parse_outputs, write_outputs

    assert project.baseline is not None
    print()
    if old is not None:
        try:
            change = regression.compare(old, report, project.rules, name=f"{project.baseline} (replaced)")
        except GateError as error:
            print(one_line(f"the replaced baseline: {error}"))
        else:
            compared = report.model_copy(update={"gate": GateRecord(passed=change.passed, comparison=change)})
            write_outputs(parse_outputs([GATE_ON_SCREEN], "--report"), {"": compared})
    print(one_line(f"baseline written: {project.baseline}; keep it under version control"))
    known = cell_reference.references_in(report)
    try:
        cells = len(regression.declared_cells(project.rules, known, report.data.shape))
        undetectable = regression.undetectable_cells(report, project.rules)
    except GateError:
        return
    drop = regression.expected_drop(report.data.n, cells, project.rules.alpha)
    if drop is not None:
        print(
            f"the minimum detectable drop is {100 * drop:.1f} points, with {report.data.n} samples and {cells} gate cells "
            f"({regression.POWER:.0%} power at {project.rules.alpha:g}/{cells}, if {regression.CHURN:.0%} of the samples "
            "become correct; more of them do so when a model is trained again)"
        )
    for line in undetectable:
        print(one_line(line))
