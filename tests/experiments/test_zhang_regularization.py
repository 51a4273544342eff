"""Training with and without regularisation, at the smallest scale."""

import pytest

from freqrobust.experiments.reproduce import reproduce


@pytest.fixture(scope="module")
def findings():
    return reproduce("zhang-regularization", device="cpu")


@pytest.mark.parametrize(
    "words",
    [
        "Without explicit regularisation, test images",
        "Without explicit regularisation and batch norm, test images",
        "Most of the accuracy above chance remains",
    ],
)
def test_networks_generalise_without_regularisation(findings, words):
    (trend,) = [trend for trend in findings.trends if words in trend.statement]
    assert trend.verdict == "reproduced"
    assert trend.ci95 is not None
    assert trend.ci95[0] > 0.2


def test_the_training_images_are_fitted_without_explicit_regularisation(findings):
    (row,) = [row for row in findings.tables[0].rows if row[0] == "none"]
    assert float(row[1]) > 97


def test_every_kind_of_regularisation_is_measured_beside_the_published_accuracy(findings):
    published = {m.name.removeprefix("test accuracy, "): m.published for m in findings.measured}
    assert published == {
        "none": 0.8575,
        "augmentation": 0.8931,
        "weight decay": 0.8603,
        "dropout": None,
        "all three": None,
        "none, no batch norm": 0.82,
    }
    assert all(0.6 < m.value < 1 for m in findings.measured)
    assert findings.picture is not None


def test_each_network_is_trained_as_it_is_named(findings):
    from freqrobust.experiments.bench import Bench
    from freqrobust.reproductions.zhang_regularization import SETTINGS, _recipe
    from freqrobust.training.plan import plan

    plans = {s.name: plan(_recipe(Bench(), s, 2, 10, 0.9)) for s in SETTINGS}
    assert {name for name, p in plans.items() if p.augment} == {"augmentation", "all three"}
    decayed = {name for name, p in plans.items() if p.optimizer.plugin.weight_decay > 0}
    assert decayed == {"weight decay", "all three"}
