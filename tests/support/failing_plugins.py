"""Plugins that fail on some samples, at some budgets, or when they are made, and one that depends on its batch.

They have a module of their own, as the identity of a plugin covers all that its module imports.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from freqrobust import Attack, Certificate, Certified, Defense


class Breaks(Attack):
    """Moves all pixels; fails on some samples, at some eps."""

    eps: float = 0.1
    norm: str = "linf"
    where: tuple[float, ...] = ()
    among: tuple[int, ...] = ()
    nested: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    def perturb(self, model, images, labels, context):
        if self.eps in self.where and (not self.among or set(context.ids.tolist()) & set(self.among)):
            raise ValueError(f"it does not work at {self.eps}")
        signs = (
            context.initial_signs if context.initial_signs is not None else context.uniform(images.shape[1:], "x") - 0.5
        )
        return (images + self.eps * signs.sign()).clamp(0, 1)


class TogetherMoved(Attack):
    """Moves every image towards the mean of its batch."""

    eps: float = 0.1
    norm: str = "linf"
    batch_invariant: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False

    def perturb(self, model, images, labels, context):
        return images + (images.mean(dim=0, keepdim=True) - images).clamp(-self.eps, self.eps)


class BreaksWhenMade(Defense):
    """Cannot be applied."""

    def apply(self, model, context):
        raise ValueError("no such layer")


class Picky(nn.Module):
    def __init__(self, model: nn.Module, threshold: float) -> None:
        super().__init__()
        self.model, self.threshold = model, threshold

    def forward(self, x):
        if bool((x[:, 0, 0, 0] > self.threshold).any()):
            raise ValueError("too bright")
        return self.model(x)


class BreaksOnSome(Defense):
    """Fails on bright images."""

    threshold: float = 0.9

    def apply(self, model, context):
        return Picky(model, self.threshold)


class HalfCertified(Certificate):
    """Radii that do not depend on eps; fails on some samples."""

    eps: float = 0.1
    norm: str = "l2"
    radius_decides: ClassVar[bool] = True
    guarantee: ClassVar[str] = "statistical"
    fails: bool = False
    calls: ClassVar[list[int]] = []

    def certify(self, model, images, labels, context):
        self.calls.append(len(images))
        if self.fails and 9 in context.ids.tolist():
            raise ValueError("no bound")
        radius = images.flatten(1).mean(dim=1) * context.correct
        return Certified(radius >= self.eps, radius=radius, forwards=len(images))

    def statement(self):
        return "nothing at all is claimed by this test"
