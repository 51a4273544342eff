"""Ascents one after the other: initialisations, target classes, losses. All gradient attacks that repeat are made of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from freqrobust.attacks.gradient.ascent import (
    Ascent,
    ascend_to_maximum,
    ascend_until_adversarial,
    better,
    expected_loss,
)
from freqrobust.numerics.losses import LossFunction
from freqrobust.plugins.context import AttackContext

#: The initial points of a run, from the images, their context and the number of the run.
Start = Callable[[torch.Tensor, AttackContext, int], torch.Tensor]
#: The target classes ``(N, k)``, from the model, images, labels and context; a run is made for each column.
Targets = Callable[[nn.Module, torch.Tensor, torch.Tensor, AttackContext], torch.Tensor]


@dataclass(frozen=True)
class Stage:
    """Runs with one loss and number of steps: ``restarts`` for every target class, or so many without a target."""

    ascent: Ascent
    start: Start
    restarts: int = 1
    targets: Targets | None = None


def run_until_adversarial(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext, stages: Sequence[Stage]
) -> torch.Tensor:
    """The examples of the runs of all stages; a sample is left out of those that follow its first success.

    The examples of the very last run are not predicted: that is for the caller.
    """
    result, number = images.clone(), 0
    active = torch.arange(len(images), device=images.device)
    for stage in stages:
        targets = None
        if stage.targets is not None:
            targets = stage.targets(model, images[active], labels[active], context.subset(active))
        columns = targets.shape[1] if targets is not None else 1
        for run in range(stage.restarts * columns):
            own, active_labels = context.subset(active), labels[active]
            examples, adversarial = ascend_until_adversarial(
                model,
                stage.start(images[active], own, number),
                images[active],
                active_labels,
                targets[:, run % columns] if targets is not None else None,
                stage.ascent,
                own,
            )
            result[active] = examples
            if stage is stages[-1] and run + 1 == stage.restarts * columns:
                return result
            unknown = ~adversarial  # the examples of the last step have not been predicted
            if unknown.any():
                with torch.no_grad():
                    adversarial[unknown] = own.is_adversarial(model(examples[unknown]), active_labels[unknown])
            active, number = active[~adversarial], number + 1
            if len(active) == 0:
                return result
            targets = targets[~adversarial] if targets is not None else None
    return result


def run_to_maximum(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    context: AttackContext,
    stages: Sequence[Stage],
    common: LossFunction,
) -> torch.Tensor:
    """The highest-loss example of all runs, for every sample; runs with different losses are compared by ``common``."""
    best = best_loss = None
    number, several = 0, len(stages) > 1
    for stage in stages:
        targets = stage.targets(model, images, labels, context) if stage.targets is not None else None
        columns = targets.shape[1] if targets is not None else 1
        for run in range(stage.restarts * columns):
            target = targets[:, run % columns] if targets is not None else None
            start = stage.start(images, context, number)
            examples, values = ascend_to_maximum(model, start, images, labels, target, stage.ascent)
            if several or columns > 1:
                values = expected_loss(model, examples, labels, None, common, stage.ascent.eot)
            best, best_loss = better(best, best_loss, examples, values)
            number += 1
    return best if best is not None else images.clone()
