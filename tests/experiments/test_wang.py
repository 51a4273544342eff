"""What the experiments of Wang et al. share: records of outcomes, gaps, specs, adversarial images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from freqrobust.analyses._components import chance_joint
from freqrobust.core.errors import SpecError
from freqrobust.experiments.bench import Bench, Fitted
from freqrobust.experiments.reproduce import reproduce
from freqrobust.models.architectures import SmallCNN
from freqrobust.reproductions import _wang
from freqrobust.reproductions._networks import ChannelBias, classifier
from freqrobust.reproductions.wang_fig3 import WangFig3


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 500])
def test_outcomes_are_unpacked_as_they_were_packed(n: int) -> None:
    samples = torch.rand(n, generator=torch.Generator().manual_seed(n)).numpy() < 0.5
    assert np.array_equal(_wang.unpack(_wang.pack(samples)), samples)


def test_the_interval_of_a_difference_of_gaps_is_that_of_independent_sums() -> None:
    """Training: 3 of 4 and 1 of 4; test: 1 of 5 and 1 of 5, on different samples."""
    first = np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0, 0], bool)
    second = np.array([1, 0, 0, 0], bool), np.array([0, 1, 0, 0, 0], bool)
    trend = _wang.larger_gap("The first has the larger gap.", first, second)
    # differences 0, 1, 1, 0 in training and 1, -1, 0, 0, 0 in testing, with variances 1/3 and 1/2
    half = 1.959963984540054 * np.sqrt((1 / 3) / 4 + (1 / 2) / 5)
    assert trend.estimate == pytest.approx(0.5)
    assert trend.ci95 == pytest.approx((0.5 - half, 0.5 + half))
    assert trend.verdict == "undecided"


def test_the_interval_of_a_mean_over_samples() -> None:
    trend = _wang.mean_over_samples("It is positive.", np.array([1.0, 0.0, 1.0, 0.5]), "mean")
    half = 1.959963984540054 * np.std([1, 0, 1, 0.5], ddof=1) / 2
    assert trend.estimate == pytest.approx(0.625)
    assert trend.ci95 == pytest.approx((0.625 - half, 0.625 + half))


def test_the_excess_over_chance_has_the_variance_of_its_own_chance() -> None:
    generator = np.random.default_rng(3)
    n, estimates, widths = 200, [], []
    for _ in range(400):
        labels = generator.integers(0, 5, n)
        own = np.where(generator.random(n) < 0.4, labels, generator.integers(0, 2, n))
        other = np.where(generator.random(n) < 0.3, own, generator.integers(0, 5, n))
        values = _wang.beyond_chance(own, other, labels)
        by_chance = chance_joint(own, other, labels)[True, False]
        assert values.mean() == pytest.approx(((own == labels) & (other != labels)).mean() - by_chance)
        estimates.append(values.mean())
        widths.append(values.std(ddof=1) / np.sqrt(n))
    assert np.mean(widths) == pytest.approx(np.std(estimates), rel=0.1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_curve_that_falls_is_not_flatter_than_one_that_stays(sign: float) -> None:
    changes = sign * (np.arange(100) % 10 < 3).astype(float)  # 0.3 on average
    constant, opposite = np.zeros(100), -sign * (np.arange(100) % 10 < 2).astype(float)
    trend = _wang.flatter("The second is flatter.", changes, constant, "change")
    half = 1.959963984540054 * changes.std(ddof=1) / 10
    assert (trend.estimate, trend.verdict) == (pytest.approx(0.3), "reproduced")
    assert trend.ci95 == pytest.approx((0.3 - half, 0.3 + half))
    assert _wang.flatter("The second is flatter.", constant, changes, "change").verdict == "not reproduced"
    paired = _wang.flatter("The second is flatter.", changes, opposite, "change")
    assert paired.estimate == pytest.approx(0.1)
    half = 1.959963984540054 * (sign * (changes + opposite)).std(ddof=1) / 10
    assert paired.ci95 == pytest.approx((0.1 - half, 0.1 + half))


def test_radii_scale_with_the_side_of_the_images(bench: Bench) -> None:
    assert _wang.component(bench, "lfc", 12, "none") == "lfc:radius=3"
    assert _wang.component(bench, "hfc", 5, "max") == "hfc:radius=1.25,rescale=max"


def test_a_watcher_records_each_view_with_its_statistics(bench: Bench) -> None:
    """The record is that of the harness, for images of two data sets, a shift, and both kinds of statistics."""
    torch.manual_seed(0)
    model = SmallCNN()
    for _ in range(5):  # running statistics that differ from those of a batch
        model(torch.rand(8, 1, 8, 8) * 3)
    model.eval()
    test, train = bench.test.first(60), bench.train.first(40)
    views = [
        _wang.View("test", test, None),
        _wang.View("test batch", test, None, "batch"),
        _wang.View("lfc", test, "lfc:radius=2"),
        _wang.View("training", train, None),
    ]
    record = _wang.watcher(bench, views)(model)
    history = {name: _wang.history(Fitted(model, [], [record]), name)[0] for name in record}  # type: ignore[arg-type]
    assert list(record) == ["test", "lfc", "test batch", "training"]
    assert {name: len(samples) for name, samples in history.items()} == {
        "test": 60,
        "lfc": 60,
        "test batch": 60,
        "training": 40,
    }
    assert np.array_equal(history["test"], _wang.predicted(bench, model, test) == test.labels.numpy())
    lfc = bench.shifted(test, "lfc:radius=2")
    assert np.array_equal(history["lfc"], _wang.predicted(bench, model, lfc) == test.labels.numpy())
    images, labels, _ = test.batch(torch.arange(60), bench.device)
    with torch.no_grad():
        by_batch = model.train()(images).argmax(dim=1) == labels  # 60 images are one batch
    assert np.array_equal(history["test batch"], by_batch.numpy())
    assert not np.array_equal(history["test batch"], history["test"])


def test_the_statistics_are_those_of_batches_of_one_size_on_every_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch size of a large device must not change what ``bn=batch`` gives."""
    torch.manual_seed(1)
    model, data = SmallCNN().eval(), bench.test.first(300)
    (small,) = _wang.correct_each(bench, model, data, [None], "batch")
    monkeypatch.setattr("freqrobust.harness.examples.auto_batch_size", lambda *_: 4096)
    (large,) = _wang.correct_each(bench, model, data, [None], "batch")
    assert np.array_equal(small, large)
    images, labels, _ = data.batch(torch.arange(300), bench.device)
    with torch.no_grad():
        parts = [model.train()(part).argmax(dim=1) for part in images.split(_wang.STATISTICS_BATCH)]
    assert np.array_equal(small, (torch.cat(parts) == labels).numpy())


