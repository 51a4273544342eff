"""Networks with initial weights, by the name of their architecture."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust.core.errors import ModelError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.core.user_code import running_user_code
from freqrobust.models.architectures import ARCHITECTURES
from freqrobust.models.checkpoints import torchvision_architecture
from freqrobust.models.source_table import build_from_code

#: Images of fewer pixels than this on a side are for the smaller of the default architectures.
SMALL = 24


def default_architecture(shape: tuple[int, int, int]) -> str:
    """The architecture that ``auto`` stands for, for images ``(C, H, W)``."""
    return "small_cnn" if min(shape[1:]) < SMALL else "resnet20"


def untrained(arch: str, classes: int, channels: int, seed: int = 0) -> nn.Module:
    """A network with initial weights that depend on the seed.

    Args:
        arch: a name from ``freqrobust list archs``, ``torchvision:NAME``, ``file.py:factory`` or ``module:factory``.
        classes: number of classes.
        channels: of the images.
        seed: of the weights.

    Raises:
        SpecError: there is no such architecture.
        ModelError: it cannot be built for these numbers.
    """
    with torch.random.fork_rng(devices=[]), running_user_code(f"{arch} cannot be built", ModelError):
        torch.manual_seed(seed)
        if arch in ARCHITECTURES:
            return ARCHITECTURES[arch].build(num_classes=classes, in_channels=channels)
        if arch.startswith("torchvision:"):
            return torchvision_architecture(arch.removeprefix("torchvision:")).build(num_classes=classes)
        if ":" in arch:
            return build_from_code(arch, "architecture")
    raise SpecError(
        f"unknown architecture {arch!r}{near_miss(arch, ARCHITECTURES)} "
        f"({', '.join(ARCHITECTURES)}, torchvision:NAME, file.py:factory or module:factory)"
    )
