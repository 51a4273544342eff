"""The gate on real networks and real images."""

from __future__ import annotations

import numpy as np
import pytest

from freqrobust import ImageData, Report, evaluate
from freqrobust.gate.regression import Rules, compare
from freqrobust.gate.sequential import SequentialGate
from freqrobust.gate.thresholds import Threshold, least_right
from freqrobust.results.cells import Cell
from freqrobust.results.outcomes import pack

ATTACKS = ["lfc:radius=12", "pgd:eps=[0.5/255,1/255],steps=3"]


@pytest.fixture(scope="module")
def reports(models, cifar: ImageData) -> dict[str, Report]:
    options = {"attacks": ATTACKS, "device": "cpu", "diagnose": None, "oblivious": False}
    smooth = evaluate(models["resnet20"], cifar, defenses=["smooth:rho=0.1"], undefended=False, **options)
    for row in (*smooth.cells, *smooth.worst_case):  # the smoothed network as the model itself
        row.defense = row.defense_spec = "undefended"
        row.defense_params = {}
    return {"resnet20": evaluate(models["resnet20"], cifar, **options), "smooth": smooth}


def test_smoothed_kernels_are_a_regression(reports: dict[str, Report]) -> None:
    found = compare(reports["resnet20"], reports["smooth"])
    clean = next(row for row in found.rows if row.name == "undefended / clean")
    assert (round(500 * clean.baseline), round(500 * clean.new)) == (455, 413)  # the reference counts
    assert clean.passed is False
    assert clean.minimum_detectable_drop < clean.measured
    assert compare(reports["smooth"], reports["resnet20"], Rules(("clean",))).passed


def swapped(one: Cell, other: Cell, swap: np.ndarray) -> Cell:
    right = np.where(swap, other.right(), one.right())
    return one.model_copy(update={"correct": int(right.sum()), "outcomes": pack(right)})


def test_chance_alone_raises_few_alarms(reports: dict[str, Report]) -> None:
    """Outcomes exchanged sample by sample, in all cells at once: alarms stay below alpha."""
    old, new = reports["resnet20"], reports["smooth"]
    generator, draws, alarms = np.random.default_rng(0), 200, 0
    rules = Rules(("default", "sweep"), max_drop=0.0)
    for _ in range(draws):
        swap = generator.random(500) < 0.5
        pair = []
        for a, b in ((old, new), (new, old)):
            cells = [swapped(x, y, swap) for x, y in zip(a.cells, b.cells, strict=True)]
            worst = [swapped(x, y, swap) for x, y in zip(a.worst_case, b.worst_case, strict=True)]
            pair.append(a.model_copy(update={"cells": cells, "worst_case": worst}))
        alarms += not compare(*pair, rules).passed
    assert alarms / draws <= 0.05 + 2 * (0.05 * 0.95 / draws) ** 0.5


def test_stopping_early_agrees_with_all_samples(models, cifar: ImageData, reports: dict[str, Report]) -> None:
    """The verdicts of thresholds away from the accuracy, for fewer passes; each look's outcomes are those of the full run."""
    from freqrobust.core.progress import Silent
    from freqrobust.plugins.selection import parse_attacks

    full = reports["resnet20"]
    required = {"clean": 0.8, "lfc:radius=12": 0.9, "pgd:eps=0.5/255": 0.4, "worst-linf-1/255": 0.5}
    gate = SequentialGate([Threshold(*one) for one in required.items()])
    report = gate.measure(
        models["resnet20"],
        cifar,
        attacks=parse_attacks(ATTACKS),
        defenses=[],
        undefended=True,
        oblivious=True,
        seed=0,
        progress=Silent(),
        device="cpu",
    )
    verdicts = {row.name.removeprefix("undefended / "): row.passed for row in gate.rows}
    expected = {
        "clean": True,
        "lfc:radius=12": False,
        "pgd:eps=0.5/255,steps=3": True,
        "worst-linf-1/255": False,
    }
    assert verdicts == expected
    assert full.cell("clean").correct >= least_right(0.8, 500, False)
    assert full.cell("lfc").correct < least_right(0.9, 500, False)
    assert sum(c.forwards for c in report.cells) < 0.6 * sum(c.forwards for c in full.cells)
    for row in gate.rows:
        assert row.sequential is not None
        assert row.sequential.seen == row.n < 500
        assert row.sequential.passes_all > row.sequential.passes
