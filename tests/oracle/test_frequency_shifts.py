"""Fourier and filtered noise, critical bands, hybrids and swapped phases against NumPy's full transforms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from freqrobust import analyze, evaluate
from freqrobust.attacks.frequency_exchange import Hybrid, PhaseSwap
from freqrobust.attacks.frequency_noise import CriticalBand, FilteredNoise, FourierNoise
from freqrobust.core.errors import PluginError
from freqrobust.data.dataset import ImageData
from freqrobust.plugins.context import AttackContext

SHAPES = [(3, 32, 32), (1, 17, 24), (2, 9, 9)]


def data(shape: tuple[int, ...], n: int = 12) -> ImageData:
    torch.manual_seed(0)
    return ImageData(torch.rand(n, *shape), torch.arange(n) % 4, 4)


class Everyone:
    def __init__(self, samples: ImageData) -> None:
        self.samples, self.ids, self.shape = samples, samples.ids, samples.shape

    def gather(self, rows, work):
        images, labels, _ = self.samples.batch(rows, torch.device("cpu"))
        return work(None, images, labels, torch.arange(len(rows)))


def changed(attack, samples: ImageData, part: slice = slice(None), seed: int = 0) -> np.ndarray:
    context = AttackContext(samples.ids, seed)
    context = replace(context, prepared=attack.prepare(Everyone(samples), context))
    ids = samples.ids[part]
    return attack.perturb(None, samples.images[part].clone(), samples.labels[part], context.batch(ids)).double().numpy()


def radii(height: int, width: int, square: bool = False) -> np.ndarray:
    """Distance of every frequency from DC, as ``numpy.fft.fft2`` orders them."""
    rows, columns = (np.abs(np.fft.fftfreq(n) * n).round() for n in (height, width))
    return np.maximum(rows[:, None], columns) if square else np.hypot(rows[:, None], columns)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("u", "v"), [(0, 0), (3, -2), (-4, 4), (0, 4)])
def test_fourier_noise_is_one_wave_with_a_sign_per_channel(shape, u, v) -> None:
    samples = data(shape, 60)
    delta = changed(FourierNoise(u=u, v=v, l2=4), samples) - samples.images.double().numpy()
    assert np.allclose(np.linalg.norm(delta, axis=(2, 3)), 4, atol=1e-4)
    y, x = np.mgrid[: shape[1], : shape[2]]
    wave = np.cos(2 * np.pi * (u * y / shape[1] + v * x / shape[2]))
    signs = (delta * wave / np.linalg.norm(wave)).sum(axis=(2, 3)) / 4
    assert np.allclose(np.abs(signs), 1, atol=1e-4)
    share = (signs > 0).mean()
    assert abs(share - 0.5) < 4 * 0.5 / signs.size**0.5
    if shape[0] == 3:
        assert len(np.unique(signs.round(), axis=0)) == 8  # independent between the channels


@pytest.mark.parametrize("side", [8, 32, 96])
def test_the_default_norm_is_that_of_the_heat_map(side: int) -> None:
    samples = data((1, side, side), 2)
    delta = changed(FourierNoise(u=1, v=1), samples) - samples.images.double().numpy()
    expected = 4 * (15.7 / 4) ** (np.log(side / 32) / np.log(7))
    assert np.allclose(np.linalg.norm(delta, axis=(2, 3)), expected, atol=1e-4)
    if side == 8:
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        found = analyze(model, samples, "heatmap", device="cpu").results[0]
        assert found.norm == pytest.approx(expected)


def test_the_default_norm_is_that_of_every_channel() -> None:
    samples = data((3, 32, 32), 2)
    delta = changed(FourierNoise(u=1, v=1), samples) - samples.images.double().numpy()
    assert np.allclose(np.linalg.norm(delta, axis=(2, 3)), 4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0, 3), (3, None), (2, 4), (0, None)])
def test_filtered_noise_has_its_norm_and_its_band(shape, square, low, high) -> None:
    samples = data(shape, 40)
    given = {"high": high} if high is not None else {}
    attack = FilteredNoise(l2=2.5, low=low, shape="square" if square else "circle", **given)
    delta = changed(attack, samples) - samples.images.double().numpy()
    assert np.allclose(np.sqrt((delta**2).sum(axis=(1, 2, 3))), 2.5, atol=1e-4)
    power = np.abs(np.fft.fft2(delta)) ** 2
    distance = radii(*shape[1:], square)
    inside = (distance >= low) & (distance < (high or math.inf))
    assert power[..., ~inside].sum() < 1e-8 * power.sum()
    # white within the band: every frequency has the same expected power
    mean = power.mean(axis=(0, 1))[inside]
    assert mean.min() > 0.3 * mean.mean()
    assert mean.max() < 3 * mean.mean()


@pytest.mark.parametrize("grayscale", [True, False])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 17, 24)])
def test_critical_band_noise_is_one_octave_of_the_given_deviation(shape, grayscale) -> None:
    samples = data(shape, 20)
    attack = CriticalBand(center=4, std=0.1, contrast=0.2, grayscale=grayscale)
    plain = changed(CriticalBand(center=4, std=0, contrast=0.2, grayscale=grayscale), samples)
    found = changed(attack, samples)
    noise = found - plain
    inside_range = ((found > 0) & (found < 1)).all(axis=(1, 2, 3))
    noise = noise[inside_range]
    assert len(noise) > 3
    assert np.allclose(np.sqrt((noise**2).mean(axis=(2, 3))), 0.1, atol=1e-4)
    power = np.abs(np.fft.fft2(noise)) ** 2
    distance = radii(*shape[1:])
    inside = (distance >= 4 / 2**0.5) & (distance < 4 * 2**0.5)
    assert power[..., ~inside].sum() < 1e-7 * power.sum()
    images = samples.images.double().numpy()
    if grayscale and shape[0] == 3:
        images = np.repeat(np.tensordot(images, [0.299, 0.587, 0.114], axes=(1, 0))[:, None], 3, axis=1)
        assert np.allclose(noise[:, 0], noise[:, 2], atol=1e-6)
    axes = (1, 2, 3) if grayscale else (2, 3)
    expected = (images - images.mean(axis=axes, keepdims=True)) * 0.2 + 0.449
    assert np.allclose(plain, expected, atol=1e-5)


def partner_of(samples: ImageData, seed: int) -> np.ndarray:
    """Whom each sample was paired with, from a hybrid that keeps nothing of the image itself."""
    whole = changed(Hybrid(radius=0), samples, seed=seed)
    images = samples.images.double().numpy()
    return np.array([int(np.abs(images - one).sum(axis=(1, 2, 3)).argmin()) for one in whole])


@pytest.mark.parametrize("n", [2, 3, 12])
def test_everybody_is_a_partner_once_and_never_its_own(n) -> None:
    pairs = partner_of(data((1, 8, 8), n), 0)
    assert sorted(pairs) == list(range(n))
    assert (pairs != np.arange(n)).all()
    if n == 12:
        assert not np.array_equal(pairs, partner_of(data((1, 8, 8), n), 1))


@pytest.mark.parametrize("attack", [Hybrid(radius=3), PhaseSwap()])
def test_partners_depend_neither_on_the_batch_nor_on_the_order(attack) -> None:
    samples = data((3, 12, 10))
    whole = changed(attack, samples)
    for k in range(len(samples)):
        assert np.array_equal(changed(attack, samples, slice(k, k + 1))[0], whole[k])
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(3))
    assert np.array_equal(changed(attack, samples.take(order)), whole[order.numpy()])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("square", [False, True])
def test_hybrid_is_low_of_one_and_high_of_the_other(shape, square) -> None:
    samples = data(shape)
    images, pairs = samples.images.double().numpy(), partner_of(samples, 0)
    found = changed(Hybrid(radius=3, shape="square" if square else "circle"), samples)
    low = radii(*shape[1:], square) < 3
    spectrum = np.where(low, np.fft.fft2(images), np.fft.fft2(images[pairs]))
    assert np.abs(found - np.fft.ifft2(spectrum).real).max() < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_phase_swap(shape) -> None:
    samples = data(shape)
    images, pairs = samples.images.double().numpy(), partner_of(samples, 0)
    first, second = np.fft.fft2(images), np.fft.fft2(images[pairs])
    kept = np.fft.ifft2(np.abs(second) * np.exp(1j * np.angle(first))).real
    assert np.abs(changed(PhaseSwap(), samples) - kept).max() < 1e-4
    swapped = np.fft.ifft2(np.abs(first) * np.exp(1j * np.angle(second))).real
    assert np.abs(changed(PhaseSwap(keep="amplitude"), samples) - swapped).max() < 1e-4


def test_a_radius_beyond_all_frequencies_leaves_the_image() -> None:
    samples = data((3, 12, 10))
    assert np.array_equal(changed(Hybrid(radius=100), samples), samples.images.double().numpy())


@pytest.mark.parametrize("attack", [Hybrid(radius=3), PhaseSwap()])
def test_without_preparation_it_is_an_error(attack) -> None:
    samples = data((3, 12, 10))
    with pytest.raises(PluginError, match=r"prepare\(\) has to see the samples"):
        attack.perturb(None, samples.images, samples.labels, AttackContext(samples.ids))


class Quadrant(torch.nn.Module):
    """Which quadrant is brightest on average: low frequencies decide."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x.mean(dim=1, keepdim=True), 8).flatten(1)


def test_a_model_of_low_frequencies_goes_by_the_low_frequencies() -> None:
    """The label that counts is that of the low frequencies, whose model stays right; of the phases for the swap."""
    torch.manual_seed(0)
    labels = torch.arange(40) % 4
    images = 0.2 * torch.rand(40, 1, 16, 16)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 8 * (label // 2), 8 * (label % 2)
        image[:, top : top + 8, left : left + 8] += 0.5
    report = evaluate(
        Quadrant(), (images, labels), attacks=["hybrid:radius=4", "hybrid:radius=0", "phase-swap"], device="cpu"
    )
    kept, lost, phases = report.cells[1:]
    assert report.cells[0].accuracy == 1
    assert kept.accuracy == 1
    assert lost.accuracy < 0.6
    assert phases.accuracy > 0.9


@pytest.mark.parametrize("size", [17, 49, 98, 103])
def test_distances_are_whole_numbers_along_the_axes(size) -> None:
    from freqrobust.numerics.frequency import distances

    expected = [min(k, size - k) for k in range(size)]
    assert distances(size, 1)[:, 0].tolist() == expected
    assert distances(1, size)[0].tolist() == expected
