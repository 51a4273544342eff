"""Filtered kernels and the smoothness penalty, on digits."""

from __future__ import annotations

import pytest

from freqrobust.experiments.reproduce import reproduce
from freqrobust.results.findings import Findings


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("kernel-regularization")


def test_both_methods_give_smoother_kernels(found: Findings) -> None:
    rows = {row[0]: (float(row[1]), float(row[2])) for row in found.tables[0].rows}
    natural = rows["natural"]
    for name in ("penalty in training", "filtered, first layer", "filtered, all layers"):
        assert rows[name][0] < natural[0] - 0.05
        assert rows[name][1] < natural[1] - 1
    assert rows["filtered, all layers"] < rows["filtered, first layer"]
    assert found.trends[0].verdict == "reproduced"
    assert found.trends[0].ci95 is not None  # over filters: one training decides nothing exactly


def test_adversarial_training_gives_the_larger_improvement(found: Findings) -> None:
    verdicts = [trend.verdict for trend in found.trends if "smaller than" in trend.statement]
    assert verdicts == ["reproduced"] * 2
