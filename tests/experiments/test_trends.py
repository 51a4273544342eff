"""Verdicts follow from intervals; intervals agree with closed forms and with scipy; findings are read back as written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from freqrobust.experiments.markdown import markdown
from freqrobust.experiments.text import estimate_text, measured_table, verdict_line
from freqrobust.experiments.trends import higher, higher_unpaired, judged, mean_above_zero
from freqrobust.numerics.statistics import wilson
from freqrobust.results.analysis import AnalysisTable
from freqrobust.results.findings import Curve, Findings, Measured, Trend


@pytest.mark.parametrize(
    ("estimate", "ci95", "verdict"),
    [
        (0.2, (0.1, 0.3), "reproduced"),
        (0.2, (0.0, 0.4), "undecided"),
        (0.2, (-0.1, 0.5), "undecided"),
        (-0.2, (-0.3, -0.1), "not reproduced"),
        (-0.2, (-0.4, 0.0), "not reproduced"),
        (0.1, None, "reproduced"),
        (0.0, None, "not reproduced"),
        (-0.1, None, "not reproduced"),
    ],
)
def test_the_interval_decides(estimate: float, ci95: tuple[float, float] | None, verdict: str) -> None:
    assert judged("It is so.", estimate, ci95, "a difference").verdict == verdict


def right(*counts: tuple[int, bool, bool]) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of two networks from counts of pairs."""
    first = np.concatenate([np.full(n, a) for n, a, _ in counts])
    second = np.concatenate([np.full(n, b) for n, _, b in counts])
    return first, second


def test_paired_outcomes_are_compared_in_pairs() -> None:
    first, second = right((40, True, True), (30, True, False), (10, False, True), (20, False, False))
    trend = higher("The first is better.", first, second)
    assert trend.estimate == pytest.approx(0.7 - 0.5)
    assert trend.unit == "%"
    # Newcombe 1998, Stat. Med. 17:2635, method 10, computed from its formula
    l1, u1 = wilson(70, 100)
    l2, u2 = wilson(50, 100)
    phi = (40 * 20 - 30 * 10 - 50) / math.sqrt(70 * 30 * 50 * 50)
    low = 0.2 - math.sqrt((0.7 - l1) ** 2 - 2 * phi * (0.7 - l1) * (u2 - 0.5) + (u2 - 0.5) ** 2)
    high = 0.2 + math.sqrt((u1 - 0.7) ** 2 - 2 * phi * (u1 - 0.7) * (0.5 - l2) + (0.5 - l2) ** 2)
    assert trend.ci95 == pytest.approx((low, high))
    assert trend.verdict == "reproduced"
    assert higher("The second is better.", second, first).estimate == pytest.approx(-0.2)
    assert higher("The second is better.", second, first).verdict == "not reproduced"


def test_pairs_decide_what_independent_samples_leave_open() -> None:
    first, second = right((480, True, True), (15, True, False), (1, False, True), (4, False, False))
    assert higher("The first is better.", first, second).verdict == "reproduced"
    assert higher_unpaired("The first is better.", first[:100], second[:90]).verdict == "undecided"


def test_unpaired_outcomes() -> None:
    """Newcombe 1998, Stat. Med. 17:873, table II (a), method 10."""
    first, second = np.arange(70) < 56, np.arange(80) < 48
    trend = higher_unpaired("The first is better.", first, second)
    assert trend.ci95 == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_repetitions_have_students_interval() -> None:
    values = [0.3, 0.1, 0.25, 0.4, -0.05]
    trend = mean_above_zero("It is positive.", values, "a difference, mean over 5 repetitions")
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert trend.ci95 == pytest.approx((expected.low, expected.high))
    assert trend.estimate == pytest.approx(0.2)
    assert expected.low < 0
    assert trend.verdict == "undecided"
    assert trend.unit == ""


def test_equal_repetitions_have_an_interval_of_one_point() -> None:
    assert mean_above_zero("It is positive.", [0.1, 0.1, 0.1], "x").verdict == "reproduced"
    assert mean_above_zero("It is positive.", [0.0, 0.0], "x").verdict == "not reproduced"


def test_one_repetition_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least two repetitions, but got 1"):
        mean_above_zero("It is positive.", [0.1], "x")


def findings() -> Findings:
    return Findings(
        name="example",
        source="Author 2020, table 1",
        scale="digits",
        settings={"network": "a * small | one"},
        measured=[
            Measured(name="accuracy", value=0.123, published=0.5, ci95=(0.1, 0.15), unit="%"),
            Measured(name="slope", value=1234.567),
        ],
        tables=[AnalysisTable(title="A table", columns=["a", "b"], rows=[["x|y", "1"]])],
        trends=[
            Trend(statement="A is more.", verdict="reproduced", estimate=0.1, ci95=(0.05, 0.15), measure="d", unit="%"),
            Trend(statement="B is more.", verdict="undecided", estimate=0.1, ci95=(-0.05, 0.25), measure="s"),
            Trend(statement="C is 1.", verdict="not reproduced", estimate=-1, measure="count"),
        ],
        curves=[Curve(panel="p", label="l", x=[0, 1], y=[0.5, 0.6], low=[0.4, 0.5], high=[0.6, 0.7])],
        notes=["a note"],
    )


def test_findings_are_read_back_as_written(tmp_path: Path) -> None:
    findings().to_json(tmp_path / "f.json")
    assert Findings.from_json(tmp_path / "f.json") == findings()


def test_measured_values_are_shown_beside_published_ones() -> None:
    table = measured_table(findings().measured)
    assert table.columns == ["quantity", "published", "here", "95 % interval"]
    assert table.rows == [["accuracy", "50.0 %", "12.3 %", "[10.0, 15.0]"], ["slope", "", "1235", ""]]
    assert measured_table([Measured(name="n", value=1, unit="s")]).rows == [["n (s)", "1"]]  # no empty columns


def test_estimates_have_their_unit() -> None:
    texts = [estimate_text(trend) for trend in findings().trends]
    assert texts == ["+10.0 points [5.0, 15.0]", "+0.1 [-0.05, 0.25]", "-1 (exact)"]
    assert verdict_line(findings()) == "1 of 3 trends reproduced, 1 not reproduced, 1 undecided"
    assert verdict_line(Findings()) == "no trends"


def test_markdown_shows_everything_as_it_is() -> None:
    text = markdown(findings(), "example.png")
    assert "# example\n\nAuthor 2020, table 1. Scale `digits`.\n" in text
    assert r"| A is more. | **reproduced** | d: +10.0 points \[5.0, 15.0\] |" in text
    assert r"| accuracy | 50.0 % | 12.3 % | \[10.0, 15.0\] |" in text
    assert r"| x\|y | 1 |" in text
    assert r"- network: a \* small \| one" in text
    assert "![example](example.png)" in text
    assert "- a note\n" in text
    assert "![" not in markdown(findings())
