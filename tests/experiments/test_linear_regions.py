"""The linear regions on a segment, against networks whose regions are known and against dense sampling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.experiments.reproduce import reproduce
from freqrobust.models.architectures import SmallCNN
from freqrobust.reproductions._regions import crossings, regions_crossed, relu_inputs
from freqrobust.results.findings import Findings


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def test_a_line_with_three_kinks() -> None:
    """|x - 1/2| from two ReLUs, then a second layer with zeros where it is 1/4, at x = 1/4 and x = 3/4."""
    network = nn.Sequential(
        linear([[1.0], [-1.0]], [-0.5, 0.5]), nn.ReLU(), linear([[1.0, 1.0]], [-0.25]), nn.ReLU(), nn.Linear(1, 2)
    )
    found = crossings(network, torch.tensor([0.0]), torch.tensor([1.0]))
    torch.testing.assert_close(found, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    assert regions_crossed(network, torch.tensor([[0.0], [0.3]]), torch.tensor([[1.0], [0.4]])) == [4, 1]


def test_known_lines_in_the_plane() -> None:
    """Lines x = 1, y = 1 and x + y = 3: the segment from (0, 0) to (4, 2) meets them at shares 1/4, 1/2 and 1/2.

    The corner, where two of them meet in one point, is one change of region.
    """
    network = nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [-1.0, -1.0, -3.0]), nn.ReLU())
    found = crossings(network, torch.tensor([0.0, 0.0]), torch.tensor([4.0, 2.0]))
    torch.testing.assert_close(found, torch.tensor([0.25, 0.5], dtype=torch.float64))
    assert len(crossings(network, torch.tensor([0.0, 0.0]), torch.tensor([0.5, 0.9]))) == 0
    assert regions_crossed(network, torch.tensor([[4.0, 2.0]]), torch.tensor([[0.0, 0.0]])) == [3]


class Residual(nn.Module):
    """A network with a skip connection, batch norm and functional ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        x = torch.relu(self.norm(self.second(x)) + x - 0.2)
        logits: torch.Tensor = self.last(x)
        return logits


def counted(network: nn.Module, start: torch.Tensor, end: torch.Tensor, samples: int) -> int:
    """Regions by dense sampling: one more than the changes of the signs between neighbouring samples."""
    shares = torch.linspace(0, 1, samples, dtype=torch.float64).view(-1, *[1] * start.dim())
    network = network.double().eval()
    signs = torch.cat(relu_inputs(network, (1 - shares) * start.double() + shares * end.double()), dim=1) > 0
    return int((signs[1:] != signs[:-1]).any(dim=1).sum()) + 1


def example(kind: str, seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    network: nn.Module
    if kind == "mlp":
        network = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    else:
        network = Residual() if kind == "residual" else SmallCNN(3, 1)
    shape = (1, 5, 5) if kind == "cnn" else (6,)
    return network.eval(), torch.randn(shape), torch.randn(shape)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["mlp", "residual"])
def test_against_dense_sampling(kind: str, seed: int) -> None:
    network, start, end = example(kind, seed)
    found = crossings(network, start, end)
    samples = 20_000
    near = int((found.diff() < 2 / samples).sum())  # pairs that the samples may not separate
    assert near <= 2
    assert len(found) + 1 - near <= counted(network, start, end, samples) <= len(found) + 1
    assert len(found) > 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["mlp", "residual", "cnn"])
def test_signs_change_at_the_crossings_and_nowhere_else(kind: str, seed: int) -> None:
    network, start, end = example(kind, seed)
    found = crossings(network, start, end)
    ends = torch.cat([torch.zeros(1), found, torch.ones(1)]).double()
    shares = torch.stack([ends[:-1] + part * ends.diff() for part in (0.1, 0.5, 0.9)], dim=1)
    shares = shares.flatten().view(-1, *[1] * start.dim())
    network = network.double()
    signs = torch.cat(relu_inputs(network, (1 - shares) * start.double() + shares * end.double()), dim=1) > 0
    inside = signs.view(len(ends) - 1, 3, -1)
    assert bool((inside == inside[:, :1]).all())
    assert bool((inside[1:, 0] != inside[:-1, 0]).any(dim=1).all())


def test_the_network_is_unchanged_and_needs_a_relu() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).train()
    regions_crossed(network, torch.zeros(1, 2), torch.ones(1, 2))
    assert network.training
    assert network[0].weight.dtype == torch.float32
    with pytest.raises(ValueError, match="has no ReLU"):
        crossings(nn.Linear(2, 2), torch.zeros(2), torch.ones(2))


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("linear-regions")


def test_small_perturbations_cross_regions_and_shuffled_labels_make_more(found: Findings) -> None:
    assert [trend.verdict for trend in found.trends] == ["reproduced"] * 2
    values = {one.name: one.value for one in found.measured}
    assert values["true labels: adversarial"] < values["true labels: same"] < values["shuffled labels: same"]


def test_regions_are_counted_before_and_during_training(found: Findings) -> None:
    assert len(found.curves) == 4
    for curve in found.curves:
        assert curve.x[:3] == [0, 1, 2]
        assert min(curve.y) >= 1
    first = {curve.panel: curve.y[0] for curve in found.curves if curve.label == "true labels"}
    assert first == {curve.panel: curve.y[0] for curve in found.curves if curve.label == "shuffled labels"}
