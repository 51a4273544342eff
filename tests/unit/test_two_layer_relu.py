"""The constructive two-layer ReLU network of Zhang et al. 2017, theorem 1."""

import numpy as np
import pytest

from freqrobust.core.errors import DataError
from freqrobust.numerics.two_layer_relu import TwoLayerReLU, fit_exactly


def test_random_labels_of_random_points_are_fitted_exactly_with_2n_plus_d_weights():
    generator = np.random.default_rng(1)
    points, labels = generator.standard_normal((300, 7)), generator.integers(10, size=300).astype(float)
    network = fit_exactly(points, labels)
    assert network.size == 2 * 300 + 7
    np.testing.assert_allclose(network(points), labels, atol=1e-7)


def test_the_network_is_the_sum_of_its_hidden_units_and_solves_the_triangular_system_of_the_proof():
    generator = np.random.default_rng(2)
    points, labels = generator.standard_normal((20, 3)), generator.standard_normal(20)
    network = fit_exactly(points, labels)
    z = np.sort(points @ network.direction)
    matrix = np.maximum(z[:, None] - network.biases, 0)
    assert np.array_equal(matrix, np.tril(matrix))
    assert (np.diag(matrix) > 0).all()
    order = np.argsort(points @ network.direction)
    np.testing.assert_allclose(network.weights, np.linalg.solve(matrix, labels[order]), rtol=1e-6, atol=1e-6)
    x = generator.standard_normal(3)
    by_hand = sum(w * max(x @ network.direction - b, 0.0) for w, b in zip(network.weights, network.biases, strict=True))
    assert network(x[None])[0] == pytest.approx(by_hand)


def test_points_that_differ_in_one_coordinate_only_are_fitted():
    points = np.zeros((50, 40))
    points[:, 17] = np.arange(50)
    labels = np.random.default_rng(0).integers(10, size=50).astype(float)
    np.testing.assert_allclose(fit_exactly(points, labels)(points), labels, atol=1e-9)


def test_a_single_point_and_a_constant_label_are_fitted():
    assert fit_exactly(np.ones((1, 4)), np.array([7.0]))(np.ones((1, 4)))[0] == pytest.approx(7.0)
    points = np.random.default_rng(3).standard_normal((10, 2))
    np.testing.assert_allclose(fit_exactly(points, np.full(10, 3.0))(points), 3.0, atol=1e-9)


def test_a_repeated_point_is_used_once():
    points, labels = np.array([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]]), np.array([4.0, 5.0, 4.0])
    network = fit_exactly(points, labels)
    assert len(network.biases) == 2
    np.testing.assert_allclose(network(points), labels, atol=1e-12)


def test_a_repeated_point_with_two_labels_is_refused_with_its_number():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [2.0, 3.0]])
    with pytest.raises(DataError, match="occurs more than once, with the labels") as error:
        fit_exactly(points, np.array([0.0, 1.0, 2.0]))
    assert "sample 1" in str(error.value) or "sample 2" in str(error.value)


def test_different_points_that_no_direction_tells_apart_are_refused():
    points = np.array([[0.0, 1e300], [5e-324, 1e300]])
    with pytest.raises(DataError, match="the same projection in each of 3 directions"):
        fit_exactly(points, np.array([0.0, 1.0]), candidates=3)


@pytest.mark.parametrize(("points", "labels"), [(np.zeros((0, 3)), np.zeros(0)), (np.zeros((2, 3)), np.zeros(3))])
def test_points_and_labels_that_do_not_belong_together_are_refused(points, labels):
    with pytest.raises(DataError, match=r"expected points \(n, d\) and labels \(n,\)"):
        fit_exactly(points, labels)


def test_many_points_are_evaluated_in_blocks(monkeypatch):
    monkeypatch.setattr("freqrobust.numerics.two_layer_relu._BLOCK", 8)
    network = TwoLayerReLU(np.array([1.0]), np.array([0.0, 1.0, 2.0]), np.array([1.0, -2.0, 4.0]))
    np.testing.assert_allclose(network(np.array([[-1.0], [0.5], [1.5], [3.0], [2.0]])), [0, 0.5, 0.5, 3, 0])
