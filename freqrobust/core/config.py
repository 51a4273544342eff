"""The options of every command, of ``freqrobust.toml`` and of :func:`freqrobust.evaluate`: one field each.

A field has a type, a default, a description (its help text) and, by :func:`option`, its look on the command line.
The command line, the project file, the signatures in Python and the names that plugins may not use are made from
these classes. This module does not import torch.
"""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import INT64, MOST
from freqrobust.core.text import excerpt, near_miss

if TYPE_CHECKING:
    from typing_extensions import Self

Function = TypeVar("Function", bound=Callable[..., Any])
MODEL, DATA, RUN, GATE, OUTPUT = "Model", "Data", "What to run", "Gate", "Output"


class OptionError(SpecError):
    """An option is unknown, has a wrong value or contradicts another.

    Attributes:
        template: the message, with ``{name}`` for each option and ``{not name}`` for one that is switched off.
        key: the option that the message is about, where it is one.
    """

    def __init__(self, template: str, key: str | None = None) -> None:
        self.template, self.key = template, key
        super().__init__(self.spelled(lambda name, off: f"{name}=False" if off else name))

    def spelled(self, spell: Callable[[str, bool], str]) -> str:
        """The message with each option as the user wrote it; ``spell`` gets its name and whether it is switched off."""

        class Names(dict[str, str]):
            def __missing__(self, key: str) -> str:
                return spell(key.removeprefix("not "), key.startswith("not "))

        return self.template.format_map(Names())


def option(
    default: Any,
    help: str,
    panel: str | None = None,
    metavar: str | None = None,
    *,
    flag: str | None = None,
    many: bool = False,
    argument: bool = False,
    flag_value: Any = None,
    off: str | None = None,
    formerly: str | None = None,
    **limits: Any,
) -> Any:
    """A field that is an option.

    Args:
        default: its value where it is not given; ``...`` where it has to be.
        help: what it does, in one or two sentences.
        panel: the heading under which the help of the command line shows it.
        metavar: what the help shows for its value.
        flag: the option of the command line, without dashes, where it differs from the name.
        many: it may be repeated on the command line.
        argument: it is an argument of the command line, without a flag.
        flag_value: on the command line it takes no value, and this is the one that it stands for.
        off: what the flag does that switches it off, where it is true by default.
        formerly: an earlier name; the command line still takes it, without showing it.
        limits: constraints of the value, as of pydantic's ``Field``.
    """
    shown: dict[str, Any] = {"panel": panel, "metavar": metavar, "flag": flag, "many": many, "argument": argument}
    shown |= {"flag_value": flag_value, "off": off, "formerly": formerly}
    return Field(default, description=help, json_schema_extra=shown, **limits)


def flag_of(name: str) -> str:
    """The spelling of a name on the command line."""
    return "--" + name.replace("_", "-")


def _escaped(text: object) -> str:
    return str(text).replace("{", "{{").replace("}", "}}")


