"""Checkpoint files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.files import user_path
from freqrobust.core.text import near_miss, one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.data.input_config import InputConfig, from_saved
from freqrobust.models import normalization
from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.checkpoints import (
    SUFFIXES,
    Checkpoint,
    best_fit,
    guess_sizes,
    read,
    recognise,
    torchvision_architecture,
)
from freqrobust.models.source_table import LoadedModel, ModelRequest, ModelSource, build_from_code


def _is_file(spec: str) -> bool:
    return Path(spec).suffix in SUFFIXES or os.path.exists(os.path.expanduser(spec))


def load(request: ModelRequest) -> LoadedModel:
    """The network of a state dict or a trusted file, with the normalisation that the file or its architecture has."""
    path, arch, trust = user_path(request.spec, "--model"), request.arch, request.trust
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{request.spec}: expected a file ending in {' '.join(SUFFIXES)}")
    checkpoint = read(path, trust)
    known, saved_arch = _saved(checkpoint.metadata, path)
    config, labels = _saved_input(checkpoint.metadata, path)
    if arch == "auto" and saved_arch is not None:
        if ":" in saved_arch and not saved_arch.startswith("torchvision:") and not trust:
            raise ModelError(
                f"{path} names Python code as its architecture; if you trust it, give --arch '{saved_arch}' "
                f"or --trust-checkpoint"
            )
        arch = saved_arch
    if checkpoint.module is not None:
        return LoadedModel(
            checkpoint.module, type(checkpoint.module).__name__, known, checkpoint.sha256, checkpoint.note
        )
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
    return LoadedModel(network, name, known, checkpoint.sha256, checkpoint.note, input=config, labels=labels)


def _saved(metadata: dict[str, Any], path: Path) -> tuple[normalization.NormalizationChoice | None, str | None]:
    """Normalisation and architecture that :func:`freqrobust.save_model` saved with the weights, checked."""
    known, arch = None, metadata.get("arch")
    try:
        saved = metadata.get("normalize")
        if saved is not None:
            mean, std = (tuple(float(value) for value in saved[key]) for key in ("mean", "std"))
            if not mean or len(mean) != len(std) or min(std) <= 0:
                raise ValueError("mean and std do not fit")
            known = normalization.NormalizationChoice(mean, std, "checkpoint", saved.get("preset"))
        if arch is not None and not isinstance(arch, str):
            raise TypeError("arch is not text")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(f"{path}: the metadata under 'freqrobust' is damaged: {error}") from error
    return known, arch


def _saved_input(metadata: dict[str, Any], path: Path) -> tuple[InputConfig | None, tuple[str, ...]]:
    """The preprocessing and the names of the classes that :func:`freqrobust.save_model` saved, checked."""
    try:
        config = from_saved(metadata["input"]) if metadata.get("input") is not None else None
        labels = metadata.get("labels") or ()
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
            raise TypeError("the names of the classes are not text")
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: the metadata under 'freqrobust' is damaged: {one_line(error)}") from error
    return config, tuple(labels)


def _build(arch: str, checkpoint: Checkpoint) -> tuple[nn.Module, str | None]:
    """A network of that architecture with initial weights, and the preset of its published weights."""
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
        return build_from_code(arch, "architecture"), None
    raise SpecError(
        f"unknown architecture {arch!r}{_meant(arch)} "
        f"({', '.join(ARCHITECTURES)}, torchvision:NAME, file.py:factory or module:factory)"
    )


def _meant(arch: str) -> str:
    """The hint about an unknown architecture: torchvision's of that name, or the built-in one with a similar name."""
    from torchvision.models import list_models

    if arch in list_models():
        return f"; torchvision has a model of that name: give --arch torchvision:{arch}"
    return near_miss(arch, ARCHITECTURES)


SOURCES = (
    ModelSource(
        f"FILE ({' '.join(SUFFIXES)})", "a state dict, or a complete model that you trust", load, matches=_is_file
    ),
)
