"""Applying defenses to a model."""

from __future__ import annotations

import copy

from torch import nn

from freqrobust.core.errors import FreqRobustError, PluginError
from freqrobust.core.user_code import running_user_code
from freqrobust.models.fingerprint import same_state, separate, state_hash
from freqrobust.plugins.base import Defense, InputDefense
from freqrobust.plugins.bpda import WithSurrogate
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.specs import DefenseChain


def copy_of(model: nn.Module) -> nn.Module:
    """A copy for a defense to work on, so that one which changes it does no harm; the model itself if need be."""
    try:
        with running_user_code("copying the model failed"):
            return copy.deepcopy(model)
    except FreqRobustError:  # some modules cannot be copied
        return model


def defend_copy(network: nn.Module, chain: DefenseChain, context: DefenseContext) -> tuple[nn.Module, nn.Module]:
    """What :func:`defend` returns for a copy of the network, which a defense must not change either.

    The copy is compared with the network afterwards, which takes less time than hashing both. Where the two share
    memory, the hashes from before and after are compared.

    Raises:
        PluginError: a defense failed, did not return a model, or changed the parameters or buffers it was given.
    """
    if not chain.parts:
        return defend(network, chain, context)
    given = copy_of(network)
    before = None if separate(given, network) else state_hash(given)
    defended = defend(given, chain, context)
    same = same_state(given, network) if before is None else state_hash(given) == before
    if not same:
        raise PluginError(f"{chain.spec} changed the model it was given; a defense has to copy it first")
    return defended


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
