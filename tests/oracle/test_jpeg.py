"""The differentiable codec against the real one and SciPy's DCT, its slope against a mean by quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from freqrobust.defenses import jpeg
from freqrobust.defenses.jpeg import JPEG, LUMINANCE


def smooth_images(channels: int, height: int, width: int) -> torch.Tensor:
    """Waves and a little noise, within [0, 1]."""
    rows, columns = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 4, width), indexing="ij")
    waves = torch.stack([0.5 + 0.4 * torch.sin(rows * (1 + c) + columns) for c in range(channels)])
    noise = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    return (waves + 0.1 * (noise - 0.5)).clamp(0, 1)


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (64, 48), (33, 9)])
@pytest.mark.parametrize("quality", [20, 50, 75, 95])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_codec_gives_nearly_what_the_library_gives(size, quality, channels) -> None:
    images = smooth_images(channels, *size)
    defense = JPEG(quality=quality)
    real, ours = defense.transform(images), defense.surrogate(images).clamp(0, 1)
    assert ours.shape == images.shape
    assert 255 * float((real - ours).abs().mean()) < 2
    assert float((real - ours).abs().mean()) < 0.5 * float((real - images).abs().mean()) + 1 / 255


def test_blocks_against_the_dct_of_scipy() -> None:
    planes = 255 * torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = JPEG(quality=50)._coded(planes, LUMINANCE).numpy()
    table = np.array(LUMINANCE)
    for n in range(2):
        for i in range(0, 16, 8):
            for j in range(0, 24, 8):
                block = planes[n, 0, i : i + 8, j : j + 8].numpy() - 128
                levels = np.round(dctn(block, norm="ortho") / table) * table
                np.testing.assert_allclose(
                    found[n, 0, i : i + 8, j : j + 8], idctn(levels, norm="ortho") + 128, atol=1e-9
                )


def test_the_slope_is_that_of_the_mean_under_noise() -> None:
    x = torch.linspace(-2, 2, 81, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(jpeg._soft_round(x), x.round())
    slope = torch.autograd.grad(jpeg._soft_round(x).sum(), x)[0].numpy()
    z = np.linspace(-8, 8, 400_001)
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])

    def mean(at: float) -> float:
        return float((np.round(at + jpeg.SOFTNESS * z) * weight).sum())

    h = 5e-3
    expected = [(mean(at + h) - mean(at - h)) / (2 * h) for at in x.detach().numpy()]
    np.testing.assert_allclose(slope, expected, atol=0.02)
