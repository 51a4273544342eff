"""The two-layer ReLU network of 2n + d weights that fits any n labels (Zhang et al. 2017, theorem 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freqrobust.core.errors import DataError

Array = NDArray[np.float64]
#: Largest number of values that one block of hidden units takes.
_BLOCK = 1 << 24


@dataclass(frozen=True)
class TwoLayerReLU:
    """``c(x) = sum over j of weights[j] * max(<direction, x> - biases[j], 0)``.

    Attributes:
        direction: ``(d,)``; the weights of all hidden units.
        biases: ``(n,)``, increasing; one for each hidden unit.
        weights: ``(n,)``; of the output.
    """

    direction: Array
    biases: Array
    weights: Array

    @property
    def size(self) -> int:
        """Number of weights, ``2n + d``."""
        return len(self.direction) + len(self.biases) + len(self.weights)

    def __call__(self, points: Array) -> Array:
        """The output for each of the points ``(m, d)``, ``(m,)``."""
        projections = np.asarray(points, dtype=np.float64) @ self.direction
        output = np.empty(len(projections))
        rows = max(1, _BLOCK // max(1, len(self.biases)))
        for start in range(0, len(projections), rows):
            part = slice(start, start + rows)
            output[part] = np.maximum(projections[part, None] - self.biases, 0.0) @ self.weights
        return output


def fit_exactly(points: Array, labels: Array, *, seed: int = 0, candidates: int = 16) -> TwoLayerReLU:
    """A network with ``c(points[i]) = labels[i]`` for all i, by the construction in the proof of theorem 1.

    The points are projected onto a direction in which all projections ``z`` differ, and sorted. Hidden unit j is zero up
    to ``b[j]``, with ``b[1] < z[1] <= b[2] < z[2] <= ...``; then ``A[i, j] = max(z[i] - b[j], 0)`` is lower triangular with
    a positive diagonal, and ``A w = y`` has exactly one solution. Here ``b[j + 1] = z[j]``, for which the network is the
    linear interpolation of the labels along the direction: ``w[j]`` is the change of its slope at ``b[j]``. With biases
    in the middle between two projections, rounding errors grow with the ratios of neighbouring gaps.

    Of several random directions the one with the largest smallest gap between projections is used. A point that occurs
    several times with the same label is used once.

    Args:
        points: ``(n, d)``.
        labels: real numbers, ``(n,)``.
        seed: of the directions.
        candidates: number of directions that are tried.

    Raises:
        DataError: the same point has two labels, or all directions project two points onto the same number.
    """
    points, labels = np.asarray(points, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if points.ndim != 2 or labels.shape != points.shape[:1] or not len(points):
        raise DataError(f"expected points (n, d) and labels (n,) with n > 0, but got {points.shape} and {labels.shape}")
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    wanted = np.empty(len(unique))
    wanted[inverse] = labels
    conflict = np.flatnonzero(wanted[inverse] != labels)
    if len(conflict):
        i = int(conflict[0])
        raise DataError(
            f"sample {i} occurs more than once, with the labels {labels[i]:g} and {wanted[inverse[i]]:g}: "
            f"no function fits both; remove one of them"
        )
    direction, gap = _direction(unique, seed, candidates)
    projections = unique @ direction
    order = np.argsort(projections)
    z, y = projections[order], wanted[order]
    before = np.concatenate([[z[0] - (gap if len(z) == 1 else np.ptp(z) / len(z))], z[:-1]])
    slopes = np.diff(y, prepend=0.0) / (z - before)
    return TwoLayerReLU(direction, before, np.diff(slopes, prepend=0.0))


def _direction(points: Array, seed: int, candidates: int) -> tuple[Array, float]:
    """A direction of length 1 in which all points have different projections, and the smallest gap between them."""
    generator = np.random.default_rng(seed)
    best: Array = np.zeros(points.shape[1])
    widest = 0.0
    for _ in range(candidates):
        drawn = generator.standard_normal((points.shape[1],))
        direction: Array = drawn / np.linalg.norm(drawn)
        gap = float(np.diff(np.sort(points @ direction)).min()) if len(points) > 1 else 1.0
        if gap > widest:
            best, widest = direction, gap
    if widest == 0:
        raise DataError(
            f"two different samples have the same projection in each of {candidates} directions; try more of them"
        )
    return best, widest
