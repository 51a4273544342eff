"""Pairs of images and the targets of their mixtures."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from freqrobust.plugins.training import Batch


def partners(ids: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """A random permutation of the samples of a batch, as positions int64 ``(N,)``; the same in every order of the batch.

    Args:
        ids: of the samples.
        draws: uniform noise ``(N,)``, seeded by sample.
    """
    by_id = torch.argsort(ids, stable=True)
    result = torch.empty_like(by_id)
    result[by_id] = by_id[torch.argsort(draws[by_id], stable=True)]
    return result


def mixed_targets(batch: Batch, partner: torch.Tensor, share: torch.Tensor, classes: int) -> torch.Tensor:
    """``share`` of the own target and the rest of the partner's, probabilities ``(N, K)``.

    Args:
        batch: its targets are labels, or probabilities already.
        partner: positions of the partners.
        share: ``(N,)`` or ``(1,)``, in [0, 1].
        classes: number of classes K.
    """
    targets = batch.targets
    own = targets.float() if targets.dim() == 2 else F.one_hot(targets, classes).float()
    return share[:, None] * own + (1 - share[:, None]) * own[partner]
