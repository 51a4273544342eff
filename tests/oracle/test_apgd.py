"""Auto-PGD: the optimum where it is known, the schedule of the step sizes, the ranking of targets, and the library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.attacks.gradient.ascent import Patience
from freqrobust.attacks.gradient.regions import Ball
from freqrobust.attacks.gradient.step_sizes import AutoSteps, checkpoints
from freqrobust.attacks.gradient.targets import ranked_targets
from freqrobust.numerics.losses import loss_function
from freqrobust.numerics.norms import farthest_l1, norms
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks
from support.networks import tiny, untrained

EPS = {"linf": 0.03, "l2": 0.2, "l1": 1.5}
SHAPE = (3, 5, 5)


def build(spec: str):
    return attacks.parse(spec)[0].plugin


def linear(classes: int) -> nn.Module:
    generator = torch.Generator().manual_seed(classes)
    layer = nn.Linear(75, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(torch.randn(classes, generator=generator))
    return nn.Sequential(nn.Flatten(), layer).eval().requires_grad_(False)


def images(n: int, low: float = 0.3, high: float = 0.7) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(7))


def margins(model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return loss_function("margin")(model(x), labels, None)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("loss", ["margin", "ce", "pm"])
@pytest.mark.parametrize("low", [0.3, 0.0])
def test_two_classes_reach_the_optimum(norm, loss, low) -> None:
    """Of a linear function: ``eps * ||w||_*`` inside of [0, 1]; for Linf and L1 also where the walls bind."""
    model, x, labels = linear(2), images(12, low, 1 - low), torch.arange(12) % 2
    direction = (model[1].weight[1] - model[1].weight[0]).view(1, *SHAPE) * (1 - 2 * labels).view(-1, 1, 1, 1)
    if norm == "linf":
        best = (x + EPS[norm] * direction.sign()).clamp(0, 1)
    elif norm == "l1":
        best = farthest_l1(direction, x, EPS[norm])
    elif low == 0:
        pytest.skip("the projection onto L2 ball and [0, 1] is not the nearest point")
    else:
        best = x + EPS[norm] * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    attack = build(f"apgd:eps={EPS[norm]},norm={norm},loss={loss},steps=100,targets=0")
    found = attack.perturb(model, x, labels, AttackContext(torch.arange(12), 0, "maximize"))
    assert norms(found - x, norm).max() <= EPS[norm] + 1e-5
    gained = margins(model, found, labels) - margins(model, x, labels)
    possible = margins(model, best, labels) - margins(model, x, labels)
    assert (gained <= possible + 1e-4).all()
    assert (gained >= (0.995 if norm == "l1" else 0.9999) * possible - 1e-4).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targeted_runs_reach_the_best_of_all_classes(norm) -> None:
    """The largest margin on a linear model is ``max_j (margin_j + eps * ||w_j - w_y||_*)``; far from the walls."""
    model, x = linear(6), images(30, 0.4, 0.6)
    weight = model[1].weight
    with torch.no_grad():
        logits = model(x)
    labels, eps = logits.argmax(dim=1), 0.1 * EPS[norm]
    order = {"linf": 1, "l2": 2, "l1": float("inf")}[norm]
    reachable = torch.stack(
        [
            logits[:, j]
            - logits.gather(1, labels[:, None])[:, 0]
            + eps * (weight[j] - weight[labels]).norm(order, dim=1)
            for j in range(6)
        ],
        dim=1,
    ).scatter(1, labels[:, None], float("-inf"))
    attack = build(f"apgd:eps={eps},norm={norm},loss=margin,steps=60,untargeted=false,targets=5")
    found = attack.perturb(model, x, labels, AttackContext(torch.arange(30), 0, "maximize"))
    best = reachable.max(dim=1).values
    assert ((margins(model, found, labels) - best).abs() < 0.01 * (1 + best.abs())).all()
    # every sample that some class can be reached of is found, also when each stops at its first success
    decided = attack.perturb(model, x, labels, AttackContext(torch.arange(30)))
    assert ((margins(model, decided, labels) > 0) == (best > 1e-3))[(best.abs() > 0.02)].all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_first_target_is_the_nearest_boundary(norm) -> None:
    """On a linear model the distances are exact: ``(z_y - z_j) / ||w_y - w_j||_*``."""
    model, x = linear(7), images(20)
    with torch.no_grad():
        logits = model(x)
    labels, weight = logits.argmax(dim=1), model[1].weight
    order = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    for row, classes in enumerate(ranked_targets(model, x, labels, norm, 6, 6).tolist()):
        y = int(labels[row])
        distance = {
            j: float((logits[row, y] - logits[row, j]) / np.linalg.norm((weight[y] - weight[j]).numpy(), order))
            for j in range(7)
            if j != y
        }
        assert classes == sorted(distance, key=distance.__getitem__)


def test_ranking_with_few_classes_and_without_gradients() -> None:
    labels, x = torch.zeros(3, dtype=torch.int64), images(3)
    assert ranked_targets(linear(2), x, labels, "linf", 9, 9).shape == (3, 1)
    assert ranked_targets(linear(3), x, labels, "linf", 9, 9).shape == (3, 2)

    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([3.0, 1.0, 2.0]).expand(len(x), 3)

    assert ranked_targets(Constant(), x, labels, "l2", 2, 9).tolist() == [[2, 1]] * 3


def test_checkpoints_are_those_of_the_paper() -> None:
    """p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 for 100 steps."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(50)[0] == 11
    assert checkpoints(1) == [1]


