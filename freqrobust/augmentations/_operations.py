"""The operations of AugMix on images of Pillow, by torchvision, and chains of them.  (Hendrycks et al. 2020, sec. 3)"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

#: Operations at strength 10 or less; those of ``ALL`` that are not here are among the corruptions of ImageNet-C.
BASE = (
    "autocontrast", "equalize", "posterize", "rotate", "solarize", "shear-x", "shear-y", "translate-x", "translate-y",
)  # fmt: skip
ALL = (*BASE, "colour", "contrast", "brightness", "sharpness")
#: operations of a chain, at most
DEPTH = 3
#: uniform draws of each operation: which, how strong, in which direction
DRAWS = 3
_ENHANCE: dict[str, Callable[[Any, float], Any]] = {
    "colour": F.adjust_saturation,
    "contrast": F.adjust_contrast,
    "brightness": F.adjust_brightness,
    "sharpness": F.adjust_sharpness,
}


def operated(image: Any, name: str, level: float, sign: int) -> Any:
    """An image of Pillow after one operation.

    Args:
        image: the image.
        name: the operation.
        level: its strength, from 0 to 10.
        sign: 1 or -1, the direction of a rotation, shear or translation.
    """
    if name == "autocontrast":
        return F.autocontrast(image)
    if name == "equalize":
        return F.equalize(image)
    if name == "posterize":
        return F.posterize(image, 4 - int(level * 4 / 10))
    if name == "solarize":
        return F.solarize(image, 256 - int(level * 256 / 10))
    if name == "rotate":
        return F.rotate(image, sign * float(int(level * 30 / 10)), interpolation=InterpolationMode.BILINEAR)
    if name in _ENHANCE:
        return _ENHANCE[name](image, level * 1.8 / 10 + 0.1)
    shear, translate = [0.0, 0.0], [0, 0]
    axis = 0 if name.endswith("x") else 1
    if name.startswith("shear"):
        shear[axis] = math.degrees(math.atan(sign * level * 0.3 / 10))
    else:
        translate[axis] = sign * int(level * (image.size[axis] / 3) / 10)
    return F.affine(image, 0.0, translate, 1.0, shear, interpolation=InterpolationMode.BILINEAR, center=[0, 0])


def chained(image: Any, draws: np.ndarray[Any, Any], names: tuple[str, ...], severity: float) -> Any:
    """An image of Pillow after a chain of operations, whose strengths are uniform in [0.1, severity].

    Args:
        image: the image.
        draws: uniform noise ``(depth, 3)``.
        names: the operations, which are drawn with replacement.
        severity: largest strength, at most 10.
    """
    for which, strength, direction in draws.tolist():
        name = names[int(which * len(names))]
        image = operated(image, name, 0.1 + strength * (severity - 0.1), 1 if direction < 0.5 else -1)
    return image


def depths(draws: torch.Tensor, depth: int | None) -> np.ndarray[Any, Any]:
    """Numbers of operations, from uniform noise: ``depth``, or each of 1, 2, 3 with the same probability."""
    if depth is not None:
        return np.full(tuple(draws.shape), depth)
    return (draws.cpu().numpy() * DEPTH).astype(int) + 1
