"""Batch norm with the statistics of the test batch."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust.models.architectures import SmallCNN
from freqrobust.models.batch_statistics import with_batch_statistics


def test_features_are_normalised_by_the_batch() -> None:
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 5 + 2 * torch.randn(4, 3, 6, 6)
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    std = (x.var(dim=(0, 2, 3), correction=0, keepdim=True) + norm.eps).sqrt()
    expected = (x - mean) / std * norm.weight[:, None, None] + norm.bias[:, None, None]
    found = with_batch_statistics(nn.Sequential(norm))
    torch.testing.assert_close(found(x), expected)
    torch.testing.assert_close(found(x[:2])[0], found(x[:2] + 7)[0])  # a shift of the whole batch is removed
    assert not torch.allclose(found(x[:2])[0], found(x)[0])


def test_the_model_is_not_changed() -> None:
    model = SmallCNN().eval()
    x = torch.rand(4, 1, 8, 8)
    before = model(x)
    changed = with_batch_statistics(model)
    changed(x)
    assert not torch.allclose(changed(x), before)
    assert torch.equal(model(x), before)
    assert not changed.training


def test_a_network_without_batch_norm_stays_the_same() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(3))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x), with_batch_statistics(model)(x))
