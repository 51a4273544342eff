"""Spectral bias: the transforms against their definitions, what is measured against made-up trainings, and one run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from freqrobust.experiments.reproduce import reproduce
from freqrobust.reproductions._regression import Networks, amplitudes, descend, moments, relative_errors
from freqrobust.reproductions._spectral_bias import _by_group, kernel_basis, learned_at, rank_correlation
from freqrobust.results.findings import Findings


def test_the_amplitude_of_a_sine_is_its_factor() -> None:
    z = torch.arange(64, dtype=torch.float64) / 64
    wave = 1.7 * torch.sin(2 * math.pi * 3 * z + 0.4) + 0.2 * torch.sin(2 * math.pi * 10 * z - 1)
    assert amplitudes(wave, (3, 10, 5)).tolist() == pytest.approx([1.7, 0.2, 0], abs=1e-12)


def test_relative_errors_against_the_sum() -> None:
    generator = np.random.default_rng(0)
    values, target = generator.normal(size=15), generator.normal(size=15)
    expected = []
    for k in (1, 4):
        wave = np.exp(-2j * np.pi * k * np.arange(15) / 15)
        expected.append(abs((values * wave).sum() - (target * wave).sum()) / abs((target * wave).sum()))
    found = relative_errors(torch.from_numpy(values), torch.from_numpy(target), (1, 4))
    assert found.tolist() == pytest.approx(expected)


def test_relative_errors_of_a_prediction_made_by_hand() -> None:
    """The low frequency is there to nine tenths, the high one is missing."""
    x = torch.pi * (2 * torch.arange(61, dtype=torch.float64) / 61 - 1)
    target = torch.sin(x) + torch.sin(4 * x)
    assert relative_errors(0.9 * torch.sin(x), target, (1, 4)).tolist() == pytest.approx([0.1, 1])


def networks(repetitions: int = 3) -> Networks:
    return Networks([2, 5, 4, 1], repetitions, "tanh", seed=7)


def test_repetitions_are_separate_networks() -> None:
    many, x = networks(), torch.rand(6, 2)
    for r in range(3):
        layers: list[torch.nn.Module] = []
        for weight, bias in zip(many.parameters[::2], many.parameters[1::2], strict=True):
            layer = torch.nn.Linear(*weight.shape[1:])
            layer.weight.data, layer.bias.data = weight[r].T.clone(), bias[r, 0].clone()
            layers += [layer, torch.nn.Tanh()]
        single = torch.nn.Sequential(*layers[:-1])
        assert torch.allclose(many(x)[r], single(x), atol=1e-6)
    assert torch.equal(networks(2)(x), many(x)[:2])  # the number of repetitions makes no difference


def test_spectral_norms_against_the_singular_values() -> None:
    many = networks()
    for layer, weight in enumerate(many.parameters[::2]):
        for r in range(3):
            assert many.spectral_norms()[layer, r] == pytest.approx(np.linalg.svd(weight[r].numpy())[1][0], rel=1e-5)


def test_a_perturbation_has_its_distance() -> None:
    many = networks()
    changed = many.perturbed(0.3, seed=1)
    squares = sum((a - b).square().flatten(1).sum(dim=1) for a, b in zip(changed, many.parameters, strict=True))
    assert squares.sqrt().tolist() == pytest.approx([0.3] * 3, rel=1e-5)  # type: ignore[union-attr]
    assert not torch.equal(changed[0], many.perturbed(0.3, seed=2)[0])


def test_descent_is_that_of_each_network_alone() -> None:
    """Adam on the sum of the losses against torch's Adam on one network; weights are recorded before a step."""
    x, y = torch.rand(8, 2), torch.rand(3, 8, 1)
    many = networks()
    alone = Networks([2, 5, 4, 1], 3, "tanh", seed=7)
    one = [parameter[1:2].clone().requires_grad_(True) for parameter in alone.parameters]
    optimizer = torch.optim.Adam(one, lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        (alone(x, one) - y[1:2]).square().mean().backward()
        optimizer.step()
    steps: list[int] = []
    found = descend(
        many, x, y, lr=0.01, record_at=[0, 5, 20], record=lambda output: output.clone(), advance=steps.append
    )
    assert torch.allclose(found[0], networks()(x))
    assert torch.allclose(found[-1][1], alone(x, one)[0], atol=1e-6)
    assert steps == [0, 5, 15]
    assert torch.allclose(many(x), found[-1])


def test_moments() -> None:
    assert moments(100, 5) == [0, 25, 50, 75, 100]
    assert moments(2, 5) == [0, 1, 2]


def test_when_a_frequency_is_learned() -> None:
    spectrum = torch.tensor([[[0.0, 0.0, 0.1]], [[0.6, 0.2, 0.2]], [[0.4, 0.5, 0.3]]])
    assert learned_at([0, 10, 20], spectrum).tolist() == [[10, 20, 40]]
    assert rank_correlation([1, 2, 3], torch.tensor([10, 20, 40])) == 1
    assert rank_correlation([1, 2, 3], torch.tensor([40, 20, 10])) == -1
    assert rank_correlation([1, 2, 3], torch.tensor([40, 40, 40])) == 0


def test_the_kernel_basis_on_a_circle_consists_of_waves() -> None:
    """On a regular polygon the kernel matrix is circulant, so that its eigenvectors are those of the DFT, low ones first."""
    angles = 2 * math.pi * torch.arange(16, dtype=torch.float64) / 16
    basis = kernel_basis(torch.stack([angles.cos(), angles.sin()], dim=1))
    assert torch.allclose(basis.T @ basis, torch.eye(16, dtype=torch.float64), atol=1e-10)
    energy = torch.fft.fft(basis, dim=0).abs().square()
    assert energy.argmax(dim=0).apply_(lambda k: min(k, 16 - k)).tolist() == [
        0,
        *[k for k in range(1, 8) for _ in "ab"],
        8,
    ]


def test_groups_of_coefficients_contain_each_once() -> None:
    coefficients = torch.rand(2, 100)
    energy = _by_group(coefficients, 4)
    assert energy.sum(dim=1).tolist() == pytest.approx(coefficients.square().sum(dim=1).tolist())
    assert float(energy[0, 0]) == pytest.approx(float(coefficients[0, :3].square().sum()))  # 100^(1/4) = 3.2


@pytest.fixture(scope="module")
def found() -> Findings:
    return reproduce("spectral-bias")


def test_low_frequencies_come_first(found: Findings) -> None:
    order = [trend for trend in found.trends if "learned before" in trend.statement]
    assert [trend.verdict for trend in order] == ["reproduced"] * 2
    assert all(trend.estimate > 0.5 for trend in order)
    growth = [trend for trend in found.trends if "spectral norms" in trend.statement]
    assert [trend.verdict for trend in growth] == ["reproduced"] * 2


def test_every_statement_of_the_source_is_judged(found: Findings) -> None:
    assert len(found.trends) == 9
    assert found.picture is not None
    assert found.data is not None
    panels = {curve.panel for curve in found.curves}
    assert {"spectrum, growing amplitudes", "perturbed parameters", "images with noise, spectrum"} <= panels
    assert all(np.isfinite(curve.y).all() for curve in found.curves)
