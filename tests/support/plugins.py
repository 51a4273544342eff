"""A small trained network with batch norm, the digits it knows, and plugins with parameters that a test can afford."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from freqrobust import ImageData, load_data
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.models.architectures import SmallCNN
from freqrobust.plugins.plugin import Plugin
from freqrobust.plugins.registry import Registry
from freqrobust.testing.rules import Setting
from freqrobust.training.loop import fit
from freqrobust.training.plan import sgd_plan

#: What would take too long otherwise.
CHEAP = {"epochs": 1, "train_batch": 64, "queries": 20, "copies": 3, "directions": 2}
#: Ensembles at budgets at which the first of their parts is enough, and attacks with fewer steps.
QUICK = {
    "autoattack": {"eps": 0.4},
    "aa": {"eps": 0.4},
    "apgd": {"steps": 10, "targets": 1},
    "ddn": {"steps": 20},
    "deepfool": {"steps": 10},
    "fmn": {"steps": 40},
}


def affordable(replayed: Path, registry: Registry, name: str, /, **given: Any) -> Plugin:
    """The plugin of that name, with its required parameters at the example that the field shows.

    ``replayed`` is a folder of saved adversarial examples, for the attack that replays them.
    """
    cls = registry.get(name)
    params: dict[str, Any] = {key: value for key, value in CHEAP.items() if key in cls.model_fields}
    params |= QUICK.get(name, {})
    for key, field in cls.model_fields.items():
        if field.is_required():
            assert field.examples, f"{name}: the required parameter {key!r} shows no example"
            params[key] = str(replayed) if name == "replay" else field.examples[0]
    return cls.build(name, {**params, **given})


@pytest.fixture(scope="session")
def digits() -> ImageData:
    """64 test images, 8 x 8 with one channel."""
    return load_data("digits", limit=64)


@pytest.fixture(scope="session")
def training_digits() -> ImageData:
    return load_data("digits", split="train", limit=128)


@pytest.fixture(scope="session")
def trained(trained_once: Callable[..., None]) -> nn.Module:
    """Not to be changed: use ``network``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallCNN()

    def train() -> None:
        fit(model, load_data("digits", split="train"), sgd_plan(4, 0.1, batch_size=64), device=torch.device("cpu"))

    trained_once("small-cnn", model, train)
    return model


@pytest.fixture
def network(trained: nn.Module) -> nn.Module:
    """The trained network, in eval mode with parameters frozen, as the harness hands it to plugins."""
    return trained.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def replayed(trained: nn.Module, digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved adversarial examples of all the digits that the tests use."""
    folder = tmp_path_factory.mktemp("saved")
    save_adversarial(trained, digits, attacks=["fgsm:eps=0.05"], directory=folder)
    return folder


@pytest.fixture(scope="session")
def make(replayed: Path) -> Callable[..., Any]:
    """``make(registry, name, **given)``: the plugin with its required parameters at the example its field shows."""

    return partial(affordable, replayed)


@pytest.fixture
def setting(network: nn.Module, digits: ImageData, training_digits: ImageData) -> Setting:
    """What plugins are checked on: a trained network, with which numbers of passes have to be exact."""
    return Setting(network, digits, training_digits)
