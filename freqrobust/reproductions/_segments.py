"""Straight segments between images, and from images to perturbed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import nn

from freqrobust.attacks.pgd import PGD
from freqrobust.data.dataset import ImageData
from freqrobust.numerics import noise
from freqrobust.plugins.context import AttackContext
from freqrobust.reproductions._regions import regions_crossed

Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Segments:
    """Pairs of training images.

    Attributes:
        data: the images.
        same: positions of the ends of segments within a class, int64 ``(n,)`` each.
        different: positions of the ends of segments between two classes, with the same starts.
    """

    data: ImageData
    same: Pair
    different: Pair

    @classmethod
    def of(cls, data: ImageData, n: int, seed: int) -> Segments:
        """``n`` random segments of each kind; a start has one end in its class and one in another."""
        order = noise.permutation(len(data), seed=seed, stream="segments")
        labels = data.labels[order]
        starts, near, far = [], [], []
        for position in range(len(order)):
            later = torch.arange(position + 1, len(order))
            alike = later[labels[later] == labels[position]]
            other = later[labels[later] != labels[position]]
            if len(alike) and len(other):
                starts.append(order[position])
                near.append(order[alike[0]])
                far.append(order[other[0]])
            if len(starts) == n:
                break
        ends = torch.stack(starts)
        return cls(data, (ends, torch.stack(near)), (ends, torch.stack(far)))

    def _images(self, positions: torch.Tensor) -> torch.Tensor:
        return self.data.batch(positions, torch.device("cpu"))[0]

    def between_images(self) -> dict[str, Pair]:
        """Images at both ends of the segments."""
        pairs = {"same": self.same, "different": self.different}
        return {kind: (self._images(start), self._images(end)) for kind, (start, end) in pairs.items()}

    def perturbed(self, model: nn.Module, eps: float, device: torch.device, seed: int) -> dict[str, Pair]:
        """The starts, and these after an adversarial and after a random perturbation of L-infinity norm ``eps``."""
        images, labels, ids = self.data.batch(self.same[0], device)
        context = AttackContext(ids, seed=seed, goal="maximize")
        attacked = PGD(eps=eps, steps=10).perturb(model, images, labels, context).cpu()
        signs = 1 - 2 * (noise.uniform(ids.cpu(), images.shape[1:], seed=seed, stream="signs") < 0.5).float()
        images = images.cpu()
        return {"adversarial": (images, attacked), "random": (images, (images + eps * signs).clamp(0, 1))}

    @staticmethod
    def count(model: nn.Module, starts: torch.Tensor, ends: torch.Tensor) -> list[int]:
        """Linear regions on each segment."""
        return regions_crossed(model, starts, ends)


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The mean, and its 95 % confidence interval by Student's t."""
    array = np.asarray(values, dtype=float)
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    mean = float(array.mean())
    return mean, (mean - half, mean + half)


def density_row(kind: str, counts: Sequence[int], starts: torch.Tensor, ends: torch.Tensor) -> list[str]:
    """Segment, regions, length, and boundaries per unit of L2 length, as means over the segments."""
    names = {
        "same": "two images of one class",
        "different": "two images of different classes",
        "adversarial": "an image and its adversarial example",
        "random": "an image and the image with random noise",
    }
    lengths = (ends - starts).flatten(1).norm(dim=1).double().numpy()
    mean, (low, high) = mean_interval(counts)
    density = float((np.asarray(counts) - 1).sum() / lengths.sum())
    return [names[kind], f"{mean:.1f} [{low:.1f}, {high:.1f}]", f"{lengths.mean():.2f}", f"{density:.1f}"]
