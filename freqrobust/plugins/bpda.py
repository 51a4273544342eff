"""Gradients of models and transforms that are not differentiable (BPDA)."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from freqrobust.core.errors import PluginError


class _Replace(torch.autograd.Function):
    """The value of one tensor with the gradient of another (BPDA, Athalye et al. 2018)."""

    @staticmethod
    def forward(ctx: Any, stand_in: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


def replace_gradient(exact: torch.Tensor, stand_in: torch.Tensor) -> torch.Tensor:
    """``exact`` going forward, the gradient of ``stand_in`` (same shape) going backward."""
    replaced: torch.Tensor = _Replace.apply(stand_in, exact.detach())
    return replaced


class Transform(Protocol):
    """What an input defense is to the model behind it."""

    @property
    def differentiable(self) -> bool: ...

    def transform(self, images: torch.Tensor) -> torch.Tensor: ...

    def surrogate(self, model: Any) -> Any: ...


class TransformedInput(nn.Module):
    """An input defense in front of a model."""

    def __init__(self, defense: Transform, model: nn.Module) -> None:
        super().__init__()
        self.defense = defense
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.defense.differentiable:
            changed = self._checked(self.defense.transform(x), x)
        else:
            with torch.no_grad():
                changed = self._checked(self.defense.transform(x.detach()), x)
            if torch.is_grad_enabled() and x.requires_grad:
                changed = replace_gradient(changed, self.defense.surrogate(x))
        logits: torch.Tensor = self.model(changed)
        return logits

    def _checked(self, changed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(changed, torch.Tensor) or changed.shape[:1] != x.shape[:1] or changed.dim() != 4:
            got = tuple(changed.shape) if isinstance(changed, torch.Tensor) else type(changed).__name__
            raise PluginError(
                f"{type(self.defense).__name__}.transform should return images shaped like {tuple(x.shape)}, but got {got}"
            )
        return changed


class WithSurrogate(nn.Module):
    """A model that is not differentiable, with the gradients of its surrogate."""

    def __init__(self, exact: nn.Module, surrogate: nn.Module) -> None:
        super().__init__()
        self.exact = exact
        self.surrogate = surrogate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            exact: torch.Tensor = self.exact(x.detach())
        if torch.is_grad_enabled() and x.requires_grad:
            return replace_gradient(exact, self.surrogate(x))
        return exact
