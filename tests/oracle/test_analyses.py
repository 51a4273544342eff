"""Spectra, sensitivity, kernels, misalignment, curves and lines against NumPy, loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust import analyze
from freqrobust.analyses._components import chance_joint
from freqrobust.analyses._spectra import band_means, centred_distances, radial_profile, share_above
from freqrobust.analyses.energy import fit
from freqrobust.analyses.kernels import measure
from freqrobust.analyses.radius_curve import half_radius
from freqrobust.attacks.pgd import PGD
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks

SIZES = [(3, 8, 8), (1, 7, 7), (3, 6, 9), (1, 5, 8)]


def images_of(channels: int, height: int, width: int, n: int = 6) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def small(channels: int, height: int, width: int) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * height * width, 3)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return model.eval().requires_grad_(False)


def amplitude(values: torch.Tensor) -> np.ndarray:
    """Mean over samples and channels of the unitary DFT's amplitude, DC in the middle."""
    maps = values.double().numpy().reshape(-1, *values.shape[-2:])
    return np.mean([np.abs(np.fft.fftshift(np.fft.fft2(one, norm="ortho"))) for one in maps], axis=0)


def energies(values: torch.Tensor) -> np.ndarray:
    maps = values.double().numpy().reshape(-1, *values.shape[-2:])
    return np.sum([np.abs(np.fft.fftshift(np.fft.fft2(one, norm="ortho"))) ** 2 for one in maps], axis=0)


def check(found: object, values: torch.Tensor, radius: float) -> None:
    """A spectrum record against loops over every frequency."""
    height, width = values.shape[-2:]
    expected, energy = amplitude(values), energies(values)
    maps = values.shape[0] * values.shape[1]
    np.testing.assert_allclose(found.amplitude, expected, rtol=1e-4, atol=1e-7)  # type: ignore[attr-defined]
    rings: dict[int, list[float]] = {}
    above = low = high = 0.0
    lows, highs = [], []
    for row in range(height):
        for column in range(width):
            distance = float(np.hypot(row - height // 2, column - width // 2))
            rings.setdefault(int(np.round(distance)), []).append(expected[row, column])
            if distance >= radius:
                above += energy[row, column]
                highs.append(energy[row, column] / maps)
            elif distance > 0:
                lows.append(energy[row, column] / maps)
    low, high = np.mean(lows), np.mean(highs)
    assert len(found.profile) == max(rings) + 1  # type: ignore[attr-defined]
    for ring, inside in rings.items():
        assert found.profile[ring] == pytest.approx(np.mean(inside), rel=1e-4, abs=1e-7)  # type: ignore[attr-defined]
    assert found.above == pytest.approx(above / energy.sum(), rel=1e-4, abs=1e-9)  # type: ignore[attr-defined]
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4, abs=1e-7)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("channels", "height", "width"), SIZES)
def test_spectra_of_images_shifts_and_attacks(channels: int, height: int, width: int) -> None:
    images, model = images_of(channels, height, width), small(channels, height, width)
    labels = model(images).argmax(dim=1)
    spec = "spectrum:shifts=[hfc:radius=2],attacks=[[pgd:eps=0.1,steps=3]],radius=2.5"
    result = analyze(model, (images, labels), spec, device="cpu", batch_size=4, seed=1).results[0]
    found = {one.kind: one for one in result.spectra}
    check(found["images"], images, 2.5)
    plugin_spec = attacks.parse("hfc:radius=2")[0]
    context = AttackContext(torch.arange(6), 1, "maximize")
    check(found["shift"], plugin_spec.plugin.perturb(model, images, labels, context) - images, 2.5)  # type: ignore[attr-defined]
    made = PGD(eps=0.1, steps=3).perturb(model, images.clone(), labels, context)
    check(found["adversarial"], made - images, 2.5)
    assert found["adversarial"].n == 6


def test_an_energy_that_is_known() -> None:
    """A wave of 3 cycles down and 2 across has all its energy at that frequency and its mirror."""
    rows, columns = torch.arange(16.0)[:, None], torch.arange(12.0)[None, :]
    wave = torch.cos(2 * torch.pi * (3 * rows / 16 + 2 * columns / 12))
    images = (0.5 + 0.5 * wave).expand(4, 1, 16, 12)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    spec = "spectrum:shifts=[none],attacks=[none]"
    (found,) = analyze(model, (images, torch.tensor([0, 1, 0, 1])), spec, device="cpu").results[0].spectra
    values = np.array(found.amplitude)
    size = 0.25 * np.sqrt(192)
    assert values[8 + 3, 6 + 2] == pytest.approx(size, rel=1e-5)
    assert values[8 - 3, 6 - 2] == pytest.approx(size, rel=1e-5)
    assert values[8, 6] == pytest.approx(0.5 * np.sqrt(192), rel=1e-5)
    values[8 + 3, 6 + 2] = values[8 - 3, 6 - 2] = values[8, 6] = 0
    assert values.max() < 1e-5
    assert found.above == pytest.approx((2 * size**2) / (2 * size**2 + 0.25 * 192), rel=1e-5)  # radius 3 < 3.6


