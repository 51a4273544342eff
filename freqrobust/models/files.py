"""Saving a classifier as a checkpoint file."""

from __future__ import annotations

import io
import os

import torch
from torch import nn

from freqrobust.core.errors import ModelError
from freqrobust.core.files import user_path, write_atomically
from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.classifier import Classifier


def save_model(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Save a classifier so that ``--model FILE`` works alone: weights, architecture and normalisation.

    Raises:
        ModelError: the model is not a network from a known or named architecture with a normalisation in front.
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"only a network with its normalisation can be saved, but this is a {type(model).__name__} "
            f"(a defense that wraps the model, or a model made in Python)"
        )
    arch = model.arch
    head, colon, attr = arch.rpartition(":")
    if colon and head.endswith(".py"):
        arch = f"{user_path(head, arch).resolve()}:{attr}"
    elif arch not in ARCHITECTURES and not colon:
        raise ModelError(
            f"a {arch} from a whole-model file cannot be saved as weights; save it with torch.save yourself"
        )
    if arch.startswith(("timm:", "robustbench:")):
        raise ModelError(
            f"models from {arch.partition(':')[0]} cannot be saved here; use torch.save(model.network.state_dict())"
        )
    content = {
        "state_dict": {key: value.detach().cpu() for key, value in model.network.state_dict().items()},
        "freqrobust": {
            "arch": arch,
            "normalize": {
                "mean": list(model.normalization.mean),
                "std": list(model.normalization.std),
                "preset": model.normalization.preset,
            },
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
