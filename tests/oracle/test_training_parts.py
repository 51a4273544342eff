"""Schedules, optimizers, penalties, losses and averaged weights against their closed forms and recursions."""

from __future__ import annotations

import functools
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.spatial.distance
import torch
from torch import nn

from freqrobust import load_data
from freqrobust.core.errors import SpecError
from freqrobust.core.training_config import Recipe
from freqrobust.methods.natural import Natural
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics.losses import jensen_shannon
from freqrobust.plugins.registry import optimizers, regularizers, schedules
from freqrobust.plugins.training import Batch, StepContext
from freqrobust.regularizers.kernel_smoothness import KernelSmoothness, roughness
from freqrobust.training.loop import Training
from freqrobust.training.plan import plan
from support.waiting import PATIENCE

CPU = torch.device("cpu")


def factors(spec: str, epochs: int, per_epoch: int) -> list[float]:
    plugin = schedules.parse(spec)[0].plugin
    return [plugin.factor(step, epochs * per_epoch, per_epoch) for step in range(epochs * per_epoch)]


@pytest.mark.parametrize(
    ("milestones", "epochs", "changes"),
    [("[0.5,0.75]", 20, (10, 15)), ("[0.7]", 10, (7,)), ("[0.1,0.3,0.9]", 30, (3, 9, 27)), ("[1/3]", 3, (1,))],
)
def test_step_is_that_of_torch(milestones: str, epochs: int, changes: tuple[int, ...]) -> None:
    found = factors(f"step:milestones={milestones},gamma=0.2", epochs, 4)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4 * change for change in changes], gamma=0.2)
    for factor in found:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        peer.step()


def test_cosine_is_that_of_torch() -> None:
    found = factors("cosine:lowest=0.05", 5, 6)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, eta_min=0.05)
    for factor in found:
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        peer.step()
    assert found[15] == pytest.approx(0.05 + 0.95 / 2)


def test_cosine_after_a_linear_increase() -> None:
    found = factors("cosine:warmup=0.2", 5, 10)
    assert found[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert found[10:] == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 40)) for k in range(40)])


def test_one_cycle_exponential_and_constant() -> None:
    done = [(k + 1) / 20 for k in range(20)]
    expected = [d / 0.2 if d < 0.2 else 0.5 * (1 + math.cos(math.pi * (d - 0.2) / 0.8)) for d in done]
    assert factors("one-cycle", 4, 5) == pytest.approx(expected)
    assert factors("one-cycle", 1, 1) == [1.0]  # a training of one step is a step
    assert factors("exponential:decay=0.9", 3, 4) == pytest.approx([1.0] * 4 + [0.9] * 4 + [0.81] * 4)
    assert factors("constant", 2, 2) == [1.0] * 4


@pytest.mark.parametrize("given", ["[0.8,0.5]", "[0,0.5]", "[0.5,1]", "[0.5,0.5]"])
def test_milestones_have_to_increase(given: str) -> None:
    with pytest.raises(
        SpecError, match=r"parameter 'milestones' should increase from above 0 to below 1, as in \[0.5,0.75\]"
    ):
        schedules.parse(f"step:milestones={given}")


def test_adamw_against_its_recursion() -> None:
    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=3), generator.normal(size=(5, 3))
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = optimizers.parse("adamw:lr=0.01,beta1=0.8,beta2=0.95,weight_decay=0.1")[0].plugin.make([parameter])
    weight, mean, square = start.copy(), np.zeros(3), np.zeros(3)
    for step, gradient in enumerate(gradients, 1):
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        mean, square = 0.8 * mean + 0.2 * gradient, 0.95 * square + 0.05 * gradient**2
        weight = weight * (1 - 0.01 * 0.1)
        weight = weight - 0.01 * (mean / (1 - 0.8**step)) / (np.sqrt(square / (1 - 0.95**step)) + 1e-8)
    np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-9)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("decay_all", [True, False])
