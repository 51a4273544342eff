"""Losses that attacks increase: one value a sample, so that gradients do not depend on the batch.

``logits (N, K)``, ``labels (N,)``, optional ``targets (N,)``; the result is ``(N,)``. With targets the
loss grows as the prediction moves towards the target.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from freqrobust.core.errors import SpecError

Loss = Literal["ce", "dlr", "margin"]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of the label, or minus that of the target."""
    if targets is not None:
        return -F.cross_entropy(logits, targets, reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Best other logit (or the target's) minus the label's; positive when the sample is broken."""
    right = logits.gather(1, labels[:, None])[:, 0]
    if targets is not None:
        return logits.gather(1, targets[:, None])[:, 0] - right
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.max(dim=1).values - right


def dlr(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eqs. 6 and 7): the margin, free of the logits' scale.

    Raises:
        SpecError: fewer than 3 classes, or fewer than 4 with targets.
    """
    needed = 3 if targets is None else 4
    if logits.shape[1] < needed:
        raise SpecError(
            f"loss=dlr needs at least {needed} classes, but the model has {logits.shape[1]}; use loss=margin"
        )
    ordered = logits.sort(dim=1, descending=True).values
    spread = ordered[:, 0] - (ordered[:, 2] if targets is None else (ordered[:, 2] + ordered[:, 3]) / 2)
    return margin(logits, labels, targets) / (spread + 1e-12)


def loss_function(name: Loss) -> object:
    """The loss of that name."""
    return {"ce": cross_entropy, "dlr": dlr, "margin": margin}[name]
