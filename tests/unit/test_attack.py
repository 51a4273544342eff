"""``attack``: the images that one attack makes of some images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import (
    Attack,
    AttackContext,
    AttackResult,
    FreqRobustError,
    attack,
    evaluate,
    save_adversarial,
    save_model,
    wrap,
)
from freqrobust.attacks.pgd import PGD
from freqrobust.data.adversarial_sets import read_all
from freqrobust.models.architectures import SmallCNN
from freqrobust.plugins.criterion import Targeted
from support.networks import tiny

PGD5 = "pgd:eps=0.03,steps=5"


@pytest.fixture(scope="module")
def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()


@pytest.fixture(scope="module")
def inside() -> torch.Tensor:
    """Images so far from 0 and 1 that no perturbation is clipped."""
    return 0.3 + 0.4 * torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_fgsm_on_a_linear_model_is_the_closed_form(linear: nn.Module, inside: torch.Tensor) -> None:
    """The gradient of the cross-entropy is ``W^T (softmax(z) - onehot(y))``; FGSM adds eps times its sign."""
    labels = torch.arange(12) % 3
    result = attack(linear, inside, labels, "fgsm:eps=0.05", device="cpu")
    with torch.no_grad():
        slope = linear(inside).softmax(dim=1) - nn.functional.one_hot(labels, 3)
        expected = inside + 0.05 * (slope @ linear[1].weight).sign().view_as(inside)
        logits = linear(expected)
    torch.testing.assert_close(result.images, expected)
    assert torch.equal(result.predictions, logits.argmax(dim=1))
    assert torch.equal(result.is_adversarial, logits.argmax(dim=1) != labels)
    delta = (expected - inside).flatten(1)
    for norm, order in (("linf", float("inf")), ("l2", 2), ("l1", 1)):
        torch.testing.assert_close(result.distances[norm], delta.norm(order, dim=1))  # type: ignore[index]
    assert (result.norm, result.passes.backwards, result.spec) == ("linf", 12, "fgsm:eps=0.05")


def test_pgd_is_the_loop_of_the_paper(inside: torch.Tensor) -> None:
    """Without restarts and with a fixed initialisation: sign steps on the cross-entropy, projected onto the ball."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).eval()
    labels = torch.arange(12) % 3
    eps, step = 0.04, 0.011
    x, best, highest = inside.clone(), inside.clone(), torch.full((12,), -float("inf"))
    for moves in range(8):
        x.requires_grad_(True)
        losses = nn.functional.cross_entropy(net(x), labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), x)
        with torch.no_grad():
            better = losses > highest
            best[better], highest[better] = x.detach()[better], losses[better]
            if moves < 7:
                x = (inside + (x + step * gradient.sign() - inside).clamp(-eps, eps)).clamp(0, 1)
    spec = PGD(eps=eps, steps=7, step_size=step, restarts=1, random_start=False, loss="ce")
    torch.testing.assert_close(attack(net, inside, labels, spec, device="cpu").images, best)


def test_the_examples_are_those_of_save_adversarial_and_evaluate(tmp_path: Path) -> None:
    model, data = tiny(n=12)
    result = attack(model, data.images, data.labels, PGD5, seed=3, device="cpu")
    save_adversarial(model, data, tmp_path, attacks=[PGD5], seed=3, device="cpu")
    (saved,) = read_all(tmp_path)
    assert torch.equal(result.images, saved.images)
    assert torch.equal(result.predictions, saved.predictions)
    decided = attack(model, data.images, data.labels, PGD5, seed=3, goal="decide", device="cpu")
    report = evaluate(model, data, attacks=[PGD5], seed=3, diagnose=None, device="cpu")
    assert int((~decided.is_adversarial).sum()) == report.cells[1].correct
    assert decided.passes.forwards < result.passes.forwards
    assert not torch.equal(result.images, attack(model, data.images, data.labels, PGD5, seed=4, device="cpu").images)


def test_neither_the_batch_nor_the_mode_of_the_caller_matters() -> None:
    model, data = tiny(n=6)
    whole = attack(model, data.images, data.labels, PGD5, device="cpu").images
    with torch.inference_mode():
        small = attack(model, data.images.clone(), data.labels, PGD5, batch_size=2, device="cpu").images
        first = attack(model, data.images[:1], data.labels[:1], PGD5, device="cpu").images
    torch.testing.assert_close(small, whole)
    torch.testing.assert_close(first, whole[:1])


def test_the_model_is_as_before() -> None:
    model, data = tiny(n=4)
    model.train()
    model.conv.weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attack(model, data.images, data.labels, PGD5, device="cpu")
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_uint8_images_shifts_and_arrays(linear: nn.Module) -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = linear(images / 255).argmax(dim=1)
    result = attack(linear, images, labels, "fgsm:eps=0", device="cpu")
    torch.testing.assert_close(result.images, images / 255)
    assert (result.images.dtype, len(result), bool(result.is_adversarial.any())) == (torch.float32, 5, False)
    same = attack(linear, images.numpy(), labels.numpy(), "fgsm:eps=0", device="cpu")
    assert torch.equal(same.images, result.images)
    shifted = attack(linear, images, labels, "lfc:radius=1", device="cpu")
    assert (shifted.norm, shifted.passes) == (None, (5, 0))
    torch.testing.assert_close(shifted.images, (images / 255).mean(dim=(2, 3), keepdim=True).expand(-1, -1, 4, 4))


