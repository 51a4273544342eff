"""PGD within a band of frequencies: where the best perturbation is known, and what of it lies in the band."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import nn

from freqrobust import evaluate, load_data
from freqrobust.core.errors import SpecError
from freqrobust.models.architectures import SmallCNN
from freqrobust.numerics.norms import norms
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

SHAPE = (2, 6, 7)
BANDS = [(0, 2, "circle"), (0, 2, "square"), (1, 2.5, "circle"), (2, 9, "circle"), (0, 9, "square"), (0, 0.5, "circle")]


def inside(band: tuple[float, float, str], height: int, width: int) -> np.ndarray:
    """Which coefficients of ``np.fft.fft2`` the band holds, by a loop over the frequencies."""
    low, high, shape = band
    mask = np.zeros((height, width), dtype=bool)
    for i in range(height):
        for j in range(width):
            u, v = min(i, height - i), min(j, width - j)
            distance = max(u, v) if shape == "square" else np.hypot(u, v)
            mask[i, j] = low <= distance < high
    return mask


def share_inside(delta: np.ndarray, band: tuple[float, float, str]) -> np.ndarray:
    """Share of the energy of each ``(C, H, W)`` that lies in the band."""
    energy = np.abs(np.fft.fft2(delta.astype(np.float64))) ** 2
    return (energy * inside(band, *delta.shape[-2:])).sum(axis=(1, 2, 3)) / energy.sum(axis=(1, 2, 3))


def spec(band: tuple[float, float, str], **more: object) -> str:
    low, high, shape = band
    given = {"radius": high, "low": low, "shape": shape, **more}
    return "lowfreq-pgd:" + ",".join(f"{key}={value}" for key, value in given.items())


def linear(slopes: np.ndarray) -> nn.Module:
    layer = nn.Linear(slopes.shape[1], len(slopes), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(slopes))
    return nn.Sequential(nn.Flatten(), layer).eval()


def run(
    text: str, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, goal: str = "maximize"
) -> torch.Tensor:
    attack = attacks.parse(text)[0].plugin
    return attack.perturb(model, images, labels, AttackContext(torch.arange(len(images)), 0, goal))


def problem(n: int = 6) -> tuple[np.ndarray, nn.Module, torch.Tensor, torch.Tensor]:
    """A margin that grows along a vector, and grey images far from black and white."""
    rng = np.random.default_rng(5)
    slope = rng.standard_normal(SHAPE)
    model = linear(np.stack([np.zeros(slope.size), slope.ravel()]).astype(np.float32))
    images = torch.from_numpy(rng.uniform(0.4, 0.6, (n, *SHAPE)).astype(np.float32))
    return slope, model, images, torch.zeros(n, dtype=torch.int64)


@pytest.mark.parametrize("band", BANDS, ids=str)
@pytest.mark.parametrize("more", [{}, {"random_start": "false"}], ids=["random", "centre"])
def test_l2_reaches_the_filtered_gradient(band, more) -> None:
    """The best perturbation in a linear subspace is ``eps * P w / ||P w||``, and gains ``eps * ||P w||``."""
    slope, model, images, labels = problem()
    filtered = np.fft.ifft2(np.fft.fft2(slope) * inside(band, *SHAPE[-2:])).real
    found = run(spec(band, norm="l2", eps=0.3, steps=60, step_size=0.3, **more), model, images, labels)
    delta = (found - images).double().numpy()
    expected = 0.3 * filtered / np.sqrt((filtered**2).sum())
    np.testing.assert_allclose((delta * slope).sum(axis=(1, 2, 3)), (expected * slope).sum(), rtol=1e-3)
    np.testing.assert_allclose(delta, np.broadcast_to(expected, delta.shape), atol=2e-3)
    assert share_inside(delta, band).min() > 1 - 1e-9


@pytest.mark.parametrize("band", BANDS, ids=str)
def test_linf_comes_close_to_the_linear_programme(band) -> None:
    """The best of all band-limited perturbations, pixel bounds and equations for the frequencies left out, by a solver."""
    slope, model, images, labels = problem()
    eps, size = 0.1, SHAPE[1] * SHAPE[2]
    basis = np.fft.fft2(np.eye(size).reshape(size, *SHAPE[1:])).reshape(size, size).T  # rows: frequencies
    out = basis[~inside(band, *SHAPE[1:]).ravel()]
    best = 0.0
    for channel in slope:
        equations = (
            {} if len(out) == 0 else {"A_eq": np.concatenate([out.real, out.imag]), "b_eq": np.zeros(2 * len(out))}
        )
        best -= optimize.linprog(-channel.ravel(), bounds=[(-eps, eps)] * size, **equations).fun
    found = run(spec(band, eps=eps, steps=100, step_size=0.02), model, images, labels)
    delta = (found - images).double().numpy()
    gain = (delta * slope).sum(axis=(1, 2, 3))
    assert (gain <= best + 1e-4).all()
    assert (gain >= 0.92 * best).all(), gain / best
    assert norms(found - images, "linf").max() <= eps + 1e-6
    assert share_inside(delta, band).min() > 1 - 1e-9


@pytest.fixture(scope="module")
def digits_and_network():
    torch.manual_seed(0)
    data = load_data("digits", limit=32)
    images, labels, _ = data.batch(torch.arange(32), torch.device("cpu"))
    return images, labels, SmallCNN().eval().requires_grad_(False)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("goal", ["decide", "maximize"])
def test_all_of_it_is_in_the_band_where_nothing_is_clipped(digits_and_network, norm, goal) -> None:
    images, labels, network = digits_and_network
    grey, band = 0.4 + 0.2 * images, (0, 3, "circle")
    delta = (run(spec(band, norm=norm, eps=0.1), network, grey, labels, goal) - grey).numpy()
    assert share_inside(delta, band).min() > 1 - 1e-8


def test_clipping_leaves_the_band_only_a_little(digits_and_network) -> None:
    """Digits: half of the pixels are black, so that this is as bad as it gets."""
    images, labels, network = digits_and_network
    band = (0, 3, "circle")
    free = run("pgd:eps=0.1", network, images, labels) - images
    found = run(spec(band, eps=0.1), network, images, labels) - images
    assert share_inside(found.numpy(), band).mean() > 0.8
    assert share_inside(found.numpy(), band).mean() > share_inside(free.numpy(), band).mean() + 0.2


def test_the_whole_band_is_hardly_weaker_than_pgd() -> None:
    """With all frequencies allowed only the steps differ."""
    slope, model, images, labels = problem()
    delta = run("lowfreq-pgd:radius=99,eps=0.1", model, images, labels) - images
    free = run("pgd:eps=0.1", model, images, labels) - images
    gains = [float((d.double().numpy() * slope).sum()) for d in (delta, free)]
    assert gains[0] == pytest.approx(gains[1], rel=1e-3)


def test_bad_bands_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"'radius' \(4\) should be greater than 'low' \(5\)"):
        attacks.parse("lowfreq-pgd:radius=4,low=5")
    with pytest.raises(SpecError, match="'norm' should be 'linf' or 'l2'"):
        attacks.parse("lowfreq-pgd:radius=4,norm=l1")
    with pytest.raises(SpecError, match="'radius' is required, for example lowfreq-pgd:radius=8"):
        attacks.parse("lowfreq-pgd")
    images = torch.rand(4, *SHAPE)
    report = evaluate(
        nn.Sequential(nn.Flatten(), nn.Linear(84, 3)),
        (images, torch.zeros(4, dtype=torch.int64)),
        attacks=["lowfreq-pgd:low=1.1,radius=1.2"],
        device="cpu",
    )
    assert report.cells[1].status in ("ok", "failed")
    if report.cells[0].correct:
        assert "have no frequency at a distance" in report.cells[1].error
