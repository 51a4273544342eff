"""The options of ``freqrobust train`` and ``freqrobust reproduce``, and the keys of a recipe: one field each.

This module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from freqrobust.core.command_config import ConfigFile, OutputOptions, PlanOptions
from freqrobust.core.config import ImageFileOptions, SampleOptions, SizeOptions
from freqrobust.core.config_file import FileOptions
from freqrobust.core.options import DATA, MODEL, OUTPUT, RUN, FilePath, Names, Options, Real, Specs, Text, Whole, option

if TYPE_CHECKING:
    from typing_extensions import Self


class Recipe(Options):
    """How a network is trained. A recipe file (TOML) has these keys."""

    arch: Text = option(
        "auto",
        "The architecture: a name from 'freqrobust list archs', torchvision:NAME, file.py:factory or module:factory. "
        "auto is small_cnn for images of fewer than 24 pixels, and resnet20 for larger ones.",
        MODEL,
        "ARCH",
    )
    normalize: Text = option(
        "auto",
        "The normalisation of the input images: auto (mean and standard deviation of the training images), none, a preset "
        "(imagenet, cifar10, ...) or m1,m2,m3/s1,s2,s3.",
        MODEL,
        "NORM",
    )
    epochs: Whole = option(10, "Number of passes over the training data.", RUN, "N", ge=1, le=1_000_000)
    batch_size: Whole = option(128, "Number of images per optimisation step.", RUN, "N", ge=1, le=1_000_000)
    method: Any = option(
        "natural",
        "The training method: natural, madry:eps=8/255,steps=7, rs-fgsm, free, trades, mart, or a plugin.",
        RUN,
        "SPEC",
    )
    augment: Specs = option(
        ["flip-crop"],
        "An augmentation of the training images, such as flip-crop, mixup:alpha=1 or none. Repeat the option for several, "
        "which are applied in this order.",
        RUN,
        "SPEC",
        many=True,
    )
    train_shift: Specs = option(
        [],
        "Train on changed images: a frequency filter or a corruption, such as lfc:radius=8. Repeat the option for several, "
        "which are applied in this order.",
        RUN,
        "SPEC",
        many=True,
    )
    regularizer: Specs = option(
        [],
        "A penalty that is added to the loss, such as kernel-smoothness:weight=0.01. Repeat the option for several.",
        RUN,
        "SPEC",
        many=True,
    )
    labels: Text = option(
        "true",
        "The labels of the training data: true, shuffled (a permutation of the labels) or corrupted:p=0.2 (each label is "
        "replaced by a random class with this probability).",
        RUN,
        "SPEC",
    )
    pixels: Text = option(
        "true",
        "The pixels of the images: true, shuffled (one permutation for all images), random (a permutation for each image) "
        "or gaussian (noise with the mean and variance of the training images).",
        RUN,
        "NAME",
    )
    optimizer: Any = option(
        "sgd:lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.0005", "The optimizer: sgd, adam or adamw.", RUN, "SPEC"
    )
    schedule: Any = option(
        "one-cycle", "The learning-rate schedule: one-cycle, step, cosine, exponential or constant.", RUN, "SPEC"
    )
    ema: Real | None = option(
        None, "Evaluate and save an exponential moving average of the weights with this decay, such as 0.999.", RUN, "DECAY",
        gt=0, lt=1,
    )  # fmt: skip
    precision: Literal["fp32", "bf16"] = option(
        "fp32", "Precision of the forward and backward passes: fp32 or bf16.", RUN, "NAME"
    )
    compile: bool = option(False, "Compile the network with torch.compile.", RUN)
    hold_out: Real = option(
        0.1, "Share of the training data that is held out for choosing the best checkpoint.", RUN, "SHARE", ge=0, lt=1
    )
    probe: Specs = option(
        None,
        "Measure this during training, on a part of the training data and on the held-out data: clean, or an attack or "
        "frequency filter, such as lfc:radius=[4,8] or pgd:eps=2/255,steps=10@every=5. Repeat the option for several.",
        RUN,
        "SPEC",
        many=True,
    )
    best: Text | None = option(
        None, "The probe that chooses the best checkpoint, on the held-out data. Default: the first adversarial probe, "
        "or else clean.", RUN, "SPEC",
    )  # fmt: skip
    probe_samples: Whole = option(500, "Number of samples on which probes are measured.", RUN, "N", ge=1)


class TrainConfig(FileOptions, SampleOptions, ImageFileOptions, SizeOptions, Recipe):
    """What :func:`freqrobust.train` and ``freqrobust train`` do."""

    data: Any = option(
        None, "The training data: a name or a file, as for 'freqrobust eval'. Of a dataset with splits it is the training "
        "split.", DATA, "SPEC",
    )  # fmt: skip
    data_dir: FilePath | None = option(None, "Directory of the torchvision datasets.", DATA, "DIR")
    recipe: Text | None = option(
        None, "A recipe: a name from 'freqrobust list recipes', or a TOML file. Other options replace its values.", RUN,
        "NAME|FILE",
    )  # fmt: skip
    set: Names = option(
        [],
        "Replace a value of the recipe: epochs=20. Repeat the option for several values.",
        RUN,
        "KEY=VALUE",
        many=True,
    )
    device: Any = option("auto", "The device: auto, cpu, cuda, cuda:1 or mps.", RUN, "DEVICE")
    out: FilePath | None = option(
        None, "Directory of the checkpoints, the log and the curves, from which an interrupted run is resumed. "
        "Default: a directory under runs/.", OUTPUT, "DIR",
    )  # fmt: skip


class TrainCommand(PlanOptions, ConfigFile, TrainConfig):
    """The options of ``freqrobust train``."""


TrainConfig.command_only = frozenset(TrainCommand.model_fields) - frozenset(TrainConfig.model_fields)


class ReproduceConfig(SizeOptions):
    """What :func:`freqrobust.experiments.reproduce.reproduce` and ``freqrobust reproduce`` run."""

    scale: Literal["digits", "cpu", "paper"] = option(
        "digits", "The size of the experiment: digits (seconds), cpu (minutes, needs --data and --train-data) or paper "
        "(the published protocol; needs the full data and a GPU).", RUN, "NAME",
    )  # fmt: skip
    data: Any = option(
        None, "The test data: a name or a file, as for 'freqrobust eval'. Not with --scale digits, which uses the digits "
        "of scikit-learn.", DATA, "SPEC",
    )  # fmt: skip
    train_data: Any = option(None, "The training data. It takes the same values as the test data.", DATA, "SPEC")
    data_dir: FilePath | None = option(None, "Directory of the torchvision datasets.", DATA, "DIR")
    seed: Whole = option(0, "Seed of all random numbers.", RUN, "N", ge=-(2**63), le=2**63 - 1)
    device: Any = option("auto", "The device: auto, cpu, cuda, cuda:1 or mps.", RUN, "DEVICE")
    cache_dir: FilePath | None = option(
        None, "Directory in which trained models are kept, so that they are trained only once.", OUTPUT, "DIR"
    )

    @model_validator(mode="after")
    def _fitting_data(self) -> Self:
        if (self.data is None) != (self.train_data is None):
            raise ValueError("{data} and {train_data} are given together: the test data and the training data")
        if self.data is not None and self.scale == "digits":
            raise ValueError("{data} needs {scale} cpu or paper: the scale digits uses the digits of scikit-learn")
        return self


class ReproduceCommand(OutputOptions, ReproduceConfig):
    """The options of ``freqrobust reproduce``."""

    name: Text | None = option(
        None, "The experiment: a name from --list, with parameters if need be, or all.", metavar="[NAME]", argument=True
    )
    list: bool = option(False, "List the experiments.", RUN)
    out: FilePath | None = option(
        None, "Directory of the picture and of the results as JSON and Markdown. Default: a directory under runs/.", OUTPUT,
        "DIR",
    )  # fmt: skip