def test_a_target_class(linear: nn.Module, inside: torch.Tensor) -> None:
    labels = linear(inside).argmax(dim=1)
    target = (int(labels[0]) + 1) % 3
    for criterion in (f"targeted:{target}", Targeted(target=target)):
        result = attack(linear, inside, labels, "pgd:eps=0.6,steps=10", criterion=criterion, device="cpu")
        assert torch.equal(result.is_adversarial, (result.predictions == target) & (labels != target))
        assert bool(result.is_adversarial[labels != target].all())


def test_what_is_already_adversarial_is_unchanged_when_it_only_has_to_be_decided(
    linear: nn.Module, inside: torch.Tensor
) -> None:
    labels = linear(inside).argmax(dim=1)
    labels[:4] = (labels[:4] + 1) % 3
    result = attack(linear, inside, labels, "fgsm:eps=0.01", goal="decide", device="cpu")
    assert torch.equal(result.images[:4], inside[:4])
    assert bool(result.is_adversarial[:4].all())
    assert not torch.equal(result.images[4:], inside[4:])


def test_minimum_norm_attacks_give_distances(linear: nn.Module, inside: torch.Tensor) -> None:
    """The L2 distance of a sample to the boundary of a linear model: the smallest ``(z_y - z_j) / ||w_y - w_j||``."""
    with torch.no_grad():
        logits, labels, weight = linear(inside), linear(inside).argmax(dim=1), linear[1].weight
        gaps = (logits.gather(1, labels[:, None]) - logits) / (weight[labels][:, None] - weight).norm(dim=2)
        nearest = gaps.scatter(1, labels[:, None], float("inf")).min(dim=1).values
    result = attack(linear, inside, labels, "deepfool", device="cpu")
    assert result.norm == "l2"
    assert bool(result.is_adversarial.all())
    torch.testing.assert_close(result.distances["l2"], nearest, rtol=0.05, atol=1e-4)


def test_a_checkpoint(tmp_path: Path) -> None:
    """The normalisation is the one that was saved; the images are those of the classifier itself."""
    torch.manual_seed(0)
    network = SmallCNN(num_classes=3, in_channels=1)
    model = wrap(network, 0.5, 0.25)
    model.arch = "small_cnn"
    save_model(model, tmp_path / "net.pt")
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    result = attack(tmp_path / "net.pt", images, labels, PGD5, device="cpu")
    assert torch.equal(result.images, attack(model, images, labels, PGD5, device="cpu").images)
    assert repr(result) == f"AttackResult({PGD5}: {int(result.is_adversarial.sum())} of 6 images are adversarial)"
    assert isinstance(result, AttackResult)


class Outside(Attack):
    """It leaves the range of pixels."""

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        return images + 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": torch.rand(4, 3, 4, 4) * 255}, r"images: float images should be in \[0, 1\].*divide by 255"),
        ({"images": torch.rand(4, 3, 4, 4) - 1}, "give them before normalisation"),
        ({"images": torch.rand(3, 4, 4)}, "images: 3 images, but 4 labels"),
        ({"images": [1, 2]}, r"images should be a tensor or an array \(N, C, H, W\), but got list"),
        ({"images": torch.rand(4, 1, 4, 4)}, "the model fails on images of shape"),
        ({"labels": torch.zeros(4)}, "images: expected integer labels, but got torch.float32"),
        ({"labels": torch.tensor([0, 1, 2, 3])}, "images has labels up to 3, but the model has 3 classes"),
        ({"labels": None}, "images: the labels should be an array, but got NoneType"),
        ({"spec": None}, "spec should be an attack such as 'pgd:eps=8/255', or an Attack object, but got None"),
        ({"spec": "PGD"}, "unknown attack 'PGD'; did you mean 'pgd'"),
        ({"spec": "pdg"}, "unknown attack 'pdg'; did you mean 'pgd'"),
        ({"spec": "clean"}, "'clean' changes no image: give an attack"),
        ({"spec": "pgd:eps=[0.1,0.2]"}, r"attack runs one attack, but 'pgd:eps=\[0.1,0.2\]' stands for 2"),
        ({"spec": PGD}, r"make an object of it: PGD\(...\)"),
        ({"spec": Outside()}, r"returned images outside of \[0, 1\]"),
        ({"criterion": "targeted:3"}, "targeted: target is 3, but the model has the classes 0 to 2"),
        ({"criterion": 3}, "criterion should be a spec or a Criterion object"),
        ({"criterion": "topk:2", "spec": Outside()}, "supports only the criterion misclassification, not topk:k=2"),
        ({"goal": "win"}, "goal should be 'maximize' or 'decide', but got 'win'"),
        ({"seed": 1.5}, "seed should be a whole number"),
        ({"batch_size": 0}, "batch_size should be auto or at least 1, but got 0"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"model": 3}, "expected a model or a model spec, but got int"),
        ({"progress": 3}, "progress should be True, False, or an object"),
    ],
)
def test_wrong_input_is_one_line(linear: nn.Module, changed: dict[str, Any], message: str) -> None:
    given = {"model": linear, "images": torch.rand(4, 3, 4, 4), "labels": np.arange(4) % 3, "spec": "fgsm"}
    with pytest.raises(FreqRobustError, match=message) as error:
        attack(**{**given, "device": "cpu", **changed})
    assert "\n" not in str(error.value)
