"""``freqrobust check``: what the project file describes, evaluated and judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from freqrobust.core.errors import GateError
from freqrobust.core.files import user_path
from freqrobust.core.text import print_error, print_line

if TYPE_CHECKING:
    from freqrobust.core.command_config import CheckConfig
    from freqrobust.gate.project import Project
    from freqrobust.results.report import Report


def execute(config: CheckConfig) -> int:
    """One ``freqrobust check``; the exit code.

    Raises:
        FreqRobustError: bad input.
    """
    from freqrobust.cli.lines import first_line

    first_line("checking what freqrobust.toml describes", [], None, config.quiet)
    from freqrobust.cli import eval
    from freqrobust.core.command_config import EvalCommand
    from freqrobust.gate.check import open_gate
    from freqrobust.gate.project import find_project, read_project, working_in

    path = find_project()
    project = read_project(path)
    baseline = project.gate.baseline
    here = Path.cwd()
    with working_in(path.parent):
        gate, old = open_gate(project, config)
        options = {name: getattr(config, name) for name in ("batch_size", "device", "run_dir", "json_file")}
        options = {name: value for name, value in options.items() if value is not None}
        for name in {"run_dir", "json_file"} & options.keys():
            options[name] = here / user_path(options[name], config.flag(name))
        shown = {name: getattr(config, name) for name in ("quiet", "verbose", "no_progress", "full", "dry_run")}
        options |= {"reports": [_absolute(text, here) for text in config.reports]} | shown

        def judged(report: Report) -> None:
            if config.sequential and baseline is not None and not config.quiet:
                reason = "a sequential check does not measure every sample"
                print_line(f"the report was not compared with the baseline {baseline}: {reason}")
            if config.update_baseline:
                _update(project, old, report, config.quiet)

        return eval.execute(EvalCommand(**{**dict(project.eval), **options}), gate=gate, judged=judged)


def _absolute(text: str, here: Path) -> str:
    """``html=out.html``, with the path as seen from the folder that the command was given in."""
    from freqrobust.results.rendering import with_form

    text = with_form(text, "--report")
    form, equals, target = text.rpartition("=")
    return text if not equals or target in ("", "-") else f"{form}={here / target}"


def _update(project: Project, old: Report | None, report: Report, quiet: bool) -> None:
    """Write the baseline and show what changed."""
    from freqrobust.gate.check import write_baseline

    assert project.gate.baseline is not None
    if write_baseline(project, report) is None:
        print_error(f"the baseline {project.gate.baseline} is not replaced, because some cells failed")
    elif not quiet:
        _show(project, old, report)


def _show(project: Project, old: Report | None, report: Report) -> None:
    """The changes from the replaced baseline, and the drops that the new one makes detectable."""
    from freqrobust.gate import regression
    from freqrobust.results import cell_reference
    from freqrobust.results.gate_record import GateRecord
    from freqrobust.results.rendering import GATE_ON_SCREEN, parse_outputs, write_outputs

    assert project.gate.baseline is not None
    if old is not None:
        try:
            change = regression.compare(old, report, project.rules, name=f"{project.gate.baseline} (replaced)")
        except GateError as error:
            print_line(f"the replaced baseline: {error}")
        else:
            compared = report.model_copy(update={"gate": GateRecord(passed=change.passed, comparison=change)})
            write_outputs(parse_outputs([GATE_ON_SCREEN], "--report"), {"": compared})
    print_line(f"baseline written: {project.gate.baseline}; keep it under version control")
    known = cell_reference.references_in(report)
    try:
        cells = len(regression.declared_cells(project.rules, known, report.data.shape))
        undetectable = regression.undetectable_cells(report, project.rules)
    except GateError:
        return
    drop = regression.expected_drop(report.data.n, cells, project.rules.alpha)
    if drop is not None:
        print_line(
            f"the minimum detectable drop is {100 * drop:.1f} points, with {report.data.n} samples and {cells} gate cells "
            f"({regression.POWER:.0%} power at {project.rules.alpha:g}/{cells}, if {regression.CHURN:.0%} of the samples "
            "become correct; more of them do so when a model is trained again)"
        )
    for line in undetectable:
        print_line(line)
