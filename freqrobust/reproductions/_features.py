"""Images as points: normalised pixels, and features of a convolutional layer with random filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from freqrobust.data.dataset import ImageData
from freqrobust.numerics import noise

if TYPE_CHECKING:
    from collections.abc import Callable

Array = NDArray[np.float64]
_CPU = torch.device("cpu")


def pixels(data: ImageData) -> Array:
    """Pixels in [0, 1], float64 ``(n, d)``."""
    parts = [images.flatten(1).double() for images in data.image_batches(1024, _CPU)]
    array: Array = torch.cat(parts).numpy()
    return array


def standardized(train: Array, other: Array) -> tuple[Array, Array]:
    """Both sets of points minus the mean of the first, divided by the root mean variance of its coordinates."""
    mean = train.mean(axis=0)
    scale = float(np.sqrt(train.var(axis=0).mean())) or 1.0
    return (train - mean) / scale, (other - mean) / scale


def random_patch_features(train: ImageData, filters: int, side: int, seed: int) -> Callable[[ImageData], Array]:
    """Features of a convolutional layer whose filters are random patches of the training images.

    Filter and image patches have mean 0 and are whitened by the covariance of patches of the training images; filters
    have length 1. Both signs of each filter are rectified, ``max(+-<filter, patch> - 0.5, 0)``, and averaged over each
    quadrant of the image.  (Coates, Ng and Lee 2011; as preprocessing of a kernel: Zhang et al. 2017, sec. 5)

    Args:
        train: the training images.
        filters: their number.
        side: of the patches, in pixels.
        seed: of the patches.

    Returns:
        A function from n images to ``(n, 8 * filters)``.
    """
    total = max(4 * filters, 4000)
    height, width = train.shape[1:]
    draws = noise.uniform(torch.arange(total), (3,), seed=seed, stream="patches")
    chosen, _, _ = train.batch((draws[:, 0] * len(train)).long(), _CPU)
    rows = (draws[:, 1] * (height - side + 1)).long()[:, None] + torch.arange(side)
    columns = (draws[:, 2] * (width - side + 1)).long()[:, None] + torch.arange(side)
    each = torch.arange(total)[:, None, None]
    patches = _centred(chosen[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).flatten(1).double())
    values, vectors = torch.linalg.eigh(patches.T @ patches / total)
    whitening = vectors @ torch.diag((values + 0.01 * values.max()).rsqrt()) @ vectors.T
    weight = patches[:filters] @ whitening
    weight = weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-12)
    # <filter, whitened(patch - mean)> is one convolution, because whitening and centring are linear
    kernel = _centred(weight @ whitening).float().unflatten(1, (train.shape[0], side, side))

    def features(data: ImageData) -> Array:
        parts = []
        for images in data.image_batches(100, _CPU):
            response = F.conv2d(images, kernel)
            both = torch.cat([(response - 0.5).relu(), (-response - 0.5).relu()], dim=1)
            parts.append(F.adaptive_avg_pool2d(both, 2).flatten(1).double())
        array: Any = torch.cat(parts).numpy()
        return array

    return features


def _centred(rows: torch.Tensor) -> torch.Tensor:
    return rows - rows.mean(dim=1, keepdim=True)
