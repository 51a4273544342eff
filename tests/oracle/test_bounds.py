"""Bounds against closed forms, dense matrices and sampled inputs."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.certificates.bounds import propagation
from freqrobust.certificates.bounds.coefficients import Coefficients
from freqrobust.certificates.bounds.decision import certify
from freqrobust.certificates.bounds.lowering import network
from freqrobust.certificates.bounds.network import Network
from freqrobust.certificates.bounds.operations import Affine, Dense, Interval, MaxPool
from freqrobust.certificates.bounds.propagation import layer_bounds, lower_bounds, margins
from freqrobust.certificates.bounds.region import Region
from freqrobust.certificates.bounds.relaxation import MaxPoolLines, ReLULines
from freqrobust.models.architectures import CifarResNet, OptionAShortcut, SmallCNN, projection_shortcut
from freqrobust.models.normalization import Normalize

METHODS = ("ibp", "crown-ibp", "crown")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, *shape, generator=generator(), dtype=torch.float64)


def seeded(build: partial[nn.Module], seed: int = 0) -> nn.Module:
    """In float64 and eval mode, with batch norm statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model = build().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


class Linear(nn.Module):
    """Several affine layers in a row, which have a closed form together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.BatchNorm2d(3)
        self.second, self.linear = nn.Conv2d(3, 3, 2, padding="same", dilation=2, groups=3), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv((x - 0.3) / 0.2))
        return self.linear(F.avg_pool2d(self.second(y) + y, (1, 2)).flatten(1) * 0.5)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_linear_models_have_their_closed_form(method) -> None:
    """``m(x0) - eps ||w||_1``, pixel by pixel within [0, 1], and ``m(x0) - eps ||w||_2`` without the box."""
    model, x = seeded(partial(Linear)), images(6, 2, 4, 4)
    labels = torch.arange(6) % 4
    layers = network(model, x[:2])
    offset = model(torch.zeros_like(x[:1]))[0]
    weight = torch.stack([model(unit[None])[0] - offset for unit in torch.eye(32).double().view(32, 2, 4, 4)], dim=1)
    for i, label in enumerate(labels):
        rows = weight[label] - torch.cat([weight[:label], weight[label + 1 :]])
        shift = offset[label] - torch.cat([offset[:label], offset[label + 1 :]])
        low, high = (x[i] - 0.2).clamp(min=0).flatten(), (x[i] + 0.2).clamp(max=1).flatten()
        box = torch.where(rows > 0, rows * low, rows * high).sum(1) + shift
        found = margins(layer_bounds(layers, Region(x[i : i + 1], 0.2, "linf"), method), label[None])[0]
        torch.testing.assert_close(found, box, rtol=0, atol=1e-12)
        ball = rows @ x[i].flatten() + shift - 0.2 * rows.norm(dim=1)
        found = margins(layer_bounds(layers, Region(x[i : i + 1], 0.2, "l2"), method), label[None])[0]
        torch.testing.assert_close(found, torch.maximum(ball, box), rtol=0, atol=1e-12)
        assert (ball > box).all()


@torch.no_grad()
def test_the_l2_ball_of_one_hidden_layer_against_a_grid() -> None:
    """The first layer has its exact L2 bounds, and no margin is above the smallest one on a fine grid."""
    steps = torch.linspace(-1, 1, 201, dtype=torch.float64)
    disc = torch.cartesian_prod(steps, steps)
    disc = disc[disc.norm(dim=1) <= 1]
    for seed in range(20):
        model = seeded(partial(nn.Sequential, nn.Flatten(), nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3)), seed)
        x, eps = images(1, 1, 1, 2, low=0.3, high=0.7), 0.25  # the box is in [0, 1]
        layers = network(model, x.expand(2, -1, -1, -1))
        bounds = layer_bounds(layers, Region(x, eps, "l2"), "ibp")
        centre, weight = model[1](x.flatten(1)), model[1].weight
        box, radius = (
            eps * weight.abs().sum(dim=1),
            eps * weight.norm(dim=1),
        )  # that of the box where it decides the sign
        radius = torch.where(centre.abs() < box, radius, box)
        torch.testing.assert_close(bounds.intervals[2].lower, centre - radius)
        torch.testing.assert_close(bounds.intervals[2].upper, centre + radius)
        logits = model(x + (eps * disc).view(-1, 1, 1, 2))
        for method in METHODS:
            found = margins(layer_bounds(layers, Region(x, eps, "l2"), method), torch.tensor([1]))[0]
            assert (found <= torch.stack([logits[:, 1] - logits[:, j] for j in (0, 2)]).amin(dim=1) + 1e-9).all()


def test_lines_of_relu() -> None:
    """For inputs in [-1, 3], [-3, 1], [1, 2], [-2, -1] and [-2, 2]: slopes and shift by hand."""
    lower, upper = torch.tensor([[-1.0, -3, 1, -2, -2]]).double(), torch.tensor([[3.0, 1, 2, -1, 2]]).double()
    lines = ReLULines(Interval(lower, upper))
    assert lines.low.tolist() == [[1, 0, 1, 0, 1]]
    assert lines.up.tolist() == [[0.75, 0.25, 1, 0, 0.5]]
    assert lines.shift.tolist() == [[0.75, 0.75, 0, 0, 1]]


@pytest.mark.parametrize(
    "arguments",
    [
        ((2, 2), (2, 2), (0, 0), (1, 1), True),
        ((3, 2), (2, 1), (1, 0), (1, 2), False),
        ((1, 1), (2, 2), (0, 0), (1, 1), False),
    ],
)
def test_lines_of_max_pooling_contain_it(arguments) -> None:
    """For all arguments of max pooling, at random points, and exactly at the vertex of the upper bounds."""
    centre, radius = torch.randn(2, 3, 5, 7, generator=generator()).double(), images(2, 3, 5, 7)
    interval = Interval(centre - radius, centre + radius)
    out = F.max_pool2d(centre, *arguments)
    pool = MaxPool(*arguments, tuple(out.shape[1:]))
    lines = MaxPoolLines(pool, interval, (3, 5, 7))
    assert bool((lines.slope < 1).any()) == (arguments[0] != (1, 1))

    def at(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).gather(2, index.flatten(2)).view_as(out)

    for i in range(200):
        x = interval.lower + 2 * radius * torch.rand(radius.shape, generator=generator(i)).double().round(
            decimals=i % 2
        )
        value = F.max_pool2d(x, *arguments)
        assert (at(x, lines.low_index) <= value + 1e-12).all()
        assert (value <= lines.slope * at(x, lines.up_index) + lines.shift + 1e-12).all()
    largest = F.max_pool2d(interval.upper, *arguments)
    torch.testing.assert_close(lines.slope * at(interval.upper, lines.up_index) + lines.shift, largest)


class Windows(nn.Module):
    """Operations on images that keep the windows of coefficients small, with two branches of different windows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.norm, self.shortcut = nn.BatchNorm2d(6), OptionAShortcut(4, 6, 2)
        self.c, self.linear = nn.Conv2d(6, 4, (1, 2), dilation=(1, 2), padding=(1, 1)), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.a(x))
        x = F.relu(self.norm(self.b(x)) + self.shortcut(x))
        x = self.c(F.avg_pool2d(F.pad(x, (1, 0, -1, 2)), 2))
        return self.linear(F.relu(x).flatten(1))


