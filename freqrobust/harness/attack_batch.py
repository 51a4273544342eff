"""Running one attack on one batch, and checking the images that it returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from freqrobust.core.errors import PluginError
from freqrobust.harness.compiled_model import SLACK
from freqrobust.harness.target_model import TargetModel
from freqrobust.numerics.norms import norms
from freqrobust.numerics.threat import TOLERANCE, allowance, norm_name
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.specs import PluginSpec


@contextmanager
def recorded(spec: str, messages: list[tuple[str, str]]) -> Iterator[None]:
    """Adds the Python warnings of an attack to the warnings of its cell, each once, instead of printing them."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for entry in caught:
        warning = ("attack-warning", f"{spec}: {entry.category.__name__}: {' '.join(str(entry.message).split())}")
        if warning not in messages:
            messages.append(warning)


def run_attack(
    plugin_spec: PluginSpec[Attack],
    attack: Attack,
    target_model: TargetModel,
    images: torch.Tensor,
    labels: torch.Tensor,
    context: AttackContext,
    watch: Callable[[nn.Module], nn.Module] = lambda view: view,
    fp32: bool = False,
) -> torch.Tensor:
    """The attack's images for one batch, checked against what it declares.

    ``watch`` may put a module around the model that the attack is given. With ``fp32`` its passes are neither compiled
    nor in reduced precision.

    Raises:
        PluginError: wrong type, shape or range, not finite, or outside of the budget.
    """
    draws = 1 if attack.averages_draws else context.eot
    with (
        target_model.attacked(context.ids, plugin_spec.spec, draws, fp32) as view,
        torch.set_grad_enabled(attack.needs_gradient),
    ):
        changed = attack.perturb(watch(view), images.clone(), labels.clone(), context)
    name = plugin_spec.spec
    if not isinstance(changed, torch.Tensor):
        raise PluginError(f"{name} should return images, but returned a {type(changed).__name__}")
    changed = changed.detach()
    if changed.shape != images.shape or not changed.is_floating_point():
        raise PluginError(
            f"{name} should return float images {tuple(images.shape)}, but returned {changed.dtype} {tuple(changed.shape)}"
        )
    changed = changed.float()
    if not bool(torch.isfinite(changed).all()):
        raise PluginError(f"{name} returned images with NaN or infinite values")
    if attack.kind == "adversarial":
        low, high = float(changed.min()), float(changed.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise PluginError(f"{name} returned images outside of [0, 1]: [{low:g}, {high:g}]")
        threat = attack.threat()
        if threat is not None:
            farthest = float(norms(changed - images, threat.norm).max())
            if farthest > allowance(threat.eps):
                raise PluginError(
                    f"{name} exceeds its perturbation budget: {norm_name(threat.norm)} {farthest:.6g} > {threat.eps_text}"
                )
    return changed.contiguous()


def gave_up(attack: Attack, changed: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Samples for which an attack without a budget returned the image itself, ``(N,)``.

    What stopped it may be rounding.
    """
    return (changed == images).flatten(1).all(dim=1) & (attack.threat() is None)


def run_in_fp32(
    plugin_spec: PluginSpec[Attack],
    target_model: TargetModel,
    images: torch.Tensor,
    labels: torch.Tensor,
    context: AttackContext,
    rows: torch.Tensor,
) -> torch.Tensor:
    """The attack's images for the samples at the positions ``rows`` of a batch, from passes in fp32.

    Only for attacks whose results do not depend on the batch: of others, it would be another attack.
    """
    context = replace(context.subset(rows), slack=min(context.slack, SLACK["fp32"]))
    return run_attack(plugin_spec, plugin_spec.plugin, target_model, images[rows], labels[rows], context, fp32=True)
