"""The directory of a training: which run it contains, its checkpoints, its log and its record.

Every file is written atomically, so that a process that is killed at any moment leaves a directory from which the same
command continues.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from freqrobust.core.errors import FreqRobustError, JournalError, ModelError
from freqrobust.core.files import check_writable, exclusive, identity, reason, user_path, write_atomically
from freqrobust.experiments.log import Log
from freqrobust.experiments.training_setup import differences
from freqrobust.models.checkpoints import read
from freqrobust.models.classifier import Classifier
from freqrobust.models.files import save_model
from freqrobust.results.training_record import TrainingRecord
from freqrobust.training.loop import Training

#: Where runs are kept that are not given a directory.
RUNS = Path("runs")


@dataclass(frozen=True)
class TrainingFiles:
    """The files of a training.

    Attributes:
        folder: the directory.
        identity: what makes it this run and no other.
    """

    folder: Path
    identity: Mapping[str, Any]

    @property
    def run(self) -> Path:
        """The identity of the run."""
        return self.folder / "run.json"

    @property
    def last(self) -> Path:
        """Everything that is needed to continue after the last finished epoch."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.folder / "best.pt"

    @property
    def record(self) -> Path:
        """The record of the finished training."""
        return self.folder / "training.json"

    @property
    def curves(self) -> Path:
        """The picture of the finished training."""
        return self.folder / "curves.png"

    @property
    def log(self) -> Log:
        """One line for each epoch."""
        return Log(self.folder / "log.jsonl")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make it the directory of this run, and inside the block of this process.

        Raises:
            JournalError: another process trains in it; it contains another run, or files of a run that cannot be identified;
                it cannot be written.
        """
        check_writable(self.run, "--out")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"cannot write {self.run}: {reason(error)}") from error
        with exclusive(self.folder) as free:
            if not free:
                raise JournalError(
                    f"another process trains in {self.folder}; wait until it has ended, or give another --out"
                )
            self._claim()
            yield

    def _claim(self) -> None:
        known = self._known()
        present = [path.name for path in (self.record, self.last, self.best) if path.exists()]
        if present and known is None:
            raise JournalError(
                f"{self.folder} contains {present[0]}, but no {self.run.name} that names its run; give another --out"
            )
        if known is not None and "recipe_sha256" not in known:
            raise JournalError(f"{self.run} is not that of a training; give another --out")
        differing = differences(known, self.identity) if present and known is not None else []
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise JournalError(
                f"{self.folder} contains another run: {'; '.join(differing[:3])}{more}; give another --out"
            )
        for left in self.folder.glob(".freqrobust-*"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        if known != self.identity:
            write_atomically(self.run, json.dumps(self.identity, indent=1, default=str) + "\n")

    def _known(self) -> dict[str, Any] | None:
        """The identity of the run that the directory contains; None where there is none."""
        try:
            content = json.loads(self.run.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalError(f"cannot read {self.run}: {reason(error)}") from error
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise JournalError(f"{self.run} is damaged; {self.remedy}")
        return content

    @property
    def remedy(self) -> str:
        """What to do about a directory from which a training cannot be continued."""
        return f"remove the directory {self.folder} to train again from the start, or give another --out"

    def finished(self) -> TrainingRecord | None:
        """The record of the training, if it is finished.

        Raises:
            JournalError: the record is damaged.
        """
        if not self.record.exists():
            return None
        try:
            return TrainingRecord.from_json(self.record)
        except FreqRobustError as error:
            raise JournalError(f"{error}; {self.remedy}") from error

    def resume(self, training: Training) -> None:
        """Continue a training from the last finished epoch, if there is one.

        Raises:
            JournalError: the checkpoint is damaged.
        """
        if not self.last.exists():
            return
        try:
            content = torch.load(self.last, map_location=training.device, weights_only=True)
            training.load(content["training"])
        except Exception as error:  # a damaged file can raise any exception
            raise JournalError(
                f"{self.last} is truncated or damaged, and the training cannot be resumed from it; {self.remedy}"
            ) from error

    def keep(self, training: Training) -> None:
        """Write what is needed to continue."""
        buffer = io.BytesIO()
        torch.save({"training": training.state()}, buffer)
        write_atomically(self.last, buffer.getvalue())

    def keep_best(self, model: Classifier, about: Mapping[str, Any]) -> None:
        """Write the checkpoint of the best epoch, which ``freqrobust eval --model`` loads."""
        save_model(model, self.best, about={"training": dict(about)}, unnamed=True)

    def load_best(self, model: Classifier) -> Classifier:
        """The network with the weights of the best epoch, in eval mode.

        Raises:
            JournalError: the checkpoint is missing or damaged.
        """
        try:
            checkpoint = read(self.best)
            model.network.load_state_dict(checkpoint.states[0])
        except (ModelError, RuntimeError) as error:
            raise JournalError(f"{self.best} is missing or damaged; {self.remedy}") from error
        model.sha256 = checkpoint.sha256
        model.eval().requires_grad_(False)
        return model


def default_folder(content: Mapping[str, Any]) -> Path:
    """A directory under ``runs/`` named by the identity of a run, so that the same command uses it again."""
    arch = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(str(content["arch"])).name)[:40].strip("-.") or "model"
    return RUNS / f"train-{arch}-{identity(content)[:12]}"


def files_of(out: Any, content: Mapping[str, Any]) -> TrainingFiles:
    """The directory of a run: the given one, or the default one."""
    folder = user_path(out, "--out", JournalError) if out is not None else default_folder(content)
    return TrainingFiles(folder, json.loads(json.dumps(content, default=str)))
