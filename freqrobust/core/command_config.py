"""The options of the commands: what a command measures, and what it prints and writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from freqrobust.core.config import AnalyzeConfig, DeviceOptions, EvalConfig, VerifyConfig
from freqrobust.core.config_file import FileOptions
from freqrobust.core.options import (
    DATA,
    GATE,
    MODEL,
    OUTPUT,
    RUN,
    BatchSize,
    FilePath,
    Names,
    Options,
    Text,
    Whole,
    escaped,
    option,
)
from freqrobust.core.text import excerpt

if TYPE_CHECKING:
    from typing_extensions import Self


class OutputOptions(Options):
    """What every command that measures writes and prints."""

    json_file: FilePath | None = option(
        None, "Also write the result as JSON to this file.", OUTPUT, "FILE", flag="json"
    )
    quiet: bool = option(False, "Print only errors, failed cells and a failed gate.", OUTPUT, short="q")
    no_progress: bool = option(False, "Show no progress bar, and no progress lines where there is no terminal.", OUTPUT)
    debug: bool = option(False, "Print the traceback of errors.", OUTPUT)


class StepOptions(OutputOptions):
    """What a command prints of its steps, where they are not its result."""

    verbose: bool = option(False, "Print a line for each step of the run.", OUTPUT, short="v")

    @model_validator(mode="after")
    def _verbose_or_quiet(self) -> Self:
        if self.verbose and self.quiet:
            raise ValueError("give either {verbose} or {quiet}, not both")
        return self


class ConfigFile(OutputOptions):
    """Options in a TOML file."""

    config: FilePath | None = option(
        None, "Read options from this TOML file, whose keys are names of options. Those on the command line replace its "
        "values.", OUTPUT, "FILE.toml",
    )  # fmt: skip
    save_config: FilePath | None = option(
        None, "Write the options to this TOML file, for --config.", OUTPUT, "FILE.toml"
    )


class ReportOptions(StepOptions):
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
    full: bool = option(
        False, "Print all tables: every cell, oblivious attacks, checks and notes. 'freqrobust report RUN --full' does it "
        "later.", OUTPUT,
    )  # fmt: skip

    @model_validator(mode="after")
    def _full_or_quiet(self) -> Self:
        if self.full and self.quiet:
            raise ValueError("give either {full} or {quiet}, not both")
        return self


class PlanOptions(Options):
    """Showing what a command would do."""

    dry_run: bool = option(
        False, "Load models and data, print what would be done and about how long it takes, and write nothing.", OUTPUT
    )


class ThresholdOptions(Options):
    """What the accuracies of a report have to be."""

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

    @model_validator(mode="after")
    def _thresholds(self) -> Self:
        if self.confident and not self.fail_under:
            raise ValueError("{confident} needs {fail_under}: without it there is nothing to judge")
        return self


class EvalCommand(ThresholdOptions, PlanOptions, ReportOptions, ConfigFile, EvalConfig):
    """The options of ``freqrobust eval``."""

    examples: Whole = option(
        4, "Show the images of up to N samples in HTML reports (default: 4): clean, adversarial, perturbation, LFC and "
        "HFC.", RUN, "N", ge=0, le=64,
    )  # fmt: skip
    save_model: FilePath | None = option(None, "Save the defended model to this file.", OUTPUT, "FILE")
    save_adversarial: FilePath | None = option(
        None, "Save the adversarial examples of all samples to this directory, one .npz file per cell.", OUTPUT, "DIR"
    )
    shard: str | None = option(
        None, "Measure shard K of N, into the --run-dir that all shards have in common. 'freqrobust merge' makes the "
        "report.", OUTPUT, "K/N",
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_share(self) -> Self:
        if self.shard is None:
            return self
        shard_of(self.shard)
        if self.run_dir is None:
            raise ValueError("{shard} needs {run_dir}: the directory that all shards have in common")
        for name in ("json_file", "reports", "full", "fail_under", "confident"):
            if getattr(self, name):
                raise ValueError(f"{{shard}} makes no report: give {{{name}}} to 'freqrobust merge'")
        for name in ("save_model", "save_adversarial"):
            if getattr(self, name) is not None:
                raise ValueError(f"give either {{shard}} or {{{name}}}, not both: a shard only measures its share")
        return self


def shard_of(text: str) -> tuple[int, int]:
    """``K/N``: the number of a shard, from 1, and how many there are.

    Raises:
        ValueError: it is something else.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(
            f"{{shard}} should be K/N with K from 1 to N, such as 3/8, but got {escaped(excerpt(repr(text)))}"
        )
    return int(found[1]), int(found[2])


class AnalyzeCommand(PlanOptions, StepOptions, ConfigFile, AnalyzeConfig):
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
        None, "Write the picture to this file, which ends in .png, .svg or .pdf. Without --out, --json and --into, the results "
        "are written to a directory under runs/.", OUTPUT, "FILE",
    )  # fmt: skip
    into: FilePath | None = option(
        None, "Add the result and its picture to this JSON report of 'freqrobust eval', made on the same samples.",
        OUTPUT, "RUN.json",
    )  # fmt: skip


def _command_only(command: type[Options], config: type[FileOptions]) -> None:
    """Let a file of the command be read in Python as well."""
    config.command_only = frozenset(command.model_fields) - frozenset(config.model_fields)


_command_only(EvalCommand, EvalConfig)
_command_only(AnalyzeCommand, AnalyzeConfig)


class VerifyCommand(StepOptions, VerifyConfig):
    """The options of ``freqrobust verify``."""

    directory: FilePath = option(
        ..., "A directory that --save-adversarial wrote, or one of its files.", metavar="DIR", argument=True
    )


class RerunCommand(StepOptions, DeviceOptions):
    """The options of ``freqrobust rerun``; the others are in the report."""

    report: FilePath = option(
        ..., "A report of 'freqrobust eval' or 'freqrobust analyze', or the training.json of 'freqrobust train'.",
        metavar="REPORT.json", argument=True,
    )  # fmt: skip
    model: Names = option(
        [], "The same model at another place. Repeat the option for several models.", MODEL, "SPEC", many=True
    )
    trust_checkpoint: bool = option(False, "Load checkpoints that can run code. Use it only for trusted files.", MODEL)
    data: Text | None = option(None, "The same dataset at another place.", DATA, "SPEC")
    data_dir: FilePath | None = option(None, "Directory of the torchvision datasets.", DATA, "DIR")
    train_data: Text | None = option(None, "The same training data at another place.", DATA, "SPEC")
    run_dir: FilePath | None = option(
        None, "An empty directory for the new results. Default: a directory under runs/.", OUTPUT, "DIR"
    )


class MergeCommand(ThresholdOptions, ReportOptions):
    """The options of ``freqrobust merge``; the others are in the directory."""

    directory: FilePath = option(..., "The --run-dir of the shards.", metavar="DIR", argument=True)
    model: Names = option(
        [], "The same model at another place. Repeat the option for several models.", MODEL, "SPEC", many=True
    )
    trust_checkpoint: bool = option(False, "Load checkpoints that can run code. Use it only for trusted files.", MODEL)
    data: Text | None = option(None, "The same dataset at another place.", DATA, "SPEC")
    data_dir: FilePath | None = option(None, "Directory of the torchvision datasets.", DATA, "DIR")
    train_data: Text | None = option(None, "The same training data at another place.", DATA, "SPEC")


class CheckConfig(PlanOptions, ReportOptions):
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
