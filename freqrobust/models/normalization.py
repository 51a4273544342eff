"""Normalisation as a layer of the model, and its selection."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.data.dataset import ImageData, small_batches
from freqrobust.models.logits import check_logits
from freqrobust.models.outputs import logits_of
from freqrobust.numerics.statistics import mcnemar
from freqrobust.results.records import NormalizeRecord

Source = Literal["given", "checkpoint", "architecture", "trial", "none"]
#: Per-channel mean and standard deviation, for pixels in [0, 1].
PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,), (1.0,)),
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}
_TRIALS = {3: ["none", "half", "imagenet", "cifar10"], 1: ["none", "half", "mnist"]}
#: Samples that presets are tried on.
TRIAL_SAMPLES = 256
#: Images per batch on a CPU, where larger batches of images do not fit the caches.
CPU_BATCH = 32
#: A preset is clearly better when a one-sided exact McNemar test against another one falls below this.
CLEARLY = 0.01


class Normalize(nn.Module):
    """``(x - mean) / std``, per channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.identity = all(m == 0 for m in mean) and all(s == 1 for s in std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.identity:
            return x
        if self.mean.shape[1] not in (1, x.shape[1]):  # broadcasting would add channels
            raise ValueError(f"the normalisation has {self.mean.shape[1]} channels, but the images have {x.shape[1]}")
        return (x - self.mean) / self.std


@dataclass(frozen=True)
class NormalizationChoice:
    """A normalisation and how it was determined.

    Attributes:
        mean: by channel, for pixels in [0, 1].
        std: by channel.
        source: given by the user, saved in the checkpoint, that of the architecture, found by trial, or none.
        preset: its name in :data:`PRESETS`.
        scores: the accuracy with each preset on the samples of the trial.
        warning: a sentence where another preset is clearly better.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: Source
    preset: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    warning: str | None = None

    def record(self) -> NormalizeRecord:
        return NormalizeRecord(
            mean=list(self.mean), std=list(self.std), source=self.source, preset=self.preset, scores=self.scores
        )

    def layer(self) -> Normalize:
        return Normalize(self.mean, self.std)

    def __str__(self) -> str:
        if self.preset is not None:
            return self.preset
        return ",".join(f"{m:g}" for m in self.mean) + "/" + ",".join(f"{s:g}" for s in self.std)


def preset(name: str, source: Source) -> NormalizationChoice:
    mean, std = PRESETS[name]
    return NormalizationChoice(mean, std, source, name)


def parse(text: str) -> NormalizationChoice:
    """Read ``none``, a preset's name, or ``m1,m2,m3/s1,s2,s3``.

    Raises:
        SpecError: the text has another form.
    """
    if text in PRESETS:
        return preset(text, "given")
    mean_text, slash, std_text = text.partition("/")
    try:
        mean = tuple(float(part) for part in mean_text.split(","))
        std = tuple(float(part) for part in std_text.split(",")) if slash else ()
    except ValueError:
        mean, std = (), ()
    if not mean or len(mean) != len(std) or min(std, default=0) <= 0 or not all(map(math.isfinite, [*mean, *std])):
        raise SpecError(
            f"unknown normalisation {text!r}{near_miss(text, PRESETS)} "
            f"(auto, {', '.join(PRESETS)}, or m1,m2,m3/s1,s2,s3 with positive s)"
        )
    return NormalizationChoice(mean, std, "given")


def training_normalization(data: ImageData) -> NormalizationChoice:
    """Mean and standard deviation of every channel over the images."""
    total = torch.zeros(data.shape[0], dtype=torch.float64)
    square = torch.zeros_like(total)
    for images in small_batches(data, 1024):
        pixels = images.double().transpose(0, 1).flatten(1)
        total += pixels.sum(dim=1)
        square += pixels.square().sum(dim=1)
    count = len(data) * data.shape[1] * data.shape[2]
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt()
    std = torch.where(std > 1e-4, std, torch.ones_like(std))  # a channel of one value stays as it is
    return NormalizationChoice(tuple(mean.tolist()), tuple(std.tolist()), "given")


def check_channels(choice: NormalizationChoice, channels: int) -> None:
    """Refuse a normalisation for another number of channels."""
    if len(choice.mean) not in (1, channels):
        raise ModelError(f"the normalisation {choice} has {len(choice.mean)} channels, but the images have {channels}")


def trial(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, also: NormalizationChoice | None = None
) -> dict[str, torch.Tensor]:
    """Which samples are classified correctly with each preset, ``{name: bool (N,)}``, and with ``also`` as ``taken``."""
    names = _TRIALS.get(images.shape[1], ["none", "half"])
    layers = {name: Normalize(*PRESETS[name]) for name in names}
    if also is not None and also.preset not in layers:
        layers["taken"] = also.layer()
    correct = {}
    size = len(images) if images.is_cuda else CPU_BATCH
    with torch.no_grad():
        for name, layer in layers.items():
            layer = layer.to(images.device)
            predictions = []
            for part in images.split(size):
                logits = logits_of(network(layer(part)))
                check_logits(logits, part)
                predictions.append(logits.argmax(dim=1))
            correct[name] = torch.cat(predictions) == labels
    return correct


def clearly_better(a: torch.Tensor, b: torch.Tensor, comparisons: int = 1) -> bool:
    """Whether the accuracy of ``a`` is significantly higher than that of ``b``, on the same samples."""
    return mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < CLEARLY / comparisons


def choose(known: NormalizationChoice | None, correct: dict[str, torch.Tensor]) -> NormalizationChoice:
    """The normalisation of a network: ``known`` if given, compared with the presets, else the best preset.

    Args:
        known: what the user, the checkpoint or the architecture says.
        correct: the result of a :func:`trial`; empty without one.

    Raises:
        ModelError: none is known, and no preset is clearly the best.
    """
    scores = {name: float(hits.float().mean()) for name, hits in correct.items()}
    ranked = sorted(correct, key=lambda name: -scores[name])
    if known is not None:
        warning = None
        taken = correct.get(known.preset or "taken")
        if taken is not None and clearly_better(correct[ranked[0]], taken, max(len(correct) - 1, 1)):
            warning = (
                f"normalisation {known} (from: {known.source}) gets {float(taken.float().mean()):.1%} of {len(taken)} samples "
                f"right, but {ranked[0]} gets {scores[ranked[0]]:.1%}; consider --normalize {ranked[0]}"
            )
        return NormalizationChoice(known.mean, known.std, known.source, known.preset, scores, warning)
    ask = "give --normalize none, a preset (" + ", ".join(list(PRESETS)[1:]) + ") or m1,m2,m3/s1,s2,s3"
    if not ranked:
        raise ModelError(f"the normalisation of this model is not known; {ask}")
    best = ranked[0]
    for other in ranked[1:]:
        if not clearly_better(correct[best], correct[other]):
            tried = ", ".join(f"{name} {scores[name]:.1%}" for name in ranked)
            raise ModelError(
                f"the normalisation of this model is not clear from {len(correct[best])} samples ({tried}); {ask}"
            )
    mean, std = PRESETS[best]
    return NormalizationChoice(mean, std, "trial", best, scores)
