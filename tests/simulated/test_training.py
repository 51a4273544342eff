"""Every registered part of a training gives on an accelerator the weights that it gives on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from freqrobust import ImageData
from freqrobust.core.training_config import Recipe
from freqrobust.models.architectures import SmallCNN
from freqrobust.plugins.registry import augmentations, methods, optimizers, regularizers, schedules
from freqrobust.training.loop import Training
from freqrobust.training.plan import plan

CHEAP = {"steps": 2, "replays": 2}
#: Further configurations, beside the defaults.
VARIANTS = {"mixup": [{"draw": "sample"}], "apr": [{"p": 1}], "augmix": [{"jsd": True}]}


def train(data: ImageData, where: torch.device, **parts: Any) -> tuple[list[torch.Tensor], Any]:
    """The weights after an epoch on that device, and loss and accuracy."""
    torch.manual_seed(0)
    given = {"epochs": 1, "batch_size": 16, "augment": ["flip-crop"], "ema": 0.9, **parts}
    training = Training(SmallCNN().to(where), data, plan(Recipe(**given)), device=where)
    numbers = training.run_epoch()
    return [value.cpu() for value in training.evaluated.state_dict().values()], (numbers.loss, numbers.accuracy)


def cheap(registry: Any, name: str, **given: Any) -> Any:
    cls = registry.get(name)
    params = {key: value for key, value in CHEAP.items() if key in cls.model_fields}
    for key, field in cls.model_fields.items():
        if field.is_required():
            params[key] = field.examples[0]
    return cls.build(name, {**params, **given})


@pytest.mark.parametrize(
    ("field", "registry", "name", "given"),
    [
        pytest.param(field, registry, name, given, id="-".join([field, name, *map(str, given.values())]))
        for field, registry in {
            "method": methods,
            "augment": augmentations,
            "regularizer": regularizers,
            "optimizer": optimizers,
            "schedule": schedules,
        }.items()
        for name in registry.names()
        for given in [{}, *VARIANTS.get(name, [])]
    ],
)
def test_the_same_weights(training_digits, device, field, registry, name, given) -> None:
    plugin = cheap(registry, name, **given)
    parts = {field: [plugin] if field in ("augment", "regularizer") else plugin}
    (here, first), (there, second) = (
        train(training_digits.first(40), where, **parts) for where in (torch.device("cpu"), device)
    )
    assert second == first
    for found, expected in zip(there, here, strict=True):
        assert torch.equal(found, expected)
