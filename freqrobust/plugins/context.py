"""What the harness passes to plugins beside the model and the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import nn

from freqrobust.core.errors import SpecError
from freqrobust.core.progress import Progress, Silent
from freqrobust.numerics import noise
from freqrobust.plugins.criterion import Criterion, Misclassification

if TYPE_CHECKING:
    from freqrobust.plugins.dataset import ImageDataset

Goal = Literal["decide", "maximize"]


@dataclass(frozen=True)
class AttackContext:
    """The ids of the samples, the goal of the attack, and its only source of randomness.

    Attributes:
        ids: dataset indices of the samples, int64 ``(N,)``.
        seed: the seed of the run.
        goal: ``"decide"`` (the attack may stop on a sample once it is adversarial) or ``"maximize"``.
        criterion: what counts as adversarial, in one place for attacks and harness.
        tally: adversarial samples by part of the attack; shown in the report for attacks that count here.
        eot: draws of a random model over which gradients are to be averaged; 1 unless it is random.
        initial_signs: signs ``(N, C, H, W)`` of the perturbations that the same attack found at a smaller Linf budget,
            from which it can be initialised. None outside of a sweep.
        slack: the share of the largest logit that the criterion's margin has to exceed before an attack may stop:
            predictions are made with slightly different arithmetic.
        prepared: what the attack's ``prepare`` returned for the samples that are attacked.
        notes: remarks of the attack for the report; a line each.
    """

    ids: torch.Tensor
    seed: int = 0
    goal: Goal = "decide"
    criterion: Criterion = field(default_factory=Misclassification)
    tally: dict[str, int] = field(default_factory=dict)
    eot: int = 1
    initial_signs: torch.Tensor | None = None
    slack: float = 0.0
    prepared: Any = None
    notes: list[str] = field(default_factory=list)

    def is_adversarial(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Samples that are adversarial by more than ``slack``, so that the attack may stop on them, ``(N,)``."""
        clearly = self.criterion.margin(logits, labels) > self.slack * logits.abs().amax(dim=1)
        return self.criterion.is_adversarial(logits, labels) & clearly

    def count(self, part: str, samples: int) -> None:
        """Add to the number of samples that a part of the attack made adversarial."""
        self.tally[part] = self.tally.get(part, 0) + samples

    def note(self, line: str) -> None:
        """Add a line to the report, beside the attack's numbers; the same line of several batches is added once."""
        if line not in self.notes:
            self.notes.append(line)

    def uniform(self, shape: Sequence[int], stream: str) -> torch.Tensor:
        """Uniform noise in [0, 1), ``(N, *shape)``, the same for a sample in every batch."""
        return noise.uniform(self.ids, shape, seed=self.seed, stream=stream)

    def normal(self, shape: Sequence[int], stream: str) -> torch.Tensor:
        """Standard normal noise, ``(N, *shape)``, the same for a sample in every batch."""
        return noise.normal(self.ids, shape, seed=self.seed, stream=stream)

    def batch(self, ids: torch.Tensor, initial_signs: torch.Tensor | None = None) -> AttackContext:
        """The context of one batch, from that of all samples; counts and notes are shared."""
        return replace(self, ids=ids, initial_signs=initial_signs)

    def subset(self, keep: torch.Tensor) -> AttackContext:
        """The context of some of the samples (index or boolean tensor)."""
        return self.batch(self.ids[keep], self.initial_signs[keep] if self.initial_signs is not None else None)


class Samples(Protocol):
    """The samples that an attack is about to be run on, for its ``prepare``.

    Attributes:
        ids: dataset indices, int64 ``(n,)``.
        shape: of one image, ``(C, H, W)``.
    """

    ids: torch.Tensor
    shape: tuple[int, int, int]

    def gather(
        self, rows: torch.Tensor, work: Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Call ``work(model, images, labels, which)`` for batches of some samples, and join what it returns.

        Args:
            rows: positions in ``ids``, int64 ``(k,)``; a sample may be there several times.
            work: gets the model, the images and labels of a batch, and which entries of ``rows`` they are; returns
                one row an image. It may be called again for the same images after an out-of-memory error.
        """


@dataclass(frozen=True)
class DefenseContext:
    """What a defense may use while it is applied."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    batch_size: int = 125
    train_data: ImageDataset | None = None
    cache_dir: Path | None = None
    progress: Progress = field(default_factory=Silent)

    def require_train_data(self, why: str) -> ImageDataset:
        """The training data.

        Raises:
            SpecError: there is none.
        """
        if self.train_data is None:
            raise SpecError(f"{why} needs training data: give --train-data (in Python: train_data=...)")
        return self.train_data