def test_the_step_size_is_halved_where_the_loss_does_not_grow() -> None:
    """Of two samples one has a growing loss, one an oscillating one; only the second goes on from its best point."""
    origin = torch.full((2, 1, 1, 4), 0.5)
    stepper = AutoSteps(Ball("linf", 0.1, 0.1).region(origin), 100)
    gradient, point, seen = torch.ones_like(origin), origin, []
    for step in range(23):
        seen.append(point)
        values = torch.tensor([float(step), 5.0 if step == 3 else float(step % 2)])
        point = stepper.step(point + 0.001 * step, values, gradient)
    assert stepper._state["size"].tolist() == pytest.approx([0.2, 0.1])
    assert torch.equal(stepper._state["previous"][1], stepper._state["best"][1])
    assert stepper._state["best_loss"].tolist() == [22.0, 5.0]


def test_samples_do_not_depend_on_each_other() -> None:
    """Each alone and all together give the same images, up to rounding in the model; and in any order."""
    model, data = tiny(10, 12)
    x, labels, ids = data.batch(torch.arange(12), torch.device("cpu"))
    model.double()
    for spec in (
        "apgd:eps=0.3/255,steps=25,targets=2",
        "apgd:eps=0.1,norm=l2,steps=25,targets=0",
        "apgd:eps=1,norm=l1,steps=25,targets=0",
    ):
        attack = build(spec)
        together = attack.perturb(model, x.double(), labels, AttackContext(ids, 3))
        order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
        shuffled = attack.perturb(model, x.double()[order], labels[order], AttackContext(ids[order], 3))
        torch.testing.assert_close(shuffled, together[order], atol=1e-9, rtol=0)
        for i in range(0, 12, 5):
            alone = attack.perturb(model, x.double()[i : i + 1], labels[i : i + 1], AttackContext(ids[i : i + 1], 3))
            torch.testing.assert_close(alone[0], together[i], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 0.25), ("l1", 1.5)])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_is_at_least_as_strong_as_the_library(norm, eps, loss) -> None:
    """Same loss and steps, one run: the mean margin that both reach, and the samples that both misclassify."""
    library = pytest.importorskip("pyautoattack", reason="the extra 'zoo' is not installed")
    model = untrained(1, classes=6, channels=3, width=8).eval().requires_grad_(False)
    x = torch.rand(80, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        labels = model(x).argmax(dim=1)
    with torch.random.fork_rng(devices=[]):
        theirs = library.autopgd_base.APGDAttack(
            model,
            n_iter=40,
            norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[norm],
            n_restarts=1,
            eps=eps,
            seed=0,
            loss=loss,
        )
        expected = theirs.perturb(x.clone(), labels.clone(), best_loss=True)
    attack = build(f"apgd:eps={eps},norm={norm},loss={loss},steps=40,targets=0")
    found = attack.perturb(model, x, labels, AttackContext(torch.arange(80), 0, "maximize"))
    function = loss_function(loss)
    with torch.no_grad():
        ours, other = function(model(found), labels, None), function(model(expected), labels, None)
    # the median: the ratio of logits is unbounded where two of them meet
    assert ours.median() >= other.median() - 0.01 * other.abs().median()
    assert int((margins(model, found, labels) > 0).sum()) >= int((margins(model, expected, labels) > 0).sum()) - 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("broken", ["nan", "inf", "equal"])
def test_useless_gradients_do_not_leave_the_ball(norm, broken) -> None:
    """Gradients that are NaN or infinite for some pixels, and logits that are all equal."""

    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = x.flatten(1)[:, :4]
            if broken == "equal":
                return 0 * logits
            factor = float(broken)
            x.register_hook(
                lambda g: torch.where(torch.arange(g[0].numel()).view(g[0].shape) % 2 == 0, g * factor, g)
            ) if x.requires_grad else None
            return logits

    x = images(5)
    labels = torch.zeros(5, dtype=torch.int64)
    for goal in ("decide", "maximize"):
        for targets in (0, 2):
            attack = build(f"apgd:eps=0.1,norm={norm},steps=6,targets={targets}")
            found = attack.perturb(Broken(), x, labels, AttackContext(torch.arange(5), 0, goal))
            assert torch.isfinite(found).all()
            assert norms(found - x, norm).max() <= 0.1 + 1e-6
            assert found.min() >= 0
            assert found.max() <= 1


def test_the_probability_margin_does_not_saturate_in_float32() -> None:
    """Of a prediction that float32 calls certain, the loss and its gradient still tell classes apart."""
    logits = torch.tensor([[30.0, 0.0, 1.0]], requires_grad=True)
    labels = torch.zeros(1, dtype=torch.int64)
    value = loss_function("pm")(logits, labels, None)
    expected = np.exp(1.0) / (np.exp(30.0) + np.exp(1.0) + 1) - np.exp(30.0) / (np.exp(30.0) + np.exp(1.0) + 1)
    assert float(value.detach()) == pytest.approx(expected, abs=1e-15)
    gradient = torch.autograd.grad(value.sum(), logits)[0][0]
    assert gradient[2] > 0
    assert gradient[0] < 0
    both = loss_function("pm")(logits, labels, torch.tensor([1]))
    assert float(both.detach()) < float(value.detach())


def test_few_classes_and_unknown_losses() -> None:
    for classes in (2, 3):
        model, data = tiny(classes, 6)
        cell = evaluate(model, data, attacks=["apgd:eps=2/255,targets=5,steps=5"], device="cpu").cells[1]
        assert cell.status == "ok", cell.error
    cell = evaluate(*tiny(2, 6), attacks=["apgd:eps=2/255,loss=dlr,steps=5"], device="cpu").cells[1]
    assert cell.status == "failed"
    assert "loss=dlr needs at least 3 classes" in cell.error


def test_patience_follows_its_rule() -> None:
    """Beside a loop over single samples: after every 10 steps, twice the mean growth since the last look decides."""
    steps = 50
    series = torch.cumsum(torch.randn(40, steps, generator=torch.Generator().manual_seed(3)).double() * 0.3, dim=1) - 4
    patience, stopped = Patience(steps), torch.full((40,), steps)
    for step in range(steps):
        stop = patience.hopeless(series[:, step])
        stopped = torch.where(stop & (stopped == steps), step, stopped)
    for values, found in zip(series.tolist(), stopped.tolist(), strict=True):
        looks = [max(values[: step + 1]) for step in range(0, steps, 10)]
        expected = steps
        for number in range(1, len(looks)):
            growth = (looks[number] - looks[number - 1]) / 10
            if looks[number] + 2 * growth * (steps - 10 * number) < 0:
                expected = 10 * number
                break
        assert found == expected
    assert 0 < (stopped < steps).sum() < 40


def test_early_stopping_saves_passes_and_finds_the_same() -> None:
    """Of a linear model the margin stops growing at the optimum, so that nothing is lost by stopping there."""
    model, x, labels = linear(4), images(40), torch.arange(40) % 4
    found, passes = [], []
    for early in ("false", "true"):
        counted = Counting(model)
        attack = build(f"apgd:eps=0.01,early_stopping={early}")
        examples = attack.perturb(counted, x, labels, AttackContext(torch.arange(40)))
        found.append(margins(model, examples, labels) > 0)
        passes.append(counted.images)
    assert torch.equal(*found)
    assert 0 < found[0].sum() < 40
    assert passes[1] < 0.7 * passes[0]


def test_the_highest_loss_needs_no_targets() -> None:
    """One untargeted run of 6 steps and the last look; with ``untargeted=false`` a run for each target as well."""
    model, x, labels = linear(4), images(5), torch.arange(5) % 4
    for given, expected in (("targets=2", 7 * 5), ("targets=0", 7 * 5)):
        counted = Counting(model)
        build(f"apgd:eps=0.01,steps=6,{given}").perturb(
            counted, x, labels, AttackContext(torch.arange(5), 0, "maximize")
        )
        assert counted.images == expected
    counted = Counting(model)
    targeted = build("apgd:eps=0.01,steps=6,targets=2,untargeted=false")
    targeted.perturb(counted, x, labels, AttackContext(torch.arange(5), 0, "maximize"))
    assert counted.images > 2 * 7 * 5


class Counting(nn.Module):
    """Counts the images of its forward passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        return self.model(x)
