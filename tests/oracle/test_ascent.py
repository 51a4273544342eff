"""The climb itself, watched from inside the model: what it returns is the best, or the first, of what it saw."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust import evaluate
from freqrobust.numerics.losses import loss_function
from freqrobust.numerics.norms import norms
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

N, SHAPE = 12, (1, 4, 4)


class Wavy(nn.Module):
    """Logits that go up and down along the way, so that the last point is rarely the best; it keeps all it sees."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(16, 5, generator=generator))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach().clone())
        return torch.sin(9 * x.flatten(1) @ self.weight) + 0.3 * x.flatten(1) @ self.weight


def images() -> torch.Tensor:
    return torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1))


def run(spec: str, model: nn.Module, labels: torch.Tensor, goal: str) -> torch.Tensor:
    return attacks.parse(spec)[0].plugin.perturb(model, images(), labels, AttackContext(torch.arange(N), 0, goal))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("steps", ["steps=1", "steps=6", "steps=6,restarts=3", "steps=4,random_start=false"])
def test_maximise_returns_the_best_of_all_points_it_tried(norm, loss, steps) -> None:
    model, labels = Wavy(), torch.arange(N) % 5
    found = run(f"pgd:eps=0.3,norm={norm},loss={loss},step_size=0.2,{steps}", model, labels, "maximize")
    tried = list(model.seen)
    restarts = 3 if "restarts" in steps else 1
    assert len(tried) == restarts * (int(steps[6]) + 1)
    function = loss_function(loss)
    losses = torch.stack([function(model(x), labels) for x in tried])
    best = losses.max(dim=0).values
    torch.testing.assert_close(function(model(found), labels), best)
    if steps != "steps=1":
        assert (losses[-1] < best - 0.01).any()  # neither the last nor the first point would have done
        assert (losses[0] < best - 0.01).any()


def by_hand(model: nn.Module, norm: str, eps: float, step: float, steps: int, labels: torch.Tensor) -> np.ndarray:
    """The update formula in float64, pixel arrays and loops, without a random start."""
    origin = images().double().numpy()
    x = origin.copy()
    for _ in range(steps):
        leaf = torch.from_numpy(x).float().requires_grad_(True)
        gradient = torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)[0].double().numpy()
        for i in range(N):
            if norm == "linf":
                moved = x[i] + step * np.sign(gradient[i])
                x[i] = np.clip(np.clip(moved, origin[i] - eps, origin[i] + eps), 0, 1)
            else:
                delta = x[i] + step * gradient[i] / np.sqrt((gradient[i] ** 2).sum()) - origin[i]
                delta *= min(1, eps / np.sqrt((delta**2).sum()))
                x[i] = np.clip(origin[i] + delta, 0, 1)
    return x


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_step_is_the_formula(norm) -> None:
    """A model that is right about everything, so that ``decide`` returns the last point."""
    labels = torch.zeros(N, dtype=torch.int64)

    class Right(Wavy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.1 * super().forward(x) + torch.tensor([9.0, 0, 0, 0, 0])

    for steps in (1, 2, 5):
        spec = f"pgd:eps=0.3,norm={norm},step_size=0.1,steps={steps},random_start=false"
        expected = by_hand(Right(), norm, 0.3, 0.1, steps, labels)
        np.testing.assert_allclose(run(spec, Right(), labels, "decide"), expected, atol=2e-5)
    expected = by_hand(Right(), norm, 0.3, 0.3, 1, labels)
    np.testing.assert_allclose(run(f"fgsm:eps=0.3,norm={norm}", Right(), labels, "decide"), expected, atol=2e-5)


def test_the_default_step_is_that_of_the_documentation() -> None:
    labels = torch.zeros(N, dtype=torch.int64)
    given, default = (run(f"pgd:eps=0.3,steps=5{more}", Wavy(), labels, "maximize") for more in (",step_size=0.15", ""))
    torch.testing.assert_close(given, default, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_decide_returns_the_first_point_that_is_broken(norm) -> None:
    with torch.no_grad():
        labels = Wavy()(images()).argmax(dim=1)
    spec = f"pgd:eps=0.3,norm={norm},step_size=0.05,steps=8,random_start=false"
    found = run(spec, Wavy(), labels, "decide")
    for i in range(N):
        path = Wavy()
        alone = attacks.parse(spec)[0].plugin
        result = alone.perturb(path, images()[i : i + 1], labels[i : i + 1], AttackContext(torch.tensor([i])))
        torch.testing.assert_close(result[0], found[i], atol=1e-6, rtol=0)
        visited = list(path.seen)
        broken = [k for k, x in enumerate(visited) if path(x).argmax(dim=1) != labels[i]]
        if broken:
            assert broken == [len(visited) - 1]  # it stopped there
            torch.testing.assert_close(result, visited[-1])


def test_more_restarts_only_break_more() -> None:
    """A sample that one climb broke stays broken, and is left alone by the climbs that follow."""
    model = Wavy().eval()
    generator = torch.Generator().manual_seed(3)
    many = torch.rand(300, *SHAPE, generator=generator)
    with torch.no_grad():
        labels = model(many).argmax(dim=1)
    spec = "pgd:eps=0.05,steps=2,step_size=0.01,restarts={}"
    cells = [
        evaluate(model, (many, labels), attacks=[spec.format(k)], device="cpu", batch_size=100).cells[1]
        for k in (1, 2, 6)
    ]
    for few, more in pairwise(cells):
        assert not (more.right() & ~few.right()).any()
        assert more.correct < few.correct
        assert more.perturbation.successes == 300 - more.correct
    # two steps a climb, for those that are still right when it starts
    assert cells[2].backwards < 6 * 2 * 300
    assert cells[1].backwards <= cells[0].backwards + 2 * cells[0].correct


def test_examples_of_a_targeted_climb_move_towards_the_target() -> None:
    model, labels = Wavy(), torch.arange(N) % 5
    for target, wanted in [("next", (labels + 1) % 5), ("least-likely", None)]:
        found = run(f"pgd:eps=0.2,steps=8,target={target},random_start=false", model, labels, "maximize")
        with torch.no_grad():
            clean = model(images())
            if wanted is None:
                wanted = clean.scatter(1, labels[:, None], float("inf")).argmin(dim=1)
            gain = F.cross_entropy(clean, wanted, reduction="none") - F.cross_entropy(
                model(found), wanted, reduction="none"
            )
        assert (wanted != labels).all()
        assert (gain >= -1e-5).all()
        assert gain.mean() > 0.2
        assert norms(found - images(), "linf").max() <= 0.2 + 1e-6


def test_random_targets_are_every_other_class_alike() -> None:
    """The classes that the climbs head for, read off the gradient of a linear model."""
    n, classes = 3000, 5
    model = nn.Sequential(nn.Flatten(), nn.Linear(classes, classes, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(classes))
    flat = torch.full((n, 1, 1, classes), 0.5)
    labels = torch.arange(n) % classes
    attack = attacks.parse("pgd:eps=0.1,steps=1,step_size=0.1,loss=margin,target=random,random_start=false")[0].plugin
    found = attack.perturb(model.eval(), flat, labels, AttackContext(torch.arange(n), 0, "maximize"))
    targets = (found - flat).flatten(1).argmax(dim=1)
    assert (targets != labels).all()
    offsets = torch.bincount((targets - labels) % classes, minlength=classes)[1:]
    assert (abs(offsets / n - 1 / (classes - 1)) < 0.03).all()
