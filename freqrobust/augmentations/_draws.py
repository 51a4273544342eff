"""Random numbers of augmentations, from uniform noise that is seeded by sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.special import betaincinv, gammaincinv

from freqrobust.plugins.training import StepContext

#: half of the spacing of the noise, so that no draw is 0 or 1
_HALF = 2.0**-25


def beta(uniform: torch.Tensor, alpha: float) -> torch.Tensor:
    """Draws from Beta(alpha, alpha) by inversion of the distribution function; shape and device of ``uniform``."""
    values = betaincinv(alpha, alpha, uniform.cpu().double().numpy() + _HALF)
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(uniform.device)


def dirichlet(uniform: torch.Tensor, alpha: float) -> torch.Tensor:
    """Draws from Dirichlet(alpha, ..., alpha) along the last dimension: gamma variables, divided by their sum."""
    gamma = gammaincinv(alpha, uniform.cpu().double().numpy() + _HALF)
    return torch.from_numpy((gamma / gamma.sum(axis=-1, keepdims=True)).astype(np.float32)).to(uniform.device)


def of_batch(context: StepContext) -> StepContext:
    """A context whose noise has one row for the whole batch, seeded by the smallest id; the batch is not empty."""
    return replace(context, ids=context.ids.min()[None])
