"""Kernels of training and test images, and what the functions that fit all labels do on the test images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from freqrobust.core.errors import DataError
from freqrobust.numerics.minimum_norm import (
    Interpolation,
    gaussian_kernel,
    interpolate,
    linear_kernel,
    squared_distances,
)

Array = NDArray[np.float64]
#: Bandwidths of the Gaussian kernel that are tried, in median distances between training images, and ridges, as shares
#: of the mean of the kernel's diagonal.
BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
PERMUTATIONS = 5


@dataclass(frozen=True)
class Kernel:
    """A kernel of images.

    Attributes:
        name: as it is printed.
        train: of all pairs of training images, ``(n, n)``.
        test: of test and training images, ``(m, n)``.
        largest: largest number of training images that it can fit.
        bandwidth: in median distances; None for a linear kernel.
    """

    name: str
    train: Array
    test: Array
    largest: int
    bandwidth: float | None = None

    def part(self, index: NDArray[np.int64]) -> Kernel:
        """The kernel for some of the training images."""
        return Kernel(self.name, self.train[np.ix_(index, index)], self.test[:, index], self.largest, self.bandwidth)


@dataclass(frozen=True)
class Fit:
    """The function that fits all training labels, on training and test images.

    Attributes:
        images: number of training images.
        train: which of them it classifies correctly.
        left_out: which of them are classified correctly by the function for the others.
        test: which test images it classifies correctly.
        norm: root of the sum of the squared norms of its outputs.
    """

    images: int
    train: NDArray[np.bool_]
    left_out: NDArray[np.bool_]
    test: NDArray[np.bool_]
    norm: float


@dataclass
class Fits:
    """Everything that is solved for one kernel.

    Attributes:
        exact: without a ridge, with all training images that the kernel can fit.
        ridged: with the ridge that has the smallest leave-one-out error.
        curve: number of training images and test error of exact fits.
        shuffled_norms: norms of the exact fits of permuted labels.
    """

    exact: Fit
    ridged: Fit
    curve: list[tuple[int, float]] = field(default_factory=list)
    shuffled_norms: list[float] = field(default_factory=list)


def linear(name: str, train: Array, test: Array, largest: int) -> Kernel:
    """The linear kernel of points and a constant coordinate of 1, without which points of mean 0 have a singular kernel."""
    return Kernel(name, linear_kernel(train, train) + 1, linear_kernel(test, train) + 1, largest)


def gaussian(name: str, train: Array, test: Array, targets: Array, tuned: int) -> Kernel:
    """The Gaussian kernel whose bandwidth has the smallest leave-one-out error on the first ``tuned`` training images."""
    near, far = squared_distances(train, train), squared_distances(test, train)
    median = float(np.sqrt(np.median(near[np.triu_indices(len(near), 1)])))
    errors = []
    for multiple in BANDWIDTHS:
        try:
            part = interpolate(gaussian_kernel(near[:tuned, :tuned], multiple * median), targets[:tuned])
            errors.append(float((~_left_out(part, targets[:tuned])).mean()))
        except DataError:  # with a large bandwidth, rounding makes the kernel singular
            errors.append(1.0)
    best = BANDWIDTHS[int(np.argmin(errors))]
    return Kernel(name, gaussian_kernel(near, best * median), gaussian_kernel(far, best * median), len(train), best)


def solve(kernel: Kernel, targets: Array, labels: NDArray[np.int64], halvings: int, seed: int) -> Fits:
    """All fits of a kernel.

    Args:
        kernel: of training and test images.
        targets: of the training images, one-vs-all, ``(n, k)``.
        labels: of the test images, ``(m,)``.
        halvings: how often the number of training images is halved for the curve.
        seed: of the order of the training images, and of the permuted labels.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(targets))[: kernel.largest]
    whole, wanted = kernel.part(order), targets[order]
    exact = _fit(whole, wanted, labels)
    scale = float(np.diag(whole.train).mean())
    ridged = max(
        (_fit(whole, wanted, labels, ridge * scale) for ridge in RIDGES), key=lambda fit: float(fit.left_out.mean())
    )
    fits = Fits(exact, ridged)
    for halving in range(halvings, 0, -1):
        size = len(order) // 2**halving
        if size > 1:
            smaller = np.arange(size)
            fits.curve.append((size, _test_error(whole.part(smaller), wanted[smaller], labels)))
    fits.curve.append((len(order), float(1 - exact.test.mean())))
    permuted = [wanted[generator.permutation(len(order))] for _ in range(PERMUTATIONS)]
    norms = np.square(interpolate(whole.train, np.concatenate(permuted, axis=1)).norms).reshape(PERMUTATIONS, -1)
    fits.shuffled_norms = np.sqrt(norms.sum(axis=1)).tolist()
    return fits


def _fit(kernel: Kernel, targets: Array, labels: NDArray[np.int64], ridge: float = 0.0) -> Fit:
    solution = interpolate(kernel.train, targets, ridge)
    right = (kernel.train @ solution.alpha).argmax(axis=1) == targets.argmax(axis=1)
    test = (kernel.test @ solution.alpha).argmax(axis=1) == labels
    norm = float(np.sqrt(np.square(solution.norms).sum()))
    return Fit(len(targets), right, _left_out(solution, targets), test, norm)


def _test_error(kernel: Kernel, targets: Array, labels: NDArray[np.int64]) -> float:
    """The test error of the exact fit."""
    alpha = interpolate(kernel.train, targets).alpha
    return float(((kernel.test @ alpha).argmax(axis=1) != labels).mean())


def _left_out(solution: Interpolation, targets: Array) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = (targets - solution.left_out_residuals()).argmax(axis=1) == targets.argmax(axis=1)
    return right
