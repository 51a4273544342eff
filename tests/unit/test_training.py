"""The training loop and the defense that uses it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from freqrobust import DefenseContext, Schedule, TrainingMethod, evaluate, load_data
from freqrobust.augmentations.flip_crop import flip_and_crop
from freqrobust.core.errors import PluginError, TrainingError
from freqrobust.core.progress import Silent
from freqrobust.data.dataset import ImageData
from freqrobust.experiments.probes import Probe, measure_probes
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.fingerprint import state_hash
from freqrobust.numerics import noise
from freqrobust.plugins.registry import defenses
from freqrobust.training.loop import Training, batches, fit
from freqrobust.training.plan import sgd_plan

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train():
    return load_data("digits", split="train", limit=320)


def untrained() -> SmallCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallCNN()


@pytest.mark.parametrize("size", [(8, 8), (9, 16)])
def test_flip_and_crop_equals_the_loop(size) -> None:
    images = torch.rand(12, 3, *size)
    ids = torch.arange(12) + 100
    found = flip_and_crop(images, noise.uniform(ids, (3,), seed=1, stream="s"), None, True).numpy()
    pad = max(1, min(size) // 8)
    draws = noise.uniform(ids, (3,), seed=1, stream="s").numpy()
    for i in range(12):
        padded = np.pad(images[i].numpy(), ((0, 0), (pad, pad), (pad, pad)))
        top, left = int(draws[i, 0] * (2 * pad + 1)), int(draws[i, 1] * (2 * pad + 1))
        expected = padded[:, top : top + size[0], left : left + size[1]]
        expected = expected if draws[i, 2] < 0.5 else expected[:, :, ::-1]
        np.testing.assert_array_equal(found[i], expected)


def test_training_learns_and_can_be_repeated(train) -> None:
    hashes, losses = [], []

    class Watch(Silent):
        def end(self, summary: str) -> None:
            losses.append(float(summary.split("loss ")[1].split(",")[0]))

    for global_seed in (0, 1):
        model = untrained()
        torch.manual_seed(global_seed)
        fit(model, train, sgd_plan(3, 0.05, batch_size=64, augment="flip-crop"), device=CPU, progress=Watch())
        hashes.append(state_hash(model))
    assert hashes[0] == hashes[1]
    assert losses[:3] == losses[3:]
    assert losses[2] < losses[0] - 0.5
    other = untrained()
    fit(other, train, sgd_plan(3, 0.05, batch_size=64, augment="flip-crop"), device=CPU, seed=1)
    assert state_hash(other) != hashes[0]
    assert not other.training
    assert not any(p.requires_grad or p.grad is not None for p in other.parameters())


def test_a_loss_that_is_not_finite_is_an_error(train) -> None:
    with pytest.raises(TrainingError, match=r"loss is not finite in step \d+ \(epoch 1\); lower the learning rate"):
        fit(untrained(), train, sgd_plan(1, 1e20, batch_size=16, schedule="one-cycle:warmup=0.01"), device=CPU)


class Steep(Schedule):
    """A learning rate that is infinite in the last step of the training only, whose loss is finite."""

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        return float("inf") if step == steps - 1 else 0.1


def test_weights_that_are_not_finite_do_not_become_a_checkpoint(train, tmp_path) -> None:
    with pytest.raises(TrainingError, match=r"the weights are not finite after step 10 \(epoch 2\)"):
        fit(untrained(), train, sgd_plan(2, 0.05, batch_size=64, schedule=Steep()), device=CPU)


class Mean(TrainingMethod):
    """Returns the mean of the losses instead of each of them."""

    def losses(self, model, batch, context):
        logits = model(batch.images)
        return torch.nn.functional.cross_entropy(logits, batch.labels), logits


def test_a_method_that_returns_the_mean_is_refused(train) -> None:
    with pytest.raises(
        PluginError, match=r"Mean should return the loss of each sample, of the shape \(64,\), but returned"
    ):
        fit(untrained(), train, sgd_plan(1, 0.05, batch_size=64, method=Mean()), device=CPU)


@pytest.mark.parametrize(("samples", "size", "expected"), [
    (7, 3, [3, 4]), (8, 3, [3, 3, 2]), (6, 3, [3, 3]), (3, 5, [3]), (1, 5, [1]), (3, 1, [1, 1, 1]), (5, 2, [2, 3]),
])  # fmt: skip
def test_a_batch_has_more_than_one_sample_where_there_are_more(samples, size, expected) -> None:
    order = torch.randperm(samples)
    parts = batches(order, size)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), order)


def test_batch_norm_of_single_values_and_one_sample_left_over(train) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10))
    data = train.first(65)
    training = Training(model, data, sgd_plan(2, 0.05, batch_size=32), device=CPU)
    training.run_epoch()
    assert (training.step, training.steps) == (2, 4)


@pytest.mark.parametrize("frozen", [[], ["0"], ["0", "3"]])
def test_frozen_parameters_stay_unless_all_are_frozen(train, frozen) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10))
    for layer in frozen:
        model[int(layer)].requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    plan = sgd_plan(1, 0.05, batch_size=64, method="madry:eps=0.1,steps=1", weight_decay=0.1)
    fit(model, train, plan, device=CPU)
    changed = {name[0] for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == ({"3"} if frozen == ["0"] else {"0", "3"})


@pytest.mark.parametrize(("side", "width", "inside"), [(8, 4, 1), (8, 100_000, 2), (24, 4, 2)])
def test_small_networks_use_one_thread(side, width, inside) -> None:
    """Also where probes are measured; the number of threads is afterwards the one from before."""
    data = ImageData(torch.rand(4, 1, side, side), torch.arange(4) % 2, 2)
    model = torch.nn.Sequential(
        torch.nn.AvgPool2d(side // 2), torch.nn.Flatten(), torch.nn.Linear(4, width), torch.nn.Linear(width, 8)
    )
    used: list[int] = []
    model.register_forward_hook(lambda *given: used.append(torch.get_num_threads()))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit(model, data, sgd_plan(1, 0.001, batch_size=4), device=CPU)
        measure_probes(model, [Probe("clean", None)], 1, 1, data, None, device=CPU)
        assert (used, torch.get_num_threads()) == ([inside] * len(used), 2)
        assert len(used) >= 2
        used.clear()
        with pytest.raises(TrainingError):
            fit(model, data, sgd_plan(9, 1e20, batch_size=4, schedule="constant"), device=CPU)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_adversarial_training_is_cached_by_content_and_helps(train, tmp_path) -> None:
    model = untrained()
    fit(model, load_data("digits", split="train"), sgd_plan(3, 0.1, batch_size=64), device=CPU)
    context = DefenseContext(train_data=load_data("digits", split="train"), cache_dir=tmp_path)
    spec = "madry:eps=0.15,epochs=4,steps=3,augment=none,train_batch=64"
    defense = defenses.parse(spec)[0].plugin
    before = state_hash(model)
    first = defense.apply(model, context)
    assert state_hash(model) == before
    (cached,) = (tmp_path / "models").iterdir()
    written = cached.stat().st_mtime_ns
    assert state_hash(defense.apply(model, context)) == state_hash(first)
    assert cached.stat().st_mtime_ns == written
    for other in ("madry:eps=0.1,epochs=1,steps=1", "madry:eps=0.15,epochs=1,steps=1"):
        defenses.parse(other)[0].plugin.apply(copy.deepcopy(model), context)
    assert len(list((tmp_path / "models").iterdir())) == 3
    report = evaluate(
        model,
        load_data("digits", limit=200),
        attacks=["pgd:eps=0.15,steps=10"],
        defenses=[spec],
        train_data=context.train_data,
        cache_dir=tmp_path,
        device="cpu",
    )
    assert report.cell("madry/pgd").difference.ci95[0] > 0.1
