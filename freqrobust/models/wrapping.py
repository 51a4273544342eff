"""``wrap``: a module of one's own, with its normalisation, as a classifier of images in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import excerpt, near_miss
from freqrobust.data.input_config import InputConfig
from freqrobust.models.classifier import Classifier
from freqrobust.models.normalization import PRESETS, NormalizationChoice, preset


def wrap(
    module: nn.Module,
    mean: float | Sequence[float] | str | None = None,
    std: float | Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
    labels: Sequence[str] | None = None,
) -> Classifier:
    """A network that was trained on normalised images, as a classifier of images in [0, 1].

    The classifier computes ``module((images - mean) / std)``. Its parameters are those of the module, which is not copied;
    a module that returns a tuple, a dictionary or an output with ``logits`` is understood.

    Example:
        >>> model = wrap(network, "imagenet", size=224)  # doctest: +SKIP
        >>> model = wrap(network, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26), labels=names)  # doctest: +SKIP

    Args:
        module: normalised images ``(N, C, H, W)`` to logits ``(N, K)``.
        mean: of the pixels in [0, 1]: a number, or one for each channel; or the name of a preset, which gives both
            ``mean`` and ``std`` (``freqrobust.load_model`` takes the same names). Without it, images are not normalised.
        std: the standard deviation, as ``mean``.
        size: height and width of the images that the module takes, or one number for both. Images in files are resized,
            so that their shorter side is as long as the longer one of these, and cropped at the centre; of arrays of
            another size, a warning in the report says so.
        labels: the name of each class.

    Raises:
        SpecError: the mean, the standard deviation, the size or the labels are not valid.
        ModelError: the module is not an ``nn.Module``, or includes a normalisation already.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(f"wrap takes an nn.Module, but got {type(module).__name__}")
    if isinstance(module, Classifier):
        raise ModelError(f"the model includes its normalisation ({module.normalization}); wrap the network without it")
    name = type(module).__name__
    classifier = Classifier(module, _normalization(mean, std), name, name, None)
    classifier.training = module.training
    if size is not None:
        height, width = _sides(size)
        classifier.input = InputConfig(max(height, width), (height, width), source="wrap(size=...)")
    if labels is not None:
        classifier.labels = _names(labels)
    return classifier


def _normalization(mean: Any, std: Any) -> NormalizationChoice:
    if isinstance(mean, str):
        if mean not in PRESETS:
            raise SpecError(f"unknown normalisation {mean!r}{near_miss(mean, PRESETS)} ({', '.join(PRESETS)})")
        if std is not None:
            raise SpecError(f"the preset {mean!r} includes std; leave out std, or give mean as numbers")
        return preset(mean, "given" if mean != "none" else "none")
    if mean is None and std is None:
        return preset("none", "none")
    if mean is None or std is None:
        raise SpecError(f"mean and std are given together, but there is no {'mean' if mean is None else 'std'}")
    means, stds = _numbers("mean", mean), _numbers("std", std)
    channels = max(len(means), len(stds))
    if {len(means), len(stds)} - {1, channels}:
        raise SpecError(f"mean and std should have one value for each channel, but have {len(means)} and {len(stds)}")
    if min(stds) <= 0:
        raise SpecError(f"std should be positive, but got {min(stds):g}")
    if min(means) < 0 or max(means) > 1:
        raise SpecError(f"mean should be that of pixels in [0, 1], but got {max(means, key=abs):g}; divide by 255")
    return NormalizationChoice(
        means * channels if len(means) == 1 else means, stds * channels if len(stds) == 1 else stds, "given"
    )


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    """One number or several, also of a tensor or an array."""
    wrong = SpecError(f"{name} should be a number, or one number for each channel, but got {excerpt(repr(value))}")
    if hasattr(value, "tolist"):
        value = value.tolist()
    items = list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    try:
        numbers = tuple(float(item) for item in items)
    except (TypeError, ValueError):
        raise wrong from None
    if not numbers or not all(map(math.isfinite, numbers)) or any(isinstance(item, bool | str) for item in items):
        raise wrong
    return numbers


def _sides(size: Any) -> tuple[int, int]:
    sides = [size, size] if isinstance(size, int) else size
    whole = isinstance(sides, tuple | list) and all(isinstance(n, int) and not isinstance(n, bool) for n in sides)
    if not whole or len(sides) != 2 or min(sides) < 1:
        raise SpecError(f"size should be a number of pixels, or (height, width), but got {excerpt(repr(size))}")
    return sides[0], sides[1]


def _names(labels: Any) -> tuple[str, ...]:
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise SpecError(f"labels should be the names of the classes, but got {excerpt(repr(labels))}")
    names = tuple(labels)
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise SpecError(f"labels should be at least two names of classes, but got {excerpt(repr(list(names)))}")
    return names