@pytest.mark.parametrize(("channels", "height", "width"), SIZES)
@pytest.mark.parametrize("unit", [False, True])
def test_sensitivity_is_that_of_one_gradient_after_the_other(
    channels: int, height: int, width: int, unit: bool
) -> None:
    images, model = images_of(channels, height, width), small(channels, height, width)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    gradients = []
    for image, label in zip(images, labels, strict=True):
        x = image[None].clone().requires_grad_(True)
        F.cross_entropy(model(x), label[None]).backward()
        assert x.grad is not None
        gradients.append(x.grad / x.grad.norm() if unit else x.grad)
    spec = f"sensitivity:unit={str(unit).lower()},radius=2"
    result = analyze(model, (images, labels), spec, device="cpu", batch_size=4).results[0]
    check(result.spectrum, torch.cat(gradients), 2.0)
    assert result.backwards == 6


def test_parseval() -> None:
    """The unitary transform keeps lengths: the mean energy of the map is that of the pixels."""
    images, model = images_of(3, 6, 9), small(3, 6, 9)
    from freqrobust.analyses._spectra import Spectrum

    total = Spectrum(6, 9)
    total.add(images)
    assert float(total.energies.sum()) == pytest.approx(float(images.double().square().sum()), rel=1e-9)
    assert model is not None


def test_profiles_and_bands_of_flat_maps() -> None:
    flat = torch.full((9, 6), 2.0)
    assert radial_profile(flat).tolist() == [2.0] * 6
    assert band_means(flat, 2.0) == (2.0, 2.0)
    inside = sum(np.hypot(u, v) >= 2 for u in range(-4, 5) for v in range(-3, 3))
    assert share_above(flat, 2.0) == pytest.approx(inside / 54)
    assert float(centred_distances(9, 6)[4, 3]) == 0.0
    assert share_above(torch.zeros(4, 4), 1.0) == 0.0


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (2, 1, 5, 5), (3, 2, 4, 2)])
def test_smoothness_of_kernels_by_loops(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rough = size = above = whole = 0.0
    for kernel in weight.reshape(-1, *shape[2:]).numpy():
        for i in range(shape[2]):
            for j in range(shape[3]):
                size += abs(kernel[i, j])
                rough += abs(kernel[i + 1, j] - kernel[i, j]) if i + 1 < shape[2] else 0.0
                rough += abs(kernel[i, j + 1] - kernel[i, j]) if j + 1 < shape[3] else 0.0
        for u in range(-16, 16):
            for v in range(-16, 16):
                phase = np.exp(-2j * np.pi * (u * np.arange(shape[2])[:, None] + v * np.arange(shape[3])) / 32)
                energy = abs((kernel * phase).sum()) ** 2
                whole += energy
                above += energy if np.hypot(u, v) >= 8 else 0.0
    found = measure("conv", weight)
    assert found.total_variation == pytest.approx(rough / size)
    assert found.high_share == pytest.approx(above / whole)


def test_kernels_that_are_known() -> None:
    flat, board = torch.ones(1, 1, 3, 3), torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])[None, None]
    assert measure("flat", flat).total_variation == 0.0
    assert measure("board", board).total_variation == pytest.approx(12 * 2 / 9)
    assert measure("flat", flat).high_share < 0.25
    assert measure("board", board).high_share > 0.95
    assert measure("impulse", torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])[None, None]).high_share == (
        pytest.approx(share_above(torch.ones(32, 32), 8))
    )


def test_smoothing_is_seen_in_the_first_layer_alone() -> None:
    from freqrobust.models.architectures import SmallCNN

    torch.manual_seed(0)
    data = torch.rand(4, 1, 8, 8), torch.arange(4)
    before, after = analyze(SmallCNN().eval(), data, "kernels", defenses=["smooth:rho=1"], device="cpu").results
    assert [layer.layer for layer in before.layers] == ["conv1", "conv2"]
    assert after.layers[0].total_variation < 0.8 * before.layers[0].total_variation
    assert after.layers[0].high_share < 0.8 * before.layers[0].high_share
    assert after.layers[1] == before.layers[1]


