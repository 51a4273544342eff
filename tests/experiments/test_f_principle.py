"""The frequency principle: the non-uniform transform against its definition, the principal component, and one run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from freqrobust.data.loading import as_data, load_data
from freqrobust.experiments.reproduce import reproduce
from freqrobust.reproductions._projection import Projection, first_component, relative_error, transform
from freqrobust.results.findings import Findings


def test_on_a_uniform_grid_it_is_the_dft() -> None:
    values = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.arange(12, dtype=torch.float64) / 12
    found = transform(x, values, torch.arange(12.0))
    assert np.allclose(found.numpy(), np.fft.fft(values.numpy(), axis=0) / 12, atol=1e-14)


def test_anywhere_it_is_the_sum() -> None:
    generator = np.random.default_rng(1)
    x, values, k = generator.uniform(size=9), generator.normal(size=(9, 2)), np.array([0.5, 3.25])
    expected = [[sum(v * np.exp(-2j * np.pi * a * f) for a, v in zip(x, values[:, c], strict=True)) / 9 for c in (0, 1)]
                for f in k]  # fmt: skip
    found = transform(torch.from_numpy(x), torch.from_numpy(values), torch.from_numpy(k))
    assert np.allclose(found.numpy(), expected)


def test_the_relative_error_of_a_prediction_made_by_hand() -> None:
    wanted = torch.tensor([[3 + 0j, 4j], [1 + 0j, 0j]])
    found = torch.tensor([[0j, 4j], [1 + 0j, 1j]])
    assert relative_error(found, wanted).tolist() == pytest.approx([3 / 5, 1])
    assert relative_error(wanted, wanted).tolist() == [0, 0]
    assert relative_error(torch.zeros_like(wanted), wanted).tolist() == pytest.approx([1, 1])


def test_the_first_component_is_that_of_scikit_learn() -> None:
    images = load_data("digits").images[:200]
    found = first_component(images).numpy()
    expected = PCA(1).fit_transform(images.flatten(1).double().numpy())[:, 0]
    assert abs(np.corrcoef(found, expected)[0, 1]) == pytest.approx(1, abs=1e-9)
    assert (found.min(), found.max()) == (0, 1)


class Perfect(nn.Module):
    """Looks the labels up by the images, and is almost certain."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.known, self.labels = images.flatten(1), labels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        which = torch.cdist(images.flatten(1), self.known).argmin(dim=1)
        return 100 * nn.functional.one_hot(self.labels[which], 10).float()


class Constant(nn.Module):
    """Predicts the same probabilities for all images."""

    def __init__(self, probabilities: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(probabilities.log())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.weight.expand(len(images), -1)


def test_errors_of_networks_that_know_all_or_nothing() -> None:
    data = load_data("digits").first(150)
    projection = Projection(data, [1, 2, 3])
    assert projection.errors(Perfect(data.images, data.labels))["errors"] == pytest.approx([0, 0, 0], abs=1e-6)
    one_hot = nn.functional.one_hot(data.labels, 10).double()
    centred = transform(projection.x, one_hot - one_hot.mean(dim=0), torch.tensor([1.0, 2, 3]))
    assert np.allclose(projection.wanted.numpy(), centred.numpy())
    constant = Constant(projection.shares)  # predicts the shares of the classes: it has learned no frequency
    assert projection.errors(constant)["errors"] == pytest.approx([1, 1, 1], abs=1e-6)


def test_labels_in_random_order_have_no_frequency() -> None:
    data = load_data("digits")
    frequencies = [k / 2 for k in range(1, 21)]
    assert Projection(data, frequencies).present[:3] == [0, 1, 2]
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    shuffled = Projection(as_data((data.images, data.labels[order]), "shuffled"), frequencies)
    assert len(shuffled.present) <= 1
    assert float(shuffled.amplitude.square().mean().sqrt()) == pytest.approx(shuffled.floor, rel=0.15)


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("f-principle")


def test_low_frequencies_come_first(found: Findings) -> None:
    assert [trend.verdict for trend in found.trends] == ["reproduced"] * 3
    assert found.trends[0].estimate > 0.2


def test_the_maps_have_a_column_for_each_frequency(found: Findings) -> None:
    for kind in ("fully connected", "convolutional"):
        curves = [curve for curve in found.curves if curve.panel == f"images, {kind}"]
        assert [curve.label for curve in curves] == [f"{k / 2:g}" for k in range(1, 21)]
        assert {len(curve.x) for curve in curves} == {7}  # before the first epoch, and after each of six
    assert found.picture is not None
