"""Spatter: drops of water or mud, from thresholded blurred noise.

The water's relief follows the published script through OpenCV's operators, written here for whole batches: Canny
edges, the distance from them, and 8-bit filters.
"""

from __future__ import annotations

import numpy as np
import torch

from freqrobust.attacks.corruptions import _linear as linear
from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
#: Steps to a neighbour, a diagonal one and a knight's move away (Borgefors 1986, mask of 5 x 5).
_STEP, _DIAGONAL, _KNIGHT = 1.0, 1.4, 2.1969
#: Largest distance that counts, in pixels.
_FARTHEST = 20.0
_TAN_22 = 0.41421356237309503


def spatter(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Water (pale turquoise, added) or mud (brown, covering)."""
    mean, deviation, sigma, threshold, strength, mud = c
    height, width = images.shape[-2:]
    liquid = draws.normal((height, width), "liquid").mul_(deviation).add_(mean)
    liquid = linear.gaussian(liquid, sigma)
    liquid = liquid.masked_fill(liquid < threshold, 0)
    if mud:
        cover = linear.gaussian((liquid > threshold).float(), strength)
        cover = cover.masked_fill(cover < 0.8, 0)[:, None]
        return images * (1 - cover) + cover * _colour(_MUD, images)
    levels = (liquid * 255).floor_().clamp_(0, 255)
    water = levels * relief(levels)
    water = water / water.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12) * strength
    return images + water[:, None] * _colour(_WATER, images)


def _colour(colour: tuple[float, ...], images: torch.Tensor) -> torch.Tensor:
    shades = torch.tensor(colour, device=images.device)
    if images.shape[1] == 1:
        shades = (shades * torch.tensor([0.299, 0.587, 0.114], device=images.device)).sum(0, keepdim=True)
    return shades.view(1, -1, 1, 1)


def relief(levels: torch.Tensor) -> torch.Tensor:
    """Light and shadow around the edges of ``levels (N, H, W)``, in 0 ... 255."""
    distance = chamfer(canny(levels, 50, 150)).clamp_(max=_FARTHEST)
    flat = equalised((_box(distance) / 9 + 1e-4).floor_())
    p = _padded(flat)
    height, width = levels.shape[-2:]

    def at(down: int, right: int) -> torch.Tensor:
        return p[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    embossed = -2 * at(-1, -1) - at(-1, 0) - at(0, -1) + at(0, 0) + at(0, 1) + at(1, 0) + 2 * at(1, 1)
    return (_box(embossed.clamp_(0, 255)) / 9).round_()


def _padded(x: torch.Tensor) -> torch.Tensor:
    """One more pixel on every side, mirrored about the edge pixels."""
    rows, columns = (
        torch.as_tensor(linear.beyond(np.arange(-1, n + 1), n, "reflect"), device=x.device) for n in x.shape[-2:]
    )
    return x[:, rows][:, :, columns]


def _box(x: torch.Tensor) -> torch.Tensor:
    """Sums over 3 x 3 pixels."""
    p = _padded(x)
    p = p[:, :-2] + p[:, 1:-1] + p[:, 2:]
    return p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]


def canny(levels: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Canny edges of ``levels (N, H, W)``, boolean: Sobel gradients, L1 magnitude, maxima, hysteresis."""
    height, width = levels.shape[-2:]
    p = torch.nn.functional.pad(levels[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]
    down = p[:, :, :-2] + 2 * p[:, :, 1:-1] + p[:, :, 2:]
    gx, gy = across[:, :, 2:] - across[:, :, :-2], down[:, 2:] - down[:, :-2]
    ax, ay = gx.abs(), gy.abs()
    magnitude = ax + ay
    m = torch.nn.functional.pad(magnitude, (1, 1, 1, 1))

    def at(dy: int, dx: int) -> torch.Tensor:
        return m[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    horizontal, vertical = ay < ax * _TAN_22, ay > ax * (_TAN_22 + 2)
    along = (magnitude > at(0, -1)) & (magnitude >= at(0, 1))
    upright = (magnitude > at(-1, 0)) & (magnitude >= at(1, 0))
    falling = (magnitude > at(-1, -1)) & (magnitude > at(1, 1))
    rising = (magnitude > at(-1, 1)) & (magnitude > at(1, -1))
    slanted = torch.where((gx < 0) != (gy < 0), rising, falling)
    peak = torch.where(horizontal, along, torch.where(vertical, upright, slanted)) & (magnitude > low)
    return connected(peak & (magnitude > high), peak)


def connected(seeds: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """The pixels of ``allowed (N, H, W)`` that 8-connected paths inside it join to ``seeds``."""
    found, count = seeds, -1
    while (reached := int(found.sum())) != count:
        count = reached
        rows = found.clone()
        rows[:, 1:] |= found[:, :-1]
        rows[:, :-1] |= found[:, 1:]
        grown = rows.clone()
        grown[:, :, 1:] |= rows[:, :, :-1]
        grown[:, :, :-1] |= rows[:, :, 1:]
        found = grown & allowed
    return found


def chamfer(edges: torch.Tensor) -> torch.Tensor:
    """Distance of every pixel from the nearest edge, ``(N, H, W)``, in two passes over the rows.

    Along a row, ``d[j] = min over k <= j of (d[k] + j - k)`` is a running minimum, so that a row is done at once.
    """
    n, height, width = edges.shape
    far = 8192.0
    start = torch.where(edges, 0.0, far)
    grid = torch.full((n, height + 4, width + 4), far, device=edges.device)
    ramp = torch.arange(width, dtype=torch.float32, device=edges.device) * _STEP
    for flip in (False, True):
        for i in range(height):
            row = height - 1 - i if flip else i
            near, next_ = (grid[:, row + 2 + d] for d in ((1, 2) if flip else (-1, -2)))
            best = start[:, row] if not flip else grid[:, row + 2, 2 : 2 + width]
            best = torch.minimum(best, near[:, 2 : 2 + width] + _STEP)
            for offset in (-1, 1):
                best = torch.minimum(best, near[:, 2 + offset : 2 + offset + width] + _DIAGONAL)
                best = torch.minimum(best, near[:, 2 + 2 * offset : 2 + 2 * offset + width] + _KNIGHT)
                best = torch.minimum(best, next_[:, 2 + offset : 2 + offset + width] + _KNIGHT)
            if flip:
                best = best.flip(-1)
            best = (best - ramp).cummin(dim=-1).values + ramp
            grid[:, row + 2, 2 : 2 + width] = best.flip(-1) if flip else best
    return grid[:, 2:-2, 2:-2].clone()


def equalised(levels: torch.Tensor) -> torch.Tensor:
    """Histogram equalisation of whole levels 0 ... 255, ``(N, H, W)``; a flat image stays as it is."""
    n = len(levels)
    flat = levels.long().view(n, -1)
    count = torch.zeros(n, 256, device=levels.device).scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))
    total = flat.shape[1]
    first = count.gather(1, flat.amin(dim=1, keepdim=True))  # how many have the lowest level
    table = ((count.cumsum(dim=1) - first) * (255 / (total - first).clamp_min(1))).round_().clamp_(0, 255)
    found = table.gather(1, flat)
    return torch.where(first < total, found, flat.float()).view(levels.shape)


CORRUPTION = Definition(
    spatter,
    meaning="mean, deviation, sigma, threshold, strength, water 0 or mud 1",
    cifar=(
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    imagenet=(
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    channels=(1, 3),
    why="its drops are colour or grayscale",
)
