"""Kernel smoothing against direct loops, and batch norm recalibration against NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import ndimage, signal
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import weight_norm

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.data.dataset import ImageData
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.registry import defenses

KERNELS = [(3, 3), (5, 5), (7, 3), (2, 2), (4, 4), (1, 3), (3, 1)]


def smoothed(model: nn.Module, spec: str, context: DefenseContext | None = None) -> nn.Module:
    return defenses.parse(spec)[0].plugin.apply(model, context or DefenseContext())


def one_conv(kernel: tuple[int, int], groups: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, kernel, groups=groups), nn.Flatten())


def loop(weight: np.ndarray, rho: float, boundary: str) -> np.ndarray:
    """``w[i, j] + rho * sum of w over the 8 neighbours``, index by index."""
    found = np.empty_like(weight)
    _, _, rows, columns = weight.shape

    def mirrored(i: int, n: int) -> int:
        return -1 - i if i < 0 else 2 * n - 1 - i if i >= n else i

    for out in range(weight.shape[0]):
        for channel in range(weight.shape[1]):
            for i in range(rows):
                for j in range(columns):
                    total = weight[out, channel, i, j]
                    for di in (-1, 0, 1):
                        for dj in (-1, 0, 1):
                            y, x = i + di, j + dj
                            if di == dj == 0:
                                continue
                            if boundary == "symmetric":
                                y, x = mirrored(y, rows), mirrored(x, columns)
                            if 0 <= y < rows and 0 <= x < columns:
                                total += rho * weight[out, channel, y, x]
                    found[out, channel, i, j] = total
    return found


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("boundary", ["zero", "symmetric"])
@pytest.mark.parametrize("rho", [0.1, 1.0, 3.0])
def test_smoothing_equals_the_loop(kernel, boundary, rho) -> None:
    model = one_conv(kernel)
    found = smoothed(model, f"smooth:rho={rho},boundary={boundary}")[0].weight.detach().numpy()
    weight = model[0].weight.detach().numpy()
    np.testing.assert_allclose(found, loop(weight.astype(np.float64), rho, boundary), rtol=1e-5, atol=1e-6)
    stencil = np.full((3, 3), rho)
    stencil[1, 1] = 1
    planes = weight.reshape(-1, *kernel).astype(np.float64)
    scipys = [
        signal.convolve2d(p, stencil, mode="same", boundary="fill" if boundary == "zero" else "symm") for p in planes
    ]
    np.testing.assert_allclose(found.reshape(planes.shape), scipys, rtol=1e-5, atol=1e-6)
    if boundary == "symmetric":
        reflected = [ndimage.correlate(p, stencil, mode="reflect") for p in planes]
        np.testing.assert_allclose(found.reshape(planes.shape), reflected, rtol=1e-5, atol=1e-6)


def test_channels_and_groups_do_not_mix() -> None:
    """One kernel plane is not zero: it alone may change, and only it."""
    model = one_conv((3, 3), groups=2)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[2, 1, 1, 1] = 1
    found = smoothed(model, "smooth:rho=0.5")[0].weight
    expected = torch.zeros_like(found)
    expected[2, 1] = torch.full((3, 3), 0.5)
    expected[2, 1, 1, 1] = 1
    assert torch.equal(found, expected)


class Net(nn.Module):
    """A 1x1 convolution, two larger ones, and what else has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Conv2d(3, 4, 1)
        self.a = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 5, padding=2)
        self.linear = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.b(self.norm(self.a(self.point(x)))).mean(dim=(2, 3)))


@pytest.mark.parametrize(("layers", "changed"), [("first", {"a.weight"}), ("all", {"a.weight", "b.weight"})])
def test_only_kernels_larger_than_one_pixel_change(layers, changed) -> None:
    torch.manual_seed(0)
    model = Net().eval()
    before = copy.deepcopy(model.state_dict())
    after = smoothed(model, f"smooth:rho=0.5,layers={layers}").state_dict()
    assert {key for key, value in after.items() if not torch.equal(value, before[key])} == changed
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("rho", [0.25, 1.0])
@pytest.mark.parametrize("boundary", ["zero", "symmetric"])
def test_rescale_divides_by_the_largest_gain(rho, boundary) -> None:
    model = one_conv((3, 3))
    plain = smoothed(model, f"smooth:rho={rho},boundary={boundary}")[0].weight
    scaled = smoothed(model, f"smooth:rho={rho},boundary={boundary},rescale=true")[0].weight
    torch.testing.assert_close(scaled, plain / (1 + 8 * rho))
    with torch.no_grad():
        model[0].weight.fill_(0.7)  # a constant kernel keeps its values where the boundary is mirrored
    constant = smoothed(model, f"smooth:rho={rho},boundary=symmetric,rescale=true")[0].weight
    torch.testing.assert_close(constant, model[0].weight)


