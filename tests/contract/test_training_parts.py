"""What every registered augmentation, regularizer, optimizer and schedule keeps to, third-party ones too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from freqrobust import ImageData
from freqrobust.core.training_config import Recipe
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.fingerprint import state_hash
from freqrobust.plugins.registry import augmentations, optimizers, regularizers, schedules
from freqrobust.plugins.training import Augmentation, Batch, StepContext
from freqrobust.training.loop import Training
from freqrobust.training.plan import plan

CLASSES = 10
#: Further configurations, beside the defaults.
VARIANTS: dict[str, list[str]] = {
    "flip-crop": ["padding=2,flip=false"],
    "gaussian-noise": ["random=true,clip=true"],
    "mixup": ["draw=sample,alpha=0.3"],
    "cutmix": ["draw=sample,p=1", "p=1"],
    "autoaugment": ["policy=svhn", "policy=imagenet"],
    "randaugment": ["operations=1,magnitude=30"],
    "augmix": ["jsd=true", "all_ops=true,severity=10,depth=2,width=1", "alpha=0.1"],
    "apr": ["p=1", "amplitude=single,p=1"],
}
CASES = [
    f"{name}:{given}".removesuffix(":") for name in augmentations.names() for given in ["", *VARIANTS.get(name, [])]
]
#: These use other images of the batch, beside those that mix the labels as well.
PAIRED = {"apr", "apr:p=1"}
#: Unclipped noise leaves [0, 1].
UNBOUNDED = {"gaussian-noise"}


def plugin_of(spec: str) -> Augmentation:
    return augmentations.parse(spec)[0].plugin


def context(ids: torch.Tensor, epoch: int = 0, seed: int = 0) -> StepContext:
    return StepContext(ids, seed, epoch, CLASSES)


@pytest.fixture(scope="module", params=[(1, 8, 8), (3, 12, 10)], ids=["grey", "colour"])
def batch(request: pytest.FixtureRequest) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, *request.param), generator=generator).float() / 255
    labels = torch.randint(0, CLASSES, (10,), generator=generator)
    return Batch(images, labels, torch.arange(10) * 3 + 5, labels)


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [batch.images, batch.labels, batch.ids, batch.targets, *batch.views]


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def taken(batch: Batch, index: torch.Tensor) -> Batch:
    return Batch(*(t[index] for t in tensors(batch)[:4]), views=tuple(view[index] for view in batch.views))


@pytest.mark.parametrize("spec", CASES)
def test_an_augmented_batch_is_a_batch(spec: str, batch: Batch) -> None:
    plugin = plugin_of(spec)
    augmented = plugin.augment(batch, context(batch.ids))
    assert torch.equal(augmented.labels, batch.labels)
    assert torch.equal(augmented.ids, batch.ids)
    assert bool(augmented.views) == plugin.makes_views
    for images in (augmented.images, *augmented.views):
        assert images.shape == batch.images.shape
        assert images.dtype == torch.float32
        assert bool(torch.isfinite(images).all())
        if spec not in UNBOUNDED:
            assert float(images.min()) >= 0
            assert float(images.max()) <= 1
    if plugin.mixes:
        assert augmented.targets.shape == (10, CLASSES)
        assert bool((augmented.targets >= 0).all())
        torch.testing.assert_close(augmented.targets.sum(dim=1), torch.ones(10))
    else:
        assert torch.equal(augmented.targets, batch.labels)


@pytest.mark.parametrize("spec", CASES)
def test_the_same_seed_and_epoch_give_the_same_images(spec: str, batch: Batch) -> None:
    plugin = plugin_of(spec)
    results = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        results.append(plugin.augment(batch, context(batch.ids)))
        assert torch.equal(torch.get_rng_state(), state)
    assert same(*results)
    others = [
        plugin.augment(batch, context(batch.ids, epoch, seed)) for epoch, seed in [(1, 0), (2, 0), (3, 0), (4, 0)]
    ]
    assert not all(same(results[0], other) for other in others), "it is the same in every epoch"
    others = [plugin.augment(batch, context(batch.ids, 0, seed)) for seed in (1, 2, 3, 4)]
    assert not all(same(results[0], other) for other in others), "it does not depend on the seed"


@pytest.mark.parametrize("spec", CASES)
def test_a_sample_does_not_depend_on_the_order_of_the_batch(spec: str, batch: Batch) -> None:
    plugin = plugin_of(spec)
    augmented = plugin.augment(batch, context(batch.ids))
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    permuted = plugin.augment(taken(batch, order), context(batch.ids[order]))
    assert same(permuted, taken(augmented, order))


@pytest.mark.parametrize("spec", [spec for spec in CASES if spec not in PAIRED and not plugin_of(spec).mixes])
def test_a_sample_does_not_depend_on_the_other_samples(spec: str, batch: Batch) -> None:
    plugin = plugin_of(spec)
    augmented = plugin.augment(batch, context(batch.ids))
    for index in torch.arange(10).split(3):
        part = plugin.augment(taken(batch, index), context(batch.ids[index]))
        assert same(part, taken(augmented, index))


@pytest.mark.parametrize("spec", CASES)
def test_the_batch_that_is_given_is_untouched(spec: str, batch: Batch) -> None:
    before = [tensor.clone() for tensor in tensors(batch)]
    plugin_of(spec).augment(batch, context(batch.ids))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(batch), strict=True))


@pytest.mark.parametrize("spec", CASES)
def test_a_batch_of_one_sample_is_enough(spec: str, batch: Batch) -> None:
    one = taken(batch, torch.tensor([4]))
    assert plugin_of(spec).augment(one, context(one.ids)).images.shape == one.images.shape


def test_mixtures_can_be_mixed_again(batch: Batch) -> None:
    once = plugin_of("cutmix:p=1").augment(batch, context(batch.ids))
    twice = plugin_of("mixup").augment(once, context(batch.ids))
    torch.testing.assert_close(twice.targets.sum(dim=1), torch.ones(10))


def network() -> SmallCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallCNN()


def trained(data: ImageData, **values: Any) -> nn.Module:
    recipe = Recipe(**{"epochs": 1, "batch_size": 16, "augment": [], "optimizer": "sgd:lr=0.01", **values})
    model = network()
    numbers = Training(model, data, plan(recipe), device=torch.device("cpu")).run_epoch()
    assert numbers.loss > 0
    return model


@pytest.mark.parametrize(
    ("option", "spec"),
    [
        *(("augment", spec) for spec in CASES),
        *(("regularizer", name) for name in regularizers.names()),
        *(("optimizer", name) for name in optimizers.names()),
        *(("schedule", name) for name in schedules.names()),
    ],
)
def test_a_network_is_trained_and_the_training_can_be_repeated(
    option: str, spec: str, training_digits: ImageData
) -> None:
    data = training_digits.first(64)
    first, again = (
        trained(data, **{option: [spec] if option in ("augment", "regularizer") else spec}) for _ in range(2)
    )
    assert state_hash(first) == state_hash(again)
    assert state_hash(first) != state_hash(network())
    if option in ("augment", "regularizer"):
        assert state_hash(first) != state_hash(trained(data)), f"{spec} changes nothing"


@pytest.mark.parametrize("name", regularizers.names())
def test_a_penalty_can_be_differentiated_and_leaves_the_network(name: str) -> None:
    model, plugin = network(), regularizers.get(name)()
    before = state_hash(model)
    penalty = plugin.penalty(model)
    assert penalty.shape == ()
    assert bool(torch.isfinite(penalty))
    penalty.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(bool(gradient.any()) for gradient in gradients)
    assert state_hash(model) == before
    assert torch.equal(plugin.penalty(model), penalty)


@pytest.mark.parametrize("name", optimizers.names())
def test_an_optimizer_changes_every_parameter_and_lowers_a_quadratic(name: str) -> None:
    parameters = [nn.Parameter(torch.full(shape, 2.0)) for shape in ((3, 2), (4,), ())]
    optimizer = optimizers.get(name)().make(parameters)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in parameters}
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = sum((p.square().sum() for p in parameters), torch.tensor(0.0))
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert all(bool((p != 2).all()) for p in parameters)


@pytest.mark.parametrize("name", schedules.names())
@pytest.mark.parametrize(("epochs", "per_epoch"), [(1, 1), (1, 7), (5, 3), (30, 10)])
def test_a_schedule_is_a_share_of_the_highest_rate(name: str, epochs: int, per_epoch: int) -> None:
    plugin = schedules.get(name)()
    factors = [plugin.factor(step, epochs * per_epoch, per_epoch) for step in range(epochs * per_epoch)]
    assert all(isinstance(factor, float) and 0 <= factor <= 1 for factor in factors)
    if len(factors) > 10:
        assert max(factors) > 0.9
    assert factors == [plugin.factor(step, epochs * per_epoch, per_epoch) for step in range(epochs * per_epoch)]
