"""The constructed two-layer network on the digits."""

import pytest

from freqrobust.experiments.reproduce import reproduce


@pytest.fixture(scope="module")
def findings():
    return reproduce("zhang-expressivity")


def test_true_and_random_labels_are_fitted_exactly(findings):
    assert [trend.verdict for trend in findings.trends] == ["reproduced"] * 3
    training = [m for m in findings.measured if m.name.startswith("training error")]
    assert len(training) == 3
    assert all(m.value == 0 == m.published for m in training)
    assert {row[1] for row in findings.tables[0].rows} == {str(2 * 1000 + 64)}


def test_the_test_error_is_near_that_of_chance(findings):
    random = next(row for row in findings.tables[0].rows if row[0] == "random labels")
    assert 80 < float(random[-1].split()[0]) <= 100


def test_the_picture_shows_the_labels_on_the_curve_of_the_network(findings):
    labels, network = (
        next(curve for curve in findings.curves if curve.label == name) for name in ("labels", "network")
    )
    along = dict(zip(network.x, network.y, strict=True))
    for x, y in zip(labels.x, labels.y, strict=True):
        assert along[x] == pytest.approx(y, abs=1e-6)
