"""Random noise as a control: distributed as it says, inside of its budget, and the worst of its draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from freqrobust import evaluate
from freqrobust.numerics.norms import norms
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

SHAPE = (3, 8, 8)


class Spy(nn.Module):
    """Keeps the images it is shown; the prediction depends on one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.clone())
        return torch.stack([torch.full((len(x),), 0.55), x[:, 0, 0, 0]], dim=1)


def run(spec: str, level: float = 0.5, n: int = 400, goal: str = "decide", model: nn.Module | None = None):
    attack = attacks.parse(spec)[0].plugin
    images, labels = torch.full((n, *SHAPE), level), torch.zeros(n, dtype=torch.int64)
    return attack.perturb(model or Spy(), images, labels, AttackContext(torch.arange(n), 0, goal)) - images


@pytest.mark.parametrize("level", [0.5, 0.0, 0.98])
@pytest.mark.parametrize("distribution", ["uniform", "gaussian", "sign"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.7), ("l1", 5.0)])
def test_the_budget_is_used_up_but_for_what_the_box_takes(level, distribution, norm, eps) -> None:
    delta = run(f"noise:distribution={distribution},norm={norm},eps={eps},draws=1", level)
    size = norms(delta, norm)
    assert size.max() <= eps * (1 + 1e-6)
    assert (level + delta).min() >= 0
    assert (level + delta).max() <= 1
    if level == 0.5:
        assert size.min() > (0.9 if norm == "linf" else 0.99999) * eps


def test_linf_noise_is_distributed_as_documented() -> None:
    values = {
        d: run(f"noise:distribution={d},eps=0.1,draws=1").flatten().double().numpy()
        for d in ("uniform", "gaussian", "sign")
    }
    assert stats.kstest(values["uniform"] / 0.2 + 0.5, "uniform").pvalue > 1e-4
    assert set(np.round(values["sign"], 6)) == {-0.1, 0.1}
    assert abs((values["sign"] > 0).mean() - 0.5) < 0.01
    cut = np.abs(values["gaussian"]) > 0.1 - 1e-6
    assert cut.mean() == pytest.approx(2 * stats.norm.sf(1), abs=0.01)
    inner = values["gaussian"][~cut] / 0.1
    assert stats.kstest(inner, stats.truncnorm(-1, 1).cdf).pvalue > 1e-4


def test_l2_gaussian_noise_has_no_preferred_direction() -> None:
    delta = run("noise:distribution=gaussian,norm=l2,eps=0.5,draws=1", n=4000).flatten(1).double().numpy()
    d = delta.shape[1]
    position = (delta[:, 5] / 0.5 + 1) / 2  # a coordinate of a uniform point of the sphere: Beta((d-1)/2, (d-1)/2)
    assert stats.kstest(position, stats.beta((d - 1) / 2, (d - 1) / 2).cdf).pvalue > 1e-4


def test_draws_differ_and_a_sample_is_broken_by_any_of_them() -> None:
    """The pixel has to rise by half of the budget: a draw breaks a quarter, ten draws all but 0.75 ** 10."""
    n = 2000
    images, labels = torch.full((n, *SHAPE), 0.5), torch.zeros(n, dtype=torch.int64)
    for draws in (1, 2, 10):
        found = evaluate(Spy(), (images, labels), attacks=[f"noise:eps=0.1,draws={draws}"], device="cpu").cells[1]
        assert found.accuracy == pytest.approx(0.75**draws, abs=0.03)
        assert found.perturbation.successes == n - found.correct


@pytest.mark.parametrize("goal", ["decide", "maximize"])
def test_what_is_returned_was_one_of_the_draws_and_the_worst(goal) -> None:
    spy = Spy()
    delta = run("noise:eps=0.1,draws=6", goal=goal, model=spy)
    if goal == "maximize":
        drawn = torch.stack(spy.seen) - 0.5
        assert len(drawn) == 6
        best = drawn[:, :, 0, 0, 0].argmax(dim=0)
        assert torch.equal(delta, drawn[best, torch.arange(400)])
        assert len(best.unique()) == 6
    else:
        broken = delta[:, 0, 0, 0] > 0.05
        assert 0.75 < broken.float().mean() < 0.9
        assert [len(x) for x in spy.seen] == sorted((len(x) for x in spy.seen), reverse=True)
        assert len(spy.seen) == 5  # the last draw is predicted by whoever counts


def test_a_sweep_hands_nothing_over() -> None:
    images, labels = torch.full((100, *SHAPE), 0.5), torch.zeros(100, dtype=torch.int64)
    report = evaluate(Spy(), (images, labels), attacks=["noise:eps=[0.06,0.1,0.2],draws=1"], device="cpu")
    assert [c.inherited for c in report.cells] == [0, 0, 0, 0]
