"""Training methods against their formulas, their counts of passes, and what they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust import load_data
from freqrobust.core.errors import SpecError
from freqrobust.data.dataset import ImageData
from freqrobust.harness.correctness import correct_samples
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics import training_losses
from freqrobust.numerics.losses import cross_entropy
from freqrobust.numerics.statistics import paired_difference
from freqrobust.plugins.registry import attacks, methods
from freqrobust.plugins.training import Batch, StepContext
from freqrobust.training.loop import fit
from freqrobust.training.plan import sgd_plan
from support.networks import untrained

CPU = torch.device("cpu")
EPS = 0.15
#: The adversarial methods, with as few steps as do for a test.
SPECS = {
    "madry": f"madry:eps={EPS},steps=3",
    "rs-fgsm": f"rs-fgsm:eps={EPS}",
    "free": f"free:eps={EPS},replays=2",
    "trades": f"trades:eps={EPS},steps=3",
    "mart": f"mart:eps={EPS},steps=3",
}


def method(spec: str) -> Any:
    return methods.parse(spec)[0].plugin


def batch_of(n: int = 6, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Batch, StepContext]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 1, 8, 8, generator=generator).to(dtype)
    labels = torch.randint(0, 4, (n,), generator=generator)
    ids = torch.arange(n) + 50
    return Batch(images, labels, ids, labels), StepContext(ids, seed=3, epoch=2, classes=4)


class Recorder:
    """What went through a network: images of forward passes, and the images whose pass was differentiated."""

    def __init__(self, model: nn.Module) -> None:
        self.inputs: list[torch.Tensor] = []
        self.backward = self.training = 0
        model.register_forward_hook(self._seen)

    def _seen(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.inputs.append(inputs[0].detach().clone())
        self.training += module.training
        if output.requires_grad:
            output.register_hook(self._differentiated)

    def _differentiated(self, gradient: torch.Tensor) -> None:
        self.backward += 1


# Losses against finite differences


def numpy_softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def numpy_trades(clean: np.ndarray, adversarial: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p, q, rows = numpy_softmax(clean), numpy_softmax(adversarial), np.arange(len(labels))
    return -np.log(p[rows, labels]) + 6.0 * (p * np.log(p / q)).sum(axis=1)


def numpy_mart(clean: np.ndarray, adversarial: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p, q, rows = numpy_softmax(clean), numpy_softmax(adversarial), np.arange(len(labels))
    others = q.copy()
    others[rows, labels] = 0
    boosted = -np.log(q[rows, labels]) - np.log(1 - others.max(axis=1))
    return boosted + 5.0 * (p * np.log(p / q)).sum(axis=1) * (1 - p[rows, labels])


@pytest.mark.parametrize(("name", "oracle"), [("trades", numpy_trades), ("mart", numpy_mart)])
def test_the_gradient_of_the_loss_equals_finite_differences(name: str, oracle: Callable[..., np.ndarray]) -> None:
    """In every parameter of a network in float64, with the examples of the attack kept fixed."""
    model = untrained(0, width=2).double().train()
    batch, context = batch_of(dtype=torch.float64)
    recorder = Recorder(model)
    losses, _ = method(SPECS[name]).losses(model, batch, context)
    losses.sum().backward()
    clean, adversarial = recorder.inputs[-2:]
    assert torch.equal(clean, batch.images)
    assert not torch.equal(adversarial, batch.images)

    def loss() -> np.ndarray:
        with torch.no_grad():
            return oracle(model(clean).numpy(), model(adversarial).numpy(), batch.labels.numpy())

    np.testing.assert_allclose(losses.detach().numpy(), loss(), rtol=1e-10)
    step = 1e-6
    for parameter in model.parameters():
        assert parameter.grad is not None
        values, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for k in range(0, len(values), max(1, len(values) // 12)):
            before = float(values[k])
            values[k] = before + step
            above = loss().sum()
            values[k] = before - step
            below = loss().sum()
            values[k] = before
            assert float(gradient[k]) == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-6)


def test_losses_are_finite_where_probabilities_are_0_or_1_in_float32() -> None:
    clean = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    adversarial = torch.tensor([[0.0, 200.0, 0.0], [0.0, 200.0, -50.0]], requires_grad=True)
    labels = torch.tensor([0, 1])
    for values in (
        training_losses.trades(clean, adversarial, labels, 6.0),
        training_losses.mart(clean, adversarial, labels, 5.0),
    ):
        assert torch.isfinite(values).all()
        assert values[0] > 100
        assert values[1].item() == pytest.approx(0, abs=1e-6)
        for gradient in torch.autograd.grad(values.sum(), (clean, adversarial), retain_graph=True):
            assert torch.isfinite(gradient).all()


def test_equal_predictions_have_no_divergence() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(training_losses.trades(logits, logits, labels, 6.0), expected)


# Passes


@pytest.mark.parametrize(
    ("spec", "forward", "backward", "training"),
    [
        ("natural", 1, 1, 1),
        ("madry:steps=5", 6, 6, 1),
        ("rs-fgsm", 2, 2, 1),
        ("rs-fgsm:random_start=false", 2, 2, 1),
        ("free:replays=3", 1, 1, 1),
        ("mart:steps=5", 7, 7, 2),
        ("trades:steps=5", 8, 7, 2),  # the clean probabilities that the attack departs from have no backward pass
    ],
)
def test_passes_of_one_step(spec: str, forward: int, backward: int, training: int) -> None:
    """Each is of all images of the batch; those of the attack are in eval mode."""
    model = untrained(0).train()
    batch, context = batch_of()
    recorder = Recorder(model)
    losses, _ = method(spec).losses(model, batch, context)
    losses.mean().backward()
    assert [len(images) for images in recorder.inputs] == [6] * forward
    assert recorder.backward == backward
    assert recorder.training == training


def test_each_replay_is_one_optimisation_step() -> None:
    data = load_data("digits", split="train", limit=60)
    model = SmallCNN()
    recorder = Recorder(model)
    fit(model, data, sgd_plan(2, 0.05, batch_size=20, method="free:eps=0.1,replays=3"), device=CPU)
    assert len(recorder.inputs) == recorder.backward == 2 * 3 * 3


# Examples against loops


def attack_gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    images = images.clone().requires_grad_(True)
    return torch.autograd.grad(F.cross_entropy(model.eval()(images), labels, reduction="sum"), images)[0]


@pytest.mark.parametrize(
    ("start", "given", "step"), [("true", "", 1.25), ("false", "", 1.0), ("true", ",step_size=0.3", 2.0)]
)
def test_rs_fgsm_equals_the_formula(start: str, given: str, step: float) -> None:
    batch, context = batch_of()
    model = untrained(1)
    recorder = Recorder(model)
    losses, logits = method(f"rs-fgsm:eps={EPS},random_start={start}{given}").losses(model.train(), batch, context)
    first, trained_on = recorder.inputs
    if start == "false":
        assert torch.equal(first, batch.images)
    else:
        drawn = first - batch.images
        assert drawn.abs().max() <= EPS + 1e-6
        inner = (batch.images > EPS) & (batch.images < 1 - EPS)
        assert abs(float(drawn[inner].mean())) < 0.03  # uniform: mean 0, standard deviation eps / sqrt(3)
        assert float(drawn[inner].std()) == pytest.approx(EPS / 3**0.5, rel=0.15)
    gradient = attack_gradient(model, first, batch.labels).numpy()
    images = batch.images.numpy()
    delta = np.clip(first.numpy() - images + step * EPS * np.sign(gradient), -EPS, EPS)
    np.testing.assert_allclose(trained_on.numpy(), np.clip(images + delta, 0, 1), atol=1e-6)
    expected = cross_entropy(model.train()(trained_on), batch.labels)
    torch.testing.assert_close(losses, expected)
    assert logits.shape == (6, 4)


def test_madry_equals_a_loop_of_projected_gradient_ascent() -> None:
    batch, context = batch_of()
    model = untrained(1)
    recorder = Recorder(model)
    method(f"madry:eps={EPS},steps=3,step_size=0.07").losses(model.train(), batch, context)
    point, low, high = recorder.inputs[0], (batch.images - EPS).clamp(0, 1), (batch.images + EPS).clamp(0, 1)
    for seen in recorder.inputs[1:4]:
        point = (point + 0.07 * attack_gradient(model, point, batch.labels).sign()).clamp(low, high)
        torch.testing.assert_close(seen, point)


def test_trades_starts_near_the_images_and_ascends_the_divergence() -> None:
    batch, context = batch_of(40)
    model = untrained(1)
    recorder = Recorder(model)
    method(f"trades:eps={EPS},steps=4").losses(model.train(), batch, context)
    reference, first, *_, clean, last = recorder.inputs
    assert torch.equal(reference, batch.images)
    assert torch.equal(clean, batch.images)
    noise = (first - batch.images)[(batch.images > 0.01) & (batch.images < 0.99)]
    assert float(noise.std()) == pytest.approx(0.001, rel=0.1)
    with torch.no_grad():
        model.eval()
        divergences = [training_losses.kl_divergence(model(reference), model(images)) for images in (first, last)]
    assert (divergences[1] > divergences[0]).all()
    assert (last - batch.images).abs().max() <= EPS + 1e-6


def test_free_equals_a_loop_of_algorithm_1() -> None:
    """Two epochs of uneven batches: perturbations are carried over by position, and are zero at the start of an epoch."""
    data = load_data("digits", split="train", limit=50)
    replays, rate, step = 3, 0.05, 0.1
    plan = sgd_plan(
        2,
        rate,
        batch_size=20,
        weight_decay=0,
        method=f"free:eps={EPS},replays={replays},step_size={step}",
        schedule="constant",
    )
    torch.manual_seed(0)
    ours = SmallCNN()
    theirs = SmallCNN()
    theirs.load_state_dict(ours.state_dict())
    seen: list[torch.Tensor] = []

    class Seen(ImageData):
        def batch(self, index: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            seen.append(index)
            return super().batch(index, device)

    watched = Seen(data.images, data.labels, data.classes, ids=data.ids)
    fit(ours, watched, plan, device=CPU)
    assert [len(index) for index in seen] == [20, 20, 10] * 2

    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=rate, momentum=0.9, nesterov=True)
    for epoch in range(2):
        delta = torch.zeros(20, *data.shape)
        for index in seen[3 * epoch : 3 * epoch + 3]:
            images, labels, _ = data.batch(index, CPU)
            n = len(index)
            for _ in range(replays):
                perturbed = (images + delta[:n]).requires_grad_(True)
                loss = F.cross_entropy(theirs(perturbed.clamp(0, 1)), labels)
                optimizer.zero_grad()
                loss.backward()
                delta[:n] += step * perturbed.grad.sign()
                delta.clamp_(-EPS, EPS)
                optimizer.step()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


# What they are for


@pytest.fixture(scope="module")
def data() -> tuple[ImageData, ImageData]:
    return load_data("digits", split="train", limit=600), load_data("digits", limit=150)


def robust(spec: str, epochs: int, data: tuple[ImageData, ImageData], seed: int = 0) -> tuple[str, np.ndarray]:
    """The weights of a trained network, and which test images it has right under PGD."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallCNN()
    fit(model, data[0], sgd_plan(epochs, 0.1, batch_size=50, method=spec), device=CPU, seed=seed)
    (correct,) = correct_samples(model, data[1], attacks.parse(f"pgd:eps={EPS},steps=10"), device=CPU)
    return state_hash(model), correct


