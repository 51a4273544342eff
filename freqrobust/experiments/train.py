"""``train``: train a network while measuring what it has learnt, resume by itself, and record what was done."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from freqrobust.core.errors import JournalError, TrainingError
from freqrobust.core.files import write_atomically
from freqrobust.core.options import takes
from freqrobust.core.progress import Progress, Silent, as_progress
from freqrobust.core.training_config import Recipe, TrainConfig
from freqrobust.core.user_code import running_user_code
from freqrobust.core.version import __version__
from freqrobust.experiments.epoch_lines import epoch_line, live_parts
from freqrobust.experiments.overfitting import catastrophic_overfitting, overfitting_notes
from freqrobust.experiments.probes import how_best, is_best, measure_probes
from freqrobust.experiments.tensorboard import Events, can_write
from freqrobust.experiments.training_curves import draw
from freqrobust.experiments.training_files import TrainingFiles, files_of
from freqrobust.experiments.training_setup import Setup, prepare_setup
from freqrobust.harness.devices import resolve_device
from freqrobust.harness.inputs import left_out
from freqrobust.harness.provenance import data_record, environment_record, now
from freqrobust.models.classifier import Classifier
from freqrobust.results.figures import can_draw, file_of, styled
from freqrobust.results.training_record import EpochRecord, TrainingRecord, best_epoch
from freqrobust.training.loop import EpochNumbers, Training
from freqrobust.training.workers import Workers, joined

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from freqrobust.core.option_types import TrainOptions


@dataclass(frozen=True)
class TrainingRun:
    """A finished training.

    Attributes:
        model: the network of the best epoch, with its normalisation: images in [0, 1] to logits, in eval mode.
        record: what was trained, and what each epoch showed.
        out: the directory with ``best.pt``, ``last.pt``, ``log.jsonl``, ``training.json`` and ``curves.png``.
        resumed: number of epochs that were finished before; all of them where the whole training was.
    """

    model: Classifier
    record: TrainingRecord
    out: Path
    resumed: int = 0

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch, for ``freqrobust eval --model``."""
        return self.out / "best.pt"


@takes(TrainConfig)
def train(
    model: nn.Module | None = None,
    config: TrainConfig | None = None,
    *,
    progress: Progress | bool | None = None,
    **options: Unpack[TrainOptions],
) -> TrainingRun:
    """Train a network, or finish its training. Prints nothing; writes the checkpoints, the log and the record.

    The same call continues a training that was interrupted, from the last finished epoch and with the same result, and
    returns a finished one at once. Probes are measured on a part of the training images and on images that are held out
    from them; these choose the best checkpoint. Labels are randomised on the images that are trained on, pixels on
    all; ``train_shift`` changes the images that are trained on, and not those on which probes are measured.

    Example:
        >>> from freqrobust import train
        >>> run = train(data="digits", epochs=2, out="runs/digits")  # doctest: +SKIP
        >>> run.record.best_epoch  # doctest: +SKIP
        2

    Args:
        model: the network to train: images in [0, 1] to logits, or a classifier of :func:`freqrobust.load_model`. It is
            copied. None makes a network of the architecture ``arch``.
        config: the options; ``options`` replace some of them.
        progress: as in :func:`freqrobust.evaluate`.
        options: fields of :class:`freqrobust.TrainConfig`, which documents them.

    Raises:
        FreqRobustError: an option, the data or the directory is wrong; one line that says what would work.
        TrainingError: the loss is not finite; the last checkpoint is kept.
    """
    config = TrainConfig.of(config, options)
    with ExitStack() as stack:
        shown = stack.enter_context(as_progress(progress))
        job = stack.enter_context(opened(model, config))
        return job.run(shown)


@contextmanager
def opened(model: nn.Module | None, config: TrainConfig) -> Iterator[TrainingJob]:
    """A training that is ready to run, with the other processes where there are several.

    Raises:
        FreqRobustError: an option, the data or the directory is wrong.
    """
    with joined(resolve_device(config.device)) as (workers, device), ExitStack() as stack:
        setup = prepare_setup(model, config, device)
        content = {**setup.identity, "processes": workers.size}
        job = TrainingJob(setup, files_of(config.out, content), workers)
        job.config = _recorded(config) if model is None else {}
        workers.alone(lambda: stack.enter_context(job.files.claimed()))
        job.finished = job.files.finished()
        yield job


def _recorded(config: TrainConfig) -> dict[str, Any]:
    """The options from which ``freqrobust rerun`` trains again; none where the data was an object in Python."""
    if config.data is not None and not isinstance(config.data, str | os.PathLike):
        return {}
    names = [name for name in TrainConfig.model_fields if name not in Recipe.model_fields]
    recorded = config.record()
    return {name: recorded[name] for name in names if name in recorded}


