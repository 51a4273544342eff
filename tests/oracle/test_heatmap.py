"""The Fourier heat map against a plain loop: waves from NumPy's inverse FFT, one image and one direction at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust import analyze
from freqrobust.numerics import noise
from freqrobust.numerics.frequency import wave_norm

N = 5


def small(channels: int, height: int, width: int) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * height * width, 3)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return model.eval()


def basis(height: int, width: int, row: int, column: int) -> np.ndarray:
    """The wave of norm 1 whose spectrum, zero frequency in the middle, is not zero at (row, column) and its mirror."""
    spectrum = np.zeros((height, width), dtype=complex)
    spectrum[row, column] = 1
    wave = np.fft.ifft2(np.fft.ifftshift(spectrum)).real
    return wave / np.linalg.norm(wave)


def key(height: int, width: int, row: int, column: int) -> tuple[int, int]:
    """The direction's name: of the two frequencies of a pair the one that comes first in reading order."""
    u, v = row - height // 2, column - width // 2
    mirrored = ((-u + height // 2) % height - height // 2, (-v + width // 2) % width - width // 2)
    return min((u, v), mirrored)


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 8, 8), (1, 8, 8), (3, 7, 7), (1, 5, 5), (3, 6, 9), (1, 9, 4), (3, 4, 7)]
)
@pytest.mark.parametrize("clip", [False, True])
def test_every_value_is_that_of_the_loop(channels: int, height: int, width: int, clip: bool) -> None:
    images = torch.rand(N, channels, height, width, generator=torch.Generator().manual_seed(0))
    model = small(channels, height, width)
    labels = model(images).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 3  # one is wrong anyway
    norm = 1.5
    found = analyze(
        model,
        (images, labels),
        f"heatmap:norm={norm},layer=1,clip={str(clip).lower()}",
        device="cpu",
        seed=4,
        batch_size=4,
    ).results[0]
    assert found.clean_error == 1 / N
    for row in range(height):
        for column in range(width):
            wave = basis(height, width, row, column)
            u, v = key(height, width, row, column)
            wrong, change = 0, 0.0
            for i in range(N):
                draw = noise.uniform(torch.tensor([i]), (channels,), seed=4, stream=f"heat map {u} {v}")[0].numpy()
                signs = np.where(draw < 0.5, -1.0, 1.0)
                moved = images[i].numpy() + norm * signs[:, None, None] * wave
                if clip:
                    moved = np.clip(moved, 0, 1)
                both = torch.stack([images[i], torch.from_numpy(moved).float()])
                with torch.no_grad():
                    wrong += int(model(both)[1].argmax() != labels[i])
                    features = model[:2](both).flatten(1).double().numpy()
                change += np.linalg.norm(features[1] - features[0]) / np.linalg.norm(features[0])
            assert found.error[row][column] == pytest.approx(wrong / N), (row, column)
            assert found.change[row][column] == pytest.approx(change / N, rel=1e-4), (row, column)


def test_the_loop_tells_signs_apart() -> None:
    """Otherwise the test above would pass with any signs."""
    draws = noise.uniform(torch.arange(50), (3,), seed=0, stream="heat map 1 2")
    assert 0.3 < float((draws < 0.5).float().mean()) < 0.7


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_results_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    images = torch.rand(7, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    model = small(3, 6, 6)
    data = (images, model(images).argmax(dim=1))
    reference = analyze(model, data, "heatmap:norm=2", device="cpu").results[0]
    found = analyze(model, data, "heatmap:norm=2", device="cpu", batch_size=batch_size).results[0]
    assert found.error == reference.error
    assert found.forwards == 7 + 7 * 20  # clean, and one pass a direction: 36 frequencies are 20 pairs


def test_the_number_of_passes_at_32_px() -> None:
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2))
    found = analyze(model, (images, torch.tensor([0, 1])), "heatmap", device="cpu").results[0]
    assert found.directions == 514
    assert found.forwards == 2 + 514 * 2


@pytest.mark.parametrize(("side", "norm"), [(32, 4.0), (224, 15.7)])
def test_the_published_norms(side: int, norm: float) -> None:
    assert wave_norm(side, side) == pytest.approx(norm)


def test_norms_between_the_published_ones() -> None:
    assert 4 < wave_norm(64, 64) < wave_norm(96, 96) < 15.7
    assert wave_norm(16, 64) == wave_norm(32, 32)
