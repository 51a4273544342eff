"""What a model has to return."""

from __future__ import annotations

import torch

from freqrobust.core.errors import ModelError


def check_logits(found: object, images: torch.Tensor) -> None:
    """Refuse anything but one row of logits an image.

    Raises:
        ModelError: wrong type or shape.
    """
    if not isinstance(found, torch.Tensor):
        raise ModelError(f"the model should return logits (N, K), but returned a {type(found).__name__}")
    if found.dim() != 2 or len(found) != len(images) or found.shape[1] < 2:
        raise ModelError(
            f"the model should return logits ({len(images)}, K) with K >= 2, but returned {tuple(found.shape)}"
        )
    if not found.is_floating_point():
        raise ModelError(f"the model should return float logits, but returned {found.dtype}")
