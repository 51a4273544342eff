"""Applying defenses to a model."""

from __future__ import annotations

import copy

from torch import nn

from freqrobust.context import DefenseContext
from freqrobust.errors import FreqRobustError, PluginError
from freqrobust.models import WithSurrogate
from freqrobust.plugin import Defense, InputDefense
from freqrobust.registry import DefenseChain
from freqrobust.user_code import running_user_code


def copy_of(model: nn.Module) -> nn.Module:
    """A copy for a defense to work on, so that one which changes it does no harm; the model itself if need be."""
    try:
        with running_user_code("copying the model failed"):
            return copy.deepcopy(model)
    except FreqRobustError:  # some modules cannot be copied
        return model


def defend(model: nn.Module, chain: DefenseChain, context: DefenseContext) -> tuple[nn.Module, nn.Module]:
    """Apply the defenses of a chain, left first.

    Returns:
        The defended model, and the same as attacks differentiate it (through surrogates where needed).

    Raises:
        PluginError: a defense failed, or did not return a model.
    """
    exact = soft = model
    for part in chain.parts:
        defense = part.plugin
        assert isinstance(defense, Defense)
        if defense.trains and soft is not exact:
            raise PluginError(f"{part.spec} trains, so it has to come before defenses that are not differentiable")
        changed = _apply(defense, part.spec, exact, context)
        if not defense.differentiable and not isinstance(defense, InputDefense):
            with running_user_code(f"{part.spec} failed"):
                soft = defense.surrogate(soft)
        else:
            soft = changed if soft is exact else _apply(defense, part.spec, soft, context)
        exact = changed
    attackable = exact if soft is exact else WithSurrogate(exact, soft)
    return exact.to(context.device), attackable.to(context.device)


def _apply(defense: Defense, spec: str, model: nn.Module, context: DefenseContext) -> nn.Module:
    with running_user_code(f"{spec} failed"):
        made = defense.apply(model, context)
    if not isinstance(made, nn.Module):
        raise PluginError(f"{spec} should return an nn.Module, but returned a {type(made).__name__}")
    return made
