"""Changing the trained kernels of a copy of a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn

from freqrobust.core.errors import PluginError
from freqrobust.numerics import noise


def map_kernels(
    model: nn.Module, change: Callable[[torch.Tensor], torch.Tensor], layers: Literal["first", "all"], name: str
) -> nn.Module:
    """A copy of ``model`` with ``change`` applied to its convolution kernels ``(out, in, kh, kw)``.

    1x1 kernels are left alone, and a kernel that several layers share is changed once.

    Args:
        model: left as it is.
        change: from a kernel to one of the same shape.
        layers: the first convolution larger than 1x1, or all of them.
        name: of the defense, for errors.

    Raises:
        PluginError: no such convolution, or kernels that are computed at each use (weight norm, pruning).
    """
    found = {id(m.weight): m for m in reversed(list(model.modules())) if _has_kernel(m)}
    if not found:
        raise PluginError(f"{name}: the model has no convolution with a kernel larger than 1x1")
    if any("weight" not in layer._parameters for layer in found.values()):
        raise PluginError(f"{name}: kernels are computed at each use (weight norm, pruning); make them permanent first")
    changed = copy.deepcopy(model)
    names = {id(m): n for n, m in model.named_modules()}
    chosen = list(reversed(found.values()))
    with torch.no_grad():
        for layer in chosen[:1] if layers == "first" else chosen:
            weight = changed.get_parameter(f"{names[id(layer)]}.weight".lstrip("."))
            weight.copy_(change(weight))
    return changed


def _has_kernel(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1


def recalibrate_batch_norm(
    model: nn.Module, batches: Callable[[int], Iterable[torch.Tensor]], progress: Callable[[int], None]
) -> None:
    """Measure the running statistics of every batch norm again, in place.

    Each batch norm normalises by its batch while its inputs are pooled over all images: mean and unbiased
    variance over images and positions, as training would estimate them.

    Args:
        model: changed in place, in eval mode afterwards.
        batches: from a largest size to batches of images.
        progress: told how many images are done.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_var is not None]
    pools: dict[nn.Module, _Pool] = {norm: _Pool() for norm in norms}

    def collect(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        pools[module].add(_wide(inputs[0].detach()).transpose(0, 1).flatten(1))

    model.eval()
    handles = [norm.register_forward_pre_hook(collect) for norm in norms]
    try:
        for norm in norms:
            norm.train()
        with torch.no_grad():
            for images in batches(250):
                with noise.sample_scope(torch.arange(len(images), device=images.device), stream="recalibration"):
                    model(images)
                progress(len(images))
    finally:
        for handle in handles:
            handle.remove()
        model.eval()
    for norm in norms:
        if pools[norm].count == 0:
            continue  # it took no part
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = pools[norm].moments()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.float() if values.device.type == "mps" else values.double()


class _Pool:
    """Mean and variance of values ``(C, n)`` that come in pieces, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: torch.Tensor | None = None
        self.squares: torch.Tensor | None = None

    def add(self, values: torch.Tensor) -> None:
        total, squares = values.sum(dim=1), values.square().sum(dim=1)
        self.count += values.shape[1]
        self.total = total if self.total is None else self.total + total
        self.squares = squares if self.squares is None else self.squares + squares

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and unbiased variance, each ``(C,)``."""
        assert self.total is not None
        assert self.squares is not None
        mean = self.total / self.count
        variance = (self.squares / self.count - mean.square()).clamp_min(0)
        return mean, variance * (self.count / max(self.count - 1, 1))
