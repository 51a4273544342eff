"""What the harness hands to plugins beside the model and the images."""

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

if TYPE_CHECKING:
    from freqrobust.plugins.dataset import ImageDataset

Goal = Literal["decide", "maximize"]


@dataclass(frozen=True)
class AttackContext:
    """Who the samples are, what is wanted of the attack, and its only source of randomness.

    Attributes:
        ids: dataset indices of the samples, int64 ``(N,)``.
        seed: the seed of the run.
        goal: ``"decide"`` (a sample may be left at its first misclassification) or ``"maximize"``.
        tally: samples broken, by part of the attack; shown in the report for attacks that count here.
        eot: draws of a random model over which gradients are to be averaged; 1 unless it is random.
        hint: where the same attack at a smaller Linf budget left these samples, as signs ``(N, C, H, W)``; a
            good place to start from. None outside of a sweep.
        slack: by how much of the largest logit a sample has to be misclassified before it may be left: the model
            that judges computes a little differently.
        prepared: what the attack's ``prepare`` returned for the samples that are tried.
        notes: what the attack wants to say about itself in the report; a line each.
    """

    ids: torch.Tensor
    seed: int = 0
    goal: Goal = "decide"
    tally: dict[str, int] = field(default_factory=dict)
    eot: int = 1
    hint: torch.Tensor | None = None
    slack: float = 0.0
    prepared: Any = None
    notes: list[str] = field(default_factory=list)

    def count(self, part: str, broken: int) -> None:
        """Say that a part of the attack broke so many samples."""
        self.tally[part] = self.tally.get(part, 0) + broken

    def note(self, line: str) -> None:
        """Add a line to the report, beside the attack's numbers; the same line of several batches is added once."""
        if line not in self.notes:  # every batch may say it
            self.notes.append(line)

    def uniform(self, shape: Sequence[int], stream: str) -> torch.Tensor:
        """Uniform noise in [0, 1), ``(N, *shape)``, the same for a sample in every batch."""
        return noise.uniform(self.ids, shape, seed=self.seed, stream=stream)

    def normal(self, shape: Sequence[int], stream: str) -> torch.Tensor:
        """Standard normal noise, ``(N, *shape)``, the same for a sample in every batch."""
        return noise.normal(self.ids, shape, seed=self.seed, stream=stream)

    def batch(self, ids: torch.Tensor, hint: torch.Tensor | None = None) -> AttackContext:
        """The context of one batch, from that of all samples; counts and notes are shared."""
        return replace(self, ids=ids, hint=hint)

    def subset(self, keep: torch.Tensor) -> AttackContext:
        """The context of some of the samples (index or boolean tensor)."""
        hint = self.hint[keep] if self.hint is not None else None
        return replace(self, ids=self.ids[keep], hint=hint)


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
                one row an image. It may be called again for the same images when memory runs out.
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
