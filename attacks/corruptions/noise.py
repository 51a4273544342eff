"""Gaussian, shot, impulse and speckle noise."""

from __future__ import annotations

from functools import lru_cache

import torch
from freqrobust.attacks.corruptions.constants import Constants
from freqrobust.attacks.corruptions.draws import Draws

#: Cells of the table that finds a Poisson quantile quickly, per pixel level.
_CELLS = 1024


def gaussian_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``x + c n`` with standard normal ``n``."""
    return draws.normal(images.shape[1:], "noise").mul_(c[0]).add_(images)


def speckle_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``x + c x n`` with standard normal ``n``."""
    return draws.normal(images.shape[1:], "noise").mul_(c[0]).add_(1).mul_(images)


def impulse_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """Each value is black with probability ``c / 2``, white with ``c / 2``."""
    u = draws.uniform(images.shape[1:], "noise")
    images = images.masked_fill(u < c[0] / 2, 0.0)
    return images.masked_fill_((u >= c[0] / 2) & (u < c[0]), 1.0)


def shot_noise(images: torch.Tensor, c: Constants, draws: Draws) -> torch.Tensor:
    """``Poisson(c x) / c``: the quantile of a uniform number, with the rate of the nearest 8-bit level."""
    guide, cumulative = _poisson(c[0], images.device)
    width = cumulative.shape[1]
    level = (images.clamp(0, 1) * 255).round_().long().flatten()
    u = draws.uniform(images.shape[1:], "noise").flatten()
    k = guide.flatten()[(u * _CELLS).long().add_(level * _CELLS)]
    level *= width
    table = cumulative.flatten()
    at = level + k
    low = (u >= table[at]).nonzero()[:, 0]
    while len(low):  # nearly all are found by the guide; the rest walk on
        k[low] += 1
        at[low] += 1
        low = low[u[low] >= table[at[low]]]
    return (k / c[0]).to(images.dtype).view(images.shape)


@lru_cache(maxsize=16)
def _poisson(photons: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """For the rate of each of 256 levels: a first guess of the quantile by cell, and the cumulative probabilities."""
    rate = torch.arange(256, dtype=torch.float64) * photons / 255
    highest = int(photons + 8 * photons**0.5 + 20)
    k = torch.arange(highest + 1, dtype=torch.float64)
    log = torch.xlogy(k, rate[:, None]) - rate[:, None] - torch.lgamma(k + 1)
    cumulative = log.exp().cumsum(dim=1)
    cumulative[:, -1] = 2.0  # above every uniform number
    edges = (torch.arange(_CELLS, dtype=torch.float64) / _CELLS).expand(256, -1).contiguous()
    guide = torch.searchsorted(cumulative, edges, right=True)
    return guide.to(device), cumulative.float().to(device)
