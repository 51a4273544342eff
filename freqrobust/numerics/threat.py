"""Threats: the norm and the budget of an adversarial attack."""

from __future__ import annotations

from typing import Literal, NamedTuple

from freqrobust.core.numbers import pixel_text

Norm = Literal["linf", "l2", "l1"]
#: The norms that gradient steps are defined for.
StepNorm = Literal["linf", "l2", "l1"]
#: How far a returned example may lie outside of its declared budget, relative to budgets above 1.
TOLERANCE = 1e-6


def allowance(eps: float) -> float:
    """The largest measured norm that still counts as inside of the budget ``eps``."""
    return eps + TOLERANCE * max(1.0, eps)


class Threat(NamedTuple):
    """The budget of an adversarial attack: all perturbations with ``norm(delta) <= eps``."""

    norm: Norm
    eps: float

    def __str__(self) -> str:
        """``Linf 8/255``."""
        return f"{norm_name(self.norm)} {self.eps_text}"

    @property
    def text(self) -> str:
        """``Linf 8/255``, for sentences."""
        return f"{self.norm.capitalize()} {self.eps_text}"

    @property
    def eps_text(self) -> str:
        """The eps as :func:`pixel_text` writes it."""
        return pixel_text(self.eps)


def norm_name(norm: str) -> str:
    """The name of a norm as people read it: ``Linf``, ``L2``, ``L1``. Specs and JSON have it in lower case."""
    return norm.capitalize()


def check_eps(norm: str, eps: float) -> None:
    """Refuse a Linf budget above 1: pixels are in [0, 1], so it was meant in 255ths."""
    if norm == "linf" and eps > 1:
        raise ValueError(f"parameter 'eps' is {eps:g}, but pixels are in [0, 1]; did you mean {eps:g}/255?")
