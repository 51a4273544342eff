"""One ``freqrobust train``: from the options of the command line to checkpoints, a live display and a summary."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqrobust.core.text import one_line, print_error, print_line

if TYPE_CHECKING:
    from freqrobust.core.training_config import TrainCommand
    from freqrobust.experiments.train import TrainingJob, TrainingRun
    from freqrobust.experiments.training_setup import Setup
    from freqrobust.results.training_record import EpochRecord, Share


def execute(config: TrainCommand, check: Callable[[TrainingJob], None] | None = None) -> int:
    """Train, or finish a training; show what each epoch brings, then a summary.

    Args:
        config: the options.
        check: is called before anything is trained, and may refuse it.

    Returns:
        The exit code: 0, or 130 when interrupted.

    Raises:
        FreqRobustError: bad input, or the training diverged.
    """
    from freqrobust.cli.lines import first_line

    first_line("training", [config.arch] if config.arch != "auto" else ["a network"], config.data, config.quiet)
    from freqrobust.core.config_file import write_options
    from freqrobust.core.files import check_writable
    from freqrobust.core.progress import Screen
    from freqrobust.experiments.train import opened

    if config.json_file is not None:
        check_writable(config.json_file, "--json")
    if config.save_config is not None:
        check_writable(config.save_config, "--save-config")
    if config.dry_run:
        _show_plan(config)
        return 0
    with opened(None, config) as job:
        if check is not None:
            check(job)
        writes = job.workers.writes
        screen = Screen(config.quiet or not writes, bar=not config.no_progress)
        _announce(config, job.setup, screen)
        _announce_run(job, screen)
        if config.save_config is not None and writes:
            write_options(config, config.save_config)
            screen.say(f"options saved: {config.save_config}")
        try:
            with screen:
                run = job.run(screen)
        except KeyboardInterrupt:
            if writes:
                done = f"after epoch {len(job.epochs)} of {job.setup.plan.epochs}"
                print_error(
                    f"interrupted {done} (exit code 130); run the same command again to resume from {job.files.folder}"
                )
            return 130
        if not writes:
            return 0
        if config.json_file is not None:
            run.record.to_json(config.json_file)
        if not config.quiet:
            _summarise(config, run, job)
    return 0


def _show_plan(config: TrainCommand) -> None:
    """What would be trained, and about how long the passes of the training take."""
    from freqrobust.cli.dry_run import TIMES, seconds_per_pass
    from freqrobust.core.progress import Screen
    from freqrobust.core.schedule import clock_text
    from freqrobust.experiments.training_setup import prepare_setup
    from freqrobust.harness.devices import resolve_device
    from freqrobust.harness.passes import steps_of
    from freqrobust.harness.speed import decoding

    device = resolve_device(config.device)
    setup, screen = prepare_setup(None, config, device), Screen(config.quiet)
    _announce(config, setup, screen)
    passes = 3 * (1 + steps_of(setup.plan.method.plugin)) * setup.plan.epochs * len(setup.train)
    took = passes * seconds_per_pass(setup.model, setup.train, device, setup.plan.batch_size)
    uses = setup.plan.epochs * len(setup.train)
    took += decoding(setup.train.images, setup.plan.batch_size, device, (uses, took))[1][0]
    screen.say(f"time: about {clock_text(took)} without probes, from {TIMES} timed batches, {setup.plan.epochs} epochs")
    screen.say("dry run: nothing was trained or written")


def _announce(config: TrainCommand, setup: Setup, screen: Any) -> None:
    """What is going to be trained, in a few lines."""
    from freqrobust.data.changed_images import ChangedImages
    from freqrobust.data.lazy_images import LazyImages
    from freqrobust.harness.inputs import left_out

    plan = setup.plan
    if config.data is None:
        screen.say("no --data given: training on the demo's data, handwritten digits of 8 x 8 pixels")
    shape = "x".join(map(str, setup.data.shape))
    held_out = len(setup.all_held_out) if setup.all_held_out is not None else 0
    screen.say(
        f"data: {setup.data.spec}, {len(setup.data)} images {shape}, {setup.data.classes} classes; {held_out} held out"
    )
    if isinstance(setup.data.images, LazyImages):
        screen.say(f"images: {setup.data.images}")
    if isinstance(setup.train.images, ChangedImages):
        screen.say(f"changed training images: {setup.train.images}")
    if setup.data.unreadable:
        screen.say(f"warning: {left_out(setup.data)}")
    parameters = sum(parameter.numel() for parameter in setup.model.network.parameters())
    screen.say(f"model: {setup.model.arch}, {parameters:,} parameters; normalisation: {setup.model.normalization}")
    augment = ", ".join(part.spec for part in plan.augment) or "none"
    screen.say(f"method: {plan.method.spec}; augmentation: {augment}")
    for regularizer in plan.regularizers:
        screen.say(f"regularizer: {regularizer.spec}")
    screen.say(f"optimizer: {plan.optimizer.spec}")
    screen.say(f"schedule: {plan.schedule.spec}")
    for shift in setup.written["train-shift"]:
        screen.say(f"training images changed by {shift}")
    for name, randomised in (("labels", setup.recipe.labels), ("pixels", setup.recipe.pixels)):
        if randomised != "true":
            screen.say(f"{name}: {randomised}")


def _announce_run(job: TrainingJob, screen: Any) -> None:
    """Where it is written, and what the lines of the epochs show."""
    setup = job.setup
    held_out = len(setup.all_held_out) if setup.all_held_out is not None else 0
    screen.say(f"directory: {job.files.folder}")
    if job.finished is not None:
        screen.say("this training was finished before; its result is shown")
        return
    if any(probe.spec is not None for probe in setup.probes):
        parts = "training/held-out samples" if held_out else "training samples"
        screen.say(f"each epoch: probes in percent, {parts}; * is the best so far")


def _summarise(config: TrainCommand, run: TrainingRun, job: TrainingJob) -> None:
    from freqrobust.cli.analyze import render
    from freqrobust.results.analysis import AnalysisTable

    record, setup = run.record, job.setup
    best = next((epoch for epoch in record.epochs if epoch.epoch == record.best_epoch), record.epochs[-1])
    print_line()
    print_line(f"trained: {record.arch} with {setup.plan.method.spec} on {setup.data.spec}")
    print_line(f"{len(record.epochs)} epochs, {record.train_data.n} images, {_minutes(record.seconds)}")
    if setup.held_out is None:
        print_line("no samples are held out, so that the best checkpoint is that of the last epoch")
    else:
        print_line(
            one_line(
                f"best epoch: {best.epoch}, chosen by {record.best_probe} on {len(setup.held_out)} held-out images"
            )
        )
    print_line()
    table = AnalysisTable(
        title=f"accuracy after epoch {best.epoch}, with 95 % confidence intervals",
        columns=["probe", "training samples", "held-out samples", "chance"],
        rows=_rows(best),
    )
    render([table], sys.stdout)
    for note in record.notes[1:]:
        print_line(f"note: {note}")
    for name in ("best.pt", "last.pt", "log.jsonl", "training.json", "curves.png"):
        if (run.out / name).exists():
            print_line(f"{_FILES[name]}: {run.out / name}")
    print_line(f"next: {next_command(config, run)}")


_FILES = {
    "best.pt": "best checkpoint",
    "last.pt": "last epoch",
    "log.jsonl": "log",
    "training.json": "record",
    "curves.png": "curves",
}


def _rows(best: EpochRecord) -> list[list[str]]:
    return [
        [result.name, _share(result.train), _share(result.held_out), f"{100 * result.chance:.1f} %"]
        for result in best.probes
    ]


def _share(share: Share | None) -> str:
    if share is None:
        return "-"
    low, high = share.ci95
    return f"{100 * share.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02} min"


def next_command(config: TrainCommand, run: TrainingRun) -> str:
    """The command that evaluates the best checkpoint, on the test split where the data has one."""
    data = str(config.data) if config.data is not None else "digits"
    has_splits = ":" not in data and "." not in Path(data).name
    arch = run.record.arch
    code = ":" in arch and not arch.startswith("torchvision:")
    parts = ["freqrobust", "eval", "--model", str(run.best), *(["--arch", arch] if code else [])]
    return f"{shlex.join(parts)} --data {shlex.quote(data) if has_splits else 'TEST_DATA'}"
