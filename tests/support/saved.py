"""The demo's network, a second one, digits, and examples saved for both defended and undefended models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from freqrobust import ImageData, load_data
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.models.architectures import SmallCNN

PGD = "pgd:eps=0.1,steps=5"


@pytest.fixture(scope="session")
def model(demo: nn.Module) -> nn.Module:
    return demo


@pytest.fixture(scope="session")
def other() -> nn.Module:
    """Untrained, for the same images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SmallCNN(num_classes=10, in_channels=1).eval()


@pytest.fixture(scope="session")
def digits() -> ImageData:
    return load_data("digits", limit=60)


@pytest.fixture(scope="session")
def folder(model: nn.Module, digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples by PGD for the model alone and behind a low-pass filter."""
    directory = tmp_path_factory.mktemp("saved")
    saving = save_adversarial(
        model, digits, attacks=[PGD, "lfc:radius=2"], defenses=["lowpass:radius=3"], directory=directory, device="cpu"
    )
    assert not saving.failed
    assert len(saving.paths) == 2
    return directory


@pytest.fixture
def undefended(folder: Path) -> Path:
    (path,) = folder.glob("undefended__*.npz")
    return path


@pytest.fixture
def command(command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return command
