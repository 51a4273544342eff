"""How fast a network fits its training images, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from freqrobust.data.dataset import ImageData

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench

Array = NDArray[np.float64]
BATCH = 500


def watch_correct(bench: Bench, **sets: ImageData) -> Callable[[nn.Module], dict[str, Any]]:
    """Records after every epoch which images the network classifies correctly: a list of 0 and 1 for each set of images."""

    def watch(network: nn.Module) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, data in sets.items():
            right: list[int] = []
            for chunk in torch.arange(len(data)).split(BATCH):
                images, labels, _ = data.batch(chunk, bench.device)
                with torch.no_grad():
                    right += (network(images).argmax(dim=1) == labels).int().tolist()
            seen[name] = right
        return seen

    return watch


def right_by_epoch(watched: Sequence[dict[str, Any]], name: str) -> NDArray[np.bool_]:
    """What :func:`watch_correct` recorded after each epoch, ``(epochs, n)``, without the state before training."""
    return np.array([seen[name] for seen in watched[1:]], dtype=bool)


def epochs_misclassified(right: NDArray[np.bool_]) -> Array:
    """After how many epochs each image was misclassified, ``(n,)``: its mean is the area under the curve of the error."""
    counts: Array = (~right).sum(axis=0).astype(np.float64)
    return counts


def first_fitted(right: NDArray[np.bool_], share: float) -> int | None:
    """The first epoch, from 1, after which at least this share of the images is correct; None if there is none."""
    reached = np.flatnonzero(right.mean(axis=1) >= share)
    return int(reached[0]) + 1 if len(reached) else None


def slopes(x: Sequence[float], values: Array) -> Array:
    """The least-squares slope over ``x`` of each column of ``values``, ``(len(x), n)``, as ``(n,)``.

    Raises:
        ValueError: all x are equal.
    """
    centred = np.asarray(x, dtype=np.float64) - np.mean(x)
    spread = float(np.square(centred).sum())
    if spread == 0:
        raise ValueError("expected at least two different values of x")
    result: Array = centred @ values / spread
    return result


def stopped_early(right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which images are correct after the epoch that is best for other images, ``(n,)``.

    The epoch for the even images is the one with the highest accuracy on the odd images, the first of several, and the
    other way round; so that no image takes part in the choice of its own epoch.

    Args:
        right: which images are correct after each epoch, ``(epochs, n)``.
    """
    chosen = np.empty(right.shape[1], dtype=bool)
    for half in (0, 1):
        epoch = int(right[:, 1 - half :: 2].mean(axis=1).argmax())
        chosen[half::2] = right[epoch, half::2]
    return chosen