def test_the_weight_decay_can_leave_out_biases_and_norms(name: str, decay_all: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    spec = f"{name}:weight_decay=0.5,decay_all={str(decay_all).lower()}"
    optimizer = optimizers.parse(spec)[0].plugin.make(model.parameters())
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for parameter_name, parameter in model.named_parameters():
        weight = parameter_name in ("0.weight", "3.weight")
        assert decays[id(parameter)] == (0.5 if weight or decay_all else 0.0), parameter_name
    assert len(decays) == len(list(model.parameters()))


class TwoKernels(nn.Module):
    """A pointwise convolution, a 3x2 one, and a square one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.point, self.first, self.second = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, (3, 2)), nn.Conv2d(4, 4, 3, groups=2)
        self.again = nn.Conv2d(4, 4, 3, groups=2)
        self.again.weight = self.second.weight


def double_loop(kernels: np.ndarray) -> float:
    total = 0.0
    for kernel in kernels.reshape(-1, *kernels.shape[2:]):
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                if i + 1 < kernel.shape[0]:
                    total += float(kernel[i + 1, j] - kernel[i, j]) ** 2
                if j + 1 < kernel.shape[1]:
                    total += float(kernel[i, j + 1] - kernel[i, j]) ** 2
    return total


@pytest.mark.parametrize("layers", ["all", "first"])
def test_the_kernel_penalty_against_a_double_loop(layers: str) -> None:
    torch.manual_seed(0)
    model = TwoKernels()
    expected = double_loop(model.first.weight.detach().numpy())
    if layers == "all":
        expected += double_loop(model.second.weight.detach().numpy())
    found = regularizers.parse(f"kernel-smoothness:weight=0.3,layers={layers}")[0].plugin.penalty(model)
    assert float(found.detach()) == pytest.approx(0.3 * expected, rel=1e-5)


def test_the_gradient_of_the_kernel_penalty() -> None:
    kernels = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(roughness, (kernels,))
    assert float(roughness(torch.full((2, 3, 5, 5), 0.7))) == 0


def test_a_penalty_of_weight_zero_changes_nothing_and_a_large_one_makes_smoother_kernels() -> None:
    data = load_data("digits", split="train", limit=128)

    def trained(regularizer: list[str]) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        recipe = Recipe(epochs=3, augment=[], regularizer=regularizer, optimizer="sgd:lr=0.02", batch_size=32)
        training = Training(model, data, plan(recipe), device=CPU)
        for _ in range(3):
            training.run_epoch()
        return model

    plain, zero, strong = (
        trained(given) for given in ([], ["kernel-smoothness:weight=0"], ["kernel-smoothness:weight=1"])
    )
    assert state_hash(plain) == state_hash(zero)
    rough = [float(roughness(model[0].weight.detach())) for model in (plain, strong)]
    assert rough[1] < 0.5 * rough[0]


def test_a_penalty_needs_kernels() -> None:
    with pytest.raises(SpecError, match="the network has no convolution with a kernel larger than 1x1"):
        KernelSmoothness().penalty(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()))


@pytest.mark.parametrize("views", [2, 3])
def test_jensen_shannon_is_that_of_scipy(views: int) -> None:
    logits = [
        3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(views)
    ]
    found = jensen_shannon(logits).numpy()
    predictions = np.stack([z.softmax(dim=1).numpy() for z in logits])
    mean = predictions.mean(axis=0)
    expected = np.mean(
        [[scipy.stats.entropy(p, m) for p, m in zip(view, mean, strict=True)] for view in predictions], axis=0
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    if views == 2:  # SciPy has the square root
        distances = [scipy.spatial.distance.jensenshannon(*(view[n] for view in predictions)) for n in range(6)]
        np.testing.assert_allclose(found, np.square(distances), rtol=1e-4)
    sure = torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]])
    assert float(jensen_shannon(sure)) == pytest.approx(math.log(2))
    assert float(jensen_shannon([logits[0], logits[0]]).abs().max()) < 1e-6


class Linear(nn.Module):
    """Logits that are a product with fixed weights, which counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(x.flatten(1))


def test_the_loss_of_several_views() -> None:
    torch.manual_seed(0)
    model, labels, ids = Linear(), torch.tensor([0, 2, 1, 1, 0]), torch.arange(5)
    images, first, second = torch.rand(3, 5, 1, 2, 2).unbind(0)
    context = StepContext(ids, 0, 0, 3)
    losses, logits = Natural(consistency=7).losses(model, Batch(images, labels, ids, labels, (first, second)), context)
    assert model.calls == 1
    predictions = [model(view).detach().softmax(dim=1).numpy() for view in (images, first, second)]
    mean = np.mean(predictions, axis=0)
    divergence = np.mean(
        [[scipy.stats.entropy(*pair) for pair in zip(p, mean, strict=True)] for p in predictions], axis=0
    )
    clean = -np.log(predictions[0][np.arange(5), labels])
    np.testing.assert_allclose(losses.detach(), clean + 7 * divergence, rtol=1e-4)
    torch.testing.assert_close(logits, model(images))
    soft = torch.eye(3)[labels]
    plain, _ = Natural().losses(model, Batch(images, labels, ids, soft), context)
    np.testing.assert_allclose(plain.detach(), clean, rtol=1e-5)


class Normed(nn.Module):
    """A convolution and a batch norm, with a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


def test_the_average_follows_its_recursion_buffers_included(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits", split="train", limit=96)
    torch.manual_seed(0)
    model = Normed()
    recipe = Recipe(epochs=2, augment=[], ema=0.8, batch_size=32, optimizer="sgd:lr=0.1")
    training = Training(model, data, plan(recipe), device=CPU)
    history = []
    step = Training._step

    def recorded(self: Training, *given: object) -> None:
        step(self, *given)
        history.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(Training, "_step", recorded)
    for _ in range(2):
        training.run_epoch()
    assert len(history) == 6
    average = {name: value.double() for name, value in history[0].items()}
    for state in history[1:]:
        average = {name: 0.8 * value + 0.2 * state[name].double() for name, value in average.items()}
    found = training.evaluated.state_dict()
    assert training.evaluated is not model
    for name, value in average.items():
        if value.is_floating_point() and found[name].is_floating_point():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    assert not torch.equal(found["norm.running_mean"], model.state_dict()["norm.running_mean"])
    assert not torch.equal(found["conv.weight"], model.state_dict()["conv.weight"])


def test_a_training_with_an_average_continues_from_its_state() -> None:
    data = load_data("digits", split="train", limit=96)
    recipe = Recipe(epochs=3, augment=["mixup"], ema=0.9, batch_size=32, optimizer="adamw:lr=0.01", schedule="cosine")

    def fresh() -> Training:
        torch.manual_seed(0)
        return Training(Normed(), data, plan(recipe), device=CPU)

    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(3):
        whole.run_epoch()
    first.run_epoch()
    second.load(first.state())
    for _ in range(2):
        second.run_epoch()
    assert state_hash(second.evaluated) == state_hash(whole.evaluated)
    assert state_hash(second.model) == state_hash(whole.model)


def test_bf16_trains_in_reduced_precision() -> None:
    data = load_data("digits", split="train", limit=256)
    kinds, accuracies = set(), {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        model[3].register_forward_hook(lambda module, given, result: kinds.add(result.dtype))
        recipe = Recipe(epochs=6, precision=precision, augment=[], batch_size=32, optimizer="adam:lr=0.005")
        training = Training(model, data, plan(recipe), device=CPU)
        accuracies[precision] = [training.run_epoch().accuracy for _ in range(6)][-1]
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert kinds == {torch.float32, torch.bfloat16}
    assert min(accuracies.values()) > 0.8


def test_views_come_last_and_need_a_method_that_takes_them() -> None:
    with pytest.raises(SpecError, match="augmix:jsd=true makes several views of each image and has to be the last"):
        plan(Recipe(augment=["augmix:jsd=true", "flip-crop"]))
    with pytest.raises(SpecError, match="which the training method madry cannot use"):
        plan(Recipe(augment=["flip-crop", "augmix:jsd=true"], method="madry"))
    with pytest.raises(SpecError, match="mixup mixes labels, which the training method madry cannot use"):
        plan(Recipe(augment=["mixup"], method="madry"))


def compiled_and_not(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[float]]:
    """The losses of two epochs with and without compilation; the graphs are run by eager kernels."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    data = load_data("digits", split="train", limit=96)
    losses = []
    for given in (True, False):
        torch.manual_seed(0)
        model = Normed()
        recipe = Recipe(epochs=2, augment=["mixup"], ema=0.9, compile=given, batch_size=32, optimizer="sgd:lr=0.05")
        training = Training(model, data, plan(recipe), device=CPU)
        losses.append([training.run_epoch().loss for _ in range(2)])
        assert (training.forward is model) != given
    torch._dynamo.reset()
    return losses[0], losses[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_is_trained_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, plain = compiled_and_not(monkeypatch)
    assert compiled == pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
def test_a_network_that_is_compiled_to_machine_code_is_trained_in_the_same_way(tmp_path: Path) -> None:
    """Two runs of the command; the process of the tests keeps no compiled code."""
    command = "train --data digits --limit 96 --epochs 2 --augment mixup --ema 0.9 --batch-size 32 --probe clean"
    losses = []
    for name, flags in (("plain", []), ("compiled", ["--compile"])):
        given = [*command.split(), "--optimizer", "sgd:lr=0.05", "--device", "cpu", "--out", name, *flags]
        done = subprocess.run(
            [sys.executable, "-m", "freqrobust", *given],
            capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        losses.append([json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