@dataclass
class TrainingJob:
    """A training in its directory.

    Attributes:
        setup: what is trained.
        files: where it is written.
        workers: the processes that train together.
        finished: the record, where the training was finished before.
        epochs: the epochs that are finished, also before an interruption.
        config: the options, as JSON.
    """

    setup: Setup
    files: TrainingFiles
    workers: Workers
    finished: TrainingRecord | None = None
    epochs: list[EpochRecord] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    def run(self, progress: Progress | None = None) -> TrainingRun:
        """Train all epochs that are not finished.

        Raises:
            TrainingError: the loss is not finite.
            JournalError: a file cannot be written, or a checkpoint is damaged.
        """
        progress = progress if progress is not None and self.workers.writes else Silent()
        setup = self.setup
        if self.finished is not None:
            self.epochs = self.finished.epochs
            return TrainingRun(self.files.load_best(setup.model), self.finished, self.files.folder, len(self.epochs))
        training = Training(
            setup.model,
            setup.train,
            setup.plan,
            device=setup.device,
            seed=setup.seed,
            workers=self.workers,
            label="training",
        )
        self.files.resume(training)
        resumed = training.epoch
        self._rewind(resumed)
        if resumed:
            progress.say(f"resumed from {self.files.folder}: {resumed} of {setup.plan.epochs} epochs are finished")
        board = Events(self.files.folder / "tensorboard", resumed) if self.workers.writes and can_write() else None
        try:
            while training.epoch < setup.plan.epochs:
                training.remarks = live_parts(self.epochs)
                numbers = self._trained_epoch(training, progress)
                if self.workers.writes:
                    self._keep(training, numbers, progress, board)
        finally:
            if board is not None:
                board.close()
        training.finish()
        self.workers.alone(self._finish)
        record = self.files.finished()  # the same in all processes
        assert record is not None
        return TrainingRun(self.files.load_best(setup.model), record, self.files.folder, resumed)

    def _rewind(self, epoch: int) -> None:
        """Take the finished epochs from the log; what it has of later ones is removed."""
        self.workers.alone(lambda: self.files.log.rewind(epoch))
        self.epochs = self.files.log.records()
        if [record.epoch for record in self.epochs] != list(range(1, epoch + 1)):
            raise JournalError(
                f"{self.files.log.path} should have epochs 1 to {epoch}, but has {len(self.epochs)} records; "
                f"{self.files.remedy}"
            )

    def _trained_epoch(self, training: Training, progress: Progress) -> EpochNumbers:
        failed = f"the training failed in epoch {training.epoch + 1}"
        try:
            with running_user_code(failed):  # networks and methods of users
                return training.run_epoch(progress)
        except TrainingError as error:
            kept = (
                f"{self.files.last} is the checkpoint of epoch {training.epoch}"
                if training.epoch
                else "no epoch was finished, so that there is no checkpoint"
            )
            raise TrainingError(f"{error}; {kept}") from error

    def _keep(self, training: Training, numbers: EpochNumbers, progress: Progress, board: Events | None) -> None:
        """Measure the probes after an epoch, and write what a later command needs to continue.

        The log and the events come first and ``last.pt`` last: what a process that is killed in between has written
        belongs to an epoch that is repeated with the same result.
        """
        setup, files = self.setup, self.files
        start = time.perf_counter()
        probes = measure_probes(
            training.evaluated,
            setup.probes,
            numbers.epoch,
            setup.plan.epochs,
            setup.probed,
            setup.held_out,
            device=setup.device,
            seed=setup.seed,
            progress=progress,
        )
        record = EpochRecord(
            **numbers._asdict(),
            probe_seconds=time.perf_counter() - start,
            probes=probes,
            best=is_best(probes, self.epochs, setup.best),
        )
        try:
            files.log.append(record)
            if board is not None:
                board.add(record)
            if record.best:
                network = training.evaluated
                assert isinstance(network, Classifier)
                files.keep_best(network, self._about(record))
            files.keep(training)
        except JournalError as error:
            raise JournalError(f"{error}; the same command resumes after epoch {len(self.epochs)}") from error
        self.epochs.append(record)
        progress.end(epoch_line(record, setup.plan.epochs))
        overfitting = catastrophic_overfitting(self.epochs, setup.plan.method.plugin)
        if overfitting is not None:
            best = best_epoch(self.epochs)
            kept = f"best.pt is of epoch {best}" if best is not None else f"{setup.best.name} has chosen no best.pt yet"
            progress.say(f"warning: {overfitting}; {kept}")

    def _about(self, record: EpochRecord) -> dict[str, Any]:
        """What the checkpoint of an epoch says about its training."""
        setup = self.setup
        return {
            "freqrobust_version": __version__,
            "recipe": setup.written,
            "recipe_sha256": setup.recipe_sha256,
            "data": {"spec": setup.data.spec, "n": len(setup.data), "sha256": setup.data.sha256},
            "seed": setup.seed,
            "epoch": record.epoch,
            "epochs": setup.plan.epochs,
            "chosen_by": setup.best.name if setup.held_out is not None else None,
        }

    def _record(self) -> TrainingRecord:
        setup = self.setup
        measured = len(setup.held_out) if setup.held_out is not None else 0
        unread = [left_out(setup.data)] if setup.data.unreadable else []
        return TrainingRecord(
            freqrobust_version=__version__,
            created=now(),
            config=self.config,
            recipe=setup.written,
            recipe_sha256=setup.recipe_sha256,
            seed=setup.seed,
            arch=setup.model.arch,
            parameters=sum(parameter.numel() for parameter in setup.model.network.parameters()),
            train_data=data_record(setup.train),
            held_out_data=data_record(setup.all_held_out) if setup.all_held_out is not None else None,
            environment=environment_record(setup.device, setup.plan.precision),
            processes=self.workers.size,
            epochs=self.epochs,
            best_probe=setup.best.name,
            best_epoch=best_epoch(self.epochs),
            seconds=round(sum(epoch.seconds + epoch.probe_seconds for epoch in self.epochs), 1),
            notes=[how_best(setup.best, measured), *overfitting_notes(self.epochs, setup.plan.method.plugin), *unread],
        )

    def _finish(self) -> None:
        """Write the picture, then the record, which says that the training is finished."""
        if can_draw():
            with styled():
                picture = file_of(draw(self.epochs), "png")
            write_atomically(self.files.curves, picture)
        self._record().to_json(self.files.record)
