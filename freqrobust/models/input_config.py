"""The images that a model expects: how its authors resize and crop them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


@dataclass(frozen=True)
class InputConfig:
    """How images of any size become the input of a model: resized first, then cropped at the centre.

    Attributes:
        resize: the length of the shorter side, or (height, width); None where images are not resized.
        crop: (height, width); None where images are not cropped.
        interpolation: the filter of the resizing.
        antialias: whether it is widened when images become smaller, as PIL does; always for PIL images.
        source: where these values come from, such as ``timm's configuration of resnet50.a1_in1k``.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    source: str = "given"
