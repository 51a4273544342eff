"""The rules for reporters."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.util import find_spec

from freqrobust.core.errors import PluginError
from freqrobust.harness.multi_model import join
from freqrobust.results.report import Report
from freqrobust.results.reporter import Reporter, reports
from freqrobust.testing.rules import BrokenRuleError, Contract, Setting, expect

REPORTS: Contract[Reporter] = Contract(reports, "docs/writing-a-report.md")


def rendered(reporter: Reporter, report: Report) -> str:
    """What is written, which may not be empty.

    Raises:
        BrokenRuleError: nothing is written, or the report is changed.
    """
    before = report.dumps()
    target = io.StringIO()
    reporter.render(report, target)
    expect(report.dumps() == before, "render() changes the report; work on report.model_copy(deep=True)")
    expect(target.getvalue().strip(), "render() should write text to target, but wrote nothing")
    return target.getvalue()


@REPORTS.rule("render writes text, twice the same, and leaves the report alone")
def output(reporter: Reporter, setting: Setting) -> None:
    first, second = rendered(reporter, setting.report), rendered(reporter, setting.report)
    expect(first == second, "two calls of render() with the same report should write the same text, but differ")


@REPORTS.rule("a cell that failed, which has no accuracy, is rendered too")
def failed_cells(reporter: Reporter, setting: Setting) -> None:
    broken = setting.report.model_copy(deep=True)
    cell = broken.cells[1]
    cell.status, cell.error, cell.outcomes, cell.correct = "failed", "it exceeded its budget", None, 0
    broken.status = "partial"
    rendered(reporter, broken)


@REPORTS.rule("several models in one report are rendered too")
def several_models(reporter: Reporter, setting: Setting) -> None:
    several = join([setting.report, setting.report])
    for model, label in zip(several.models, ("first-net", "second-net"), strict=True):
        model.name = label
    text = rendered(reporter, several)
    for model in several.models:
        expect(
            str(model.name) in text, f"the text should name the model {model.name!r}, but does not; see report.models"
        )


@REPORTS.rule("render_many names every run, or is not implemented")
def several_runs(reporter: Reporter, setting: Setting) -> None:
    many: Mapping[str, Report] = {"first-run": setting.report, "second-run": setting.report}
    before, target = setting.report.dumps(), io.StringIO()
    if type(reporter).render_many is Reporter.render_many:
        try:
            reporter.render_many(many, target)
        except PluginError:
            return
        raise BrokenRuleError("render_many() should raise a PluginError where it is not implemented")
    reporter.render_many(many, target)
    for name in many:
        expect(name in target.getvalue(), f"the text should name the run {name!r}, but does not")
    expect(setting.report.dumps() == before, "render_many() changes a report; work on a copy")


@REPORTS.rule("the modules that it requires can be imported, and are named with what to install")
def requirements(reporter: Reporter, setting: Setting) -> None:
    for module, install in reporter.requires.items():
        expect(find_spec(module) is not None, f"the module {module!r} is not installed: {install}")
