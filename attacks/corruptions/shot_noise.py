"""Shot noise."""

from __future__ import annotations

from functools import lru_cache

import torch

from freqrobust.attacks.corruptions._draws import Draws
from freqrobust.attacks.corruptions._table import Constants, Definition

#: Cells of the table that finds a Poisson quantile quickly, per pixel level.
_CELLS = 1024
#: Distance between the cumulative probabilities of two levels in the common list.
_APART = 4


def shot_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``Poisson(c x) / c``: the quantile of a uniform number, with the rate of the nearest 8-bit level."""
    guide, cumulative, ordered = _poisson(c[0], images.device)
    width = cumulative.shape[1]
    level = images.reshape(-1).clamp(0, 1).mul_(255).round_().int()
    u = draws.uniform(images.shape[1:], "noise").reshape(-1)
    k = guide.view(-1).index_select(0, (u * _CELLS).int().add_(level, alpha=_CELLS)).int()
    beyond = u >= cumulative.view(-1).index_select(0, k.add(level, alpha=width))
    rest = beyond.nonzero()[:, 0]  # the guide finds most of them
    wanted = level[rest].to(ordered.dtype).mul_(_APART).add_(u[rest])
    k[rest] = (torch.searchsorted(ordered, wanted, right=True) - level[rest] * width).int()
    return k.float().div_(c[0]).view(images.shape)


@lru_cache(maxsize=16)
def _poisson(photons: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For the rates of 256 levels: a first guess of the quantile by cell, ``(256, cells)``, the cumulative
    probabilities ``(256, K)``, and the same as one ascending list, each level ``_APART`` from the next."""
    rate = torch.arange(256, dtype=torch.float64) * photons / 255
    k = torch.arange(int(photons + 8 * photons**0.5 + 20), dtype=torch.float64)
    log = torch.xlogy(k, rate[:, None]) - rate[:, None] - torch.lgamma(k + 1)
    cumulative = log.exp().cumsum(dim=1)
    cumulative[:, -1] = 2.0  # above every uniform number
    edges = (torch.arange(_CELLS, dtype=torch.float64) / _CELLS).expand(256, -1).contiguous()
    guide = torch.searchsorted(cumulative, edges, right=True).to(torch.int16)
    ordered = (cumulative + _APART * torch.arange(256, dtype=torch.float64)[:, None]).flatten()
    if device.type == "mps":  # which has no float64
        ordered = ordered.float()
    return guide.to(device), cumulative.float().to(device), ordered.to(device)


CORRUPTION = Definition(
    shot_noise,
    meaning="photons of a white pixel",
    cifar=((500,), (250,), (100,), (75,), (50,)),
    imagenet=((60,), (25,), (12,), (5,), (3,)),
)
