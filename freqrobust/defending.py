"""Applying defenses to a model."""

from __future__ import annotations

import copy

from torch import nn

from freqrobust.context import DefenseContext
from freqrobust.errors import FreqRobustError, PluginError
from freqrobust.models import with_gradients
from freqrobust.plugin import Defense
from freqrobust.registry import DefenseChain


def copy_of(model: nn.Module) -> nn.Module:
    """A copy for a defense to work on, so that one which changes it does no harm; the model itself if need be."""
    try:
        return copy.deepcopy(model)
    except Exception:  # some modules cannot be copied
        return model


def defend(model: nn.Module, chain: DefenseChain, context: DefenseContext) -> tuple[nn.Module, nn.Module]:
    """Apply the defenses of a chain, left first.

    Returns:
        The defended model, and the same as attacks differentiate it (through surrogates where needed).

    Raises:
        PluginError: a defense failed, or did not return a model.
    """
    exact = attackable = model
    for part in chain.parts:
        defense = part.plugin
        assert isinstance(defense, Defense)
        same = exact is attackable
        before, exact = attackable, _apply(defense, part.spec, exact, context)
        attackable = exact if same else _apply(defense, part.spec, before, context)
        attackable = with_gradients(defense, attackable, before)
    return exact.to(context.device), attackable.to(context.device)


def _apply(defense: Defense, spec: str, model: nn.Module, context: DefenseContext) -> nn.Module:
    try:
        made = defense.apply(model, context)
    except FreqRobustError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise PluginError(f"{spec} failed: {type(error).__name__}: {reason}") from error
    if not isinstance(made, nn.Module):
        raise PluginError(f"{spec} should return an nn.Module, but returned a {type(made).__name__}")
    return made
