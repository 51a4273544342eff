"""Small networks, and images that they have right."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust import ImageData
from freqrobust.data.loading import as_data


class Tiny(nn.Module):
    """One convolution with batch norm and dropout, 3 x 8 x 8 to ``classes``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(6 * 64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * self.linear(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))


def tiny(classes: int = 10, n: int = 8) -> tuple[nn.Module, ImageData]:
    """A network and images that it has right."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, images = Tiny(classes).eval(), torch.rand(n, 3, 8, 8)
    with torch.no_grad():
        return model, as_data((images, model(images).argmax(dim=1)))


def untrained(seed: int, classes: int = 4, channels: int = 1, width: int = 4) -> nn.Module:
    """One convolution without batch norm, for images of 8 x 8 pixels."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, classes))
