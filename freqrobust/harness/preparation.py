"""Attacks that look at all samples before they perturb any: for perturbations that many samples share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from freqrobust.harness.passes import passes
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext

if TYPE_CHECKING:
    from freqrobust.harness.batches import Batches
    from freqrobust.harness.target_model import TargetModel

Work = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class AttackedSamples:
    """The samples that an attack is run on, for its ``prepare``.

    Args:
        batches: all samples, in batches.
        target_model: the model; passes are counted, and stochastic modules draw seeded noise.
        positions: which samples, int64 ``(n,)``.
        stream: names the use of the noise.
    """

    def __init__(self, batches: Batches, target_model: TargetModel, positions: torch.Tensor, stream: str) -> None:
        self._batches, self._target_model, self._positions, self._stream = batches, target_model, positions, stream
        self.ids = batches.data.ids[positions]
        self.shape = batches.data.shape

    def gather(self, rows: torch.Tensor, work: Work) -> torch.Tensor:
        """See :meth:`freqrobust.plugins.context.Samples.gather`."""
        results: list[torch.Tensor] = []

        def batch(which: torch.Tensor) -> None:
            images, labels, ids = self._batches.data.batch(self._positions[rows[which]], self._batches.device)
            with self._target_model.attacked(ids, self._stream) as view:
                results.append(work(view, images, labels, which.to(images.device)))

        # in a single batch, as for the partners of a batch of images, what was announced before stays announced
        ahead = self._positions[rows] if len(rows) > self._batches.batch_size else self._positions[:0]
        self._batches.each(torch.arange(len(rows)), batch, quiet=True, samples=ahead)
        return torch.cat(results) if results else torch.empty(0)


def prepared(
    attack: Attack,
    spec: str,
    target_model: TargetModel,
    batches: Batches,
    positions: torch.Tensor,
    context: AttackContext,
) -> AttackContext:
    """The context of all samples at these positions, with what the attack's ``prepare`` returned.

    The contexts of the batches are made from it by :meth:`AttackContext.batch`.
    """
    context = replace(context, criterion=target_model.criterion, ids=batches.data.ids[positions].to(batches.device))
    batches.pace.expected = passes(attack, context.goal == "maximize").work
    target_model.view.passed = batches.pace.passed
    if type(attack).prepare is Attack.prepare or len(positions) == 0:
        return context
    samples = AttackedSamples(batches, target_model, positions, f"{spec} prepares")
    batches.pace.begin(len(positions))
    with torch.set_grad_enabled(attack.needs_gradient):
        context = replace(context, prepared=attack.prepare(samples, context))
    batches.pace.end()
    return context
