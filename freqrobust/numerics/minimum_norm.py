"""Kernel interpolation: the minimum-norm function that fits all labels (Zhang et al. 2017, sec. 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freqrobust.core.errors import DataError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interpolation:
    """The solution of ``(K + ridge I) alpha = Y``.

    Attributes:
        alpha: coefficients, ``(n, k)``: the function is ``f(x) = sum over i of k(x, x_i) alpha[i]``. With a linear kernel
            ``w = X^T alpha`` is the solution of ``X w = Y`` with the smallest norm.
        norms: ``sqrt(alpha^T K alpha)`` of every output, ``(k,)``: its norm in the Hilbert space of the kernel, which is
            ``|w|`` for a linear kernel.
        cholesky: the lower triangular factor of ``K + ridge I``, ``(n, n)``.
    """

    alpha: Array
    norms: Array
    cholesky: Array

    def left_out_residuals(self) -> Array:
        """``Y`` minus the prediction for each sample by the solution for the other n - 1, ``(n, k)``.

        These are ``alpha[i] / inverse[i, i]`` (Rasmussen and Williams 2006, sec. 5.4.2).
        """
        from scipy.linalg import solve_triangular

        identity = np.eye(len(self.alpha))
        inverse = solve_triangular(self.cholesky, identity, lower=True, overwrite_b=True)
        residuals: Array = self.alpha / np.square(inverse).sum(axis=0)[:, None]
        return residuals


def linear_kernel(first: Array, second: Array) -> Array:
    """``<x, x'>`` for points ``(n, d)`` and ``(m, d)``, ``(n, m)``."""
    kernel: Array = first @ second.T
    return kernel


def squared_distances(first: Array, second: Array) -> Array:
    """``|x - x'|^2`` for points ``(n, d)`` and ``(m, d)``, ``(n, m)``."""
    squares = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)
    distances: Array = np.maximum(squares - 2 * (first @ second.T), 0.0)
    return distances


def gaussian_kernel(distances: Array, bandwidth: float) -> Array:
    """``exp(-|x - x'|^2 / (2 bandwidth^2))`` of squared distances."""
    kernel: Array = np.exp(distances / (-2.0 * bandwidth**2))
    return kernel


def interpolate(kernel: Array, targets: Array, ridge: float = 0.0) -> Interpolation:
    """Solve ``(K + ridge I) alpha = Y``; without a ridge all targets are fitted exactly.

    Args:
        kernel: the kernel of all pairs of samples, symmetric, ``(n, n)``.
        targets: ``(n, k)``.
        ridge: weight of the penalty on the squared norm.

    Raises:
        DataError: the matrix is singular, so that not all targets can be fitted: samples occur twice, or, with a linear
            kernel, there are more samples than dimensions.
    """
    from scipy.linalg import cho_solve, cholesky

    n = len(kernel)
    if kernel.shape != (n, n) or targets.ndim != 2 or len(targets) != n:
        raise DataError(f"expected a kernel (n, n) and targets (n, k), but got {kernel.shape} and {targets.shape}")
    matrix = kernel + ridge * np.eye(n)
    largest = np.diag(matrix).max()
    try:
        factor = cholesky(matrix, lower=True, overwrite_a=True)
        pivots = np.square(np.diag(factor))  # the squared distance of each sample to the span of those before it
        if pivots.min() <= n * np.finfo(np.float64).eps * largest:
            raise np.linalg.LinAlgError
    except np.linalg.LinAlgError:
        raise DataError(
            f"the kernel of {n} samples is singular, so that not all labels can be fitted; remove samples that occur "
            f"twice, use fewer samples than dimensions with a linear kernel, or a ridge"
        ) from None
    alpha = cho_solve((factor, True), targets)
    norms = np.sqrt(np.maximum(np.sum(alpha * (kernel @ alpha), axis=0), 0.0))
    return Interpolation(alpha, norms, factor)


def one_vs_all(labels: NDArray[np.int64], classes: int) -> Array:
    """Targets ``(n, classes)``: 1 for the label, and 0 for all other classes."""
    targets: Array = np.eye(classes)[labels]
    return targets
