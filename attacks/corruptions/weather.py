"""Snow, frost and fog."""

from __future__ import annotations

import torch

from freqrobust.attacks.corruptions import linear
from freqrobust.attacks.corruptions.blur import smear
from freqrobust.attacks.corruptions.constants import Constants
from freqrobust.attacks.corruptions.draws import Draws
from freqrobust.attacks.corruptions.textures import Textures

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


def fog(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``(x + w f) m / (m + w)`` with a plasma fractal ``f`` and the image's largest value ``m``."""
    weight, decay = c
    height, width = images.shape[-2:]
    size = 1 << (max(height, width) - 1).bit_length()
    plasma = plasma_fractal(size, decay, draws)[:, None, :height, :width]
    highest = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + weight * plasma).mul_(highest / (highest + weight))


def plasma_fractal(size: int, decay: float, draws: Draws) -> torch.Tensor:
    """Diamond-square heights in [0, 1] on a torus, ``(N, size, size)``; ``size`` is a power of two.

    Each step halves the distance of the points and divides the random part by ``decay`` (twice: the scripts scale
    it by its own half-width). Every point but the first is drawn exactly once.
    """
    if size < 2:
        return torch.zeros(len(draws.ids), size, size, device=draws.ids.device)
    heights = draws.uniform((size, size), "plasma", -1, 1)
    heights[:, 0, 0] = 0
    step, wibble = size, 100.0
    while step >= 2:
        half, scale = step // 2, wibble * wibble
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        squares = heights[:, half::step, half::step]
        squares.mul_(scale).add_((pairs + pairs.roll(-1, 2)) / 4)
        above = squares + squares.roll(1, 1) + corners + corners.roll(-1, 2)
        heights[:, ::step, half::step].mul_(scale).add_(above / 4)
        beside = squares + squares.roll(1, 2) + corners + corners.roll(-1, 1)
        heights[:, half::step, ::step].mul_(scale).add_(beside / 4)
        step, wibble = half, wibble / decay
    heights -= heights.amin(dim=(1, 2), keepdim=True)
    return heights.div_(heights.amax(dim=(1, 2), keepdim=True))


def frost(images: torch.Tensor, c: Constants, draws: Draws, textures: Textures) -> torch.Tensor:
    """``a x + b f`` with a piece ``f`` of a frost texture."""
    channels, height, width = images.shape[1:]
    texture = textures.pieces(height, width, draws)
    return c[0] * images + c[1] * (texture if channels == 3 else luma(texture))