@pytest.mark.parametrize("tile", [1, 2])
@torch.no_grad()
def test_windows_of_coefficients_give_the_bounds_of_the_whole_layers(monkeypatch, tile) -> None:
    model, x = seeded(partial(Windows)), images(2, 2, 6, 6)
    bounds = layer_bounds(network(model, x), Region(x, 0.1, "linf"), "crown-ibp")
    monkeypatch.setattr(propagation, "FEW_ROWS", 0 if tile == 1 else 24)
    compared = 0
    for index, layer in enumerate(bounds.network.layers):
        if len(layer.shape) != 3 or bounds.network.mixing[index] < math.inf or not isinstance(layer.operation, Affine):
            continue
        size = math.prod(layer.shape)
        eye = torch.eye(size).double().view(size, *layer.shape)
        expected = [lower_bounds(bounds, index, Coefficients(eye), sample, both=True) for sample in (0, 1)]
        mask = torch.ones(2, *layer.shape, dtype=torch.bool)
        for where, rows in propagation._selections(mask, 1000):
            assert rows.values[0].numel() <= layer.shape[0] * tile**2
            found = lower_bounds(bounds, index, rows, where[:, 0], both=True)
            neuron = eye[(slice(None), *where.T[1:])].argmax(dim=0)
            both = torch.cat([neuron, neuron + size])
            wanted = torch.stack(expected)[where[:, 0].repeat(2), both]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
            compared += len(found)
    assert compared > 1000


