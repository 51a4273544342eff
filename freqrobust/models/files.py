"""Checkpoint files: loading and saving."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.files import user_path, write_atomically
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.models import normalization
from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.checkpoints import Checkpoint, best_fit, guess_sizes, read, recognise, torchvision_architecture
from freqrobust.models.classifier import Classifier
from freqrobust.models.sources import Loaded, _called, factory


def _from_file(path: Path, arch: str, trust: bool) -> Loaded:
    checkpoint = read(path, trust)
    known, saved_arch = _saved(checkpoint.metadata, path)
    if arch == "auto" and saved_arch is not None:
        if ":" in saved_arch and not saved_arch.startswith("torchvision:") and not trust:
            raise ModelError(
                f"{path} names code of its own as its architecture; if you trust it, give --arch '{saved_arch}' "
                f"or --trust-checkpoint"
            )
        arch = saved_arch
    if checkpoint.module is not None:
        return Loaded(checkpoint.module, type(checkpoint.module).__name__, known, checkpoint.sha256, checkpoint.note)
    if arch == "auto":
        architecture, network, state = recognise(checkpoint.states, path)
        name, preset = architecture.name, architecture.normalize
    else:
        network, preset = _build(arch, checkpoint)
        name = arch
        state, differing = best_fit(checkpoint.states, dict(network.state_dict()))
        if differing:
            raise ModelError(f"{path} does not fit {arch}: {len(differing)} keys differ ({'; '.join(differing[:3])})")
    with running_user_code(f"{path} cannot be loaded into {name}", ModelError):
        network.load_state_dict(state, strict=False)
    if known is None and preset is not None:
        known = normalization.preset(preset, "architecture")
    return Loaded(network, name, known, checkpoint.sha256, checkpoint.note)


def _saved(metadata: dict[str, Any], path: Path) -> tuple[normalization.Chosen | None, str | None]:
    """Normalisation and architecture that :func:`save_model` wrote beside the weights, checked."""
    known, arch = None, metadata.get("arch")
    try:
        saved = metadata.get("normalize")
        if saved is not None:
            mean, std = (tuple(float(value) for value in saved[key]) for key in ("mean", "std"))
            if not mean or len(mean) != len(std) or min(std) <= 0:
                raise ValueError("mean and std do not fit")
            known = normalization.Chosen(mean, std, "checkpoint", saved.get("preset"))
        if arch is not None and not isinstance(arch, str):
            raise TypeError("arch is not text")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"{path}: what it says about itself under 'freqrobust' is broken: {error}") from error
    return known, arch


def _build(arch: str, checkpoint: Checkpoint) -> tuple[nn.Module, str | None]:
    """The network of that name, empty, and the preset its published weights use."""
    classes, channels = guess_sizes(checkpoint.states[-1])
    if arch in ARCHITECTURES:
        known = ARCHITECTURES[arch]
        return known.build(num_classes=classes, in_channels=channels), known.normalize
    if arch.startswith("torchvision:"):
        known = torchvision_architecture(arch.removeprefix("torchvision:"))
        try:
            return known.build(num_classes=classes), known.normalize
        except ValueError as error:
            raise SpecError(f"unknown architecture {arch!r}: {error}") from error
    if ":" in arch:
        return _called(factory(arch, "architecture"), arch), None
    raise SpecError(
        f"unknown architecture {arch!r}{_meant(arch)} "
        f"({', '.join(ARCHITECTURES)}, torchvision:NAME, file.py:factory or module:factory)"
    )


def _meant(arch: str) -> str:
    """What an unknown architecture was probably meant to be: one of torchvision by that name, or one of ours."""
    from torchvision.models import list_models

    if arch in list_models():
        return f"; torchvision has a model of that name: give --arch torchvision:{arch}"
    return near_miss(arch, ARCHITECTURES)


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
                "mean": list(model.chosen.mean),
                "std": list(model.chosen.std),
                "preset": model.chosen.preset,
            },
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
