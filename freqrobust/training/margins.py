"""Area Under the Margin: which training samples are probably mislabelled.  (Pleiss et al. 2020)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.data.dataset import ImageData, portion
from freqrobust.numerics import noise
from freqrobust.numerics.precision import full_precision

Scores = Literal["logits", "softmax"]
BATCH = 500


def margins(logits: torch.Tensor, labels: torch.Tensor, scores: Scores = "logits") -> torch.Tensor:
    """Margin of the assigned label: its score minus the largest other score, ``(N,)``.  (Pleiss et al. 2020, eq. 1)

    Args:
        logits: ``(N, K)``, with K of at least 2.
        labels: the assigned labels, int64 ``(N,)``.
        scores: logits as in the paper, or the softmax probabilities of these logits.
    """
    values = logits.softmax(dim=1) if scores == "softmax" else logits
    chosen = labels[:, None]
    assigned = values.gather(1, chosen)[:, 0]
    return assigned - values.scatter(1, chosen, -torch.inf).amax(dim=1)


def area_under_margin(history: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Mean margin of each sample over the epochs, ``(n,)``.  (Pleiss et al. 2020, eq. 2)

    Args:
        history: the margins of all samples after each epoch, ``T`` rows of ``n``.

    Example:
        >>> area_under_margin([[1.0, -1.0], [3.0, -2.0]]).tolist()
        [2.0, -1.5]
    """
    means: NDArray[np.float64] = np.asarray(history, dtype=np.float64).mean(axis=0)
    return means


def margin_recorder(data: ImageData, device: torch.device) -> Callable[[nn.Module], dict[str, list[float]]]:
    """A function that measures the margins of all samples of ``data``, by each kind of :data:`Scores`.

    The network is given in eval mode; the images are not augmented.
    """

    def record(network: nn.Module) -> dict[str, list[float]]:
        parts: dict[str, list[float]] = {"logits": [], "softmax": []}
        with torch.no_grad(), full_precision():
            chunks = torch.arange(len(data)).split(portion(data.shape, BATCH))
            for number, chunk in enumerate(chunks):
                data.prefetch(torch.cat(chunks[number : number + 2]))
                images, labels, _ = data.batch(chunk, device)
                logits = network(images).cpu().double()
                parts["logits"] += margins(logits, labels.cpu()).tolist()
                parts["softmax"] += margins(logits, labels.cpu(), "softmax").tolist()
        return parts

    return record


def indicator_sets(n: int, classes: int, runs: int = 2, seed: int = 0) -> list[NDArray[np.int64]]:
    """Disjoint random sets of positions whose labels are replaced by an additional class, one for each run.

    Each has ``n / (classes + 1)`` samples, so that the additional class is as large as the others are on average
    (Pleiss et al. 2020, sec. 3.2).

    Raises:
        SpecError: there are too few samples, or more runs than disjoint sets.
    """
    size = n // (classes + 1)
    if size < 1:
        raise SpecError(f"{n} samples are too few: the additional class needs {classes + 1} samples or more")
    if not 2 <= runs <= classes + 1:
        raise SpecError(f"expected 2 to {classes + 1} runs, but got {runs}: each needs indicator samples of its own")
    order = noise.permutation(n, seed=seed, stream="indicator samples").numpy()
    return [np.sort(order[run * size : (run + 1) * size]) for run in range(runs)]


def with_indicators(data: ImageData, chosen: NDArray[np.int64]) -> ImageData:
    """The data with the samples at these positions assigned to an additional class, the last one."""
    labels = data.labels.clone()
    labels[torch.from_numpy(chosen)] = data.classes
    return replace(data, labels=labels, classes=data.classes + 1, spec=f"{data.spec}+indicators")


@dataclass(frozen=True)
class Judgement:
    """Which samples are flagged as mislabelled.

    Attributes:
        flagged: ``(n,)``.
        aum: mean over the runs in which a sample has its own label, ``(n,)``.
        distance: mean over the same runs of the AUM minus the threshold of the run, ``(n,)``; flagged where it is at
            most 0.
        thresholds: of each run.
    """

    flagged: NDArray[np.bool_]
    aum: NDArray[np.float64]
    distance: NDArray[np.float64]
    thresholds: tuple[float, ...]


def judge(
    aums: Sequence[NDArray[np.float64]], indicators: Sequence[NDArray[np.int64]], percentile: float = 99
) -> Judgement:
    """Flag the samples whose AUM is at most that of nearly all indicator samples.  (Pleiss et al. 2020, sec. 3.2)

    The threshold of a run is a percentile of the AUM of its indicator samples, which are mislabelled on purpose. As the
    indicators of the runs are disjoint, every sample has its own label in at least one of them; where it has several,
    the mean distance from the threshold decides.

    Args:
        aums: the AUM of every sample in each run, ``(n,)`` each.
        indicators: positions of the indicator samples of each run.
        percentile: of the AUM of the indicator samples, from 0 to 100.
    """
    thresholds = tuple(float(np.percentile(aum[c], percentile)) for aum, c in zip(aums, indicators, strict=True))
    own = np.ones((len(aums), len(aums[0])), dtype=bool)
    for run, chosen in enumerate(indicators):
        own[run, chosen] = False
    count = own.sum(axis=0)
    values = np.stack(aums)
    aum = np.where(own, values, 0).sum(axis=0) / count
    distance = np.where(own, values - np.asarray(thresholds)[:, None], 0).sum(axis=0) / count
    return Judgement(distance <= 0, aum, distance, thresholds)


def flipped(labels: torch.Tensor, classes: int, share: float, seed: int = 0) -> torch.Tensor:
    """Labels of which a random ``share`` is replaced by another class, each other class with equal probability.

    The number of changed labels is exact: ``round(share * n)``.
    """
    changed = labels.clone()
    chosen = noise.permutation(len(labels), seed=seed, stream="flipped labels")[: round(share * len(labels))]
    draws = noise.uniform(chosen, (1,), seed=seed, stream="flipped to")[:, 0]
    offset = 1 + (draws * (classes - 1)).long().clamp_max(classes - 2)
    changed[chosen] = (labels[chosen] + offset) % classes
    return changed
