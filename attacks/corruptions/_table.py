"""The table of corruptions, filled from the modules of this package without importing them.

The corruptions of Hendrycks and Dietterich: "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, appendix B, and the scripts that made the published files, repository
``hendrycks/robustness``, folder ``ImageNet-C/create_c``: ``make_cifar_c.py`` (constants ``cifar``, 32 pixels) and
``make_imagenet_c.py`` (constants ``imagenet``, 224 pixels). Other corruptions name their source in their module.

Lengths are in pixels and do not grow with the image, as in the scripts; only those of ``elastic_transform`` are shares
of its shorter side, as ``make_cifar_c.py`` writes them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import freqrobust.attacks.corruptions as package
from freqrobust.plugins.corruption_names import COMMON, EXTRA

if TYPE_CHECKING:
    import torch

Constants = tuple[float, ...]


@dataclass(frozen=True)
class Definition:
    """One corruption.

    Attributes:
        apply: from images ``(N, C, H, W)`` in [0, 1], the constants of a severity and a
            :class:`freqrobust.attacks.corruptions._draws.Draws` to the corrupted images, not yet clipped.
        meaning: what the constants of a severity are, in order.
        cifar: the constants of severities 1 to 5 for images of 32 pixels.
        imagenet: the constants of severities 1 to 5 for images of 224 pixels.
        channels: numbers of channels that it is defined for; empty stands for any number.
        why: the reason for ``channels``.
        least_side: from the constants to the smallest side of an image in pixels, and the reason.
        textured: whether ``apply`` takes ``textures``, a source of pictures of frost.
    """

    apply: Callable[..., torch.Tensor]
    meaning: str
    cifar: tuple[Constants, ...]
    imagenet: tuple[Constants, ...]
    channels: tuple[int, ...] = ()
    why: str = ""
    least_side: Callable[[Any], tuple[int, str]] = lambda constants: (1, "")
    textured: bool = False

    def constants(self, name: str, severity: int) -> Constants:
        """The constants ``cifar`` or ``imagenet`` of a severity of 1 to 5."""
        return (self.cifar if name == "cifar" else self.imagenet)[severity - 1]


@cache
def names() -> tuple[str, ...]:
    """All corruptions: the 15 common ones, the 4 extra ones, then the others by name."""
    modules = {info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")}
    return (*COMMON, *EXTRA, *sorted(modules.difference(COMMON, EXTRA)))


def module_of(name: str) -> str:
    """The module that defines a corruption."""
    return f"{package.__name__}.{name}"


def definition(name: str) -> Definition:
    """The corruption of that name."""
    found: Definition = importlib.import_module(module_of(name)).CORRUPTION
    return found
