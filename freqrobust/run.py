"""One ``freqrobust eval``: from the words of the command line to a report on disk and a table."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqrobust.errors import SpecError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from freqrobust.registry import DefenseChain, Selection


@dataclass(frozen=True)
class Request:
    """What was asked for, in the words of the command line."""

    model: str | None
    arch: str
    normalize: str
    trust: bool
    data: str | None
    data_dir: str | None
    split: str
    limit: int | None
    first: int | None
    train_data: str | None
    defenses: Sequence[str]
    options: Mapping[str, Sequence[str]]
    attacks: Sequence[str] | None
    suite: str | None
    baseline: bool
    oblivious: bool
    batch_size: str
    device: str
    precision: str
    seed: int
    mce_reference: str | None
    run_dir: str | None
    json: str | None
    save_model: str | None
    save_adversarial: str | None
    quiet: bool


def execute(request: Request) -> int:
    """Evaluate, write the report, print the table.

    Returns:
        The exit code: 0, 3 when cells failed, 130 when interrupted.

    Raises:
        FreqRobustError: bad input.
    """
    from freqrobust.data import cache_root, load_data
    from freqrobust.demo import demo_model
    from freqrobust.devices import resolve_device
    from freqrobust.harness import evaluate
    from freqrobust.journal import check_writable
    from freqrobust.models import load_model
    from freqrobust.registry import parse_attacks, parse_defenses, reports
    from freqrobust.saved import adversarial, save_adversarial
    from freqrobust.suites import resolve

    if request.attacks is not None and request.suite is not None:
        raise SpecError("give either --attack or --suite, not both")
    if not request.baseline and not request.defenses:
        raise SpecError("--no-baseline needs a --defense: there would be nothing to measure")
    batch_size = parse_batch_size(request.batch_size)
    device = resolve_device(request.device)
    chains = parse_defenses(request.defenses, request.options)
    saved = _defense_to_save(request, chains)
    attacks = parse_attacks(request.attacks) if request.attacks is not None else None
    for target in (request.json, request.save_model):
        if target is not None:
            check_writable(Path(target))
    if request.save_adversarial is not None:
        check_writable(Path(request.save_adversarial) / "examples.npz")

    cache = cache_root()
    watch = Screen(request.quiet)
    demo = request.model is None or request.model == "demo"
    subset: dict[str, Any] = {"limit": request.limit, "first": request.first, "seed": request.seed}
    data = load_data(
        request.data or ("digits" if demo else _missing_data()),
        data_dir=request.data_dir,
        split=request.split,
        **subset,
    )
    train = request.train_data or ("digits" if demo else None)
    train_data = load_data(train, data_dir=request.data_dir, split="train") if train is not None else None
    if demo:
        if request.model is None:
            watch.say("no --model given: this is the embedded demo, a small CNN on 8 x 8 handwritten digits")
        model = demo_model(cache, watch).to(device)
    else:
        assert request.model is not None
        model = load_model(
            request.model, arch=request.arch, normalize=request.normalize, trust=request.trust, data=data, device=device
        )
    watch.say(f"model: {model.arch} ({model.spec})")
    watch.say(f"normalisation: {model.chosen}, source: {model.chosen.source}")
    for warning in filter(None, (model.note, model.chosen.warning)):
        watch.say(f"warning: {warning}")
    watch.say(f"data: {data.spec}, {len(data)} images {'x'.join(map(str, data.shape))}, {data.classes} classes")
    if attacks is None:
        attacks = parse_attacks(resolve(request.suite or "standard", data.shape))
    if request.save_adversarial is not None:
        adversarial(attacks)
    run_dir = (
        Path(request.run_dir) if request.run_dir is not None else default_run_dir(request, model, data, chains, attacks)
    )
    check_writable(run_dir / "report.json")
    try:
        with watch:
            report = evaluate(
                model,
                data,
                attacks=attacks,
                defenses=chains,
                baseline=request.baseline,
                oblivious=request.oblivious,
                train_data=train_data,
                batch_size=batch_size,
                device=device,
                precision=request.precision,  # type: ignore[arg-type]
                seed=request.seed,
                mce_reference=request.mce_reference,
                run_dir=run_dir,
                cache_dir=cache,
                progress=watch,
            )
    except KeyboardInterrupt:
        print(
            f"freqrobust: interrupted; finished cells are kept in {run_dir}, run the same command again to resume",
            file=sys.stderr,
        )
        return 130
    report.to_json(run_dir / "report.json")
    if request.json is not None:
        report.to_json(request.json)
    if saved is not None and request.save_model is not None:
        _save(request, model, saved, train_data, device, cache, watch)
    unsaved: list[str] = []
    if request.save_adversarial is not None:
        try:
            with watch:
                unsaved = save_adversarial(
                    model,
                    data,
                    attacks=attacks,
                    defenses=chains,
                    directory=request.save_adversarial,
                    baseline=request.baseline,
                    train_data=train_data,
                    batch_size=batch_size,
                    device=device,
                    precision=request.precision,  # type: ignore[arg-type]
                    seed=request.seed,
                    cache_dir=cache,
                    progress=watch,
                ).failed
        except KeyboardInterrupt:
            print(
                f"freqrobust: interrupted; the report is {run_dir / 'report.json'}, and the sets that were finished "
                f"are in {request.save_adversarial}; run the same command again for the others",
                file=sys.stderr,
            )
            return 130
    if not request.quiet:
        reporter: Any = reports.get("table")()
        reporter.render(report, sys.stdout)
        watch.say(f"report: {run_dir / 'report.json'}")
    return 3 if report.status == "partial" or unsaved else 0


def _missing_data() -> str:
    raise SpecError("--model needs --data: a dataset (cifar10, ...), a file .npz, folder:DIR or module:callable")


def parse_batch_size(text: str) -> Any:
    """``auto`` or a positive number."""
    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise SpecError(f"--batch-size should be auto or at least 1, but got {text!r}")
    return int(text)


def _defense_to_save(request: Request, chains: list[DefenseChain]) -> DefenseChain | None:
    from freqrobust.plugin import InputDefense

    if request.save_model is None:
        return None
    defended = [chain for chain in chains if chain.parts]
    if len(defended) != 1:
        raise SpecError(f"--save-model needs exactly one --defense, but there are {len(defended)}")
    wrapping = [
        p.spec
        for p in defended[0].parts
        if isinstance(p.plugin, InputDefense) or getattr(p.plugin, "stochastic", False)
    ]
    if wrapping:
        raise SpecError(f"--save-model saves weights, and {wrapping[0]} is not in the weights")
    return defended[0]


def _save(
    request: Request, model: Any, chain: DefenseChain, train_data: Any, device: Any, cache: Path, watch: Any
) -> None:
    from freqrobust.context import DefenseContext
    from freqrobust.defending import defend
    from freqrobust.models import frozen, save_model

    context = DefenseContext(device=device, seed=request.seed, train_data=train_data, cache_dir=cache, progress=watch)
    with frozen(model):
        defended, _ = defend(model, chain, context)
    assert request.save_model is not None
    save_model(defended, request.save_model)
    watch.say(f"model saved: {request.save_model}")


def default_run_dir(
    request: Request, model: Any, data: Any, chains: list[DefenseChain], attacks: list[Selection]
) -> Path:
    """A folder under ``runs/`` named by content, so that the same command finds it again."""
    from freqrobust.journal import identity
    from freqrobust.models import fingerprint

    content = {
        "model": fingerprint(model),
        "data": data.sha256,
        "defenses": [chain.spec for chain in chains],
        "attacks": [selection.spec for selection in attacks],
        "baseline": [request.baseline, request.oblivious],
        "train_data": request.train_data,
        "seed": request.seed,
        "precision": request.precision,
    }
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(request.model or "demo").stem)[:40].strip("-.") or "model"
    return Path("runs") / f"{stem}-{identity(content)[:12]}"


class Screen:
    """Progress on standard error: a bar on a terminal, a line a cell elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> Screen:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begin(self, label: str, total: int) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(label, total=total)

    def advance(self, amount: int) -> None:
        if self.task is not None:
            self.bar.advance(self.task, amount)

    def end(self, summary: str) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        self.say(summary)

    def say(self, message: str) -> None:
        if not self.quiet:
            self.console.print(message)