def test_a_model_without_kernels_is_refused() -> None:
    with pytest.raises(FreqRobustError, match="no convolution with a kernel larger than 1x1"):
        smoothed(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), "smooth")


COMPUTED = {
    "weight norm": (weight_norm, lambda layer: parametrize.remove_parametrizations(layer, "weight")),
    "pruning": (
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
        lambda layer: prune.remove(layer, "weight"),
    ),
}


@pytest.mark.parametrize("how", COMPUTED)
def test_a_computed_kernel_is_refused_until_it_is_made_permanent(how) -> None:
    """With weight norm or pruning ``layer.weight`` is computed at each use: writing into it changes nothing."""
    torch.manual_seed(0)
    compute, make_permanent = COMPUTED[how]
    model = nn.Sequential(compute(nn.Conv2d(3, 4, 3)), nn.Flatten()).eval()
    with pytest.raises(FreqRobustError, match=r"kernels are computed at each use \(weight norm, pruning\)"):
        smoothed(model, "smooth:rho=1")
    weight = model[0].weight.detach().clone()
    make_permanent(model[0])
    expected = loop(weight.numpy().astype(np.float64), 1.0, "zero")
    np.testing.assert_allclose(smoothed(model, "smooth:rho=1")[0].weight.detach(), expected, rtol=1e-5, atol=1e-6)


def test_a_kernel_that_two_layers_share_is_smoothed_once() -> None:
    torch.manual_seed(0)
    a, b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    b.weight = a.weight
    model = nn.Sequential(a, b, nn.Flatten())
    found = smoothed(model, "smooth:rho=0.5,layers=all")
    expected = loop(a.weight.detach().numpy().astype(np.float64), 0.5, "zero")
    np.testing.assert_allclose(found[1].weight.detach(), expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- batch norm


def conv_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def training_images(n: int) -> ImageData:
    """Darker ones first, so that no part of the images stands for all of them."""
    rng = np.random.default_rng(0)
    images = rng.random((n, 3, 6, 6)) * np.linspace(0.1, 1, n)[:, None, None, None]
    return ImageData(torch.from_numpy(images.astype(np.float32)), torch.zeros(n, dtype=torch.int64), 5)


def convolved(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    rows, columns = images.shape[2] - 2, images.shape[3] - 2
    found = np.zeros((len(images), len(weight), rows, columns)) + bias[None, :, None, None]
    for i in range(3):
        for j in range(3):
            window = images[:, :, i : i + rows, j : j + columns].astype(np.float64)
            found += np.einsum("nchw,oc->nohw", window, weight[:, :, i, j].astype(np.float64))
    return found


@pytest.mark.parametrize("n", [60, 250, 300, 620])
def test_recalibrated_statistics_are_those_of_the_training_images(n) -> None:
    """Mean and variance of the smoothed layer's outputs over all images, in NumPy."""
    model, data = conv_norm(), training_images(n)
    found = smoothed(model, "smooth:rho=0.5,recalibrate_bn=true", DefenseContext(train_data=data))
    weight = loop(model[0].weight.detach().numpy().astype(np.float64), 0.5, "zero")
    outputs = convolved(data.images.numpy(), weight, model[0].bias.detach().numpy())
    np.testing.assert_allclose(found[1].running_mean, outputs.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1].running_var, outputs.var(axis=(0, 2, 3)), rtol=2e-3)
    assert not found[1].training
    assert found[1].momentum == model[1].momentum
    assert torch.equal(model[1].running_mean, torch.zeros(5))  # of the model given


def test_recalibration_survives_a_last_batch_of_one_image() -> None:
    """Batch norm refuses to train on a single value a channel, as the 251st image alone would give it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 6), nn.BatchNorm2d(5), nn.Flatten()).eval()
    data = training_images(251)
    found = smoothed(model, "smooth:rho=0,recalibrate_bn=true", DefenseContext(train_data=data))
    outputs = np.einsum("nchw,ochw->no", data.images.double().numpy(), model[0].weight.detach().double().numpy())
    expected = (outputs + model[0].bias.detach().numpy()).mean(axis=0)
    np.testing.assert_allclose(found[1].running_mean, expected, rtol=1e-4, atol=1e-5)


def test_without_recalibration_statistics_stay_and_no_data_is_needed() -> None:
    model = conv_norm()
    found = smoothed(model, "smooth:rho=0.5")
    assert torch.equal(found[1].running_mean, model[1].running_mean)
    with pytest.raises(SpecError, match="needs training data"):
        smoothed(model, "smooth:rho=0.5,recalibrate_bn=true")
