"""Budgets at which a gate can fail: searched on accuracies that are known, and on a network with a closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.data.loading import as_data
from freqrobust.gate.budgets import GRIDS, HIGHEST, LOWEST, choose, search
from freqrobust.gate.regression import hindrance

GRID = GRIDS["linf"][0]


@pytest.mark.parametrize("half", [0.03, 0.3, 1.3, 5.7, 40.0, 150.0])
@pytest.mark.parametrize("steep", [2.0, 30.0])
def test_the_search_brackets_the_accuracies(half: float, steep: float) -> None:
    """Of a logistic curve in log eps; between two budgets of the grid where it is steep."""
    asked: list[float] = []

    def measure(levels: list[float]) -> dict[float, float]:
        asked.extend(levels)
        return {eps: 1 / (1 + (eps / half) ** steep) for eps in levels}

    chosen, found = search(measure, GRID)
    assert list(found) == sorted(found)
    assert sorted(asked) == list(found)  # nothing is measured twice
    assert len(found) <= len(GRID) + 5
    reachable = half < 2 * GRID[-1]
    assert bool(chosen) == reachable
    assert len(chosen) <= 2
    assert all(LOWEST <= found[eps] <= HIGHEST for eps in chosen)


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 1.0])
def test_a_flat_curve_has_no_budget(accuracy: float) -> None:
    chosen, found = search(lambda levels: dict.fromkeys(levels, accuracy), GRID)
    assert chosen == []
    assert len(found) <= len(GRID) + 5


def linear(scale: float, n: int = 200) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Two classes whose difference of logits has the gradient ``w``, with margins spread over [0, scale] * ||w||_1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    signs = torch.where(torch.arange(64) % 3 == 0, 1.0, -1.0)
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(64), signs]))
        model[1].bias.zero_()
    sides = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    distances = sides * scale * (torch.arange(n) + 0.5) / n  # the Linf distance of each sample from the boundary
    images = 0.5 + distances[:, None] * signs
    with torch.no_grad():
        model[1].bias[1] = -0.5 * signs.sum()
    return model.eval(), images.view(n, 1, 8, 8), (sides > 0).long()


def test_budgets_of_a_linear_network_are_those_of_the_closed_form() -> None:
    """The accuracy at eps is 1 - eps / scale: 50 % at 4/255 where the distances reach 8/255."""
    model, images, labels = linear(8 / 255)
    chosen = choose(model, as_data((images, labels)))
    assert chosen.attacks[-1] in ("pgd:eps=4/255,steps=10", "pgd:eps=[2/255,4/255],steps=10")
    measured = dict(item.split() for item in chosen.comments[-1].partition("eps: ")[2].split(", "))
    for eps, expected in (("0.25/255", 96.9), ("2/255", 75.0), ("4/255", 50.0)):
        assert float(measured[eps].rstrip("%")) == pytest.approx(expected, abs=6)  # of 100 of the samples
    assert measured["16/255"] == "0%"
    assert "clean 100%" in chosen.comments[0]


def test_cells_that_cannot_fail_are_warned_of() -> None:
    """A network without any skill, and a norm at which nothing can be found."""
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    chosen = choose(model, as_data((images, torch.arange(40) % 4)), ["linf", "l2"])
    text = "\n".join(chosen.warnings)
    assert "the gate cell clean can hardly fail: its accuracy is 25.0%, which is not above chance (25.0%)" in text
    assert chosen.attacks
    right = choose(model, as_data((images, torch.zeros(40, dtype=torch.int64))), ["linf"])
    assert right.attacks == []
    assert "no Linf budget with an accuracy from 20% to 80% was found" in right.warnings[0]


@pytest.mark.parametrize(
    ("accuracy", "allowed", "detectable", "chance", "said"),
    [
        (0.0, 0.01, 0.03, None, ("can never", "which cannot drop")),
        (0.01, 0.01, 0.03, None, ("can never", "and drops of up to 1 points are allowed")),
        (0.1, 0.01, 0.03, 0.1, ("can hardly", "which is not above chance (10.0%)")),
        (0.1, 0.01, 0.12, None, ("can hardly", "which is less than the minimum detectable drop (it is 12.0 points)")),
        (0.9, 0.01, None, None, ("can hardly", "which is less than the minimum detectable drop (there is none)")),
        (0.1, 0.01, 0.03, None, None),
        (0.12, 0.01, 0.12, 0.1, None),
    ],
)
def test_what_hinders_a_gate_cell(accuracy, allowed, detectable, chance, said) -> None:
    assert hindrance(accuracy, allowed, detectable, chance) == said


def test_norms_are_checked_before_anything_is_measured() -> None:
    with pytest.raises(SpecError, match="unknown norm 'linff'; did you mean 'linf'"):
        choose(None, as_data((torch.rand(4, 1, 8, 8), torch.arange(4))), ["linff"])
    assert all(math.isfinite(eps) for grid, _ in GRIDS.values() for eps in grid)
