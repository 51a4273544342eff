"""Samples in batches."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from freqrobust.core.errors import PluginError
from freqrobust.core.memory import is_out_of_memory
from freqrobust.core.progress import Progress
from freqrobust.data.dataset import ImageData
from freqrobust.harness.blocks import Block
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.pace import Pace
from freqrobust.harness.target_model import TargetModel


class Batches:
    """The samples, and the size of their batches."""

    def __init__(
        self, data: ImageData, device: torch.device, batch_size: int, adaptive: bool, progress: Progress
    ) -> None:
        self.data = data
        self.device = device
        self._whole = self
        self._batch_size = batch_size
        self.adaptive = adaptive  # halve the batch when out of memory
        self.progress = progress
        self.pace = Pace(progress)

    @property
    def batch_size(self) -> int:
        """Images per batch; when out of memory, it becomes smaller for all parts."""
        return self._whole._batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._whole._batch_size = size

    def part(self, block: Block) -> Batches:
        """The samples of a block, in batches of the same size."""
        if len(block) == len(self.data):
            return self
        part = Batches(self.data.part(block.start, block.stop), self.device, 0, self.adaptive, self.progress)
        part._whole = self._whole
        return part

    def each(
        self,
        positions: torch.Tensor,
        work: Callable[[torch.Tensor], None],
        quiet: bool = False,
        samples: torch.Tensor | None = None,
    ) -> None:
        """Call ``work`` with the positions of each batch; when out of memory, that batch is retried with half the size.

        Images in files are decoded for the next batch while this one is at work.

        Args:
            positions: what ``work`` is called with, in parts.
            work: measures one batch.
            quiet: do not report this as progress.
            samples: the samples that each position needs, by their place in the data; by default the positions themselves,
                and an empty tensor where they are not known.
        """
        samples = positions if samples is None else samples
        done = 0
        while done < len(positions):
            chunk = positions[done : done + self.batch_size]
            if not quiet:
                self.pace.begin(len(chunk))
            if len(samples):
                self.data.prefetch(samples[done : done + 2 * self.batch_size], 2 * self.batch_size)
            try:
                work(chunk)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if not self.adaptive or self.batch_size == 1:
                    raise PluginError(
                        f"out of memory with batch size {self.batch_size}; give a smaller --batch-size, or auto"
                    ) from error
                self.batch_size //= 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self.progress.say(f"out of memory; retrying with batch size {self.batch_size}")
                continue
            done += len(chunk)
            if not quiet:
                self.pace.end()
                self.progress.advance(len(chunk))


class Timer:
    """Seconds and passes spent on a cell, and the batch size that they took."""

    def __init__(self, target_model: TargetModel, batches: Batches) -> None:
        self.target_model = target_model
        self.batches = batches
        target_model.view.reset()
        target_model.forwards = target_model.non_finite = 0
        self.start = time.perf_counter()

    def close(self, outcome: Outcome) -> Outcome:
        """Record them in the outcome's numbers."""
        numbers, view = outcome.numbers, self.target_model.view
        numbers.seconds = round(time.perf_counter() - self.start, 4)
        numbers.forwards = self.target_model.forwards + view.forwards
        numbers.backwards = view.backwards
        numbers.batch_size = self.batches.batch_size
        counts = outcome.counts
        counts.first_gradients, counts.zero_gradients = view.first_gradients, view.zero_gradients
        counts.non_finite = self.target_model.non_finite + view.non_finite
        return outcome
