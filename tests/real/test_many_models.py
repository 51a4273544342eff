"""Two real networks in one run: their reference counts, side by side, in every form."""

from __future__ import annotations

import csv
import io

import pytest

from freqrobust import Report, evaluate
from freqrobust.results.leaderboard import board
from freqrobust.results.reporter import reports

#: Right of the first 500 test images, by an independent NumPy reference; a count may differ by one.
REFERENCE = {
    ("resnet20", "clean"): 455,
    ("resnet20", "lfc:radius=12"): 404,
    ("cifar_small_36px", "clean"): 269,
    ("cifar_small_36px", "lfc:radius=12"): 268,
}


@pytest.fixture(scope="module")
def report(models, cifar) -> Report:
    return evaluate(models, cifar, attacks=["lfc:radius=12"], device="cpu")


def rendered(report: Report, name: str) -> str:
    target = io.StringIO()
    reports.get(name)().render(report, target)  # type: ignore[attr-defined]
    return target.getvalue()


def test_reference_counts(report) -> None:
    found = {(report.models[c.model].name, c.attack_spec): c.correct for c in report.cells}
    assert found.keys() == REFERENCE.keys()
    assert all(abs(found[key] - REFERENCE[key]) <= 1 for key in REFERENCE)


def test_every_form_holds_them(report) -> None:
    rows = csv.DictReader(io.StringIO(rendered(report, "csv"), newline=""))
    counts = {(row["model"], row["attack"]): int(row["correct"]) for row in rows}
    assert all(abs(counts[key] - REFERENCE[key]) <= 1 for key in REFERENCE)
    for name in ("html", "markdown", "latex", "table"):
        text = rendered(report, name)
        for cell in report.cells:
            assert f"{100 * float(cell.accuracy or 0):.1f}" in text, name


def test_they_are_ranked(report) -> None:
    made = board({"run": report})
    assert made.by == "clean" or made.by.startswith("LFC")
    assert [(s.name, s.rank_text) for s in made.standings] == [("resnet20", "1"), ("cifar_small_36px", "2")]
