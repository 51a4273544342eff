"""Subsets and in-memory data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freqrobust import ImageData, load_data
from freqrobust.core.errors import DataError
from freqrobust.data.loading import as_data


def unbalanced() -> ImageData:
    labels = torch.tensor([0] * 500 + [1] * 300 + [2] * 195 + [3] * 5)
    labels = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    return ImageData(torch.arange(1000, dtype=torch.float32).view(-1, 1, 1, 1) / 1000, labels, 4)


@pytest.mark.parametrize("n", [1, 10, 100, 333, 999])
@pytest.mark.parametrize("seed", [0, 5])
def test_limit_keeps_proportions(n, seed) -> None:
    data = unbalanced()
    part = data.limit(n, seed)
    assert len(part) == n
    assert part.subset
    expected = n * np.bincount(data.labels) / 1000
    assert (np.abs(np.bincount(part.labels, minlength=4) - expected) <= 1).all()
    assert torch.equal(part.ids, part.ids.sort().values)
    assert part.ids.unique().numel() == n
    assert torch.equal(part.labels, data.labels[part.ids])
    assert torch.equal(part.images, data.images[part.ids])


def test_limit_is_drawn_by_the_seed() -> None:
    data = unbalanced()
    draws = [data.limit(100, seed).ids for seed in (0, 0, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[2], draws[3])
    # every sample has its chance: over many seeds each is drawn about as often as any other of its class
    counts = torch.bincount(torch.cat([data.limit(100, seed).ids for seed in range(200)]), minlength=1000)
    for label in (0, 1, 2):
        share = counts[data.labels == label].float().mean() / 200
        assert abs(share - 0.1) < 0.01
    assert counts[data.labels == 0].min() > 0


def test_limits_nest() -> None:
    """A larger limit keeps the samples of a smaller one."""
    data = unbalanced()
    small, large = data.limit(50).ids, data.limit(200).ids
    assert set(small.tolist()) <= set(large.tolist())


def test_ids_survive_subsets_of_subsets() -> None:
    data = unbalanced()
    part = data.first(400).limit(100).take(torch.tensor([7, 3]))
    assert torch.equal(part.images[:, 0, 0, 0], part.ids / 1000)
    assert part.subset


def test_no_subset_when_everything_is_wanted() -> None:
    data = unbalanced()
    assert data.limit(1000) is data
    assert data.first(2000) is data
    assert not data.subset


@pytest.mark.parametrize("choice", [{"limit": 0}, {"first": 0}, {"limit": -3}, {"limit": 2, "first": 2}])
def test_impossible_choices(choice) -> None:
    with pytest.raises(DataError):
        load_data("digits", **choice)


def test_digits_are_those_of_scikit_learn_and_do_not_overlap() -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    train, test = load_data("digits", split="train"), load_data("digits")
    assert (len(train), len(test), test.shape, test.classes) == (1297, 500, (1, 8, 8), 10)
    np.testing.assert_array_equal(torch.cat([train.images, test.images]).flatten(1).numpy() * 16, images)
    np.testing.assert_array_equal(torch.cat([train.labels, test.labels]), labels)
    assert not set(train.ids.tolist()) & set(test.ids.tolist())
    with pytest.raises(DataError, match="'test' or 'train'"):
        load_data("digits", split="val")


def test_hash_sees_images_labels_and_ids() -> None:
    data = unbalanced()
    changed = data.images.clone()
    changed[5] += 1e-3
    hashes = {
        data.sha256,
        ImageData(changed, data.labels, 4).sha256,
        ImageData(data.images, data.labels.flip(0), 4).sha256,
        ImageData(data.images, data.labels, 4, ids=data.ids + 1).sha256,
    }
    assert len(hashes) == 4
    assert unbalanced().sha256 == data.sha256


def test_forms_of_data_in_memory() -> None:
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = as_data((images, labels))
    assert torch.equal(as_data([images.numpy(), labels.numpy()]).images, expected.images)
    dataset = torch.utils.data.TensorDataset(images, labels)
    assert torch.equal(as_data(dataset).images, images)
    assert torch.equal(as_data(expected).images, expected.images)
    pairs = [(image, int(label)) for image, label in zip(images, labels, strict=True)]
    assert as_data(pairs).labels.tolist() == labels.tolist()
    with pytest.raises(DataError, match="got int"):
        as_data(3)
    with pytest.raises(DataError, match="differ in size"):
        as_data([(torch.rand(3, 8, 8), 0), (torch.rand(3, 9, 8), 1), (torch.rand(3, 8, 8), 1)])
