"""Minimum-norm solutions on the digits, and the features of random filters."""

import numpy as np
import pytest
import torch

from freqrobust.data.dataset import ImageData
from freqrobust.experiments.reproduce import reproduce
from freqrobust.reproductions._features import filter_features, pixels, random_filters, standardized
from freqrobust.reproductions._interpolation import gaussian, linear, solve


@pytest.fixture(scope="module")
def findings():
    return reproduce("zhang-minimum-norm")


def test_exact_fits_classify_test_images_better_than_chance(findings):
    assert all(row[2] == "0.0" for row in findings.tables[0].rows)
    better = [trend for trend in findings.trends if "better than chance" in trend.statement]
    assert len(better) == 3
    assert all(trend.verdict == "reproduced" for trend in better)
    error = {m.name: m.value for m in findings.measured}
    assert error["test error, Gaussian kernel of pixels"] < 0.15


def test_shuffled_labels_need_a_larger_norm(findings):
    larger = [trend for trend in findings.trends if "norm is larger" in trend.statement]
    assert len(larger) == 3
    assert all(trend.verdict == "reproduced" for trend in larger)


def test_the_linear_kernel_is_used_with_fewer_images_than_pixels(findings):
    assert [row[1] for row in findings.tables[0].rows] == ["40", "500", "500"]
    assert max(x for curve in findings.curves for x in curve.x if curve.label.startswith("linear")) == 40


def test_shares_of_a_solved_kernel_are_those_of_its_function():
    generator = np.random.default_rng(0)
    train, test = generator.standard_normal((12, 30)), generator.standard_normal((9, 30))
    targets, labels = np.eye(3)[generator.integers(3, size=12)], generator.integers(3, size=9)
    kernel = linear("linear", train, test, 12)
    fits = solve(kernel, targets, labels, 1, seed=0)
    weights = np.linalg.lstsq(np.c_[train, np.ones(12)], targets, rcond=None)[0]
    assert fits.exact.train.all()
    assert fits.exact.test.tolist() == ((np.c_[test, np.ones(9)] @ weights).argmax(axis=1) == labels).tolist()
    assert fits.exact.norm == pytest.approx(np.linalg.norm(weights))
    assert [size for size, _ in fits.curve] == [6, 12]
    assert fits.curve[-1][1] == pytest.approx(1 - fits.exact.test.mean())
    assert len(fits.shuffled_norms) == 5


def test_the_bandwidth_is_chosen_on_training_images_only():
    generator = np.random.default_rng(0)
    train = np.concatenate([generator.normal(c, 0.05, (15, 2)) for c in (0, 1)])
    targets = np.eye(2)[np.repeat([0, 1], 15)]
    one, other = (gaussian("g", train, generator.standard_normal((4, 2)), targets, 30) for _ in range(2))
    assert one.bandwidth == other.bandwidth
    assert np.array_equal(one.train, other.train)
    np.testing.assert_allclose(np.diag(one.train), 1)


def data(n, side, channels, seed):
    images = torch.rand((n, channels, side, side), generator=torch.Generator().manual_seed(seed))
    return ImageData(images, torch.zeros(n, dtype=torch.int64), 1)


def test_random_filters_whiten_patches_and_ignore_their_brightness():
    train = data(200, 6, 1, 0)
    kernel = random_filters(train, 500, 3, seed=0)
    assert kernel.shape == (500, 1, 3, 3)
    np.testing.assert_allclose(kernel.sum(dim=(1, 2, 3)), 0, atol=1e-3)
    # whitened patches have variance 1 in every direction, and so in that of a filter of length 1
    responses = torch.nn.functional.conv2d(train.images, kernel)
    assert float(responses.square().mean()) == pytest.approx(1.0, rel=0.1)


def test_features_are_rectified_responses_averaged_over_quadrants():
    images, kernel = data(3, 6, 2, 1), torch.randn((4, 2, 3, 3), generator=torch.Generator().manual_seed(2))
    features = filter_features(images, kernel).reshape(3, 2, 4, 2, 2)
    for sign, filter_, row, column in np.ndindex(2, 4, 2, 2):
        total = 0.0
        for i in (2 * row, 2 * row + 1):
            for j in (2 * column, 2 * column + 1):
                response = float((images.images[1, :, i : i + 3, j : j + 3] * kernel[filter_]).sum())
                total += max((1 - 2 * sign) * response - 0.5, 0.0)
        assert features[1, sign, filter_, row, column] == pytest.approx(total / 4, abs=1e-5)


def test_pixels_are_flat_and_standardised_by_the_training_images():
    train, other = pixels(data(30, 4, 3, 5)), pixels(data(5, 4, 3, 6))
    assert train.shape == (30, 48)
    assert train.dtype == np.float64
    first, second = standardized(train, other)
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=1e-12)
    assert first.var(axis=0).mean() == pytest.approx(1)
    np.testing.assert_allclose(second * np.sqrt(train.var(axis=0).mean()) + train.mean(axis=0), other)
