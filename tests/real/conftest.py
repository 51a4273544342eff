"""Real images and real checkpoints: everything here is skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from freqrobust import ImageData, load_data, load_model

FACTORY = """
from torch import nn


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )
"""


@pytest.fixture(scope="session")
def cifar(shared: Path) -> ImageData:
    """The first 500 test images of CIFAR-10."""
    return load_data(str(shared / "data" / "cifar10" / "test_500.npz"))


@pytest.fixture(scope="session")
def models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, nn.Module]:
    """The two networks that reference counts are known of."""
    work = tmp_path_factory.mktemp("arch")
    factory = work / "small.py"
    factory.write_text(FACTORY)
    folder = shared / "checkpoints"
    return {
        "resnet20": load_model(folder / "resnet20-12fca82f.th"),
        "cifar_small_36px": load_model(
            folder / "cifar_small_36px.pth",  # of its two networks the first
            arch=f"{factory}:small",
            normalize="0.485,0.456,0.406/0.225,0.225,0.225",
        ),
    }
