"""The events of a training for TensorBoard, where it is installed (the extra ``tensorboard``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freqrobust.core.errors import JournalError
from freqrobust.core.files import reason
from freqrobust.results.events import legal_tag, summary_writer
from freqrobust.results.training_record import EpochRecord


def can_write() -> bool:
    """Whether TensorBoard is installed."""
    return importlib.util.find_spec("tensorboard") is not None


class Events:
    """Writes scalars of every epoch with torch's own writer; the step is the number of the epoch.

    Args:
        folder: of the files of events.
        finished: number of epochs that the log already has. What a killed process wrote of later ones is hidden, so that
            no epoch is there twice.
        make: makes the writer, from a folder and ``purge_step``; by default torch's ``SummaryWriter``.

    Raises:
        SpecError: TensorBoard is installed, but cannot be imported.
        JournalError: the folder cannot be written.
    """

    def __init__(self, folder: Path, finished: int = 0, make: Callable[..., Any] | None = None) -> None:
        make = make or summary_writer()
        self._folder = folder
        try:
            self._writer = make(log_dir=str(folder), purge_step=finished + 1)
        except OSError as error:
            raise JournalError(f"cannot write {folder}: {reason(error)}") from error

    def add(self, record: EpochRecord) -> None:
        """Write the scalars of an epoch, which are on disk afterwards.

        Raises:
            JournalError: they cannot be written.
        """
        try:
            for tag, value in scalars(record).items():
                self._writer.add_scalar(tag, value, record.epoch)
            self._writer.flush()
        except OSError as error:
            raise JournalError(f"cannot write {self._folder}: {reason(error)}") from error

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def scalars(record: EpochRecord) -> dict[str, float]:
    """The values of an epoch by tag: ``training/loss``, ``held-out/pgd``, ``train/clean``, ...

    Probes have their short names.
    """
    values = {
        "training/loss": record.loss,
        "training/accuracy": record.accuracy,
        "training/learning rate": record.learning_rate,
        "seconds/epoch": record.seconds,
        "seconds/probes": record.probe_seconds,
    }
    for result in record.probes:
        label = legal_tag(result.label)
        values[f"train/{label}"] = result.train.accuracy
        if result.held_out is not None:
            values[f"held-out/{label}"] = result.held_out.accuracy
    return values
