"""What every registered report keeps to, third-party ones too."""

from __future__ import annotations

import io

import pytest

from freqrobust import Report, evaluate
from freqrobust.registry import reports


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
