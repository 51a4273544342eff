"""The options of every command, of ``freqrobust.toml`` and of :func:`freqrobust.evaluate`: one field each.

The command line, the project file, the signatures in Python and the names that plugins may not use are made from
these classes. This module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from freqrobust.core.config_file import FileOptions
from freqrobust.core.image_size import ImageSize
from freqrobust.core.numbers import INT64
from freqrobust.core.options import (
    DATA,
    MODEL,
    OUTPUT,
    RUN,
    BatchSize,
    FilePath,
    Names,
    OptionError,
    Options,
    Specs,
    Text,
    Whole,
    depth,
    option,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class ModelOptions(Options):
    """The models and how they are loaded."""

    model: Names = option(
        [],
        "The model: a checkpoint file (.pt .pth .th .ckpt .safetensors .pt2), torchvision:NAME, timm:NAME, "
        "hf:ORG/NAME, robustbench:NAME, module:callable or file.py:callable. Repeat the option for several models.",
        MODEL,
        "SPEC",
        many=True,
    )
    arch: Names = option(
        ["auto"],
        "The architecture of a checkpoint that contains only weights: auto (the default), a name from 'freqrobust list "
        "archs', file.py:factory or module:factory. Give it once for all models, or once for each model.",
        MODEL,
        "ARCH",
        many=True,
    )
    normalize: Names = option(
        ["auto"],
        "The normalisation of the input images: auto (the default), none, a preset (imagenet, cifar10, half, ...) or "
        "mean and standard deviation of each channel, m1,m2,m3/s1,s2,s3. Give it once for all models, or once for each "
        "model.",
        MODEL,
        "NORM",
        many=True,
    )
    trust_checkpoint: bool = option(False, "Load checkpoints that can run code. Use it only for trusted files.", MODEL)

    def per_model(self, count: int) -> list[tuple[str, str]]:
        """The architecture and the normalisation of each of ``count`` models.

        Raises:
            OptionError: there are neither one for all nor one for each.
        """
        for name in ("arch", "normalize"):
            number = len(getattr(self, name))
            if number not in (1, count):
                each = "one model" if count == 1 else f"{count} models"
                raise OptionError(
                    f"{{{name}}} should be given once for all models, or once for each model, "
                    f"but it is given {number} times for {each}",
                    name,
                )
        archs, norms = (values * count if len(values) == 1 else values for values in (self.arch, self.normalize))
        return list(zip(archs, norms, strict=True))


class SizeOptions(Options):
    """The size of the images."""

    resize: ImageSize | None = option(
        None, "Resize the images first: N pixels of the shorter side, HxW, or none. Default: as the model's authors do; "
        "arrays are used as they are.", DATA, "N|HxW|none",
    )  # fmt: skip
    crop: ImageSize | None = option(
        None, "Then crop them at the centre: N, HxW, or none. Default: as the model's authors do; arrays are used as they "
        "are.", DATA, "N|HxW|none",
    )  # fmt: skip


class ImageFileOptions(Options):
    """How images in files are kept and checked."""

    data_cache: FilePath = option(
        "auto", "Where decoded images in files are kept: memory, off (decode them whenever they are used), a directory "
        "(decode them once for several runs), or auto: memory if they take at most a quarter of the free memory, else off.",
        DATA, "DIR|memory|off",
    )  # fmt: skip
    skip_unreadable: bool = option(
        False, "Leave out images that cannot be decoded, instead of stopping; the report names the first of them.", DATA
    )


class DataOptions(ImageFileOptions, SizeOptions):
    """The dataset."""

    data: Text | None = option(
        None,
        "The dataset: digits, cifar10, cifar100, mnist, fashion_mnist, svhn, imagenet, a file .npz, folder:DIR, "
        "cifar10c:DIR,name=fog,severity=3 (also cifar100c, imagenetc, imagenetcbar and imagenet3dcc), imageneta:DIR (also "
        "imagenetr, imagenetsketch and imagenetv2), robustbench:cifar10c, module:callable or "
        "file.py:callable.",
        DATA,
        "SPEC",
    )
    data_dir: FilePath | None = option(None, "Directory of the torchvision datasets.", DATA, "DIR")
    split: str = option("test", "The split of the dataset: test or train.", DATA, "NAME")
    train_data: Any = option(
        None, "The training data, for defenses that train or adapt a model. It takes the same values as the dataset.",
        DATA, "SPEC",
    )  # fmt: skip


class SampleOptions(Options):
    """The samples that are used, and the seed."""

    limit: Whole | None = option(
        None, "Use N samples of the dataset, drawn with the seed, with the same share of each class.", DATA, "N", ge=1,
        le=INT64,
    )  # fmt: skip
    first: Whole | None = option(None, "Use the first N samples of the dataset.", DATA, "N", ge=1, le=INT64)
    seed: Whole = option(0, "Seed of all random numbers.", RUN, "N", ge=-INT64 - 1, le=INT64)

    @model_validator(mode="after")
    def _one_subset(self) -> Self:
        if self.limit is not None and self.first is not None:
            raise ValueError("give either {limit} or {first}, not both")
        return self


class DefenseOptions(Options):
    """The defenses."""

    defenses: Specs = option(
        None,
        "A defense, such as smooth, or a composition, such as smooth:rho=0.5+lowpass:radius=12. Repeat the option "
        "for several defenses.",
        RUN,
        "SPEC",
        flag="defense",
        many=True,
    )
    undefended: bool = option(
        True, "Evaluate the undefended model too.", RUN, off="Evaluate only the defenses, not the undefended model.",
        formerly="baseline",
    )  # fmt: skip

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not self.undefended and (self.defenses is None or self.defenses == []):
            raise ValueError("{not undefended} needs {defenses}: otherwise there is no model to evaluate")
        return self


class DeviceOptions(FileOptions):
    """Where a model runs, and in which portions."""

    batch_size: BatchSize = option(
        "auto", "Number of images per batch, or auto. The results do not depend on it.", RUN, "N"
    )
    device: Any = option("auto", "The device: auto, cpu, cuda, cuda:1 or mps.", RUN, "DEVICE")
    cache_dir: FilePath | None = option(
        None, "Directory in which trained models are kept, so that they are trained only once.", OUTPUT, "DIR"
    )


class SaveConfig(DeviceOptions, SampleOptions, DefenseOptions, DataOptions, ModelOptions):
    """What ``save_adversarial`` makes adversarial examples with."""

    attacks: Specs = option(
        None,
        "An attack, such as pgd:eps=8/255,steps=20. Repeat the option for several attacks. They replace the suite.",
        RUN,
        "SPEC",
        flag="attack",
        many=True,
    )
    precision: Literal["fp32", "bf16"] = option(
        "fp32", "Precision of the attacks' forward and backward passes: fp32 or bf16. Predictions always use fp32.", RUN,
        "NAME",
    )  # fmt: skip
    compile: Literal["auto", "on", "off"] = option(
        "auto", "Compile the copy of a model that attacks differentiate: on, off, or auto, if that is expected to save more "
        "time than it takes.", RUN, "MODE",
    )  # fmt: skip


class EvalConfig(SaveConfig):
    """What :func:`freqrobust.evaluate`, ``freqrobust eval`` and the table ``[eval]`` of ``freqrobust.toml`` measure."""

    suite: Text | None = option(
        None, "The suite of attacks: a name from 'freqrobust list suites' (default: standard), or a file with one "
        "attack per line.", RUN, "NAME|FILE",
    )  # fmt: skip
    oblivious: bool = option(
        True, "Evaluate each defended model also on the adversarial examples of the undefended model.", RUN,
        off="Do not evaluate defended models on the adversarial examples of the undefended model.",
    )  # fmt: skip
    diagnose: Annotated[Literal["quick", "full"] | None, BeforeValidator(depth)] = option(
        "quick", "Check the robust accuracies with additional, stronger attacks. Without it, only quick checks are run.",
        RUN, flag_value="full",
    )  # fmt: skip
    certify: Specs = option(
        None,
        "A certificate, such as smoothing:eps=0.25: a lower bound of the robust accuracy, shown beside the attacks. "
        "Repeat the option for several certificates.",
        RUN,
        "SPEC",
        many=True,
    )
    criterion: Any = option(
        "misclassification", "What counts as an adversarial example: misclassification, targeted:next, topk:5, or a "
        "plugin.", RUN, "SPEC",
    )  # fmt: skip
    examples: Whole = option(
        0, "Show the images of up to N samples in HTML reports: clean, adversarial, perturbation, LFC and HFC.", RUN, "N",
        ge=0, le=64,
    )  # fmt: skip
    mce_reference: Any = option(
        None,
        "The reference of the mean corruption error: the JSON report of another model, or alexnet.",
        RUN,
        "REPORT",
    )
    run_dir: FilePath | None = option(
        None, "Directory of the report and of the finished cells, from which an interrupted run is resumed. "
        "Default: a directory under runs/.", OUTPUT, "DIR",
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_list_of_attacks(self) -> Self:
        if self.attacks is not None and self.suite is not None:
            raise ValueError("give either {attacks} or {suite}, not both")
        return self


class AnalyzeConfig(DeviceOptions, SampleOptions, DefenseOptions, DataOptions, ModelOptions):
    """What :func:`freqrobust.analyze` and ``freqrobust analyze`` look at."""


class VerifyConfig(DeviceOptions, DataOptions, ModelOptions):
    """How ``freqrobust verify`` evaluates saved adversarial examples."""

    defense: str = option(
        "saved", "The defense: saved (the one for which each set was made), none, or a spec.", RUN, "SPEC"
    )
