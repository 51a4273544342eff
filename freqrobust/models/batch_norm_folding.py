"""Folding batch norm into convolutions, for the copy of a model that attacks differentiate.

In eval mode batch norm is a fixed affine map; folded into the convolution before it, it costs nothing.
Predictions are never taken from the folded copy: the harness makes them with the model itself.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.user_code import running_user_code

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _adjacent(model: nn.Module, probe: torch.Tensor) -> tuple[list[tuple[str, str]], tuple[torch.Tensor, torch.Tensor]]:
    """Names of (convolution, batch norm) pairs where the output of the one is the input of the other, each used once.

    Also returns the logits and gradients of the pass in which the pairs were recorded.
    """
    names = {module: name for name, module in model.named_modules()}
    producer: dict[int, tuple[nn.Module, torch.Tensor]] = {}
    calls: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def made(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        producer[id(output)] = (module, output)  # a reference to the tensor keeps its id unique

    def takes(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        source = producer.get(id(inputs[0]))
        if source is not None:
            pairs.append((source[0], module))

    handles = []
    for module in names:
        if type(module) in _CONVOLUTIONS:
            handles.append(module.register_forward_hook(made))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            handles.append(module.register_forward_pre_hook(takes))
    try:
        seen = _logits_and_gradient(model, probe)
    finally:
        for handle in handles:
            handle.remove()
    return [(names[conv], names[norm]) for conv, norm in pairs if calls[conv] == calls[norm] == 1], seen


def _agree(a: torch.Tensor, b: torch.Tensor) -> bool:
    scale = float(a.abs().max()) + 1e-12
    return bool(torch.isfinite(b).all()) and float((a - b).abs().max()) <= 1e-3 * scale


def _logits_and_gradient(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = model(images)
        best = logits.max(dim=1).values.sum()
        if not best.requires_grad:
            return logits.detach(), torch.zeros_like(images)
        gradient = torch.autograd.grad(best, images, allow_unused=True)[0]
    return logits.detach(), gradient if gradient is not None else torch.zeros_like(images)


def fold_batch_norm(model: nn.Module, probe: torch.Tensor) -> nn.Module:
    """A copy of ``model`` (eval mode, frozen) with folded batch norms, or ``model`` itself where that is not possible.

    The copy is returned only if its logits and input gradients on ``probe (N, C, H, W)`` equal those of the model.
    """
    try:
        with running_user_code("the model fails"):
            return _folded(model, probe)
    except FreqRobustError:  # a model that cannot be copied or probed is attacked as it is
        return model


def _folded(model: nn.Module, probe: torch.Tensor) -> nn.Module:
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return model
    pairs, expected = _adjacent(model, probe)
    if not pairs:
        return model
    folded = copy.deepcopy(model)
    modules = dict(folded.named_modules())
    for conv_name, norm_name in pairs:
        conv, norm = modules[conv_name], modules[norm_name]
        hooked = hasattr(conv, "parametrizations") or norm._forward_hooks or conv._forward_hooks
        if conv.training or norm.training or hooked:
            return model
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        _set(folded, norm_name, nn.Identity())
    for parameter in folded.parameters():
        parameter.requires_grad_(False)
    actual = _logits_and_gradient(folded, probe)
    return folded if all(_agree(a, b) for a, b in zip(expected, actual, strict=True)) else model


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
