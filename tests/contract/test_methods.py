"""What is asked of every registered training method, those of other packages included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from freqrobust import load_data
from freqrobust.data.dataset import ImageData
from freqrobust.models.architectures import SmallCNN
from freqrobust.models.fingerprint import state_hash
from freqrobust.plugins.registry import attacks, methods
from freqrobust.plugins.training import Batch, StepContext
from freqrobust.training.loop import Training
from freqrobust.training.plan import sgd_plan

CPU = torch.device("cpu")
NAMES = methods.names()
#: Fewer steps than the defaults.
CHEAP = {"steps": 2, "replays": 2}


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load_data("digits", split="train", limit=40)


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallCNN()


def cheap(name: str) -> Any:
    cls = methods.get(name)
    return cls.build(name, {key: value for key, value in CHEAP.items() if key in cls.model_fields})


def batch_and_context(data: ImageData, memory: dict[str, Any], n: int = 12) -> tuple[Batch, StepContext]:
    images, labels, ids = data.batch(torch.arange(n), CPU)
    return Batch(images, labels, ids, labels), StepContext(ids, seed=1, epoch=0, classes=10, memory=memory)


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_every_sample_and_gradients_in_every_parameter(name, model, data) -> None:
    method, memory = cheap(name), dict[str, Any]()
    model.train()
    for n in (12, 12, 7):  # the last batch of an epoch may be smaller
        batch, context = batch_and_context(data, memory, n)
        before = [tensor.clone() for tensor in (batch.images, batch.labels, batch.ids, batch.targets)]
        model.zero_grad(set_to_none=True)
        losses, logits = method.losses(model, batch, context)
        assert losses.shape == (n,)
        assert logits.shape == (n, 10)
        assert torch.isfinite(losses).all()
        assert torch.isfinite(logits).all()
        assert all(module.training for module in model.modules())
        losses.mean().backward()
        method.after_backward(batch, context)
        for key, parameter in model.named_parameters():
            assert parameter.requires_grad, key
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key
        for now, then in zip((batch.images, batch.labels, batch.ids, batch.targets), before, strict=True):
            assert torch.equal(now, then)
        assert batch.images.grad is None
        assert not batch.images.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_parameters_change_in_the_step_of_the_optimizer_only(name, model, data) -> None:
    before = state_hash(nn.ParameterList(model.parameters()))
    batch, context = batch_and_context(data, {})
    method = cheap(name)
    losses, _ = method.losses(model.train(), batch, context)
    losses.mean().backward()
    method.after_backward(batch, context)
    assert state_hash(nn.ParameterList(model.parameters())) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_training_is_continued_at_the_end_of_an_epoch_with_the_same_result(name, model, data) -> None:
    """Also where the method carries something from batch to batch, whatever torch's own generator did meanwhile."""
    plan = sgd_plan(2, 0.05, batch_size=16, method=cheap(name))
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    uninterrupted = Training(model, data, plan, device=CPU, seed=4)
    uninterrupted.run_epoch()
    uninterrupted.run_epoch()
    expected = state_hash(model)

    model.load_state_dict(initial)
    first = Training(model, data, plan, device=CPU, seed=4)
    first.run_epoch()
    torch.manual_seed(99)
    resumed = SmallCNN()
    second = Training(resumed, data, plan, device=CPU, seed=4)
    second.load(first.state())
    second.run_epoch()
    assert state_hash(resumed) == expected


@pytest.mark.parametrize("name", NAMES)
def test_an_adversarial_method_trains_on_images_within_its_budget(name, data) -> None:
    """Of every image that the network gets while it is in train mode."""
    method = cheap(name)
    eps = getattr(method, "eps", None)
    if eps is None or getattr(method, "norm", "linf") != "linf":
        pytest.skip("no Linf budget")
    model, memory, farthest = SmallCNN().train(), dict[str, Any](), []
    for _ in range(3):
        batch, context = batch_and_context(data, memory)

        def look(module: nn.Module, inputs: tuple[torch.Tensor, ...], batch: Batch = batch) -> None:
            images = inputs[0].detach()
            farthest.append(float((images - batch.images).abs().max()))
            assert 0 <= float(images.min()) <= float(images.max()) <= 1

        hook = model.register_forward_pre_hook(look)
        losses, _ = method.losses(model, batch, context)
        losses.mean().backward()
        method.after_backward(batch, context)
        hook.remove()
    assert eps / 2 < max(farthest) <= eps + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_its_probes_are_attacks_with_a_budget(name) -> None:
    for spec in cheap(name).probes():
        assert all(plugin_spec.plugin.threat() is not None for plugin_spec in attacks.parse(spec))
