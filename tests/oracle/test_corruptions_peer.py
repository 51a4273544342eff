"""The corruptions with ImageNet constants against imagecorruptions-imaug, by the measurement that the docs show."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import ndimage

from freqrobust.plugins.corruption_names import COMMON, EXTRA, SEVERITIES

pytest.importorskip("imagecorruptions", reason="imagecorruptions-imaug is not there", exc_type=ImportError)
ROOT = Path(__file__).resolve().parents[2]
SIZE = 64


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agreement", ROOT / "benchmarks" / "corruption_agreement.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["agreement"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["agreement"]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Smooth random colour pictures, uint8 ``(N, 3, 64, 64)``."""
    rough = np.random.default_rng(0).normal(size=(48, 3, SIZE, SIZE))
    levels = np.clip(128 + 600 * ndimage.gaussian_filter(rough, (0, 0, 4, 4)), 0, 255)
    return torch.from_numpy(levels.round().astype(np.uint8))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(
    "name", ["defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur"]
)
def test_deterministic_ones_are_equal(measure, pictures, name, severity) -> None:
    found = measure.agreement(pictures, name, severity)
    assert found.difference <= measure.EQUAL, found
    assert found.deviations[0] > 0.5


@pytest.mark.parametrize("severity", SEVERITIES)
def test_saturate_is_equal_but_for_whole_levels(measure, pictures, severity) -> None:
    """A whole level becomes the level below where the peer's HSV conversion rounds down: never more than that."""
    a, b = (side(pictures, "saturate", severity).astype(int) for side in (measure.ours, measure.peers))
    assert np.isin(a - b, (0, 1)).all()
    assert measure.agreement(pictures, "saturate", severity).difference <= measure.EQUAL


@pytest.mark.slow
@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in (*COMMON, *EXTRA)
        if name.endswith("noise") or name in ("glass_blur", "motion_blur", "snow", "fog", "spatter")
    ],
)
def test_random_ones_have_the_same_moments(measure, pictures, name, severity) -> None:
    found = measure.agreement(pictures, name, severity)
    assert found.same_moments, found
    assert found.difference > 0.05  # other random numbers, so that equal moments mean something


def test_another_corruption_would_be_noticed(measure, pictures) -> None:
    """The peer's elastic transform is another one, as docs/corruptions.md says."""
    assert not measure.agreement(pictures, "elastic_transform", 1).same_moments


@pytest.mark.parametrize("angle", [-45.0, -13.0, 0.0, 30.0])
def test_motion_blur_at_a_given_angle_is_the_peers(pictures, angle) -> None:
    from imagecorruptions.corruptions import _motion_blur

    from freqrobust.attacks.corruptions.motion_blur import smear

    image = pictures[:1].float()
    for radius, sigma in ((10, 3), (15, 8), (20, 15)):
        ours = smear(image, radius, sigma, torch.tensor([angle]))[0].permute(1, 2, 0).numpy()
        theirs = _motion_blur(image[0].permute(1, 2, 0).numpy(), radius, sigma, angle)
        assert np.abs(ours - theirs).max() < 0.01
