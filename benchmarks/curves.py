"""Robust accuracy against the number of passes: the model that records it, and the area under the curve.

A pass is one image that went forward or backward through the model. An attack is given a :class:`Recorder` in place of
the model; whatever it sends through it is attributed to a sample, so that for every sample it is known after how many
of its own passes the attack had reached an adversarial example, and at which distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from freqrobust.numerics.threat import TOLERANCE, allowance

#: The area is taken over 1 to this number of passes.
HORIZON = 1000
#: Passes at which a table shows the robust accuracy.
SHOWN = (10, 20, 50, 100, 200, 500)


@dataclass
class Trace:
    """What an attack reached on ``n`` samples, all of which the model classifies correctly without it.

    Attributes:
        n: number of samples.
        samples: the sample of each improvement, in the order of time.
        passes: passes of that sample so far, the successful one included.
        distances: Linf distance of the adversarial example, smaller than that of the sample's improvement before.
        forwards: images that went forward.
        backwards: images that went backward.
    """

    n: int
    samples: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0

    def first(self, eps: float) -> np.ndarray:
        """Passes of each sample until an adversarial example within ``eps`` of it was reached, or infinity, ``(n,)``."""
        first = np.full(self.n, np.inf)
        samples, passes = np.array(self.samples, dtype=int), np.array(self.passes, dtype=float)
        inside = np.array(self.distances) <= allowance(eps)
        np.minimum.at(first, samples[inside], passes[inside])
        return first


class Recorder(nn.Module):
    """A model that records the passes of each sample and the adversarial examples among them.

    A row of a batch belongs to the sample whose image is nearest in L2. A distance below half of that between the
    sample and its nearest neighbour proves this (triangle inequality), and for such rows the order of the batch before
    is only confirmed. In a batch of all samples, most of which are confirmed in their order, the rows that are far from
    every image are in order too.

    Args:
        model: images in [0, 1] to logits, in eval mode.
        images: the images that are attacked, ``(n, C, H, W)``.
        labels: their classes, int64 ``(n,)``.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        super().__init__()
        self.model, self.labels = model, labels
        self._images = images.flatten(1)
        self._apart = _nearest_neighbour(self._images)
        self._owners = torch.arange(len(images))
        self._passes = torch.zeros(len(images), dtype=torch.long)
        self._best = torch.full((len(images),), math.inf)
        self.trace = Trace(len(images))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        owners = self.owners(x.detach())
        self.trace.forwards += len(x)
        self._passes += torch.bincount(owners, minlength=self.trace.n)
        if x.requires_grad and torch.is_grad_enabled():
            x = x.view_as(x)
            x.register_hook(lambda gradient: self._backward(owners))
        logits: torch.Tensor = self.model(x)
        self._record(x.detach(), logits.detach(), owners)
        return logits

    def _backward(self, owners: torch.Tensor) -> None:
        self.trace.backwards += len(owners)
        self._passes += torch.bincount(owners, minlength=self.trace.n)

    def owners(self, x: torch.Tensor) -> torch.Tensor:
        """The sample of each row, int64 ``(len(x),)``."""
        rows = x.flatten(1)
        order = torch.arange(len(rows)) if len(rows) == self.trace.n else self._owners
        if len(order) == len(rows):
            confirmed = (rows - self._images[order]).norm(dim=1) < self._apart[order] / 2
            if confirmed.all() or (len(rows) == self.trace.n and confirmed.float().mean() > 0.5):
                return order
        squares = self._images.square().sum(dim=1) - 2 * rows @ self._images.T
        self._owners = squares.argmin(dim=1)
        return self._owners

    def _record(self, x: torch.Tensor, logits: torch.Tensor, owners: torch.Tensor) -> None:
        rows = x.flatten(1)
        inside = ((rows >= -TOLERANCE) & (rows <= 1 + TOLERANCE)).all(dim=1)
        adversarial = (logits.argmax(dim=1) != self.labels[owners]) & inside
        distances = (rows - self._images[owners]).abs().amax(dim=1)
        reached = torch.full_like(self._best, math.inf)
        reached.scatter_reduce_(0, owners[adversarial], distances[adversarial], "amin")
        better = (reached < self._best).nonzero()[:, 0]
        self._best[better] = reached[better]
        self.trace.samples += better.tolist()
        self.trace.passes += self._passes[better].tolist()
        self.trace.distances += reached[better].tolist()


def _nearest_neighbour(images: torch.Tensor) -> torch.Tensor:
    """L2 distance of every image to the nearest other one, ``(n,)``."""
    distances = torch.cdist(images, images).fill_diagonal_(math.inf)
    return distances.amin(dim=1)


def robust_after(first: np.ndarray, passes: float, total: int) -> float:
    """Robust accuracy after so many passes for each sample.

    Args:
        first: passes until success for each correctly classified sample, infinity without.
        passes: the number of passes.
        total: number of samples, those included that are misclassified without an attack.
    """
    return int((first > passes).sum()) / total


def envelope(firsts: Iterable[np.ndarray]) -> np.ndarray:
    """The best of several attacks on every sample: the smallest number of passes until success."""
    return np.minimum.reduce(list(firsts))


def area(first: np.ndarray, horizon: float = HORIZON) -> float:
    """Area between the clean accuracy and the curve, over the logarithm of the passes, summed over the samples.

    A sample that is adversarial after k passes contributes log(horizon / k), one that is not by then nothing.
    """
    return float(np.log(horizon / np.clip(first, 1, horizon)).sum())


def optimality(firsts: Mapping[str, np.ndarray], horizon: float = HORIZON) -> dict[str, float]:
    """Area of each attack relative to that of the envelope of all, between 0 and 1; 1 if no attack succeeds at all.

    The definition follows the optimality of AttackBench (Cina et al. 2024, sec. 3), with the number of passes in place
    of the budget on the axis.
    """
    best = area(envelope(firsts.values()), horizon)
    return {name: area(first, horizon) / best if best else 1.0 for name, first in firsts.items()}


def to_json(trace: Trace) -> dict[str, Any]:
    """Plain data."""
    return {
        "n": trace.n,
        "samples": trace.samples,
        "passes": trace.passes,
        "distances": trace.distances,
        "forwards": trace.forwards,
        "backwards": trace.backwards,
    }
