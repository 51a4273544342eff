"""Thresholds, and the tables that show a verdict."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from freqrobust.core.errors import SpecError
from freqrobust.gate.regression import Rules, compare
from freqrobust.gate.table import gate_text, print_gate
from freqrobust.gate.thresholds import Threshold, least_right, parse_max_drops, parse_threshold, threshold_rows
from freqrobust.numerics.statistics import wilson
from freqrobust.results.gate_record import GateRecord


@pytest.mark.parametrize(
    ("text", "target", "required"),
    [
        ("pgd>=0.45", "pgd", 0.45),
        (" smooth/worst >= 0.3 ", "smooth/worst", 0.3),
        ("pgd:eps=8/255,steps=20>=1/3", "pgd:eps=8/255,steps=20", 1 / 3),
        ("clean>=0", "clean", 0.0),
        ("clean>=1", "clean", 1.0),
    ],
)
def test_thresholds_as_text(text: str, target: str, required: float) -> None:
    assert parse_threshold(text) == Threshold(target, required)


def test_limits_as_text() -> None:
    assert parse_max_drops([]) == (0.01, ())
    assert parse_max_drops(["0.02", "pgd:eps=8/255=0.03", "clean=0"]) == (
        0.02,
        (("pgd:eps=8/255", 0.03), ("clean", 0.0)),
    )
    with pytest.raises(SpecError, match="expected SHARE or CELL=SHARE"):
        parse_max_drops(["a lot"])


@pytest.mark.parametrize("n", [1, 7, 60, 500])
@pytest.mark.parametrize("required", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_the_fewest_right_samples_by_trying_all(n: int, required: float) -> None:
    plain = [k for k in range(n + 1) if k / n >= required - 1e-12]
    sure = [k for k in range(n + 1) if wilson(k, n)[0] >= required - 1e-12]
    assert least_right(required, n, confident=False) == plain[0]
    assert least_right(required, n, confident=True) == (sure[0] if sure else n + 1)


def test_thresholds_on_the_edge(make_report) -> None:
    report = make_report({"clean": 45})
    assert threshold_rows(report, [Threshold("clean", 0.45)], False)[0].passed
    assert not threshold_rows(report, [Threshold("clean", 0.4501)], False)[0].passed


def test_of_two_thresholds_on_a_cell_the_higher_counts(make_report) -> None:
    report = make_report({"clean": 80, "pgd:eps=2/255": 50, "pgd:eps=8/255": 30})
    rows = threshold_rows(
        report, [Threshold("pgd", 0.2), Threshold("pgd:eps=2/255", 0.6), Threshold("pgd", 0.1)], False
    )
    assert {r.name.rpartition(" ")[2]: (r.required, r.passed) for r in rows} == {
        "pgd:eps=2/255": (0.6, False),
        "pgd:eps=8/255": (0.2, True),
    }


def test_thresholds_on_several_models(make_report) -> None:
    rows = threshold_rows(make_report({"clean": 80}, models=2), [Threshold("clean", 0.5)], False)
    assert [r.name for r in rows] == ["net0: undefended / clean", "net1: undefended / clean"]


def record(make_report) -> GateRecord:
    cells = {"clean": 90, "lfc:radius=12": 80, "smooth:rho=0.1|clean": 85}
    cells |= {f"pgd:eps={k}/255,steps=20,restarts=3": 50 - int(5 * k) for k in (0.5, 1, 2)}
    worse = {key: value - 20 for key, value in cells.items()}
    old, new = make_report(cells), make_report(worse)
    thresholds = threshold_rows(new, [Threshold("worst", 0.2), Threshold("clean", 0.5)], True)
    return GateRecord(passed=False, comparison=compare(old, new, name="[red]b.json"), thresholds=thresholds)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_fit_and_show_everything(make_report, width: int) -> None:
    verdict = record(make_report)
    text = gate_text(verdict, width)
    assert max(map(len, text.splitlines())) <= width
    joined = "".join(text.split())
    for row in verdict.rows:
        assert "".join(row.name.removeprefix("undefended / ").split()) in joined or width < 100  # folded over lines
    failed = sum(row.passed is False for row in verdict.rows)
    assert text.count(" FAIL") - text.count("FAILED") == failed
    assert f"gate: FAILED: {failed} of {sum(row.passed is not None for row in verdict.rows)}" in text
    assert "Against [red]b.json" in text  # no markup


def test_a_terminal_gets_the_same_words(make_report) -> None:
    verdict = record(make_report)
    plain, fancy = io.StringIO(), io.StringIO()
    print_gate(verdict, Console(file=plain, width=120, highlight=False, markup=False), plain=True)
    console = Console(file=fancy, width=120, highlight=False, markup=False, force_terminal=True, no_color=True)
    print_gate(verdict, console, plain=False)
    import re

    def words(text: str) -> list[str]:
        return re.findall(r"[\w.:=/%-]*\w[\w.:=/%-]*", re.sub(r"\x1b\[[0-9;]*m", "", text))

    assert words(fancy.getvalue()) == words(plain.getvalue())


def test_a_floor_is_said_to_be_one(make_report) -> None:
    """Where there is less to lose than could be seen, the table says so."""
    report = make_report({"clean": 100, "lfc:radius=12": 1})
    text = gate_text(GateRecord(passed=True, comparison=compare(report, report, Rules())), 100)
    line = next(line for line in text.splitlines() if line.startswith("lfc"))
    assert line.split("|")[7].strip() == "none"


def test_a_verdict_that_contradicts_its_rows_is_refused(make_report) -> None:
    verdict = record(make_report)
    with pytest.raises(ValueError, match="the gate says passed = True"):
        GateRecord(passed=True, thresholds=verdict.thresholds)
