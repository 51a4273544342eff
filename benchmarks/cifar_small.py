"""The small robust network of ``cifar_small_36px.pth``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from freqrobust import load_model
from freqrobust.models.classifier import Classifier

#: Its checkpoint was trained on inputs normalised like this.
NORMALIZE = "0.485,0.456,0.406/0.225,0.225,0.225"


def build() -> nn.Module:
    """Two strided 4x4 convolutions and two linear layers, for 32 x 32 RGB (Wong et al. 2018, "small")."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def load(path: Path) -> Classifier:
    """The published weights, normalisation inside; the file holds two networks, of which this is the first."""
    return load_model(path, arch=f"{Path(__file__)}:build", normalize=NORMALIZE)