@pytest.fixture(scope="module")
def natural(data: tuple[ImageData, ImageData]) -> np.ndarray:
    return robust("natural", 4, data)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_adversarial_training_is_more_robust_than_natural_training(name, data, natural) -> None:
    weights, correct = robust(SPECS[name], 4, data)
    only_ours, only_natural = int((correct & ~natural).sum()), int((natural & ~correct).sum())
    _, (low, _) = paired_difference(
        int((correct & natural).sum()), only_ours, only_natural, int((~correct & ~natural).sum())
    )
    assert low > 0.05
    if name in ("free", "rs-fgsm"):  # the others have nothing that these do not have
        assert robust(SPECS[name], 4, data)[0] == weights
        assert robust(SPECS[name], 4, data, seed=1)[0] != weights


@pytest.mark.parametrize("name", SPECS)
def test_a_budget_in_255ths_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="did you mean 8/255"):
        methods.parse(f"{name}:eps=8")


@pytest.mark.parametrize("name", SPECS)
def test_the_probe_is_pgd_at_the_budget_of_the_training(name: str) -> None:
    (probe,) = method(f"{name}:eps=4/255").probes()
    (parsed,) = attacks.parse(probe)
    assert parsed.name == "pgd"
    assert parsed.plugin.eps == pytest.approx(4 / 255)
    assert parsed.plugin.steps == 10