def test_natural_and_shuffled_labels_are_watched_on_the_same_images(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subsets are stratified by labels, so that those of shuffled labels would be other images."""
    seen = []

    def watcher(_: Bench, views: list[_wang.View]) -> None:
        seen.append(views[0].data)
        raise SpecError("enough")

    monkeypatch.setattr(_wang, "watcher", watcher)
    for labels in ("true", "shuffled"):
        with pytest.raises(SpecError, match="enough"):
            WangFig3()._train(bench, labels)
    assert torch.equal(seen[0].ids, seen[1].ids)
    assert len(seen[0]) == 300
    assert (seen[0].labels != seen[1].labels).float().mean() > 0.5


def test_adversarial_images_are_within_the_budget_and_raise_the_loss(bench: Bench) -> None:
    torch.manual_seed(0)
    model, data = SmallCNN().eval(), bench.test.first(30)
    changed = _wang.adversarial_images(bench, model, data, "fgsm:eps=0.1")
    assert (changed.images - data.images).abs().max() <= 0.1 + 1e-6
    losses = [nn.functional.cross_entropy(model(d.images), d.labels) for d in (data, changed)]
    assert losses[1] > losses[0]
    assert torch.equal(changed.ids, data.ids)


@pytest.mark.parametrize("arch", ["small_cnn", "resnet8", "preact_resnet32"])
def test_networks_without_batch_norm_have_biases_instead(bench: Bench, arch: str) -> None:
    torch.manual_seed(0)
    network = classifier(bench, norm=False, dropout=0.5, arch=arch)()
    modules = list(network.modules())
    assert not [module for module in modules if isinstance(module, nn.BatchNorm2d)]
    assert [m for m in modules if isinstance(m, ChannelBias) or (isinstance(m, nn.Conv2d) and m.bias is not None)]
    assert [m for m in modules if isinstance(m, nn.Dropout)]
    logits = network.eval()(bench.test.images[:8])
    assert logits.shape == (8, 10)
    assert 0.01 < logits.std() < 20


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wang-fig5:rescale=mean", "rescale"),
        ("wang-fig6:bn=train", "bn"),
        ("wang-table1:arch=resnet9", "unknown architecture 'resnet9'; did you mean"),
        ("wang-misalignment:model=missing.pt", "missing.pt"),
    ],
)
def test_bad_parameters_are_one_line(spec: str, message: str) -> None:
    from freqrobust.core.errors import FreqRobustError

    with pytest.raises(FreqRobustError, match=message) as caught:
        reproduce(spec)
    assert "\n" not in str(caught.value)
    if "arch" in spec:
        assert isinstance(caught.value, SpecError)


def test_cpu_scale_without_data_says_what_is_missing() -> None:
    with pytest.raises(SpecError, match="needs --data and --train-data"):
        reproduce("wang-fig4", scale="cpu")
