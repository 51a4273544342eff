"""Randomised labels and pixels: fixed once, with the promised counts, permutations and moments."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from freqrobust import ImageData
from freqrobust.core.errors import SpecError
from freqrobust.training.randomization import channel_moments, randomized_labels, randomized_pixels


def images_of(n: int = 300, channels: int = 2, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, channels, 4, 6), generator=generator).to(torch.uint8)
    if dtype.is_floating_point:
        images = images.float() / 255
    labels = torch.randint(0, classes, (n,), generator=generator)
    return ImageData(images, labels, classes, ids=torch.arange(n) + 7)


@pytest.mark.parametrize("spec", ["shuffled", "corrupted:p=0.5"])
def test_labels_are_fixed_once_by_seed_and_id(spec) -> None:
    data = images_of()
    first, again = (randomized_labels(data, spec, 3) for _ in range(2))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    permuted = randomized_labels(data.take(order), spec, 3)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(permuted.labels, first.labels[order])
    assert not torch.equal(first.labels, data.labels)
    assert not torch.equal(first.labels, randomized_labels(data, spec, 4).labels)
    assert torch.equal(first.images, data.images)
    assert torch.equal(first.ids, data.ids)
    assert first.spec == f"tensors+labels={spec}"


def test_shuffled_labels_keep_the_class_counts_and_say_nothing() -> None:
    data = images_of(n=4000)
    shuffled = randomized_labels(data, "shuffled", 0)
    assert torch.equal(shuffled.labels.bincount(), data.labels.bincount())
    agreement = float((shuffled.labels == data.labels).double().mean())
    assert abs(agreement - 0.2) < 5 * (0.2 * 0.8 / 4000) ** 0.5


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_the_share_of_corrupted_labels(p) -> None:
    data = images_of(n=20_000, channels=1)
    labels = randomized_labels(data, f"corrupted:p={p}", 0).labels
    expected = p * (1 - 1 / 5)
    changed = float((labels != data.labels).double().mean())
    assert abs(changed - expected) <= 5 * (expected * (1 - expected) / 20_000) ** 0.5
    assert int(labels.min()) >= 0
    assert int(labels.max()) < 5
    if p == 1:
        assert (labels.bincount().double() / 20_000 - 0.2).abs().max() < 0.02


def test_a_larger_probability_corrupts_the_same_samples_and_others() -> None:
    data = images_of(n=2000)
    few, many = (randomized_labels(data, f"corrupted:p={p}", 0).labels != data.labels for p in (0.2, 0.6))
    assert bool((many | ~few).all())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shuffled_pixels_are_one_permutation_for_all_data(dtype) -> None:
    train, test = images_of(dtype=dtype), images_of(n=20, seed=9, dtype=dtype)
    order = {}
    for name, data in (("train", train), ("test", test)):
        changed = randomized_pixels(data, "shuffled", 5)
        assert changed.images.dtype == dtype
        flat, old = changed.images.flatten(2).numpy(), data.images.flatten(2).numpy()
        order[name] = [int(np.flatnonzero((old == flat[:, :, [j]]).all(axis=(0, 1)))[0]) for j in range(24)]
    assert order["train"] == order["test"]
    assert sorted(order["train"]) == list(range(24))
    assert order["train"] != list(range(24))


def test_random_pixels_are_a_permutation_of_each_image() -> None:
    # the first channel has the number of the pixel, the second twice it: so the permutation can be read
    numbers = torch.arange(24, dtype=torch.uint8)
    images = torch.stack([numbers, 2 * numbers]).view(1, 2, 4, 6).repeat(50, 1, 1, 1)
    data = ImageData(images, torch.zeros(50, dtype=torch.int64), 1)
    changed = randomized_pixels(data, "random", 0)
    first, second = changed.images.flatten(2).unbind(1)
    assert torch.equal(second, 2 * first)
    assert torch.equal(first.sort(dim=1).values, numbers.expand(50, -1))
    assert len({tuple(row) for row in first.tolist()}) == 50
    order = torch.arange(49, -1, -1)
    assert torch.equal(randomized_pixels(data.take(order), "random", 0).images, changed.images[order])


def test_gaussian_pixels_have_the_moments_of_the_training_images() -> None:
    train, test = images_of(n=3000), images_of(n=3000, seed=2)
    train = ImageData((train.images * torch.tensor([0.5, 1.0])[:, None, None]).to(torch.uint8), train.labels, 5)
    for data in (train, test):
        noise = randomized_pixels(data, "gaussian", 0, like=train)
        assert noise.images.dtype == torch.float32
        for channel in range(2):
            values = train.images[:, channel].numpy() / 255
            drawn = noise.images[:, channel].numpy()
            normal = scipy.stats.norm(values.mean(), values.std())
            inside = drawn[(drawn > 0) & (drawn < 1)].ravel()[:20_000]  # the rest of the distribution is clipped
            truncated = scipy.stats.truncnorm(*((np.array([0, 1]) - normal.mean()) / normal.std()), *normal.args)
            assert scipy.stats.kstest(inside, truncated.cdf).pvalue > 0.001
            assert abs((drawn == 0).mean() - normal.cdf(0)) < 0.005
            assert abs((drawn == 1).mean() - normal.sf(1)) < 0.005
            assert drawn.min() == 0
            assert drawn.max() <= 1
    mean, deviation = channel_moments(train)
    np.testing.assert_allclose(mean, (train.images.numpy() / 255).mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(deviation, (train.images.numpy() / 255).std(axis=(0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["random", "gaussian"])
def test_test_images_with_the_ids_of_training_images_get_other_noise(kind) -> None:
    train, test = images_of(n=20), images_of(n=20, seed=1)
    assert torch.equal(train.ids, test.ids)
    first, second = (randomized_pixels(data, kind, 0, like=train) for data in (train, test))
    assert torch.equal(first.take(torch.tensor([4])).images, randomized_pixels(train.take(torch.tensor([4])), kind, 0, train).images)  # fmt: skip
    if kind == "gaussian":
        correlation = np.corrcoef(first.images.flatten().numpy(), second.images.flatten().numpy())[0, 1]
        assert abs(correlation) < 0.2
    else:
        constant = [ImageData(data.images * 0 + torch.arange(24, dtype=torch.uint8).view(4, 6) + number, data.labels, 5)
                    for number, data in enumerate((train, test))]  # fmt: skip
        orders = [randomized_pixels(data, kind, 0).images.int() - number for number, data in enumerate(constant)]
        assert not torch.equal(*orders)


def test_true_is_the_data_itself() -> None:
    data = images_of(n=5)
    assert randomized_labels(data, "true", 0) is data
    assert randomized_pixels(data, "true", 0) is data


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "shufled",
            r"labels should be true, shuffled or corrupted:p=0.2, but got 'shufled'; did you mean 'shuffled'\?",
        ),
        ("", "labels should be true, shuffled or corrupted:p=0.2, but got ''"),
        ("corrupted", "the probability is missing, for example corrupted:p=0.2"),
        ("corrupted:p=1.5", "p should be a number from 0 to 1, but got '1.5'"),
        ("corrupted:p=nan", "p should be a number from 0 to 1, but got 'nan'"),
        ("corrupted:p=half", "p should be a number from 0 to 1, but got 'half'"),
        ("corrupted:share=0.5", "unknown parameter 'share'"),
        ("shuffled:p=0.5", r"unknown parameter 'p' \(parameters: none\)"),
    ],
)
def test_bad_labels(spec, message) -> None:
    with pytest.raises(SpecError, match=message):
        randomized_labels(images_of(n=5), spec, 0)


def test_bad_pixels() -> None:
    with pytest.raises(SpecError, match="pixels should be true, shuffled, random or gaussian, but got 'noise'"):
        randomized_pixels(images_of(n=5), "noise", 0)
    with pytest.raises(SpecError, match="the images have 2 channels, but the training images have 3"):
        randomized_pixels(images_of(n=5), "gaussian", 0, like=images_of(n=5, channels=3))
