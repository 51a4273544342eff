"""What an experiment works with: data of the right size, trainings that are made once, accuracies."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from freqrobust.core.errors import JournalError, SpecError
from freqrobust.core.files import identity, write_atomically
from freqrobust.core.progress import Progress, Silent
from freqrobust.core.source_hash import code_hash
from freqrobust.core.training_config import Recipe
from freqrobust.data.dataset import ImageData
from freqrobust.data.input_config import requested
from freqrobust.data.loading import as_data, load_data
from freqrobust.harness.correctness import correct_samples
from freqrobust.models import normalization
from freqrobust.models.classifier import Classifier
from freqrobust.models.fingerprint import state_hash
from freqrobust.models.normalization import training_normalization
from freqrobust.plugins.registry import attacks
from freqrobust.training.loop import EpochNumbers, fit
from freqrobust.training.plan import plan
from freqrobust.training.shifts import shifted

Scale = Literal["digits", "cpu", "paper"]
#: What is recorded of a network after an epoch: names and JSON-like values.
Watch = Callable[[nn.Module], dict[str, Any]]


@dataclass
class Fitted:
    """A trained network.

    Attributes:
        model: images in [0, 1] to logits, in eval mode.
        epochs: loss and accuracy on the training batches after every epoch.
        watched: what was recorded before the first epoch and after every epoch, so one longer than ``epochs``; empty
            where nothing was.
    """

    model: Classifier
    epochs: list[EpochNumbers]
    watched: list[dict[str, Any]]


@dataclass
class Bench:
    """What an experiment works with.

    Attributes:
        scale: the size of the experiment.
        device: where networks are trained and measured.
        seed: the seed of the run.
        test_spec, train_spec: data specs that the user named; by default those of the scale.
        data_dir: directory of downloaded datasets.
        resize, crop: the size that images get, as users write it; None leaves them as they are.
        cache_dir: where trained networks are kept; None keeps nothing.
        progress: reports what happens.
    """

    scale: Scale = "digits"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    test_spec: Any = None
    train_spec: Any = None
    data_dir: Path | None = None
    resize: str | None = None
    crop: str | None = None
    cache_dir: Path | None = None
    progress: Progress = field(default_factory=Silent)
    _data: dict[str, ImageData] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def pick(self, **choices: Any) -> Any:
        """The choice of this scale: ``bench.pick(digits=..., cpu=..., paper=...)``."""
        return choices[self.scale]

    @property
    def test(self) -> ImageData:
        """The test images."""
        return self._use("test")

    @property
    def train(self) -> ImageData:
        """The training images."""
        return self._use("train")

    @property
    def used(self) -> dict[str, ImageData]:
        """The data that was asked for so far, by split."""
        return {split: data for split, data in self._data.items() if split in self._used}

    def check_data(self) -> None:
        """Load the data that the user named, so that bad input is an error before anything is trained.

        Raises:
            FreqRobustError: it cannot be loaded, or test and training images do not fit together.
        """
        if self.test_spec is None or self.train_spec is None:
            return
        test, train = self._load("test"), self._load("train")
        if test.shape != train.shape:
            raise SpecError(
                f"the test images ({test.spec}) are {_size(test)}, but the training images ({train.spec}) {_size(train)}"
            )
        if train.classes < 2:
            raise SpecError(f"the training data ({train.spec}) has one class only, but experiments need two or more")
        if test.classes > train.classes:
            raise SpecError(
                f"the test data ({test.spec}) has {test.classes} classes, but the training data ({train.spec}) only "
                f"{train.classes}"
            )

    def _use(self, split: str) -> ImageData:
        self._used.add(split)
        return self._load(split)

    def _load(self, split: str) -> ImageData:
        if split not in self._data:
            given = self.test_spec if split == "test" else self.train_spec
            if given is None:
                if self.scale == "cpu":
                    raise SpecError("--scale cpu needs --data and --train-data, such as two files .npz, or cifar10")
                given = self.pick(digits="digits", cpu=None, paper="cifar10")
            named = isinstance(given, str | Path)
            sizes = requested(None, self.resize, self.crop)
            self._data[split] = (
                load_data(
                    str(given), data_dir=self.data_dir, split=split, resize=self.resize, crop=self.crop
                ).in_memory()
                if named
                else as_data(given, f"{split} data", config=sizes)
            )
        return self._data[split]

    def fit(
        self,
        build: Callable[[], nn.Module],
        data: ImageData,
        recipe: Recipe,
        *,
        name: str,
        normalize: bool = True,
        watch: Watch | None = None,
        seed: int | None = None,
    ) -> Fitted:
        """Train a network, or take it from the cache where the same was trained before.

        Args:
            build: makes the network with initial weights; torch's generator is seeded before it is called.
            data: the training images, exactly as they are to be used.
            recipe: how it is trained; ``arch``, ``normalize``, ``labels``, ``pixels``, ``train_shift`` and what is said
                about probes are ignored.
            name: names the training in the progress.
            normalize: put a normalisation by mean and standard deviation of the training images in front.
            watch: is called with the network in eval mode before the first epoch and after every epoch; what it returns is kept.
                Its module's code and the data of the bench that was used so far are part of the identity; its parameters
                are not: ``name`` has to change with them.
            seed: of weights, order and augmentation; by default that of the bench.
        """
        seed = self.seed if seed is None else seed
        training_plan = plan(recipe)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build()
        choice = training_normalization(data) if normalize else normalization.preset("none", "none")
        model = Classifier(network, choice, name, type(network).__name__, None).to(self.device)
        content = [
            name,
            state_hash(model),
            data.sha256,
            training_plan.identity,
            seed,
            self.device.type,
            torch.__version__,
            code_hash(["freqrobust.training.loop"]),
        ]
        if watch is not None:  # it may measure on other data than the training images, such as the test images
            content += [{split: one.sha256 for split, one in self.used.items()}, code_hash([watch.__module__])]

        def train() -> dict[str, Any]:
            start = time.perf_counter()
            epochs: list[EpochNumbers] = []
            watched: list[dict[str, Any]] = []
            if watch is not None:
                with torch.no_grad():
                    watched.append(watch(model.eval()))

            def each_epoch(network: nn.Module, numbers: EpochNumbers) -> None:
                epochs.append(numbers)
                if watch is not None:  # the loop calls this without gradients
                    watched.append(watch(network))

            trained = fit(
                model,
                data,
                training_plan,
                device=self.device,
                seed=seed,
                progress=_Epochs(self.progress),
                label=name,
                each_epoch=each_epoch,
            )
            self.progress.end(
                f"{name}: {_count(len(epochs), 'epoch')} in {time.perf_counter() - start:.1f} s, accuracy on training "
                f"batches {epochs[-1].accuracy:.1%}"
            )
            return {"model": trained.state_dict(), "epochs": [tuple(e) for e in epochs], "watched": watched}

        saved = self.kept(name, content, train)
        model.load_state_dict(saved["model"])
        model.eval().requires_grad_(False)
        return Fitted(model, [EpochNumbers(*row) for row in saved["epochs"]], saved["watched"])

    def kept(self, name: str, content: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` returns, from the cache where it was made before from the same content.

        Args:
            name: names it in the progress.
            content: JSON-like; everything that the result depends on, also the code (:func:`code_hash`).
            make: returns tensors, numbers and texts, in dicts, lists and tuples.
        """
        path = self.cache_dir / "experiments" / f"{identity(content)}.pt" if self.cache_dir is not None else None
        if path is not None and path.exists():
            with contextlib.suppress(Exception):  # a damaged file is replaced
                saved: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
                self.progress.say(f"{name}: taken from the cache")
                return saved
        made = make()
        if path is not None:
            buffer = io.BytesIO()
            torch.save(made, buffer)
            try:
                write_atomically(path, buffer.getvalue())
            except JournalError as error:
                self.progress.say(f"warning: {error}")
        return made

    def correct(self, model: nn.Module, data: ImageData, spec: str | None = None) -> NDArray[np.bool_]:
        """Which samples are correct after an attack or a shift, by its spec, ``(n,)``; None for the clean images."""
        return self.correct_each(model, data, [spec])[0]

    def correct_each(
        self, model: nn.Module, data: ImageData, specs: Sequence[str | None], batch_size: int | None = None
    ) -> list[NDArray[np.bool_]]:
        """As :meth:`correct`, for several specs of which none is a sweep; ``batch_size`` is that of the device by default."""
        parsed = [attacks.parse(spec)[0] if spec is not None else None for spec in specs]
        return correct_samples(model, data, parsed, device=self.device, seed=self.seed, batch_size=batch_size)

    def shifted(self, data: ImageData, spec: str) -> ImageData:
        """The data after a shift, such as ``lfc:radius=8``; pixels are float32 and may leave [0, 1] slightly."""
        return shifted(data, [attacks.parse(spec)[0]], seed=self.seed)


class _Epochs:
    """Passes on the progress of a training, without a line for each epoch."""

    def __init__(self, progress: Progress) -> None:
        self.begin, self.advance, self.say = progress.begin, progress.advance, progress.say

    def end(self, summary: str) -> None: ...


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _size(data: ImageData) -> str:
    return " x ".join(map(str, data.shape))
