"""Bounds of margins against their exact minima, which mixed-integer programs find for small networks.

The programs are built from matrices that the layers of torch give for unit vectors, without the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import LinearConstraint, milp
from torch import nn

from freqrobust.certificates.bounds.lowering import network
from freqrobust.certificates.bounds.propagation import Bounds, layer_bounds, margins
from freqrobust.certificates.bounds.region import Region

CASES = 40  # of each kind of network; five kinds
METHODS = ("ibp", "crown-ibp", "crown")
Stage = tuple[Callable[..., torch.Tensor], str]


class Network(nn.Module):
    """Stages of an affine function of the input and of all stages before, each with a nonlinearity behind it."""

    shape: tuple[int, ...]

    def stages(self) -> list[Stage]:
        raise NotImplementedError


class MLP(Network):
    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        inputs, hidden = int(rng.integers(2, 9)), int(rng.integers(2, 6))
        self.shape = (1, 1, inputs)
        self.a, self.b, self.c = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x.flatten(1))))))

    def stages(self) -> list[Stage]:
        return [
            (lambda x: self.a(x.flatten(1)), "relu"),
            (lambda x, h: self.b(h), "relu"),
            (lambda x, h, k: self.c(k), ""),
        ]


class Convolutional(Network):
    """Two convolutions, normalisation in the model, and batch norm; the second convolution is strided."""

    shape = (1, 2, 4)

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.register_buffer("std", torch.tensor(0.25))
        self.a, self.norm = nn.Conv2d(1, 2, (1, 2), stride=(1, 2), bias=False), nn.BatchNorm2d(2)
        self.b, self.c = nn.Conv2d(2, 2, 2, stride=2, padding=1), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(self.norm(self.a((x - 0.5) / self.std)).relu())).view(-1, 8))

    def stages(self) -> list[Stage]:
        return [
            (lambda x: self.norm(self.a((x - 0.5) / self.std)), "relu"),
            (lambda x, h: self.b(h), "relu"),
            (lambda x, h, k: self.c(k.flatten(1)), ""),
        ]


class Residual(Network):
    """A block with the input added, and a strided shortcut with more channels (option A)."""

    shape = (1, 2, 2)

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.c, self.d = nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.b(F.relu(self.a(x))) + x)
        shortcut = F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        out = self.c(h)
        out += shortcut
        return self.d(F.relu(out, inplace=True).mean(dim=(2, 3)))

    def stages(self) -> list[Stage]:
        def last(x: torch.Tensor, h: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            zero = torch.zeros_like(k[:, :, ::2, ::2])
            return self.c(k) + torch.cat([zero, k[:, :, ::2, ::2], zero], dim=1)

        return [
            (lambda x: self.a(x), "relu"),
            (lambda x, h: self.b(h) + x, "relu"),
            (last, "relu"),
            (lambda x, h, k, m: self.d(m.mean(dim=(2, 3))), ""),
        ]


class MaxPooled(Network):
    """Max pooling of convolutions before and behind the ReLU, with windows that overlap."""

    shape = (1, 2, 3)

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 2, padding=(0, 1)), nn.Linear(6, 3)
        self.before = bool(rng.integers(2))
        self.pool, self.act = nn.MaxPool2d((1, 2), stride=1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        x = self.act(self.pool(x)) if self.before else self.pool(self.act(x))
        return self.b(x.flatten(1))

    def stages(self) -> list[Stage]:
        kinds = ("max", "relu") if self.before else ("relu", "max")
        return [(lambda x: self.a(x), kinds[0]), (lambda x, h: h, kinds[1]), (lambda x, h, k: self.b(k.flatten(1)), "")]


class AveragePooled(Network):
    """Average pooling, dropout and scaling by constants; two differences of layers."""

    shape = (1, 2, 4)

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.a, self.pool, self.drop = nn.Conv2d(1, 3, 3, padding=1), nn.AvgPool2d(2), nn.Dropout(0.5)
        self.b, self.c = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(1 - 2 * self.a(x))
        k = torch.flatten(self.drop(self.pool(h)), 1)
        k = F.relu(self.b(k) - 0.5 * k[:, :4])
        return 3 * self.c(k) - k[:, 1:]

    def stages(self) -> list[Stage]:
        def pooled(h: torch.Tensor) -> torch.Tensor:
            return self.pool(h).flatten(1)

        return [
            (lambda x: 1 - 2 * self.a(x), "relu"),
            (lambda x, h: self.b(pooled(h)) - pooled(h)[:, :4] / 2, "relu"),
            (lambda x, h, k: 3 * self.c(k) - k[:, 1:], ""),
        ]


KINDS = (MLP, Convolutional, Residual, MaxPooled, AveragePooled)


def random_network(kind: type[Network], seed: int) -> Network:
    torch.manual_seed(seed)
    model = kind(np.random.default_rng(seed)).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, 0, 0.3)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 1 / module.weight[0].numel() ** 0.5)
    return model


def matrix(
    function: Callable[..., torch.Tensor], values: Sequence[torch.Tensor]
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Matrix and offset of an affine function of all values, and its result."""
    zeros = [torch.zeros_like(value) for value in values]
    offset = function(*zeros)
    columns = []
    for i, value in enumerate(values):
        for j in range(value.numel()):
            unit = [zero.clone() for zero in zeros]
            unit[i].view(-1)[j] = 1
            columns.append((function(*unit) - offset).reshape(-1).numpy())
    return np.stack(columns, axis=1), offset.reshape(-1).numpy(), function(*values)


