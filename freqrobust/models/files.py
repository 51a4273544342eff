"""Saving a classifier as a checkpoint file."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from freqrobust.core.errors import ModelError
from freqrobust.core.files import user_path, write_atomically
from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.classifier import Classifier


def save_model(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, Any] | None = None,
    unnamed: bool = False,
) -> None:
    """Save a classifier so that ``--model FILE`` works alone: weights, architecture, normalisation, and the
    preprocessing and names of classes where they are known.

    Args:
        model: the classifier.
        path: the file.
        about: further plain values that are saved under the key ``freqrobust``, such as how the model was trained.
        unnamed: also save a network whose architecture has no name that it could be built by; ``--model FILE`` needs
            ``--arch`` then, unless the weights are recognised.

    Raises:
        ModelError: the model is not a network from a known or named architecture with a normalisation in front.
        JournalError: the file cannot be written.
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"only a network with its normalisation can be saved, but this is a {type(model).__name__} "
            f"(a defense that wraps the model, or a model made in Python)"
        )
    try:
        named = {"arch": _saved_arch(model.arch)}
    except ModelError:
        if not unnamed:
            raise
        named = {}
    content = {
        "state_dict": {key: value.detach().cpu() for key, value in model.network.state_dict().items()},
        "freqrobust": {
            **(about or {}),
            **named,
            "normalize": {
                "mean": list(model.normalization.mean),
                "std": list(model.normalization.std),
                "preset": model.normalization.preset,
            },
            **({"input": model.input.saved()} if model.input is not None and model.input.pipeline is None else {}),
            **({"labels": list(model.labels)} if model.labels else {}),
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def _saved_arch(arch: str) -> str:
    """The name by which an architecture can be built again, also from another folder."""
    head, colon, attr = arch.rpartition(":")
    if colon and head.endswith(".py"):
        return f"{user_path(head, arch).resolve()}:{attr}"
    if arch not in ARCHITECTURES and not colon:
        raise ModelError(
            f"{arch} is not the name of an architecture that a network can be built by; save_model(..., unnamed=True) "
            f"saves the weights alone, which are loaded with --arch FILE.py:FACTORY"
        )
    if arch.startswith(("timm:", "robustbench:", "hf:")):
        raise ModelError(
            f"models from {arch.partition(':')[0]} cannot be saved here; use torch.save(model.network.state_dict())"
        )
    return arch