@torch.no_grad()
def test_a_linear_layer_on_the_columns_of_an_image_keeps_the_row() -> None:
    """Its outputs have one column, so that the window of one neuron has the width of the layer, but not its height."""
    weight = torch.arange(1.0, 7).double()[None]
    dense = Dense(weight, None, (2, 4, 1))
    one = Coefficients(torch.ones(1, 2, 1, 1, dtype=torch.float64), (3, 0))
    (found,) = dense.transpose(one)
    expected = torch.zeros(1, 2, 4, 6, dtype=torch.float64)
    expected[:, :, 3] = weight
    torch.testing.assert_close(found.dense((2, 4, 6)), expected)


def through(layers: Network, x: torch.Tensor) -> list[torch.Tensor]:
    """The values of all layers."""
    values: list[Interval] = []
    for layer in layers.layers:
        inputs = [values[i] for i in layer.inputs]
        values.append(layer.operation.interval(inputs) if layer.operation else Interval(x, x))
    return [value.lower for value in values]


def columns() -> nn.Module:
    """A linear layer on the columns of an image, with convolutions on both sides."""
    parts = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(6, 1), nn.Conv2d(4, 3, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(18, 4))


NETWORKS = {
    "small_cnn": (partial(SmallCNN), (1, 8, 8)),
    "option_a": (partial(CifarResNet, [1, 1], [4, 8], OptionAShortcut), (3, 8, 8)),
    "option_b": (partial(CifarResNet, [1, 1], [4, 8], projection_shortcut), (3, 8, 8)),
    "windows": (partial(Windows), (2, 6, 6)),
    "columns": (partial(columns), (3, 8, 8)),
}


def points(region: Region, seed: int) -> torch.Tensor:
    """One input of the region for every image: inside, at a vertex of the box, or on the sphere."""
    x, noise = region.images, torch.randn(region.images.shape, generator=generator(seed)).double()
    if region.norm == "linf":
        delta = region.eps * (noise.sign() if seed % 2 else noise.tanh())
    else:
        delta = region.eps * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return (x + delta).clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_no_layer_leaves_its_bounds(name, norm) -> None:
    build, shape = NETWORKS[name]
    model, x = seeded(build), images(2, *shape)
    channels = (0.4,) * shape[0], (0.2,) * shape[0]
    model = nn.Sequential(Normalize(*channels), model).double().eval()
    layers = network(model, x)
    region = Region(x, 0.02 if norm == "linf" else 0.2, norm)
    labels = model(x).argmax(dim=1)
    found = {method: layer_bounds(layers, region, method) for method in METHODS}
    least = {method: margins(bounds, labels).amin(dim=1) for method, bounds in found.items()}
    for seed in range(20):
        inputs = points(region, seed)
        values = through(layers, inputs)
        logits = model(inputs)
        torch.testing.assert_close(values[-1], logits, rtol=1e-12, atol=1e-12)
        own = logits.gather(1, labels[:, None])
        margin = (own - logits.scatter(1, labels[:, None], -math.inf)).amin(dim=1)
        for method, bounds in found.items():
            assert (margin >= least[method]).all()
            for value, interval in zip(values, bounds.intervals, strict=True):
                assert ((value >= interval.lower - 1e-9) & (value <= interval.upper + 1e-9)).all()
    assert (least["ibp"] <= least["crown-ibp"] + 1e-9).all()
    assert (least["crown-ibp"] <= least["crown"] + 1e-9).all()


def test_a_tie_is_not_certified_and_batches_make_no_difference() -> None:
    """Equal logits are within rounding; every sample is decided as it is alone."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    x = images(3, 1, 2, 2).float()
    assert not certify(model, x, torch.tensor([0, 1, 2]), "linf", 0.0, ["ibp"]).any()
    cnn = seeded(partial(SmallCNN)).float()
    x = images(6, 1, 8, 8).float()
    labels = cnn(x).argmax(dim=1)
    together = certify(cnn, x, labels, "linf", 0.08, METHODS)
    alone = torch.cat([certify(cnn, x[i : i + 1], labels[i : i + 1], "linf", 0.08, METHODS) for i in range(6)])
    assert together.tolist() == alone.tolist()
    assert 0 < together.sum() < 6
    assert certify(cnn, x[:0], labels[:0], "linf", 0.1, METHODS).shape == (0,)
    assert not certify(cnn, x, (labels + 1) % 10, "linf", 0.0, METHODS).any()
