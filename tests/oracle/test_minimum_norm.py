"""Minimum-norm attacks: on linear models the nearest adversarial example is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import evaluate
from freqrobust.core.errors import SpecError
from freqrobust.numerics.norms import norms, project
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.criterion import Criterion, Misclassification, Targeted, TopK
from freqrobust.plugins.registry import attacks
from freqrobust.results.report import Report
from support.networks import untrained

SHAPE = (3, 5, 5)
SIZE = 75
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
SPECS = ["fmn:norm=linf", "fmn:norm=l2", "fmn:norm=l1", "ddn:steps=200", "deepfool:norm=linf", "deepfool:norm=l2"]
#: Fewer steps of FMN, for what does not depend on their number.
SHORT = [
    "fmn:steps=40",
    "fmn:norm=l2,steps=40",
    "fmn:norm=l1,steps=40",
    "ddn:steps=200",
    "deepfool:norm=linf",
    "deepfool",
]
#: How far above the optimum a distance may be. DDN has a fixed gamma, DeepFool an overshoot of 2 %.
EXCESS = {
    "fmn": 0.01,
    "ddn:steps=200": 0.05,
    "deepfool:norm=linf": 0.021,
    "deepfool:norm=l2": 0.021,
}


def linear(classes: int) -> tuple[np.ndarray, np.ndarray, nn.Module]:
    """Weights, biases, and the model: equal logits at a gray image.

    The model is so steep that cross-entropy follows one class. On flat logits it follows several, and DDN ends up to
    38 % above the optimum, as Foolbox's does at equal steps.
    """
    rng = np.random.default_rng(classes)
    weight = 100 * rng.standard_normal((classes, SIZE)).astype(np.float32)
    bias = (5 * rng.standard_normal(classes) - 0.5 * weight.sum(axis=1)).astype(np.float32)
    layer = nn.Linear(SIZE, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return weight, bias, nn.Sequential(nn.Flatten(), layer).eval()


def gray(n: int = 8) -> torch.Tensor:
    """Images so far inside of [0, 1] that no perturbation of the tests is clipped."""
    return torch.from_numpy(np.random.default_rng(7).normal(0.5, 0.02, (n, *SHAPE)).astype(np.float32))


def predicted(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).argmax(dim=1)


def perturb(
    spec: str, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, criterion: Criterion | None = None
) -> tuple[Any, torch.Tensor]:
    attack = attacks.parse(spec)[0].plugin
    context = AttackContext(torch.arange(len(images)), criterion=criterion or Misclassification())
    return attack, attack.perturb(model, images, labels, context).detach()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("classes", [2, 6])
def test_a_linear_model_has_a_closed_form(spec: str, classes: int) -> None:
    """The distance is ``min_k (z_y - z_k) / ||w_k - w_y||_*``."""
    weight, bias, model = linear(classes)
    images = gray()
    labels = predicted(model, images)
    attack, found = perturb(spec, model, images, labels)
    logits = images.flatten(1).numpy().astype(np.float64) @ weight.T + bias
    best = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        others = [k for k in range(classes) if k != label]
        best.append(
            min((row[label] - row[k]) / np.linalg.norm(weight[k] - weight[label], DUAL[attack.norm]) for k in others)
        )
    ratio = norms(found - images, attack.norm).numpy() / np.array(best)
    assert (predicted(model, found) != labels).all()
    assert ratio.min() > 0.999
    assert ratio.max() < 1 + EXCESS.get(spec, EXCESS["fmn"])


@pytest.mark.parametrize(("spec", "excess"), [("fmn:norm=linf", 0.005), ("deepfool:norm=linf", 0.025)])
def test_a_linear_model_with_clipped_pixels(spec: str, excess: float) -> None:
    """In Linf the margin grows by ``sum_i |w_i| min(eps, room_i)``: the eps at which it is zero is found by bisection."""
    weight, _, model = linear(2)
    images = torch.from_numpy(np.random.default_rng(5).uniform(0, 1, (16, *SHAPE)).astype(np.float32))
    labels = predicted(model, images)
    _, found = perturb(spec, model, images, labels)
    with torch.no_grad():
        logits = model(images).double().numpy()
    for i, label in enumerate(labels.tolist()):
        direction = (weight[1 - label] - weight[label]).astype(np.float64)
        pixels = images[i].flatten().double().numpy()
        room = np.where(direction > 0, 1 - pixels, pixels)
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            reached = (np.abs(direction) * np.minimum(middle, room)).sum() > logits[i, label] - logits[i, 1 - label]
            low, high = (low, middle) if reached else (middle, high)
        distance = float((found[i] - images[i]).abs().max())
        assert high * 0.999 < distance < high * (1 + excess)


@pytest.mark.parametrize("classes", [2, 6])
def test_l1_on_a_linear_model_with_clipped_pixels(classes: int) -> None:
    """The pixels with the largest gradients move to 0 or 1, one after the other, until the class changes."""
    weight, _, model = linear(classes)
    images = torch.from_numpy(np.random.default_rng(5).uniform(0, 1, (8, *SHAPE)).astype(np.float32))
    labels = predicted(model, images)
    _, found = perturb("fmn:norm=l1", model, images, labels)
    assert (predicted(model, found) != labels).all()
    with torch.no_grad():
        logits = model(images).double().numpy()
    for i, label in enumerate(labels.tolist()):
        distances = []
        for other in set(range(classes)) - {label}:
            missing, spent = logits[i, label] - logits[i, other], 0.0
            direction = (weight[other] - weight[label]).astype(np.float64)
            for pixel in np.argsort(-np.abs(direction)):
                value = float(images[i].flatten()[pixel])
                room = 1 - value if direction[pixel] > 0 else value
                used = min(room, missing / abs(direction[pixel]))
                spent, missing = spent + used, missing - used * abs(direction[pixel])
                if missing <= 1e-9:
                    distances.append(spent)
                    break
        distance = float(norms(found - images, "l1")[i])
        assert min(distances) * 0.999 < distance < min(distances) * 1.01


@pytest.mark.parametrize("spec", SHORT)
def test_what_is_found_does_not_depend_on_the_batch(spec: str) -> None:
    model = untrained(3).eval().requires_grad_(False)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = predicted(model, images)
    _, together = perturb(spec, model, images, labels)
    attack = attacks.parse(spec)[0].plugin
    for i in range(4):
        alone = attack.perturb(model, images[i : i + 1], labels[i : i + 1], AttackContext(torch.tensor([i]))).detach()
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)


@pytest.mark.parametrize("spec", SHORT)
@pytest.mark.parametrize("criterion", [Targeted(target="next"), TopK(k=2)])
def test_other_criteria(spec: str, criterion: Criterion) -> None:
    model = untrained(3).eval().requires_grad_(False)
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = predicted(model, images)
    attack, found = perturb(spec, model, images, labels, criterion)
    _, plain = perturb(spec, model, images, labels)
    with torch.no_grad():
        adversarial = criterion.is_adversarial(model(found), labels)
    assert adversarial.sum() >= (4 if spec.startswith("deepfool") else 6)  # it goes from one class to the next
    assert torch.equal(found[~adversarial], images[~adversarial])
    harder, easier = norms(found - images, attack.norm), norms(plain - images, attack.norm)
    assert harder[adversarial].mean() > easier[adversarial].mean()


@pytest.mark.parametrize("spec", SHORT)
def test_a_model_without_a_gradient_is_left_alone(spec: str) -> None:
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_tensor([1.0, 0.0, -1.0]).expand(len(x), 3)

    images = gray(3)
    assert torch.equal(perturb(spec, Constant(), images, torch.zeros(3, dtype=torch.int64))[1], images)
    misclassified = perturb(spec, Constant(), images, torch.ones(3, dtype=torch.int64))[1]
    assert torch.equal(misclassified, images)


@pytest.mark.parametrize(
    ("spec", "peer", "given"),
    [
        ("ddn:steps=40", "DDNAttack", {"steps": 40}),
        ("deepfool", "L2DeepFoolAttack", {}),
        ("deepfool:norm=linf", "LinfDeepFoolAttack", {}),
    ],
)
def test_distances_are_those_of_foolbox(spec: str, peer: str, given: dict[str, int]) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = untrained(1, channels=3, width=8).eval().requires_grad_(False)
    images = 0.25 + 0.5 * torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = predicted(model, images)
    attack, found = perturb(spec, model, images, labels)
    wrapped = foolbox.models.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = getattr(foolbox.attacks, peer)(**given).run(wrapped, images, labels)
    ours, other = (norms(x - images, attack.norm) for x in (found, theirs))
    assert (predicted(model, found) != labels).all()
    assert float((ours / other).median()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_ddn_on_flat_logits_is_that_of_foolbox(scale: float) -> None:
    """Cross-entropy follows several classes at once: no closed form, but the same distances at equal steps."""
    foolbox = pytest.importorskip("foolbox")
    _, _, model = linear(6)
    steep = model[1]
    assert isinstance(steep, nn.Linear)
    with torch.no_grad():
        steep.weight.mul_(scale / 100)
        steep.bias.mul_(scale / 100)
    images = gray()
    labels = predicted(model, images)
    _, found = perturb("ddn:steps=150", model, images, labels)
    wrapped = foolbox.models.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.DDNAttack(steps=150).run(wrapped, images, labels)
    ratio = norms(found - images, "l2") / norms(theirs - images, "l2")
    assert (predicted(model, found) != labels).all()
    assert float(ratio.max()) < 1.02
    assert float(ratio.min()) > 0.9


def test_projection_takes_an_eps_for_each_sample() -> None:
    origin = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(2))
    images = origin + torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))
    eps = torch.tensor([0.0, 0.1, 0.5, 3.0, float("inf")])
    for norm in ("linf", "l2", "l1"):
        together = project(images, origin, norm, eps)
        for i, value in enumerate(eps.tolist()):
            alone = project(images[i : i + 1], origin[i : i + 1], norm, value)
            torch.testing.assert_close(together[i], alone[0], atol=1e-6, rtol=0)
        assert torch.equal(together[4], images[4].clamp(0, 1))


def test_the_report_has_distances_and_they_count_in_the_worst_case() -> None:
    model = untrained(3).eval().requires_grad_(False)
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = predicted(model, images)
    labels[0] = (labels[0] + 1) % 4  # misclassified as it is
    names = ["fmn", "pgd:eps=[0.02,0.1],steps=1,random_start=false"]
    report = evaluate(model, (images, labels), attacks=names, device="cpu", diagnose=None)
    again = Report.model_validate_json(report.model_dump_json())
    cell = next(c for c in again.cells if c.attack == "fmn")
    record = cell.distances
    assert record is not None
    assert cell.threat is None
    assert any("has no budget" in note for note in cell.notes)
    assert record.norm == "linf"
    distances = record.distances()
    assert distances[0] == 0
    assert (distances[1:] > 0).all()
    assert record.median == pytest.approx(float(np.median(distances[1:])))
    assert [row.threat.eps for row in again.worst_case] == [0.02, 0.1]
    for row in again.worst_case:
        assert row.correct <= int((distances > row.threat.eps + 1e-6).sum())
    merged = record.merged(record)
    assert len(merged.distances()) == 40
    assert merged.median == pytest.approx(record.median)


@pytest.mark.parametrize("name", ["fmn", "ddn", "deepfool"])
def test_stochastic_defenses_are_refused(name: str) -> None:
    model = untrained(3).eval()
    with pytest.raises(SpecError, match="needs a deterministic model") as caught:
        evaluate(model, (torch.rand(2, 1, 8, 8), torch.tensor([0, 1])), attacks=[name], defenses=["gaussian-noise"])
    assert "\n" not in str(caught.value)
