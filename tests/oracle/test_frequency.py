"""Masks and filters against NumPy with ``fftshift``: masks about ``(H // 2, W // 2)``, distance ``< radius``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freqrobust.numerics.frequency import (
    band_mask,
    band_pass,
    conjugate,
    directions,
    distances,
    fourier_basis,
    high_pass,
    low_pass,
)
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.registry import attacks, defenses

SIZES = [(32, 32), (33, 33), (8, 8), (7, 9), (16, 11), (11, 16), (1, 6), (28, 40)]
RADII = [0.5, 1, 2.5, 4, 5, 12]


def distance(height: int, width: int, shape: str) -> np.ndarray:
    """Distance of each frequency from the centre, pixel by pixel, DC at ``(H // 2, W // 2)``."""
    found = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            down, right = abs(i - height // 2), abs(j - width // 2)
            found[i, j] = max(down, right) if shape == "square" else np.sqrt(down**2 + right**2)
    return found


def filtered(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    spectrum = np.fft.fftshift(np.fft.fft2(images), axes=(-2, -1))
    return np.fft.ifft2(np.fft.ifftshift(spectrum * mask, axes=(-2, -1))).real


def random_images(size: tuple[int, int], channels: int = 3, n: int = 2) -> torch.Tensor:
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(size[0] * 100 + size[1]))


def perturb(spec: str, images: torch.Tensor) -> torch.Tensor:
    attack = attacks.parse(spec)[0].plugin
    n = len(images)
    labels = torch.zeros(n, dtype=torch.int64)
    return attack.perturb(torch.nn.Identity(), images, labels, AttackContext(torch.arange(n)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", ["circle", "square"])
def test_distances_and_masks(size, shape) -> None:
    expected = distance(*size, shape)
    # torch's square root may be off by one unit in the last place; masks may not
    np.testing.assert_allclose(np.fft.fftshift(distances(*size, shape).numpy()), expected, rtol=4e-16)
    for low, high in [(0, 4), (2, 5), (4, np.inf), (0, 0.5)]:
        found = np.fft.fftshift(band_mask(*size, low, high, shape).numpy())
        assert np.array_equal(found, (expected >= low) & (expected < high))


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_every_whole_radius_of_awkward_sizes_is_exact(shape) -> None:
    """``1 / n`` is rounded, and a frequency that came out just below a whole radius would change sides."""
    for n in (49, 98, 103, 107, 196, 224):
        steps = np.abs(np.arange(n) - n // 2)
        if shape == "square":
            expected = np.maximum(steps[:, None], steps[None, :]).astype(float)
        else:
            expected = np.sqrt((steps[:, None] ** 2 + steps[None, :] ** 2).astype(float))
        found = np.fft.fftshift(distances(n, n, shape).numpy())
        for radius in range(1, n):
            assert np.array_equal(found < radius, expected < radius)


def test_mask_of_radius_four_counts_lattice_points() -> None:
    """45 integer points lie strictly inside a circle of radius 4, and 7 x 7 inside the square."""
    assert band_mask(32, 32, 0, 4).sum() == 45
    assert band_mask(32, 32, 0, 4, "square").sum() == 49


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("radius", RADII)
def test_filters_equal_the_shifted_reference(size, shape, radius) -> None:
    images = random_images(size)
    low = distance(*size, shape) < radius
    np.testing.assert_allclose(low_pass(images, radius, shape), filtered(images.numpy(), low), atol=2e-6)
    np.testing.assert_allclose(high_pass(images, radius, shape), filtered(images.numpy(), ~low), atol=2e-6)
    np.testing.assert_allclose(low_pass(images, radius, shape) + high_pass(images, radius, shape), images, atol=2e-6)


@pytest.mark.parametrize("size", [(32, 32), (7, 9), (16, 11)])
@pytest.mark.parametrize("band", [(0, 3), (2, 5), (4, 100)])
@pytest.mark.parametrize("shape", ["circle", "square"])
def test_band_pass_equals_the_shifted_reference(size, band, shape) -> None:
    images = random_images(size)
    d = distance(*size, shape)
    expected = filtered(images.numpy(), (d >= band[0]) & (d < band[1]))
    np.testing.assert_allclose(band_pass(images, *band, shape), expected, atol=2e-6)
    np.testing.assert_allclose(
        perturb(f"bandpass:low={band[0]},high={band[1]},shape={shape}", images), expected, atol=2e-6
    )


@pytest.mark.parametrize("size", [(32, 32), (9, 7)])
@pytest.mark.parametrize("shape", ["circle", "square"])
def test_a_filter_wider_than_the_image_is_the_identity(size, shape) -> None:
    images = random_images(size)
    widest = distance(*size, shape).max()
    assert torch.equal(low_pass(images, widest + 0.01, shape), images)
    assert torch.equal(perturb(f"lfc:radius=1000,shape={shape}", images), images)
    assert torch.equal(high_pass(images, 0, shape), images)
    # at exactly the largest distance the corner frequency is missing
    assert not torch.allclose(low_pass(images, widest, shape), images, atol=1e-5)


@pytest.mark.parametrize("spec", ["lfc:radius=3,clip={clip}", "hfc:radius=3,clip={clip}"])
def test_clip_clips_and_its_absence_does_not(spec) -> None:
    images = (random_images((8, 8)) > 0.5).float()
    free = perturb(spec.format(clip="false"), images)
    assert free.min() < 0
    assert torch.equal(perturb(spec.format(clip="true"), images), free.clamp(0, 1))


@pytest.mark.parametrize(
    "spec", ["lfc:radius=3", "hfc:radius=3", "hfc:radius=3,keep_mean=true", "bandpass:low=1,high=3"]
)
@pytest.mark.parametrize("size", [(32, 32), (7, 9)])
def test_rescaled_images_are_divided_by_their_largest_value(spec, size) -> None:
    images = random_images(size)
    plain = perturb(spec, images).numpy()
    expected = np.stack([image / image.max() for image in plain])
    found = perturb(f"{spec},rescale=max", images)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert torch.equal(found.amax(dim=(1, 2, 3)), torch.ones(len(images)))
    clipped = perturb(f"{spec},rescale=max,clip=true", images)
    np.testing.assert_allclose(clipped, np.clip(expected, 0, 1), rtol=1e-6)


def test_images_of_which_nothing_is_left_are_not_rescaled() -> None:
    """What rounding leaves of a constant image would become an image of noise."""
    images = torch.full((2, 3, 9, 7), 0.7)
    assert perturb("hfc:radius=1,rescale=max", images).abs().max() < 1e-6
    assert torch.equal(perturb("lfc:radius=0,rescale=max", images), torch.zeros_like(images))


@pytest.mark.parametrize("size", [(32, 32), (7, 9)])
def test_keep_mean_adds_the_channel_means_back(size) -> None:
    images = random_images(size)
    expected = filtered(images.numpy(), distance(*size, "circle") >= 4) + images.numpy().mean(
        axis=(-2, -1), keepdims=True
    )
    np.testing.assert_allclose(perturb("hfc:radius=4,keep_mean=true", images), expected, atol=2e-6)
    assert torch.equal(perturb("hfc:radius=0,keep_mean=true", images), images)  # DC is there already
    for radius in (0, 4):
        defense = defenses.parse(f"highpass:radius={radius},keep_mean=true")[0].plugin
        np.testing.assert_allclose(
            defense.transform(images), perturb(f"hfc:radius={radius},keep_mean=true", images), atol=2e-6
        )


def test_input_filters_are_the_same_filters() -> None:
    images = random_images((16, 11))
    for kind, function in (("lowpass", low_pass), ("highpass", high_pass)):
        for shape in ("circle", "square"):
            defense = defenses.parse(f"{kind}:radius=4,shape={shape}")[0].plugin
            assert torch.equal(defense.transform(images), function(images, 4, shape))
        assert not torch.allclose(function(images, 4, "circle"), function(images, 4, "square"), atol=1e-3)


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_gradient_is_the_filter_itself(size) -> None:
    """The filters are symmetric linear maps, so the vector-Jacobian product of ``v`` is the filtered ``v``."""
    images, v = random_images(size), random_images(size, n=2) - 0.5
    for function in (low_pass, high_pass):
        x = images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad((function(x, 2.5) * v).sum(), x)
        torch.testing.assert_close(gradient, function(v, 2.5), atol=1e-6, rtol=0)


def test_images_are_not_changed_in_place() -> None:
    images = random_images((8, 8))
    before = images.clone()
    low_pass(images, 2)
    high_pass(images, 2)
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", SIZES)
def test_directions_are_every_frequency_but_once_a_pair(size) -> None:
    height, width = size
    kept = directions(height, width)
    everything = {
        (u, v) for u in range(-(height // 2), (height + 1) // 2) for v in range(-(width // 2), (width + 1) // 2)
    }
    mirrored = {conjugate(u, v, height, width) for u, v in kept}
    assert set(kept) | mirrored == everything
    assert all(conjugate(u, v, height, width) not in kept or conjugate(u, v, height, width) == (u, v) for u, v in kept)
    assert kept[0] == (0, 0)


def test_directions_at_32_pixels() -> None:
    assert len(directions(32, 32)) == 514


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11)])
def test_fourier_basis_is_one_conjugate_pair_of_length_one(size) -> None:
    height, width = size
    for u, v in directions(height, width):
        wave = fourier_basis(height, width, u, v).numpy().astype(np.float64)
        assert np.sqrt((wave**2).sum()) == pytest.approx(1, abs=1e-6)
        energy = np.abs(np.fft.fftshift(np.fft.fft2(wave))) ** 2 / (height * width)
        there = {(u, v), conjugate(u, v, height, width)}
        for du, dv in there:
            assert energy[du + height // 2, dv + width // 2] == pytest.approx(1 / len(there), abs=1e-5)


def test_fourier_basis_above_nyquist() -> None:
    with pytest.raises(ValueError, match=r"\(5, 0\) does not exist at 8 x 8"):
        fourier_basis(8, 8, 5, 0)
