"""Images as points: normalised pixels, and features of a convolutional layer with random filters."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from freqrobust.data.dataset import ImageData
from freqrobust.numerics import noise

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
    return np.asarray((train - mean) / scale), np.asarray((other - mean) / scale)


def random_filters(train: ImageData, filters: int, side: int, seed: int) -> torch.Tensor:
    """Filters that are random patches of the training images, ``(filters, C, side, side)``.

    Patches have mean 0 and are whitened by the covariance of patches of the training images. The response of a filter to
    an image patch is the inner product of the whitened filter, of length 1, with the whitened image patch minus its mean;
    because all of this is linear in the image patch, it is one inner product.  (Coates, Ng and Lee 2011, sec. 3)

    Args:
        train: the training images.
        filters: their number.
        side: of the patches, in pixels.
        seed: of the patches.
    """
    total = max(4 * filters, 4000)
    height, width = train.shape[1:]
    draws = noise.uniform(torch.arange(total), (3,), seed=seed, stream="patches")
    images, _, _ = train.batch((draws[:, 0] * len(train)).long(), _CPU)
    rows = (draws[:, 1] * (height - side + 1)).long()[:, None] + torch.arange(side)
    columns = (draws[:, 2] * (width - side + 1)).long()[:, None] + torch.arange(side)
    each = torch.arange(total)[:, None, None]
    patches = images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).flatten(1).double()
    patches = _centred(patches)
    values, vectors = torch.linalg.eigh(patches.T @ patches / total)
    whitening = vectors @ torch.diag((values + 0.01 * values.max()).rsqrt()) @ vectors.T
    whitened = patches[:filters] @ whitening
    whitened = whitened / whitened.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return _centred(whitened @ whitening).float().view(-1, train.shape[0], side, side)


def filter_features(data: ImageData, kernel: torch.Tensor) -> Array:
    """Responses of filters ``(k, C, side, side)`` with either sign, rectified, averaged over each quadrant of the image.

    Returns:
        ``max(+-response - 0.5, 0)`` on average, ``(n, 8 k)``: all filters with the sign plus, and then with minus, four
        quadrants each.
    """
    parts = []
    for images in data.image_batches(100, _CPU):
        response = F.conv2d(images, kernel)
        both = torch.cat([(response - 0.5).relu(), (-response - 0.5).relu()], dim=1)
        parts.append(F.adaptive_avg_pool2d(both, 2).flatten(1).double())
    array: Array = torch.cat(parts).numpy()
    return array


def _centred(rows: torch.Tensor) -> torch.Tensor:
    return rows - rows.mean(dim=1, keepdim=True)
