"""On a linear model the best perturbation is known: FGSM and PGD have to reach its loss, and may not exceed it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

SHAPE = (3, 5, 5)
EPS = {"linf": 0.03, "l2": 0.2}
#: Steps as long as the ball is wide: what is left of the random start at least halves with every step.
PGD = "pgd:eps={eps},norm={norm},steps=60,step_size={eps},loss={loss}"


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return nn.Sequential(nn.Flatten(), layer).eval()


def random_model(classes: int) -> tuple[np.ndarray, np.ndarray, nn.Module]:
    rng = np.random.default_rng(classes)
    weight = rng.standard_normal((classes, int(np.prod(SHAPE)))).astype(np.float32)
    bias = rng.standard_normal(classes).astype(np.float32)
    return weight, bias, linear(weight, bias)


def images_inside(n: int, low: float = 0.3, high: float = 0.7) -> np.ndarray:
    return np.random.default_rng(7).uniform(low, high, (n, *SHAPE)).astype(np.float32)


def run(spec: str, model: nn.Module, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    attack = attacks.parse(spec)[0].plugin
    context = AttackContext(torch.arange(len(images)), seed=0, goal="maximize")
    return attack.perturb(model, torch.from_numpy(images), torch.from_numpy(labels), context).numpy()


def loss(name: str, weight: np.ndarray, bias: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = images.reshape(len(images), -1).astype(np.float64) @ weight.T.astype(np.float64) + bias
    values = []
    for row, label in zip(logits, labels, strict=True):
        others = np.delete(row, label)
        values.append(np.log(np.exp(row - row[label]).sum()) if name == "ce" else others.max() - row[label])
    return np.array(values)


def dual(direction: np.ndarray, norm: str) -> float:
    """What a perturbation of norm 1 can add to ``direction . x``."""
    return float(np.abs(direction).sum() if norm == "linf" else np.sqrt((direction.astype(np.float64) ** 2).sum()))


def specs(norm: str, loss_name: str) -> list[str]:
    eps = EPS[norm]
    found = [PGD.format(eps=eps, norm=norm, loss=loss_name)]
    found.append(f"{found[0]},random_start=false")
    return [*found, f"fgsm:eps={eps},norm={norm}"] if loss_name == "ce" else found


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss_name", ["ce", "margin"])
def test_two_classes_reach_the_closed_form(norm, loss_name) -> None:
    """The margin grows by ``eps * ||w_other - w_label||_*``; cross-entropy is ``log(1 + exp(margin))``."""
    weight, bias, model = random_model(2)
    images = images_inside(16)
    labels = np.arange(16) % 2
    gain = EPS[norm] * dual(weight[1] - weight[0], norm)
    best = loss("margin", weight, bias, images, labels) + gain
    best = np.log1p(np.exp(best)) if loss_name == "ce" else best
    for spec in specs(norm, loss_name):
        found = loss(loss_name, weight, bias, run(spec, model, images, labels), labels)
        np.testing.assert_allclose(found, best, rtol=2e-5, atol=2e-5, err_msg=spec)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss_name", ["ce", "margin"])
def test_ten_classes_along_one_direction_reach_the_closed_form(norm, loss_name) -> None:
    """Logits ``s_k (v . x) + b_k``: for the labels with the smallest and the largest ``s_k`` both losses are monotone."""
    rng = np.random.default_rng(3)
    v = rng.standard_normal(int(np.prod(SHAPE))).astype(np.float32)
    slopes = np.linspace(-1, 1, 10).astype(np.float32)
    weight, bias = np.outer(slopes, v), (0.1 * rng.standard_normal(10)).astype(np.float32)
    model = linear(weight, bias)
    images = images_inside(16)
    labels = np.where(np.arange(16) % 2 == 0, 0, 9)
    push = (1 if norm == "linf" else 1 / np.sqrt((v**2).sum())) * (np.sign(v) if norm == "linf" else v)
    optimal = images.reshape(16, -1) + EPS[norm] * np.where(labels == 0, 1, -1)[:, None] * push
    best = loss(loss_name, weight, bias, optimal, labels)
    for spec in specs(norm, loss_name):
        found = loss(loss_name, weight, bias, run(spec, model, images, labels), labels)
        np.testing.assert_allclose(found, best, rtol=2e-5, atol=2e-5, err_msg=spec)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ten_random_classes_reach_the_best_runner_up_and_never_more(norm) -> None:
    """The largest margin is ``max_j (margin_j + eps * ||w_j - w_label||_*)``."""
    weight, bias, model = random_model(10)
    images = images_inside(64)
    labels = loss_argmax(weight, bias, images)
    eps = EPS[norm] / 10
    logits = images.reshape(64, -1) @ weight.T + bias
    margins = logits - logits[np.arange(64), labels][:, None]
    gains = np.array([[eps * dual(weight[j] - weight[y], norm) for j in range(10)] for y in labels])
    reachable = margins + gains
    reachable[np.arange(64), labels] = -np.inf
    best = reachable.max(axis=1)
    spec = PGD.format(eps=eps, norm=norm, loss="margin")
    found = loss("margin", weight, bias, run(spec, model, images, labels), labels)
    assert (found <= best + 1e-4).all()
    # a climb follows the runner-up it starts with; where nobody can overtake that one it has to arrive
    margins[np.arange(64), labels] = -np.inf
    order = np.argsort(-margins, axis=1)
    first, second = order[:, 0], order[:, 1]
    rows = np.arange(64)
    clear = margins[rows, first] - gains[rows, first] > margins[rows, second] + gains.max(axis=1)
    assert clear.sum() >= 20
    np.testing.assert_allclose(found[clear], best[clear], rtol=2e-5, atol=2e-5)


def loss_argmax(weight: np.ndarray, bias: np.ndarray, images: np.ndarray) -> np.ndarray:
    return (images.reshape(len(images), -1) @ weight.T + bias).argmax(axis=1)


@pytest.mark.parametrize("spec", ["fgsm:eps=0.1", "pgd:eps=0.1,steps=40,step_size=0.1", "pgd:eps=0.1,steps=20"])
def test_box_binds_for_linf(spec) -> None:
    """The optimum of ``c . x`` in box and ball is ``clip(x + eps * sign(c), 0, 1)``, pixel by pixel."""
    weight, _, model = random_model(2)
    images = images_inside(16, 0, 1)
    images[images < 0.2] = 0
    images[images > 0.8] = 1
    labels = np.arange(16) % 2
    direction = np.where(labels == 0, 1, -1)[:, None] * (weight[1] - weight[0])
    optimal = np.clip(images + np.float32(0.1) * np.sign(direction).reshape(images.shape), 0, 1)
    np.testing.assert_allclose(run(spec, model, images, labels), optimal, atol=1e-7)
    free = images + np.float32(0.1) * np.sign(direction).reshape(images.shape)
    assert (free != optimal).mean() > 0.1  # it did bind


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_climb_reaches_the_target_margin(norm) -> None:
    """Towards class ``label + 1`` the margin ``w_target - w_label`` is the one that grows."""
    weight, bias, model = random_model(4)
    images = images_inside(8)
    labels = np.arange(8) % 4
    targets = (labels + 1) % 4
    found = run(PGD.format(eps=EPS[norm], norm=norm, loss="margin") + ",target=next", model, images, labels)
    logits = found.reshape(8, -1).astype(np.float64) @ weight.T + bias
    clean = images.reshape(8, -1).astype(np.float64) @ weight.T + bias
    rows = np.arange(8)
    gains = np.array([EPS[norm] * dual(weight[t] - weight[y], norm) for t, y in zip(targets, labels, strict=True)])
    best = clean[rows, targets] - clean[rows, labels] + gains
    np.testing.assert_allclose(logits[rows, targets] - logits[rows, labels], best, rtol=2e-5, atol=2e-5)


def test_restarts_keep_the_best_of_all_climbs() -> None:
    """One tiny step from random starts: more restarts can only find more, and do."""
    weight, bias, model = random_model(10)
    images = images_inside(32)
    labels = loss_argmax(weight, bias, images)
    losses = [
        loss(
            "ce", weight, bias, run(f"pgd:eps=0.1,steps=1,step_size=0.001,restarts={k}", model, images, labels), labels
        )
        for k in (1, 3, 6)
    ]
    assert (losses[1] >= losses[0] - 1e-5).all()
    assert (losses[2] >= losses[1] - 1e-5).all()
    assert losses[2].mean() > losses[0].mean() + 0.01
