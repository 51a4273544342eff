"""The values of a cell: declared once, merged by their declarations, shown by every form of report."""

from __future__ import annotations

import io

import numpy as np
import pytest

from freqrobust import Report
from freqrobust.harness.outcome import Outcome
from freqrobust.results.cell_numbers import CellNumbers, PerturbationRecord
from freqrobust.results.cells import Cell, WorstCase, joined
from freqrobust.results.distances import DistanceRecord
from freqrobust.results.reporter import reports
from freqrobust.results.value import declared, merged
from freqrobust.results.view import details, facts, ranges

#: A distinctive value for every field.
VALUES = {
    "gradients": "surrogate",
    "votes": 1013,
    "eot": 1019,
    "batch_size": 1021,
    "inherited": 1031,
    "notes": ["a first note", "a second note"],
    "breakdown": {"part-a": 1033, "part-b": 1039},
    "chance_accuracy": 0.1049,
    "clean_agreement": 0.2061,
    "perturbation": {"successes": 1063, "linf_max": 0.0369, "l2_mean": 0.5387, "survive_rounding": 1051},
    "distances": DistanceRecord.of("linf", np.array([0, 0.0117, 0.0417, 0.0619, 0.0871])).model_dump(),
    "seconds": 109.1,
    "forwards": 1093,
    "backwards": 1097,
}


def numbers(**changes) -> CellNumbers:
    return CellNumbers.model_validate({**VALUES, **changes})


def test_every_field_is_declared() -> None:
    assert set(declared(CellNumbers)) == set(CellNumbers.model_fields) == set(VALUES)
    assert set(declared(PerturbationRecord)) == set(PerturbationRecord.model_fields)
    assert set(CellNumbers.model_fields) < set(Cell.model_fields)


def test_the_journal_keeps_every_value() -> None:
    outcome = Outcome(np.array([True, False]), np.array([0, 1]), numbers=numbers())
    assert Outcome.from_piece(outcome.to_piece()).numbers == numbers()


@pytest.fixture
def full(make_report) -> Report:
    """A report whose last cell has every value."""
    report = make_report({"clean": 60, "fgsm": 40})
    values = report.cells[-1].model_dump() | VALUES
    distances = np.tile(DistanceRecord.model_validate(VALUES["distances"]).distances(), 20)  # one for each sample
    values["distances"] = DistanceRecord.of("linf", distances).model_dump()
    report.cells[-1] = Cell.model_validate(values)
    return report


SHOWN = ["surrogate", "1013", "1019", "1021", "1031", "a first note", "a second note", "part-a 1033, part-b 1039"]
SHOWN += ["10.5 %", "20.6 %", "1063", "0.0369", "0.5387", "1051", "0.0518", "0.0417", "109.1", "1093", "1097"]
#: As recorded, for other programs.
RAW = {"10.5 %": "0.1049", "20.6 %": "0.2061"}


@pytest.mark.parametrize("spec", ["table:full=true", "table:details=true", "html", "markdown", "csv", "latex", "junit"])
def test_every_form_of_report_shows_every_value(spec: str, full: Report) -> None:
    target = io.StringIO()
    reports.parse(spec)[0].plugin.render(full, target)
    text = " ".join(target.getvalue().replace("\\%", "%").replace("-{}", "-").split())
    for value in SHOWN:
        expected = RAW.get(value, value) if spec == "csv" else value
        assert expected in text, value


def test_ranges_are_over_cells_and_details_of_each(make_report) -> None:
    report = make_report({"clean": 60, "fgsm": 40, "pgd": 30})
    for cell, size in zip(report.cells, (8, 1021, 64), strict=True):
        cell.batch_size = size
    assert ranges(report) == ["batch size 8 to 1021"]
    table = details(report)
    assert table is not None
    assert table.columns == ["defense", "attack", "batch size"]
    assert [row[1:] for row in table.rows] == [["clean", "8"], ["fgsm", "1021"], ["pgd", "64"]]
    report.cells[1].batch_size = report.cells[2].batch_size = 8
    assert ranges(report) == ["batch size 8"]


