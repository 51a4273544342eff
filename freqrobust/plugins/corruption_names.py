"""The corruptions of the published benchmark by name: facts that suites, published files and summaries use.

A corruption that is not in these lists is of the part "other"; the attack ``corruption`` finds it by its module.
"""

from __future__ import annotations

from typing import Literal

#: The attack whose cells are summarised.
ATTACK = "corruption"
SEVERITIES = (1, 2, 3, 4, 5)
#: The 15 corruptions of the benchmark.
COMMON = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
#: The four that were published for validation.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
Part = Literal["common", "extra", "other"]
#: Shorter sides from which on the constants for 224 pixels are taken by default.
IMAGENET_SIDE = 64
ConstantSet = Literal["cifar", "imagenet"]


def constant_set(height: int, width: int) -> ConstantSet:
    """The published constants for images of that size: ``imagenet`` from 64 pixels on, else ``cifar``."""
    return "imagenet" if min(height, width) >= IMAGENET_SIDE else "cifar"


def part_of(name: str) -> Part:
    """The part of the benchmark that a corruption belongs to."""
    return "common" if name in COMMON else "extra" if name in EXTRA else "other"
