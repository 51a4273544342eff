"""Snow."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition
from freqrobust.attacks.corruptions.motion_blur import smear

_LUMA = (0.299, 0.587, 0.114)


def luma(images: torch.Tensor) -> torch.Tensor:
    """Brightness ``(N, 1, H, W)`` of colour images (ITU-R BT.601); grayscale images are their own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, i : i + 1] * weight for i, weight in enumerate(_LUMA))
    return red + green + blue


def snow(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Whitened image plus flakes: thresholded zoomed noise, smeared downwards, once as it is and once turned round."""
    mean, deviation, zoom, threshold, radius, sigma, share = c
    height, width = images.shape[-2:]
    noise = draws.normal((height, width), "flakes").mul_(deviation).add_(mean)
    rows, columns = (linear.tensor(linear.zoom_matrix(n, zoom), images) for n in (height, width))
    layer = linear.between(noise, rows, columns)
    layer = layer.masked_fill_(layer < threshold, 0).clamp_(0, 1).mul_(255).floor_()
    layer = smear(layer[:, None], radius, sigma, draws.uniform((), "angle", -135, -45)).round_().div_(255)
    whitened = share * images + (1 - share) * torch.maximum(images, luma(images) * 1.5 + 0.5)
    return whitened.add_(layer).add_(layer.flip(-2, -1))


CORRUPTION = Definition(
    snow,
    meaning="mean, deviation, zoom, threshold, blur radius, blur sigma, share of the image",
    cifar=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    imagenet=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    channels=(1, 3),
    why="it whitens by the brightness of colour or grayscale images",
)
