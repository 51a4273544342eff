"""The networks of the experiments, at each scale."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.core.text import near_miss
from freqrobust.models.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from freqrobust.experiments.bench import Bench

#: The architecture of each scale.
NAMES = {"digits": "small_cnn", "cpu": "resnet8", "paper": "cifar_resnet18"}


def architecture(bench: Bench, arch: str = "auto") -> str:
    """The name of an architecture; ``auto`` is that of the scale.

    Raises:
        SpecError: there is none of that name.
    """
    if arch != "auto" and arch not in ARCHITECTURES:
        known = ["auto", *ARCHITECTURES]
        raise SpecError(f"unknown architecture {arch!r}{near_miss(arch, known)} ({', '.join(known)})")
    return NAMES[bench.scale] if arch == "auto" else arch


def classifier(bench: Bench, *, norm: bool = True, dropout: float = 0.0, arch: str = "auto") -> Callable[[], nn.Module]:
    """A builder of the network of this scale, for the images and classes of the training data.

    Args:
        bench: the scale and the data.
        norm: with batch norm; without it, convolutions have a bias instead.
        dropout: share of the features before the last layer that are set to zero in training.
        arch: a name from ``freqrobust list archs``; ``auto`` depends on the scale.
    """
    classes, channels = bench.train.classes, bench.train.shape[0]
    make = ARCHITECTURES[architecture(bench, arch)].build
    without = "norm" in inspect.signature(make).parameters and not norm

    def build() -> nn.Module:
        network = make(num_classes=classes, in_channels=channels, **({"norm": False} if without else {}))
        if not norm:
            remove_batch_norm(network)
        if dropout > 0:
            linear = network.linear
            assert isinstance(linear, nn.Module)
            network.linear = nn.Sequential(nn.Dropout(dropout), linear)
        return network

    return build


def remove_batch_norm(network: nn.Module) -> None:
    """Replace each batch norm by a bias for every channel, which is zero at first."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, ChannelBias(child.num_features))


class ChannelBias(nn.Module):
    """Adds a learned number to every channel of ``(N, C, H, W)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bias[:, None, None]
