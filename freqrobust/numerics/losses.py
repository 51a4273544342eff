"""Losses that attacks maximise: one value per sample, so that gradients do not depend on the batch.

``logits (N, K)``, ``labels (N,)``, optional ``targets (N,)``; the result is ``(N,)``. With targets the
loss grows as the prediction moves towards the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F

from freqrobust.core.errors import SpecError

Loss = Literal["ce", "dlr", "margin", "pm"]
LossFunction: TypeAlias = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy of the label, or minus that of the target."""
    if targets is not None:
        return -F.cross_entropy(logits, targets, reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Largest other logit (or the target's) minus the label's; positive where the sample is misclassified."""
    own = logits.gather(1, labels[:, None])[:, 0]
    if targets is not None:
        return logits.gather(1, targets[:, None])[:, 0] - own
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.max(dim=1).values - own


def dlr(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Difference of logits ratio (Croce and Hein 2020, eqs. 6 and 7): the margin, independent of the scale of the logits.

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


def probability_margin(logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
    """Largest other probability (or the target's) minus the label's, ``max_{j != y} p_j - p_y`` with ``p = softmax(z)``.

    In float64 where the device has it: of a confident prediction the float32 value would be -1 at every step. (Xie et
    al. 2024, "Towards Million-Scale Adversarial Robustness Evaluation With Stronger Individual Attacks", the
    probability margin loss)
    """
    precise = logits if logits.device.type == "mps" else logits.double()
    return margin(precise.softmax(dim=1), labels, targets)


def jensen_shannon(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The Jensen-Shannon divergence of several predictions of each sample, in nats, ``(N,)``.

    ``1/k sum_i KL(p_i || m)`` with ``p_i = softmax(z_i)`` and ``m = 1/k sum_i p_i``.

    Args:
        logits: k tensors ``(N, K)``.
    """
    logs = torch.stack([z.float().log_softmax(dim=1) for z in logits])
    mean = logs.logsumexp(dim=0) - math.log(len(logits))
    return (logs.exp() * (logs - mean)).sum(dim=2).mean(dim=0)


def loss_function(name: Loss) -> LossFunction:
    """The loss of that name."""
    functions: dict[str, LossFunction] = {"ce": cross_entropy, "dlr": dlr, "margin": margin, "pm": probability_margin}
    return functions[name]
