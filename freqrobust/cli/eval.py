"""One ``freqrobust eval``: from the words of the command line to a report on disk and a table."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqrobust.core.errors import SpecError
from freqrobust.core.numbers import MOST
from freqrobust.core.text import excerpt, print_error

if TYPE_CHECKING:
    from freqrobust.core.progress import Screen
    from freqrobust.gate.thresholds import Gate
    from freqrobust.plugins.base import Attack
    from freqrobust.plugins.specs import DefenseChain, PluginSpec


@dataclass(frozen=True)
class Request:
    """What was asked for, in the words of the command line."""

    models: Sequence[str]
    arch: Sequence[str]
    normalize: Sequence[str]
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
    diagnose: bool
    batch_size: str
    device: str
    precision: str
    seed: int
    mce_reference: str | None
    run_dir: str | None
    json: str | None
    reports: Sequence[str]
    save_model: str | None
    save_adversarial: str | None
    quiet: bool
    gate: Gate | None = None


def execute(request: Request) -> int:
    """Evaluate, write the report, print the table.

    Returns:
        The exit code: 0, 1 when the gate failed, 3 when cells failed, 130 when interrupted.

    Raises:
        FreqRobustError: bad input.
    """
    from freqrobust.cli.failures import exit_code, print_failures
    from freqrobust.core.files import cache_root, check_writable, user_path
    from freqrobust.core.progress import Screen
    from freqrobust.data.loading import as_data, load_data
    from freqrobust.gate.planned import planned
    from freqrobust.harness.devices import resolve_device
    from freqrobust.harness.evaluate import evaluate
    from freqrobust.harness.provenance import data_record
    from freqrobust.harness.save_adversarial import adversarial, save_adversarial
    from freqrobust.plugins.selection import parse_attacks, parse_defenses, with_baseline
    from freqrobust.plugins.suites import resolve
    from freqrobust.results.rendering import STDOUT, check_outputs, parse_outputs, write_outputs
    from freqrobust.results.reporter import reports

    if request.attacks is not None and request.suite is not None:
        raise SpecError("give either --attack or --suite, not both")
    if not request.baseline and not request.defenses:
        raise SpecError("--no-baseline needs a --defense: there would be nothing to measure")
    batch_size = parse_batch_size(request.batch_size)
    wanted = wanted_models(request)
    device = resolve_device(request.device)
    chains = parse_defenses(request.defenses, request.options)
    saved = _defense_to_save(request, chains)
    attacks = parse_attacks(request.attacks) if request.attacks is not None else None
    outputs = parse_outputs(request.reports, "--report")
    for flag, target in (("--json", request.json), ("--save-model", request.save_model)):
        if target is not None:
            check_writable(target, flag)
    check_outputs(outputs, "--report", [target for target in (request.json, request.save_model) if target is not None])
    if request.save_adversarial is not None:
        check_writable(user_path(request.save_adversarial, "--save-adversarial") / "examples.npz")

    given_run_dir = user_path(request.run_dir, "--run-dir") if request.run_dir is not None else None
    if given_run_dir is not None:
        check_writable(given_run_dir / "report.json")

    cache = cache_root()
    watch = Screen(request.quiet)
    demo = all(one.spec == "demo" for one in wanted)
    subset: dict[str, Any] = {"limit": request.limit, "first": request.first, "seed": request.seed}
    data = as_data(
        load_data(
            request.data if request.data is not None else ("digits" if demo else missing_data()),
            data_dir=request.data_dir,
            split=request.split,
            **subset,
        )
    )
    train = request.train_data if request.train_data is not None else ("digits" if demo else None)
    train_data = load_data(train, data_dir=request.data_dir, split="train") if train is not None else None
    if not request.models:
        watch.say("no --model given: this is the embedded demo, a small CNN on 8 x 8 handwritten digits")
    models = [_load(one, request.trust, data, device, cache, watch) for one in wanted]
    watch.say(f"data: {data.spec}, {len(data)} images {'x'.join(map(str, data.shape))}, {data.classes} classes")
    if attacks is None:
        attacks = parse_attacks(resolve("standard" if request.suite is None else request.suite, data.shape))
    if request.save_adversarial is not None:
        adversarial(attacks)
    if request.gate is not None:
        request.gate.prepare(
            planned(with_baseline(chains, request.baseline), attacks, request.oblivious), data_record(data)
        )
    run_dir = given_run_dir or default_run_dir(request, models, data, chains, attacks)
    check_writable(run_dir / "report.json")
    try:
        with watch:
            report = (request.gate.measure if request.gate is not None else evaluate)(
                models,
                data,
                attacks=attacks or ["clean"],
                defenses=chains,
                baseline=request.baseline,
                oblivious=request.oblivious,
                diagnose="full" if request.diagnose else "quick",
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
        print_error(f"interrupted; finished cells are kept in {run_dir}, run the same command again to resume")
        return 130
    report.to_json(run_dir / "report.json")
    if request.gate is not None:  # the report is on disk, also where it turns out that it cannot be judged
        request.gate.judge(report)
        report.to_json(run_dir / "report.json")
    if request.json is not None:
        report.to_json(request.json)
    if saved is not None and request.save_model is not None:
        _save(request, models[0], saved, train_data, device, cache, watch)
    unsaved: list[str] = []
    if request.save_adversarial is not None:
        try:
            with watch:
                unsaved = save_adversarial(
                    models[0],
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
            print_error(
                f"interrupted; the report is {run_dir / 'report.json'}, and the sets that were finished "
                f"are in {request.save_adversarial}; run the same command again for the others"
            )
            return 130
    if not request.quiet:
        if all(output.target != STDOUT for output in outputs):
            reporter: Any = reports.get("table")()
            reporter.render(report, sys.stdout)
        watch.say(f"report: {run_dir / 'report.json'}")
    for path in write_outputs(outputs, {run_dir.name: report}):
        watch.say(f"written: {path}")
    if request.quiet:
        print_failures(report, unsaved)
    return exit_code(report, unsaved)


@dataclass(frozen=True)
class WantedModel:
    """One ``--model``, with its architecture and normalisation."""

    spec: str
    arch: str
    normalize: str


def wanted_models(request: Request) -> list[WantedModel]:
    """Every ``--model`` with the ``--arch`` and ``--normalize`` that are its own, or those of all.

    Raises:
        SpecError: the numbers of options do not fit, or a model is given twice.
    """
    specs = list(request.models) or ["demo"]
    columns = []
    for flag, given in (("--arch", request.arch), ("--normalize", request.normalize)):
        values = list(given) or ["auto"]
        if len(values) not in (1, len(specs)):
            raise SpecError(
                f"{flag} should be given once for all models or once for each of the {len(specs)}, "
                f"but is given {len(values)} times"
            )
        columns.append(values * len(specs) if len(values) == 1 else values)
    found = [WantedModel(*row) for row in zip(specs, *columns, strict=True)]
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice is not None:
        raise SpecError(f"--model {twice.spec} is given twice, with the same --arch and --normalize")
    if len(found) > 1:
        for flag, value in (("--save-model", request.save_model), ("--save-adversarial", request.save_adversarial)):
            if value is not None:
                raise SpecError(f"{flag} takes one --model, but there are {len(found)}")
    return found


def _load(wanted: WantedModel, trust: bool, data: Any, device: Any, cache: Path, watch: Screen) -> Any:
    from freqrobust.models.loading import load_model

    model = load_model(
        wanted.spec,
        arch=wanted.arch,
        normalize=wanted.normalize,
        trust=trust,
        data=data,
        device=device,
        cache_dir=cache,
        progress=watch,
    )
    watch.say(f"model: {model.arch} ({model.spec})")
    watch.say(f"normalisation: {model.normalization}, source: {model.normalization.source}")
    for warning in filter(None, (model.note, model.normalization.warning)):
        watch.say(f"warning: {warning}")
    return model


def missing_data() -> str:
    """Say that there is no data.

    Raises:
        SpecError: always.
    """
    raise SpecError("--model needs --data: a dataset (cifar10, ...), a file .npz, folder:DIR or module:callable")


def parse_batch_size(text: str) -> Any:
    """``auto`` or a positive number."""
    if text == "auto":
        return text
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit() and digits):
        raise SpecError(f"--batch-size should be auto or at least 1, but got {excerpt(text)!r}")
    if len(digits) > len(str(MOST)) or int(digits) > MOST:
        raise SpecError(f"--batch-size should be auto or at most {MOST}, but got {excerpt(text)}")
    return int(digits)


def _defense_to_save(request: Request, chains: list[DefenseChain]) -> DefenseChain | None:
    from freqrobust.plugins.base import InputDefense

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
    from freqrobust.harness.defend import defend
    from freqrobust.models.classifier import frozen
    from freqrobust.models.files import save_model
    from freqrobust.plugins.context import DefenseContext

    context = DefenseContext(device=device, seed=request.seed, train_data=train_data, cache_dir=cache, progress=watch)
    with frozen(model):
        defended, _ = defend(model, chain, context)
    assert request.save_model is not None
    save_model(defended, request.save_model)
    watch.say(f"model saved: {request.save_model}")


def _named_by(model: Any) -> Any:
    """What tells models apart, without hashing the weights again where the file that they came from was hashed."""
    from freqrobust.models.fingerprint import fingerprint

    if model.sha256 is None:
        return fingerprint(model)
    return [model.sha256, model.arch, model.normalization.mean, model.normalization.std]


def default_run_dir(
    request: Request, models: Sequence[Any], data: Any, chains: list[DefenseChain], attacks: list[PluginSpec[Attack]]
) -> Path:
    """A folder under ``runs/`` named by content, so that the same command finds it again."""
    from freqrobust.core.files import identity

    prints = [_named_by(model) for model in models]
    content = {
        "model": prints[0] if len(prints) == 1 else prints,
        "data": data.sha256,
        "defenses": [chain.spec for chain in chains],
        "attacks": [plugin_spec.spec for plugin_spec in attacks],
        "baseline": request.baseline,
        "train_data": request.train_data,
        "seed": request.seed,
        "precision": request.precision,
    }
    if request.gate is not None and request.gate.early:
        content["stopped_early"] = [request.gate.confident, [threshold.text for threshold in request.gate.thresholds]]
    first = Path(request.models[0] if request.models else "demo").stem
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", first)[:40].strip("-.") or "model"
    if len(prints) > 1:
        stem += f"-and-{len(prints) - 1}-more"
    return Path("runs") / f"{stem}-{identity(content)[:12]}"
