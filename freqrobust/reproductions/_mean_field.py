"""A network of periodic Gaussian features in the mean-field limit, and the linear theory of its training.

The network is ``f(x) = 1/m sum over j of phi(x, w_j)`` on the circle, with ``phi(x, w) = sum over k of
exp(-(x - w - 2 pi k)^2 / h^2)``. The positions w are trained, and start uniformly on the circle. (E, Ma and Wu 2019, eqs. 148 and 149)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Copies of a feature on either side of the circle; the next one is below exp(-36) for h up to 1.5.
_COPIES = 2


def eigenvalue(k: Array, h: float) -> Array:
    """The rate ``h^2 k^2 / 2 exp(-h^2 k^2 / 2)`` at which the error of frequency k decreases; largest at ``sqrt(2) / h``.

    It is the eigenvalue of :func:`kernel` for ``sin(kx)`` and ``cos(kx)``. The paper prints it with a further factor pi,
    which changes the unit of time, and no order.
    """
    half = np.square(h * np.asarray(k, dtype=np.float64)) / 2
    rates: Array = half * np.exp(-half)
    return rates


def kernel(difference: Array, h: float) -> Array:
    """The kernel of ``df/dt (x) = - integral of kernel(x - x') (f(x') - f*(x')) dx'`` at the beginning of the training.

    ``h / sqrt(8 pi) sum over k of (1 / h^2 - d_k^2 / h^4) exp(-d_k^2 / (2 h^2))`` with ``d_k = x - x' + 2 pi k``.
    """
    total = np.zeros_like(difference, dtype=np.float64)
    for copy in range(-_COPIES, _COPIES + 1):
        squared = np.square(difference + 2 * np.pi * copy)
        total += (1 / h**2 - squared / h**4) * np.exp(-squared / (2 * h**2))
    result: Array = total * (h / np.sqrt(8 * np.pi))
    return result


@dataclass(frozen=True)
class Descent:
    """What gradient descent did.

    Attributes:
        times: of the steps, ``(steps + 1,)``.
        errors: amplitude of the error at each frequency, relative to the beginning, ``(frequencies, steps + 1)``.
    """

    times: Array
    errors: Array

    def time_to(self, share: float) -> Array:
        """When the error of each frequency has first decreased to this share, ``(frequencies,)``; infinite if it has not."""
        reached = self.errors <= share
        return np.where(reached.any(axis=1), self.times[reached.argmax(axis=1)], np.inf)


def descend(
    h: float, frequencies: Sequence[int], *, points: int, step: float, steps: int, amplitude: float = 1e-3
) -> Descent:
    """Gradient descent of ``1/2 integral of (f - f*)^2`` in the positions of ``points`` features.

    The target is the initial network plus ``amplitude`` times the sum of the sines of the frequencies, so small that the
    positions stay nearly uniform. The integral is the sum over ``points`` places on the circle.

    Args:
        h: width of the features.
        frequencies: of the target.
        points: number of features, and of places.
        step: the step size, in the time of the gradient flow.
        steps: number of steps.
        amplitude: of each sine.
    """
    x: Array = np.asarray(np.arange(points) * (2 * np.pi / points), dtype=np.float64)
    w: Array = x.copy()
    waves = np.sin(np.outer(frequencies, x))
    start, _ = _features(x, w, h)
    target = start.mean(axis=1) + amplitude * waves.sum(axis=0)
    errors = np.empty((len(frequencies), steps + 1))
    for number in range(steps + 1):
        features, slopes = _features(x, w, h)
        residual = features.mean(axis=1) - target
        errors[:, number] = np.abs(waves @ residual) * (2 / points) / amplitude
        w = w - step * (slopes.T @ residual) * (2 * np.pi / points)
    return Descent(np.asarray(np.arange(steps + 1) * step, dtype=np.float64), errors)


def _features(x: Array, w: Array, h: float) -> tuple[Array, Array]:
    """All features at all places, ``(places, features)``, and their derivatives in w."""
    features, slopes = np.zeros((len(x), len(w))), np.zeros((len(x), len(w)))
    apart = (x[:, None] - w + np.pi) % (2 * np.pi) - np.pi
    for copy in (-1, 0, 1):
        difference = apart + 2 * np.pi * copy
        one = np.exp(-np.square(difference) / h**2)
        features += one
        slopes += one * difference * (2 / h**2)
    return features, slopes
