"""Randomised training data: labels and pixels without their meaning.  (Zhang et al. 2017, sec. 2.1)"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, NamedTuple, cast, get_args

import torch

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import fraction, number_text
from freqrobust.core.text import near_miss
from freqrobust.data.changed_images import changed
from freqrobust.data.dataset import ImageData, small_batches
from freqrobust.numerics import noise
from freqrobust.plugins.specs import spec_options

LabelKind = Literal["true", "shuffled", "corrupted"]
PixelKind = Literal["true", "shuffled", "random", "gaussian"]
BATCH = 500


class LabelSpec(NamedTuple):
    """How labels are randomised: ``p`` is the probability of ``corrupted``."""

    kind: LabelKind
    p: float = 0.0

    @property
    def text(self) -> str:
        """The spec in normal form."""
        return f"{self.kind}:p={number_text(self.p)}" if self.kind == "corrupted" else self.kind


def label_spec(spec: str) -> LabelSpec:
    """Read ``true``, ``shuffled`` or ``corrupted:p=P``.

    Raises:
        SpecError: it is none of them, or ``P`` is not in [0, 1].
    """
    kind, options = _parts(
        spec, "labels", get_args(LabelKind), {"corrupted": ["p"]}, "true, shuffled or corrupted:p=0.2"
    )
    if kind != "corrupted":
        return LabelSpec(cast(LabelKind, kind))
    if "p" not in options:
        raise SpecError(f"labels {spec!r}: the probability is missing, for example corrupted:p=0.2")
    try:
        p = float(fraction(options["p"]))
    except ValueError:
        p = math.nan
    if not 0 <= p <= 1:
        raise SpecError(f"labels {spec!r}: p should be a number from 0 to 1, but got {options['p']!r}")
    return LabelSpec("corrupted", p)


def pixel_spec(spec: str) -> PixelKind:
    """Read ``true``, ``shuffled``, ``random`` or ``gaussian``.

    Raises:
        SpecError: it is none of them.
    """
    kind, _ = _parts(spec, "pixels", get_args(PixelKind), {}, "true, shuffled, random or gaussian")
    return cast(PixelKind, kind)


def _parts(
    spec: str, what: str, kinds: tuple[str, ...], known: dict[str, list[str]], expected: str
) -> tuple[str, dict[str, str]]:
    kind, _, text = spec.strip().partition(":")
    if kind not in kinds:
        raise SpecError(f"{what} should be {expected}, but got {spec!r}{near_miss(kind, kinds)}")
    return kind, spec_options(text, spec, known.get(kind, []))


def randomized_labels(data: ImageData, spec: str, seed: int) -> ImageData:
    """The data with other labels, which are fixed once by seed and sample ids, whatever the order of the samples.

    Args:
        data: the training data.
        spec: ``true`` (no change), ``shuffled`` (a permutation of the labels, so that every class keeps its number of
            samples) or ``corrupted:p=P`` (with probability ``P``, independently, a label is replaced by one that is drawn
            uniformly from all classes, so that a share of about ``P (1 - 1 / K)`` changes).
        seed: the seed of the run.

    Raises:
        SpecError: the spec is wrong.
    """
    kind, p = label_spec(spec)
    if kind == "true":
        return data
    if kind == "shuffled":
        draws = noise.uniform(data.ids, (1,), seed=seed, stream="labels shuffled")[:, 0]
        by_id = torch.argsort(data.ids, stable=True)
        labels = torch.empty_like(data.labels)
        labels[by_id[torch.argsort(draws[by_id], stable=True)]] = data.labels[by_id]
    else:
        draws = noise.uniform(data.ids, (2,), seed=seed, stream="labels corrupted").double()
        drawn = (draws[:, 1] * data.classes).long()
        labels = torch.where(draws[:, 0] < p, drawn, data.labels)
    return replace(data, labels=labels, spec=f"{data.spec}+labels={spec.strip()}")


def randomized_pixels(data: ImageData, spec: str, seed: int, like: ImageData | None = None) -> ImageData:
    """The data with other pixels, which are fixed once by the seed and the samples.

    A permutation moves all channels of a pixel together. The noise of ``random`` and ``gaussian`` is seeded by the id of
    a sample and by its image, so that training and test images with the same ids get different noise.

    Args:
        data: the data; training and test data are changed separately.
        spec: ``true`` (no change), ``shuffled`` (one permutation of the pixel positions for all images; with one seed it
            is the same for training and test data), ``random`` (a permutation for each image) or ``gaussian`` (noise with
            mean and variance of the training images in each channel, clipped to [0, 1], where attacks and reports expect
            pixels).
        seed: the seed of the run.
        like: the training images, from which ``gaussian`` takes mean and variance; by default ``data``.

    Raises:
        SpecError: the spec is wrong, or ``like`` has another number of channels.
    """
    kind = pixel_spec(spec)
    if kind == "true":
        return data
    channels, height, width = data.shape
    about = f"{seed}"
    if kind == "shuffled":
        order = noise.permutation(height * width, seed=seed, stream="pixels shuffled")

        def change(data: ImageData, index: torch.Tensor) -> torch.Tensor:
            images = data.images[index]
            return torch.take_along_dim(images.flatten(2), order[None, None], dim=2).view_as(images)

    elif kind == "random":

        def change(data: ImageData, index: torch.Tensor) -> torch.Tensor:
            images = data.images[index]
            draws = noise.uniform(_keys(data, index, images), (height * width,), seed=seed, stream="pixels random")
            order = draws.argsort(dim=1, stable=True)[:, None].expand(-1, channels, -1)
            return images.flatten(2).gather(2, order).view_as(images)

    else:
        like = data if like is None else like
        if like.shape[0] != channels:
            raise SpecError(
                f"pixels gaussian: the images have {channels} channels, but the training images have {like.shape[0]}"
            )
        mean, deviation = (value.float()[:, None, None] for value in channel_moments(like))
        about += f" {mean.flatten().tolist()} {deviation.flatten().tolist()}"

        def change(data: ImageData, index: torch.Tensor) -> torch.Tensor:
            keys = _keys(data, index, data.images[index])
            values = noise.normal(keys, data.shape, seed=seed, stream="pixels gaussian")
            return (values * deviation + mean).clamp(0, 1)

    return changed(data, change, f"pixels={kind}", about, torch.float32 if kind == "gaussian" else None)


def channel_moments(data: ImageData) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every channel over all images and pixels, float64 ``(C,)`` each."""
    total = squares = torch.zeros(data.shape[0], dtype=torch.float64)
    for images in small_batches(data, BATCH):
        total = total + images.double().sum(dim=(0, 2, 3))
        squares = squares + images.double().square().sum(dim=(0, 2, 3))
    count = len(data) * data.shape[1] * data.shape[2]
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0).sqrt()


def _keys(data: ImageData, index: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The ids of these samples, each combined with a checksum of its image, int64 ``(N,)``."""
    pixels = (images.long() if images.dtype == torch.uint8 else (images * 255).round().long()).flatten(1)
    weights = noise.uniform(torch.arange(pixels.shape[1]), (1,), seed=0, stream="checksum")[:, 0]
    return data.ids[index] + (pixels * (weights * 2**24).long()).sum(dim=1) * (1 << 20)