def test_facts_of_nested_records_have_their_own_names(full: Report) -> None:
    found = {fact.key: fact.value for fact in facts(full.cells[-1])}
    assert (found["successes"], found["linf_max"], found["l2_mean"]) == (1063, 0.0369, 0.5387)
    assert "perturbation" not in found
    without = full.cells[-1].model_copy(update={"perturbation": None})
    assert {fact.key for fact in facts(without)} == set(found)


def test_parts_are_merged_by_the_declarations() -> None:
    other = numbers(
        batch_size=8,
        inherited=2,
        notes=["a second note", "a third note"],
        breakdown={"part-b": 1, "part-c": 5},
        perturbation={"successes": 937, "linf_max": 0.05, "l2_mean": 1.5, "survive_rounding": 7},
        distances=DistanceRecord.of("linf", np.array([np.inf])),
        seconds=0.9,
        forwards=7,
        backwards=3,
    )
    both = CellNumbers(**merged(numbers(), other))
    mean = (1063 * 0.5387 + 937 * 1.5) / 2000
    assert both.perturbation is not None
    assert both.distances is not None
    assert both.distances.distances().tolist() == pytest.approx([0, 0.0117, 0.0417, 0.0619, 0.0871, np.inf])
    assert both.distances.median == pytest.approx(0.0619)
    assert both.distances.half_accuracy_eps == pytest.approx(0.0417)
    assert both.perturbation.l2_mean == pytest.approx(mean)
    assert (both.perturbation.successes, both.perturbation.linf_max) == (2000, 0.05)
    assert both.perturbation.survive_rounding == 1058
    assert both.model_dump(exclude={"perturbation", "distances"}) == {
        "gradients": "surrogate",
        "votes": 1013,
        "eot": 1019,
        "batch_size": 8,
        "inherited": 1033,
        "notes": ["a first note", "a second note", "a third note"],
        "breakdown": {"part-a": 1033, "part-b": 1040, "part-c": 5},
        "chance_accuracy": None,
        "clean_agreement": None,
        "seconds": pytest.approx(110.0),
        "forwards": 1100,
        "backwards": 1100,
    }


def test_counts_of_rounded_examples_are_merged_where_there_are_examples() -> None:
    def record(successes: int, survive: int | None) -> PerturbationRecord:
        return PerturbationRecord(successes=successes, linf_max=0.1, l2_mean=1.0, survive_rounding=survive)

    assert record(5, 0).merged(record(0, None)).survive_rounding == 0
    assert record(0, None).merged(record(5, 3)).survive_rounding == 3
    assert record(5, 2).merged(record(5, None)).survive_rounding is None  # not looked at
    assert record(0, None).merged(record(0, None)).survive_rounding is None


def test_no_example_that_survives_rounding_is_shown_as_zero(make_report) -> None:
    report = make_report({"clean": 60, "fgsm": 40})
    report.cells[-1].perturbation = PerturbationRecord(successes=9, linf_max=0.1, l2_mean=1.0, survive_rounding=0)
    table = details(report)
    assert table is not None
    assert table.rows[-1][table.columns.index("adversarial after rounding to 8 bits")] == "0"
    assert table.rows[0][table.columns.index("adversarial after rounding to 8 bits")] == "-"


def test_a_missing_value_is_that_of_the_other_part() -> None:
    both = CellNumbers(**merged(CellNumbers(), numbers()))
    assert both == numbers(chance_accuracy=None, clean_agreement=None)


def test_cells_and_worst_cases_are_joined_in_order(make_report) -> None:
    rng = np.random.default_rng(0)
    first, second = (make_report({"clean": np.ones(100), "fgsm": rng.random(100) < 0.5}) for _ in range(2))
    cell = joined(first.cells[1], second.cells[1])
    assert cell.right().tolist() == [*first.cells[1].right(), *second.cells[1].right()]
    assert (cell.n, cell.correct) == (200, first.cells[1].correct + second.cells[1].correct)
    first.worst_case[0].by_checks, second.worst_case[0].by_checks = 2, 3
    row = joined(first.worst_case[0], second.worst_case[0])
    assert isinstance(row, WorstCase)
    assert (row.n, row.by_checks) == (200, 5)


def test_a_failed_part_stays_failed(make_report) -> None:
    report = make_report({"clean": 60, "fgsm": None})
    failed, ok = report.cells[1], report.cells[0]
    assert joined(failed, ok) is failed
    assert joined(ok, failed) is failed
