"""What each block of a sweep over eps begins from: the same attack at smaller eps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run_plan import eps_of
from freqrobust.plugins.base import Attack
from freqrobust.plugins.specs import PluginSpec


@dataclass
class Smaller:
    """The smaller eps of a sweep on one block. An eps that failed there is left out; on other blocks it is not.

    Attributes:
        eps: those that were measured, in ascending order; None outside of a sweep.
        outcome: of the largest of them; None before the first one.
    """

    eps: list[float] | None = None
    outcome: Outcome | None = None

    def add(self, plugin_spec: PluginSpec[Attack], outcome: Outcome) -> None:
        """The attack was measured on the block, so that the next larger eps begins from it."""
        if self.eps is None:
            return
        self.forget_signs()
        self.outcome, self.eps = outcome, [*self.eps, eps_of(plugin_spec)]

    def forget_signs(self) -> None:
        """Release the signs of the perturbations, which are for the next larger eps alone."""
        if self.outcome is not None:
            self.outcome.signs = None


def beginning(group: Sequence[int]) -> Smaller:
    """What is known of a block before the first eps of a group of attacks, by their indices.

    The last eps is measured as all others, so that a cell does not depend on what follows it.
    """
    return Smaller([] if len(group) > 1 else None)
