"""Restricting the predictions of a model to some of its classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from freqrobust.core.errors import DataError


class ClassSubset(nn.Module):
    """The logits of some classes of a model: ``(N, K)`` becomes ``(N, len(classes))``.

    Args:
        model: images to logits.
        classes: class indices of the model; label ``i`` is the ``i``-th of them.
    """

    classes: torch.Tensor

    def __init__(self, model: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.highest = max(classes)
        self.register_buffer("classes", torch.tensor(list(classes)), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        if logits.dim() != 2:
            return logits  # the check of logits says what is wrong
        if self.highest >= logits.shape[1]:
            raise DataError(
                f"the data has {len(self.classes)} classes up to class {self.highest} of ImageNet, but the model has "
                f"{logits.shape[1]} classes"
            )
        return logits[:, self.classes]


def restricted(model: nn.Module, classes: Sequence[int], device: torch.device) -> nn.Module:
    """The model, restricted to these classes; without any, the model itself."""
    return ClassSubset(model, classes).to(device) if classes else model
