"""Which classes a targeted attack tries first."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust.numerics.norms import dual_norms
from freqrobust.numerics.threat import Norm


def ranked_targets(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    norm: Norm,
    count: int,
    candidates: int,
    eot: int = 1,
) -> torch.Tensor:
    """The classes whose decision boundaries are nearest in the linearised model, nearest first, int64 ``(N, count)``.

    The distance to the boundary of class ``j`` is ``(z_y - z_j) / ||grad (z_y - z_j)||_*``, with the dual of the norm of the
    threat, for the ``candidates`` classes with the largest logits (Melamed, Yehudai and Shamir 2024, "MALT Powers Up
    Adversarial Attacks", sec. 3, which has one norm for all threats). There are fewer columns where there are fewer other
    classes. With ``eot > 1`` logits and gradients are means over so many draws of a random model.
    """
    x = images.detach().requires_grad_(True)
    classes: torch.Tensor = labels[:, None]
    total = torch.zeros(1, device=labels.device)
    gradients: list[torch.Tensor] = []
    for _ in range(eot):
        with torch.enable_grad():
            drawn = model(x).float()
        if not gradients:  # a random model's candidates are those of its first draw
            others = drawn.detach().nan_to_num(nan=float("-inf")).scatter(1, labels[:, None], float("-inf"))
            kept = min(max(count, candidates), drawn.shape[1] - 1)
            classes = others.argsort(dim=1, descending=True, stable=True)[:, :kept]
            if kept <= 1:
                return classes
            gradients = [torch.zeros_like(images) for _ in range(kept)]
        with torch.enable_grad():
            gaps = drawn.gather(1, labels[:, None]) - drawn.gather(1, classes)
        total = total + gaps.detach()
        for j in range(len(gradients) if gaps.requires_grad else 0):  # it does not where the model ignores the images
            more = j + 1 < len(gradients)
            gradient = torch.autograd.grad(gaps[:, j].sum(), x, retain_graph=more, allow_unused=True)[0]
            gradients[j] += gradient if gradient is not None else 0
    slopes = torch.stack([dual_norms(gradient, norm) for gradient in gradients], dim=1)
    distance = (total / slopes.clamp_min(1e-12)).nan_to_num(nan=float("inf"))
    nearest = distance.argsort(dim=1, stable=True)[:, :count]
    return classes.gather(1, nearest)