def exact_minima(model: Network, image: torch.Tensor, eps: float, label: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Minima of all margins on the Linf ball within [0, 1], and inputs that attain them."""
    low = list((image - eps).clamp(min=0).reshape(-1).numpy())
    high = list((image + eps).clamp(max=1).reshape(-1).numpy())
    integral = [0] * len(low)
    values = [image]
    places = [list(range(len(low)))]  # columns of the variables of the input and of every stage
    constraints: list[tuple[dict[int, float], float, float]] = []

    def variable(lower: float, upper: float, integer: int = 0) -> int:
        low.append(lower), high.append(upper), integral.append(integer)
        return len(low) - 1

    for function, kind in model.stages():
        weights, offset, result = matrix(function, values)
        columns = [column for place in places for column in place]
        at_low, at_high = np.array(low)[columns], np.array(high)[columns]
        least = weights.clip(min=0) @ at_low + weights.clip(max=0) @ at_high + offset
        most = weights.clip(min=0) @ at_high + weights.clip(max=0) @ at_low + offset
        if not kind:
            break
        before = [variable(a, b) for a, b in zip(least, most, strict=True)]
        for row, z in zip(range(len(offset)), before, strict=True):
            terms = {column: w for column, w in zip(columns, weights[row], strict=True) if w}
            constraints.append(({**terms, z: -1.0}, -offset[row], -offset[row]))
        if kind == "relu":
            groups, floor = [[i] for i in range(len(before))], True
            shape = result.shape
        else:
            index = torch.arange(result.numel()).view(result.shape)
            pairs = torch.stack([index[..., :-1], index[..., 1:]], dim=-1)
            groups, floor, shape = pairs.reshape(-1, 2).tolist(), False, pairs.shape[:-1]
        place = []
        for group in groups:
            candidates = [(before[i], least[i], most[i]) for i in group]
            top, bottom = max(c[2] for c in candidates), max(c[1] for c in candidates)
            top, bottom = (max(top, 0.0), max(bottom, 0.0)) if floor else (top, bottom)
            y = variable(bottom, top)
            choices = []
            for z, a, _ in candidates:  # y >= z, and y <= z where it is chosen
                chosen = variable(0, 1, 1)
                choices.append(chosen)
                constraints.append(({y: 1.0, z: -1.0}, 0.0, np.inf))
                constraints.append(({y: 1.0, z: -1.0, chosen: top - a}, -np.inf, top - a))
            if floor:
                zero = variable(0, 1, 1)
                choices.append(zero)
                constraints.append(({y: 1.0, zero: top}, -np.inf, top))
            constraints.append((dict.fromkeys(choices, 1.0), 1.0, 1.0))
            place.append(y)
        places.append(place)
        nonlinear = torch.relu if kind == "relu" else lambda z: torch.maximum(z[..., :-1], z[..., 1:])
        values.append(nonlinear(result).reshape(shape))
    table = np.zeros((len(constraints), len(low)))
    for row, (terms, _, _) in enumerate(constraints):
        for column, weight in terms.items():
            table[row, column] += weight
    bounds = LinearConstraint(table, [c[1] for c in constraints], [c[2] for c in constraints])
    found, inputs = [], []
    for other in range(len(offset)):
        if other == label:
            continue
        cost = np.zeros(len(low))
        cost[columns] = weights[label] - weights[other]
        solution = milp(cost, constraints=bounds, bounds=(low, high), integrality=integral)
        assert solution.status == 0, solution.message
        found.append(solution.fun + offset[label] - offset[other])
        inputs.append(solution.x[: image.numel()])
    return np.array(found), inputs


def contained(inner: Bounds, outer: Bounds) -> bool:
    pairs = list(zip(inner.intervals, outer.intervals, strict=True))
    return all(bool((i.lower >= o.lower - 1e-12).all() and (i.upper <= o.upper + 1e-12).all()) for i, o in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_bound_is_above_the_exact_minimum(kind: type[Network]) -> None:
    """And the linear bounds are never below the intervals, and closer to the truth."""
    gaps: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(CASES):
        model = random_network(kind, seed)
        rng = np.random.default_rng(seed)
        image = torch.from_numpy(rng.uniform(0, 1, (1, *model.shape)))
        eps, label = float(rng.choice([0.02, 0.1, 0.3])), int(rng.integers(3))
        exact, inputs = exact_minima(model, image, eps, label)
        for x, value in zip(inputs, exact, strict=True):  # the oracle itself: the model attains these margins
            logits = model(torch.from_numpy(x).view(1, *model.shape))[0]
            assert np.abs(np.delete((logits[label] - logits).numpy(), label) - value).min() < 1e-5
        layers = network(model, image.expand(2, *model.shape))
        region = Region(image, eps, "linf")
        bounds = {method: layer_bounds(layers, region, method) for method in METHODS}
        found = {method: margins(bounds[method], torch.tensor([label]))[0].numpy() for method in METHODS}
        for method in METHODS:
            assert (found[method] <= exact + 1e-6).all(), (seed, method)
            gaps[method].append(float((exact - found[method]).mean()))
        assert (found["crown"] >= found["ibp"] - 1e-12).all()
        assert (found["crown-ibp"] >= found["ibp"] - 1e-12).all()
        assert contained(bounds["crown"], bounds["ibp"])
    mean = {method: np.mean(values) for method, values in gaps.items()}
    assert mean["crown"] <= mean["crown-ibp"] < mean["ibp"]
    assert mean["crown"] < 0.6 * mean["ibp"]