def test_chance_by_permuting_the_labels() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 400)
    first = np.where(generator.random(400) < 0.5, labels, 0)
    second = np.where(generator.random(400) < 0.7, first, 2)
    found = chance_joint(first, second, labels)
    assert sum(found.values()) == pytest.approx(1)
    counts = dict.fromkeys(found, 0.0)
    for _ in range(2000):
        mixed = generator.permutation(labels)
        for key in counts:
            counts[key] += float((((first == mixed) == key[0]) & ((second == mixed) == key[1])).mean()) / 2000
    for key, expected in counts.items():
        assert found[key] == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize(
    ("part", "curve", "expected"),
    [
        ("LFC", [0.1, 0.2, 0.6, 0.9], 2 + 4 * 0.75),  # 0.5 is three quarters of the way from 0.2 to 0.6
        ("LFC", [0.1, 0.7, 0.3, 0.9], 6 + 6 / 3),  # coming from the whole image the first fall counts
        ("LFC", [0.6, 0.7, 0.8, 0.9], np.nan),
        ("LFC", [0.1, 0.1, 0.1, 0.4], np.nan),
        ("HFC", [0.9, 0.6, 0.2, 0.1], 2 + 4 * 0.25),
        ("HFC", [0.9, 0.5, 0.8, 0.1], 2.0),
        ("HFC", [0.9, 0.8, 0.7, 0.6], np.nan),
    ],
)
def test_half_radii_by_hand(part: str, curve: list[float], expected: float) -> None:
    found = half_radius(np.array([0.0, 2.0, 6.0, 12.0]), np.array([curve]), np.array([0.5]), part)[0]
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_interval_covers_and_repeats() -> None:
    """Samples that are right from a radius of their own on: the half radius is the median of these radii."""
    generator = torch.Generator().manual_seed(0)
    needed = torch.rand(300, generator=generator) * 8

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            high = x[:, 0, 0, 0]
            return torch.stack([high, -high], dim=1)

    from freqrobust.analyses import radius_curve

    radii = np.arange(0.0, 9.0)
    right = (torch.from_numpy(radii)[:, None] >= needed).numpy()
    clean = np.ones(300, dtype=bool)
    once, again, other = (radius_curve._bootstrap(radii, clean, right, 0.0, "LFC", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    low, high = np.percentile(once, [2.5, 97.5])
    assert low < float(needed.median()) < high
    # the standard error of a median of n uniform values on [0, 8] is 8 / (2 sqrt(n))
    assert once.std() == pytest.approx(4 / np.sqrt(300), rel=0.25)


def test_lines_against_numpy() -> None:
    generator = np.random.default_rng(1)
    x = generator.random(15)
    y = 0.2 + 0.4 * x + 0.05 * generator.standard_normal(15)
    found = fit(x.tolist(), y.tolist())
    assert found is not None
    (slope, intercept), covariance = np.polyfit(x, y, 1, cov=True)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    assert (found.slope_ci95[1] - found.slope_ci95[0]) / 2 == pytest.approx(2.160369 * np.sqrt(covariance[0, 0]))
    assert found.r_squared == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert found.residual == pytest.approx(np.sqrt(((y - intercept - slope * x) ** 2).sum() / 13))
    assert fit([0.0, 1.0], [0.0, 1.0]) is None
    assert fit([0.5] * 5, [0.0, 1, 2, 3, 4]) is None


def test_energy_of_shifts_that_are_known() -> None:
    """What LFC takes away lies at or above its radius, what HFC takes away below it."""
    images = images_of(1, 16, 16, 20)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    labels = model(images).argmax(dim=1)
    spec = "energy:shifts=[lfc:radius=4,hfc:radius=4,lfc:radius=6]"
    record = analyze([model, small(1, 16, 16)], (images, labels.clamp(max=1)), spec, device="cpu")
    reference, other = record.results
    assert [point.high_share for point in other.points] == pytest.approx([1, 0, 1], abs=1e-6)
    assert all(point.change == 0 for point in reference.points)
    for point in other.points:
        changed = attacks.parse(point.shift)[0].plugin.perturb(model, images, labels, None)  # type: ignore[attr-defined,arg-type]
        accuracy = float((small(1, 16, 16)(changed).argmax(dim=1) == labels).float().mean())
        assert point.accuracy == pytest.approx(accuracy)
        assert point.change == pytest.approx(accuracy - point.reference_accuracy)
