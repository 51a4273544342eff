"""The required output of a model."""

from __future__ import annotations

import torch

from freqrobust.core.errors import ModelError


def check_logits(logits: object, images: torch.Tensor) -> None:
    """Refuse outputs other than one row of logits for each image.

    Raises:
        ModelError: the type or shape is wrong.
    """
    if not isinstance(logits, torch.Tensor):
        raise ModelError(f"the model should return logits (N, K), but returned a {type(logits).__name__}")
    if logits.dim() != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        raise ModelError(
            f"the model should return logits ({len(images)}, K) with K >= 2, but returned {tuple(logits.shape)}"
        )
    if not logits.is_floating_point():
        raise ModelError(f"the model should return float logits, but returned {logits.dtype}")
