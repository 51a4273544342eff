"""The limits of the frequency principle: the kernel's eigenvalues, and gradient descent of the network itself."""

import numpy as np
import pytest

from freqrobust.experiments.reproduce import reproduce
from freqrobust.reproductions._mean_field import Descent, descend, eigenvalue, kernel


@pytest.fixture(scope="module")
def findings():
    return reproduce("f-principle-limits")


@pytest.mark.parametrize("h", [1.0, 0.5, 0.25])
def test_eigenvalues_are_those_of_the_kernel_on_the_circle(h):
    n = 512
    x = np.arange(n) * (2 * np.pi / n)
    matrix = kernel(x[:, None] - x, h) * (2 * np.pi / n)
    for k in (1, 3, 6):
        for wave in (np.sin(k * x), np.cos(k * x)):
            np.testing.assert_allclose(matrix @ wave, eigenvalue(k, h) * wave, atol=1e-9)
    np.testing.assert_allclose(matrix @ np.ones(n), 0, atol=1e-9)


def test_eigenvalues_decrease_from_two_over_h_on_and_increase_up_to_the_root_of_two_over_h():
    h = 0.5
    above, below = np.linspace(2 / h, 40, 200), np.linspace(0, np.sqrt(2) / h, 200)
    assert (np.diff(eigenvalue(above, h)) < 0).all()
    assert (np.diff(eigenvalue(below, h)) > 0).all()


@pytest.mark.parametrize(("h", "k"), [(1.0, 2), (0.5, 2), (0.25, 4)])
def test_gradient_descent_decreases_the_error_at_the_rate_of_the_eigenvalue(h, k):
    descent = descend(h, [k], points=64, step=0.05, steps=200)
    np.testing.assert_allclose(descent.errors[0], np.exp(-eigenvalue(k, h) * descent.times), atol=0.02)


def test_times_are_those_of_the_first_step_below_the_share():
    descent = Descent(np.array([0.0, 1.0, 2.0]), np.array([[1.0, 0.4, 0.05], [1.0, 0.9, 0.8]]))
    assert descent.time_to(0.5).tolist() == [1.0, np.inf]


def test_the_principle_holds_above_and_fails_below_two_over_h(findings):
    assert [trend.verdict for trend in findings.trends] == ["reproduced"] * 3
    assert [row[1] for row in findings.tables[0].rows] == ["2", "2", "8", "8"]
    for row in findings.tables[0].rows:
        assert float(row[5]) == pytest.approx(float(row[4]), rel=0.1)
    assert findings.data is None
    assert findings.picture is not None
