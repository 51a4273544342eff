"""Kernel interpolation against least squares of NumPy and scikit-learn."""

import numpy as np
import pytest

from freqrobust.core.errors import DataError
from freqrobust.numerics.minimum_norm import (
    gaussian_kernel,
    interpolate,
    linear_kernel,
    one_vs_all,
    squared_distances,
)

GENERATOR = np.random.default_rng(0)
POINTS, TARGETS = GENERATOR.standard_normal((20, 50)), GENERATOR.standard_normal((20, 3))


def test_the_linear_kernel_gives_the_minimum_norm_solution_of_least_squares():
    solution = interpolate(linear_kernel(POINTS, POINTS), TARGETS)
    expected = np.linalg.lstsq(POINTS, TARGETS, rcond=None)[0]
    np.testing.assert_allclose(POINTS.T @ solution.alpha, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(solution.norms, np.linalg.norm(expected, axis=0), rtol=1e-9)
    np.testing.assert_allclose(POINTS @ (POINTS.T @ solution.alpha), TARGETS, atol=1e-10)


def test_any_other_exact_fit_has_a_larger_norm():
    solution = interpolate(linear_kernel(POINTS, POINTS), TARGETS)
    null = np.linalg.svd(POINTS)[2][-1]  # POINTS @ null is 0
    other = POINTS.T @ solution.alpha + null[:, None]
    np.testing.assert_allclose(POINTS @ other, TARGETS, atol=1e-10)
    assert (np.linalg.norm(other, axis=0) > solution.norms).all()


def test_the_kernels_are_those_of_scikit_learn():
    from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

    other = GENERATOR.standard_normal((7, 50))
    distances = squared_distances(POINTS, other)
    np.testing.assert_allclose(distances, euclidean_distances(POINTS, other, squared=True), rtol=1e-10)
    np.testing.assert_allclose(gaussian_kernel(distances, 4.0), rbf_kernel(POINTS, other, gamma=1 / 32), rtol=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_a_gaussian_kernel_gives_the_solution_of_scikit_learn(ridge):
    from sklearn.kernel_ridge import KernelRidge

    kernel = gaussian_kernel(squared_distances(POINTS, POINTS), 5.0)
    expected = KernelRidge(alpha=ridge, kernel="precomputed").fit(kernel, TARGETS).dual_coef_
    solution = interpolate(kernel, TARGETS, ridge)
    np.testing.assert_allclose(solution.alpha, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(solution.norms, np.sqrt(np.diag(expected.T @ kernel @ expected)), rtol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_left_out_residuals_are_those_of_solutions_without_each_sample(ridge):
    kernel = gaussian_kernel(squared_distances(POINTS, POINTS), 5.0)
    residuals = interpolate(kernel, TARGETS, ridge).left_out_residuals()
    for i in range(len(POINTS)):
        rest = np.delete(np.arange(len(POINTS)), i)
        alpha = np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(len(rest)), TARGETS[rest])
        np.testing.assert_allclose(residuals[i], TARGETS[i] - kernel[i, rest] @ alpha, rtol=1e-7, atol=1e-10)


def test_more_samples_than_dimensions_are_refused_without_a_ridge():
    points = GENERATOR.standard_normal((6, 4))
    with pytest.raises(DataError, match="kernel of 6 samples is singular"):
        interpolate(linear_kernel(points, points), np.zeros((6, 1)))
    solution = interpolate(linear_kernel(points, points), np.ones((6, 1)), ridge=1.0)
    expected = np.linalg.solve(points.T @ points + np.eye(4), points.T @ np.ones((6, 1)))
    np.testing.assert_allclose(points.T @ solution.alpha, expected, rtol=1e-10)


def test_a_sample_that_occurs_twice_is_refused():
    points = np.concatenate([POINTS, POINTS[:1]])
    with pytest.raises(DataError, match="samples that occur twice"):
        interpolate(gaussian_kernel(squared_distances(points, points), 5.0), np.zeros((21, 1)))


@pytest.mark.parametrize(("kernel", "targets"), [((3, 2), (3, 1)), ((3, 3), (2, 1)), ((3, 3), (3,))])
def test_shapes_that_do_not_belong_together_are_refused(kernel, targets):
    with pytest.raises(DataError, match=r"expected a kernel \(n, n\) and targets \(n, k\)"):
        interpolate(np.ones(kernel), np.ones(targets))


def test_one_vs_all_targets():
    assert one_vs_all(np.array([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
