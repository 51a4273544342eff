"""The events of a training for TensorBoard, where it is installed (the extra ``tensorboard``)."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freqrobust.core.errors import JournalError, SpecError
from freqrobust.core.files import reason
from freqrobust.core.text import describe_error, shortened
from freqrobust.results.training_record import EpochRecord

#: What a tag may have besides letters and digits.
_OTHER = re.compile(r"[^-/\w. ]")


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
        make = make or _writer()
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


def _writer() -> Callable[..., Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # an installation that does not fit the others can raise any exception
        raise SpecError(
            f"tensorboard is installed, but cannot be imported ({shortened(describe_error(error), 150)}); "
            f"install another version, or uninstall it to train without its events"
        ) from error
    return SummaryWriter


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
        label = _OTHER.sub("_", result.label)
        values[f"train/{label}"] = result.train.accuracy
        if result.held_out is not None:
            values[f"held-out/{label}"] = result.held_out.accuracy
    return values
