"""The records of a training: what each epoch showed, and the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from freqrobust.numerics.statistics import wilson
from freqrobust.results.analysis_record import Document
from freqrobust.results.records import SCHEMA_VERSION, DataRecord, EnvironmentRecord, Interval, _Part


class Share(_Part):
    """An accuracy on some samples."""

    correct: int = Field(ge=0)
    n: int = Field(ge=1)
    accuracy: float
    ci95: Interval = Field(description="Wilson score interval")

    @classmethod
    def of(cls, correct: int, n: int) -> Share:
        """The accuracy of ``correct`` among ``n`` samples, with its interval."""
        return cls(correct=correct, n=n, accuracy=correct / n, ci95=wilson(correct, n))


class ProbeResult(_Part):
    """What one probe showed after an epoch, on a part of the training data and on the held-out data."""

    name: str = Field(description="'clean', or the spec of the attack or shift in normal form")
    label: str = Field(description="a short name, unique among the probes of the training")
    kind: Literal["clean", "shift", "adversarial"]
    train: Share
    held_out: Share | None = Field(None, description="null where no samples are held out")
    chance: float = Field(description="accuracy of guessing among all classes with equal probability")

    @property
    def shown(self) -> Share:
        """The accuracy on the held-out data, or else on the training data."""
        return self.held_out or self.train


class EpochRecord(_Part):
    """One epoch of a training."""

    epoch: int = Field(ge=1, description="number of finished epochs")
    loss: float = Field(description="mean loss of the training batches, without penalties")
    accuracy: float = Field(description="on the training batches, as they were augmented or attacked")
    learning_rate: float = Field(description="of the last step")
    seconds: float = Field(description="of the epoch, without the probes")
    probe_seconds: float = Field(0.0, description="of the probes")
    probes: list[ProbeResult] = Field([], description="those that were due after this epoch")
    best: bool = Field(False, description="whether the network is the best of the epochs so far")


class TrainingRecord(Document):
    """A whole training."""

    schema_version: Literal[2] = SCHEMA_VERSION
    freqrobust_version: str = ""
    created: str = ""
    config: dict[str, Any] = Field({}, description="the options of the training; empty for a network made in Python")
    recipe: dict[str, Any] = Field({}, description="how the network was trained; the keys are those of a recipe file")
    recipe_sha256: str = ""
    seed: int = 0
    arch: str = Field("", description="the architecture, where the recipe says auto")
    parameters: int = 0
    train_data: DataRecord
    held_out_data: DataRecord | None = Field(None, description="null where no samples are held out")
    environment: EnvironmentRecord
    processes: int = 1
    epochs: list[EpochRecord] = []
    best_probe: str = Field("clean", description="name of the probe that chooses the best checkpoint")
    best_epoch: int | None = Field(None, description="null before the first checkpoint was chosen")
    seconds: float = Field(0.0, description="of all epochs and probes, also those before an interruption")
    notes: list[str] = Field([], description="remarks, such as how the best checkpoint was chosen")


def best_epoch(records: Sequence[EpochRecord]) -> int | None:
    """The last epoch that was better than all before; None where none was."""
    return next((record.epoch for record in reversed(records) if record.best), None)
