"""What every registered report keeps to, third-party ones too."""

from __future__ import annotations

import io
from importlib.util import find_spec

import pytest

from freqrobust import Report, Reporter, evaluate
from freqrobust.core.errors import PluginError
from freqrobust.harness.multi_model import join
from freqrobust.results.reporter import reports


@pytest.fixture(scope="module")
def report(trained, digits) -> Report:
    return evaluate(
        trained,
        digits,
        attacks=["pgd:eps=[0.05,0.1],steps=2", "lfc:radius=2"],
        defenses=["smooth:rho=0.5"],
        device="cpu",
    )


@pytest.mark.parametrize("name", reports.names())
def test_renders_text_and_leaves_the_report_alone(make, report, name) -> None:
    before = report.dumps()
    texts = []
    for _ in range(2):
        target = io.StringIO()
        make(reports, name).render(report, target)
        texts.append(target.getvalue())
    assert texts[0].strip()
    assert texts[0] == texts[1]
    assert report.dumps() == before


@pytest.mark.parametrize("name", reports.names())
def test_failed_cells_are_rendered_too(make, report, name) -> None:
    broken = report.model_copy(deep=True)
    cell = broken.cells[1]
    cell.status, cell.error, cell.outcomes, cell.correct = "failed", "it left its budget", None, 0
    broken.status = "partial"
    target = io.StringIO()
    make(reports, name).render(broken, target)
    assert target.getvalue().strip()


@pytest.mark.parametrize("name", reports.names())
def test_several_are_shown_together_or_it_is_said(make, report, name) -> None:
    reporter = make(reports, name)
    before = report.dumps()
    target = io.StringIO()
    if type(reporter).render_many is Reporter.render_many:
        with pytest.raises(PluginError, match="one report at a time"):
            reporter.render_many({"a": report, "b": report}, target)
        return
    reporter.render_many({"first-run": report, "second-run": report}, target)
    assert "first-run" in target.getvalue()
    assert "second-run" in target.getvalue()
    assert report.dumps() == before


@pytest.mark.parametrize("name", reports.names())
def test_several_models_are_told_apart(make, report, name) -> None:
    several = join([report, report])
    for record, label in zip(several.models, ("first-net", "second-net"), strict=True):
        record.name = label
    target = io.StringIO()
    make(reports, name).render(several, target)
    text = target.getvalue()
    if reports.origin(name).startswith("freqrobust "):
        assert "first-net" in text
        assert "second-net" in text


@pytest.mark.parametrize("name", reports.names())
def test_what_it_needs_is_there(name) -> None:
    """Where all extras are installed; elsewhere it is said before anything is measured."""
    for module in reports.get(name).requires:
        assert find_spec(module) is not None


@pytest.mark.parametrize("name", reports.names())
def test_says_what_it_is(name) -> None:
    cls = reports.get(name)
    assert (cls.__doc__ or "").strip()
    for key, field in cls.model_fields.items():
        assert field.description, f"{name}: the parameter {key!r} is not described"


def test_json_is_the_report(make, report, tmp_path) -> None:
    path = tmp_path / "report.json"
    with path.open("w") as target:
        make(reports, "json").render(report, target)
    assert Report.from_json(path) == report