class Options(BaseModel):
    """What all groups of options share: immutable, strictly checked, errors in one line."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            for name in values:
                if name not in type(self).model_fields:
                    raise type(self).unknown(name)
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _explained(error) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        lines = [f"    {name}: {field.description}" for name, field in cls.model_fields.items()]
        cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\nAttributes:\n" + "\n".join(lines) + "\n"

    @classmethod
    def unknown(cls, name: str) -> OptionError:
        """The error for a name that is no option."""
        renamed = {cls.shown(key)["formerly"]: key for key in cls.model_fields if cls.shown(key)["formerly"]}
        hint = f"; did you mean {renamed[name]!r}?" if name in renamed else near_miss(name, cls.model_fields)
        known = "" if hint else f" (options: {', '.join(cls.model_fields)})"
        return OptionError(_escaped(f"unknown option {name!r}{hint}{known}"))

    @classmethod
    def shown(cls, name: str) -> dict[str, Any]:
        """What :func:`option` says about a field."""
        extra = cls.model_fields[name].json_schema_extra
        return {"panel": None, "formerly": None, **(extra if isinstance(extra, dict) else {})}

    @classmethod
    def flag(cls, name: str, off: bool = False) -> str:
        """The flag of an option on the command line."""
        if name not in cls.model_fields:
            return flag_of(name)
        flag = flag_of(cls.shown(name).get("flag") or name)
        return f"--no-{flag[2:]}" if off or cls.model_fields[name].default is True else flag

    @classmethod
    def flags(cls) -> set[str]:
        """All flags of the command line, those without a value and earlier spellings included."""
        former = [cls.shown(name)["formerly"] for name in cls.model_fields]
        return {*map(cls.flag, cls.model_fields), *(f"--no-{flag_of(name)[2:]}" for name in former if name)}

    @classmethod
    def switches(cls) -> set[str]:
        """The flags of the command line that take no value."""
        fields = cls.model_fields
        plain = {n for n in fields if isinstance(fields[n].default, bool) or cls.shown(n).get("flag_value") is not None}
        taking = {cls.flag(name) for name in fields if name not in plain}
        return cls.flags() - taking

    @classmethod
    def of(cls, config: Any, options: Mapping[str, Any]) -> Self:
        """The configuration of a call: ``options``, on top of ``config`` where there is one.

        Raises:
            SpecError: an option is unknown or wrong, or ``config`` is something else.
        """
        if config is None:
            return cls(**options)
        if not isinstance(config, cls):
            raise SpecError(f"config should be an object of {cls.__name__}, but got {type(config).__name__}")
        return config.replace(**options)

    def replace(self, **options: Any) -> Self:
        """A copy with other values, checked."""
        return type(self)(**{**dict(self), **options}) if options else self

    def settings(self, cls: type[Options], **resolved: Any) -> dict[str, Any]:
        """The options that ``cls`` has too, without those by which models and data are loaded.

        Args:
            cls: another class of options.
            resolved: other values for some of them.
        """
        loading = {*ModelOptions.model_fields, *DataOptions.model_fields, "limit", "first"}
        return {name: getattr(self, name) for name in cls.model_fields if name not in loading} | resolved

    def record(self, **resolved: Any) -> dict[str, Any]:
        """The options as JSON, for a report: what is measured, not where the results are written.

        Args:
            resolved: specs of options whose values are objects.
        """
        values = {**dict(self), **resolved}
        measured = [name for name in values if self.shown(name)["panel"] != OUTPUT and values[name] is not None]
        return {name: _as_json(values[name]) for name in measured}


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    spec = getattr(value, "spec", None)
    if isinstance(spec, str):
        return spec
    return str(value) if type(value).__module__.split(".")[0] == "torch" else type(value).__name__


def _explained(error: ValidationError) -> OptionError:
    """The first problem of a pydantic error in one line."""
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if not first["loc"]:
        return OptionError(message)
    key = str(first["loc"][0])
    inner = [str(part) for part in first["loc"][1:] if isinstance(part, str) and part in str(first["input"])]
    where = "{" + key + "}" + "".join(f".{part}" for part in inner)
    if first["type"] == "missing":
        return OptionError(f"{where} is required", key)
    return OptionError(f"{where} {_escaped(message)}, but got {_escaped(excerpt(repr(first['input'])))}", key)


def _listed(value: Any) -> Any:
    """A single value as a list of one."""
    if value is None:
        return []
    if isinstance(value, str | os.PathLike):
        value = [value]
    return [os.fspath(v) if isinstance(v, os.PathLike) else v for v in value] if isinstance(value, Iterable) else value


def _specs(value: Any) -> Any:
    """Specs and objects as they are; a single spec as a list of one, and no spec as an empty list."""
    return [value] if isinstance(value, str) else list(value) if isinstance(value, tuple | Iterator) else value


def _whole(value: Any) -> Any:
    """A whole number, also as text."""
    try:
        if isinstance(value, str) and value.isascii() and len(value) <= 40:
            return int(value)
        if not isinstance(value, bool):
            return operator.index(value)
    except (TypeError, ValueError):
        pass
    raise ValueError("should be a whole number")


def _batch_size(value: Any) -> Any:
    if isinstance(value, str) and value == "auto":
        return value
    try:
        size = _whole(value)
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError("should be auto or at least 1")
    if size > MOST:
        raise ValueError(f"should be auto or at most {MOST}")
    return size


def _depth(value: Any) -> Any:
    return ("full" if value else None) if isinstance(value, bool) else value


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Names = Annotated[list[str], BeforeValidator(_listed)]
Specs = Annotated[Any, BeforeValidator(_specs)]
Whole = Annotated[int, BeforeValidator(_whole)]
Text = Annotated[str, BeforeValidator(_text)]
FilePath = str | os.PathLike[str]
BatchSize = Annotated[int | Literal["auto"], BeforeValidator(_batch_size)]


class ModelOptions(Options):
    """The models and how they are loaded."""

    model: Names = option(
        [],
        "The model: a checkpoint file (.pt .pth .th .ckpt .safetensors .pt2), torchvision:NAME, timm:NAME, "
        "robustbench:NAME, module:callable or file.py:callable. Repeat the option for several models.",
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


class DataOptions(Options):
    """The dataset."""

    data: Text | None = option(
        None,
        "The dataset: digits, cifar10, cifar100, mnist, fashion_mnist, svhn, imagenet, a file .npz, folder:DIR, "
        "cifar10c:DIR,name=fog,severity=3 (also cifar100c and imagenetc), robustbench:cifar10c, module:callable or "
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


class DeviceOptions(Options):
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
    diagnose: Annotated[Literal["quick", "full"] | None, BeforeValidator(_depth)] = option(
        "quick", "Check the robust accuracies with additional, stronger attacks. Without it, only quick checks are run.",
        RUN, flag_value="full",
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


class OutputOptions(Options):
    """What every command that evaluates writes and prints."""

    json_file: FilePath | None = option(
        None, "Also write the result as JSON to this file.", OUTPUT, "FILE", flag="json"
    )
    quiet: bool = option(False, "Print only errors, failed cells and a failed gate.", OUTPUT)
    debug: bool = option(False, "Print the traceback of errors.", OUTPUT)


class ReportOptions(OutputOptions):
    """Reports in other formats."""

    reports: Names = option(
        [],
        "Also write a report in another format: out.html, out.md, junit=out.xml or markdown=-, where - is standard "
        "output. Repeat the option for several reports.",
        OUTPUT,
        "[REPORT=]FILE",
        flag="report",
        many=True,
    )


class EvalCommand(ReportOptions, EvalConfig):
    """The options of ``freqrobust eval``."""

    fail_under: Names = option(
        [],
        "Exit with code 1 if an accuracy is lower than required: pgd>=0.45, smooth/worst>=0.3. Repeat the option for "
        "several cells.",
        GATE,
        "CELL>=SHARE",
        many=True,
    )
    confident: bool = option(
        False, "Compare the lower end of the 95 % confidence interval with the required accuracy.", GATE
    )
    save_model: FilePath | None = option(None, "Save the defended model to this file.", OUTPUT, "FILE")
    save_adversarial: FilePath | None = option(
        None, "Save the adversarial examples of all samples to this directory, one .npz file per cell.", OUTPUT, "DIR"
    )

    @model_validator(mode="after")
    def _thresholds(self) -> Self:
        if self.confident and not self.fail_under:
            raise ValueError("{confident} needs {fail_under}: without it there is nothing to judge")
        return self


class AnalyzeCommand(OutputOptions, AnalyzeConfig):
    """The options of ``freqrobust analyze``."""

    analysis: str = option(
        ..., "The analysis: a name from 'freqrobust list analyses', or a spec such as heatmap:norm=4.", metavar="NAME",
        argument=True,
    )  # fmt: skip
    labels: Names = option(
        [], "The name of a model in tables and pictures. Give it once for each model, in the same order.", MODEL, "TEXT",
        flag="label", many=True,
    )  # fmt: skip
    out: FilePath | None = option(
        None, "Write the picture to this file, which ends in .png or .svg. Without --out, --json and --into, the results "
        "are written to a directory under runs/.", OUTPUT, "FILE",
    )  # fmt: skip
    into: FilePath | None = option(
        None, "Add the result and its picture to this JSON report of 'freqrobust eval', made on the same samples.",
        OUTPUT, "RUN.json",
    )  # fmt: skip


class VerifyCommand(OutputOptions, VerifyConfig):
    """The options of ``freqrobust verify``."""

    directory: FilePath = option(
        ..., "A directory that --save-adversarial wrote, or one of its files.", metavar="DIR", argument=True
    )


class CheckConfig(ReportOptions):
    """The options of ``freqrobust check``; the others are in ``freqrobust.toml``."""

    update_baseline: bool = option(False, "Replace the baseline by the new report, and show the differences.", GATE)
    sequential: bool = option(
        False, "Check only the thresholds, and stop measuring each cell as soon as its result is certain.", GATE
    )
    batch_size: BatchSize | None = option(None, "Number of images per batch, or auto.", RUN, "N")
    device: Any = option(None, "The device: auto, cpu, cuda, cuda:1 or mps.", RUN, "DEVICE")
    run_dir: FilePath | None = option(
        None, "Directory of the report and of the finished cells. Default: a directory under runs/.", OUTPUT, "DIR"
    )


#: The commands that are made from their options.
COMMANDS: dict[str, type[Options]] = {
    "eval": EvalCommand,
    "analyze": AnalyzeCommand,
    "verify": VerifyCommand,
    "check": CheckConfig,
}


def reserved_names(command: str) -> frozenset[str]:
    """The names that a parameter of a plugin may not have, as it is an option of this command too."""
    cls = COMMANDS[command]
    return frozenset({"help", *cls.model_fields, *(flag[2:].replace("-", "_") for flag in cls.flags())})


def takes(config: type[Options], *without: str) -> Callable[[Function], Function]:
    """Show the fields of ``config``, but those in ``without``, in the signature of a function with ``**options``."""

    def decorated(function: Function) -> Function:
        signature = inspect.signature(function)
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, keyword, default=field.default, annotation=field.annotation)
            for name, field in config.model_fields.items()
            if name not in {*without, *signature.parameters}
        ]
        parameters = sorted([*own, *options], key=lambda p: p.kind)
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorated
