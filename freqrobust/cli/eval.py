"""One ``freqrobust eval``: from the options of the command line to a report on disk and a table."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqrobust.core.errors import SpecError
from freqrobust.core.text import print_error

if TYPE_CHECKING:
    from freqrobust.cli.shared_run import Part
    from freqrobust.core.command_config import EvalCommand
    from freqrobust.gate.thresholds import Gate
    from freqrobust.harness.request import LoadedRequest
    from freqrobust.plugins.specs import DefenseChain
    from freqrobust.results.report import Report


def execute(
    config: EvalCommand,
    parameters: Mapping[str, Sequence[str]] | None = None,
    gate: Gate | None = None,
    check: Callable[[Sequence[Any], Any], None] | None = None,
    judged: Callable[[Report], None] | None = None,
    part: Part | None = None,
) -> int:
    """Evaluate, write the report, print the table.

    Args:
        config: the options.
        parameters: the parameters of defenses that were given as options.
        gate: what judges the report; by default the thresholds of ``config``.
        check: is called with the models and the data before anything is measured, and may refuse them.
        judged: is called with the report once it is on disk and shown, before the last lines.
        part: what this process does of the evaluation; by default what the options and the environment say.

    Returns:
        The exit code: 0, 1 when the gate failed, 3 when cells failed, 130 when interrupted.

    Raises:
        FreqRobustError: bad input.
    """
    from freqrobust.cli.lines import closing_lines, first_line
    from freqrobust.cli.shared_run import part_of
    from freqrobust.core.launch import is_first

    part = part or part_of(config)
    first_line("evaluating", config.model or ["the demo"], config.data, config.quiet or not part.says)
    code = part.begin(gate)
    if code is not None:
        return code
    from freqrobust.cli.startup import load_engine

    load_engine()
    from freqrobust.cli.dry_run import cell_count, show_plan
    from freqrobust.cli.failures import exit_code, print_exit_code, print_failures
    from freqrobust.core.config import EvalConfig, SaveConfig
    from freqrobust.core.config_file import write_options
    from freqrobust.core.files import cache_root, check_writable, user_path
    from freqrobust.core.progress import Screen
    from freqrobust.gate.planned import planned
    from freqrobust.gate.thresholds import Gate, parse_threshold
    from freqrobust.harness.devices import resolve_device
    from freqrobust.harness.evaluate import Evaluation
    from freqrobust.harness.inputs import say_data
    from freqrobust.harness.provenance import data_record
    from freqrobust.harness.request import Request
    from freqrobust.harness.run_plan import pieces
    from freqrobust.harness.save_adversarial import adversarial, save_adversarial
    from freqrobust.plugins.selection import source_spec
    from freqrobust.results.rendering import STDOUT, check_outputs, parse_outputs, write_outputs
    from freqrobust.results.reporter import reports

    if gate is None and config.fail_under:
        gate = Gate(map(parse_threshold, config.fail_under), confident=config.confident)
    _check_models(config)
    device = part.device(resolve_device(config.device))
    named = Request.of(config, parameters)
    saved = _defense_to_save(config, named.defenses)
    outputs = parse_outputs(config.reports, "--report")
    targets = {"--json": config.json_file, "--save-model": config.save_model, "--save-config": config.save_config}
    for flag, target in targets.items():
        if target is not None:
            check_writable(target, flag)
    check_outputs(outputs, "--report", [Path(t) for t in (config.json_file, config.save_model) if t is not None])
    if config.save_adversarial is not None:
        check_writable(user_path(config.save_adversarial, "--save-adversarial") / "examples.npz")
    run_dir = user_path(config.run_dir, "--run-dir") if config.run_dir is not None else None
    if run_dir is not None:
        check_writable(run_dir / "report.json")

    cache: Any = user_path(config.cache_dir, "--cache-dir") if config.cache_dir is not None else cache_root()
    cache = None if config.dry_run else cache
    screen = Screen(config.quiet or not is_first(), config.verbose, not config.no_progress)
    request = named.load(device, cache, screen)
    models, data, attacks, chains = request.models, request.data, request.attacks, request.chains
    say_data(data, screen, request.training)
    if config.save_adversarial is not None:
        adversarial(attacks)
    if gate is not None:
        gate.prepare(planned(chains, attacks, config.oblivious), data_record(data))
    cells = pieces(
        chains,
        attacks,
        len(data),
        oblivious=config.oblivious,
        depth=config.diagnose,
        certificates=request.certificates,
    )
    run_dir = run_dir or default_run_dir(request, gate)
    if config.dry_run:
        settings = request.settings(run_dir=run_dir)
        show_plan(Evaluation(models, data, EvalConfig.of(None, settings), screen), run_dir, config.json_file, screen)
        return 0
    names = ", ".join(dict.fromkeys(one.name for one in attacks)) or "none"
    screen.say(f"attacks: {names} ({len(models) * cell_count(list(cells))} cells)")
    check_writable(run_dir / "report.json")
    resolved = {"defenses": [source_spec(chain) for chain in request.defenses]} if parameters else {}
    if config.save_config is not None and is_first():
        write_options(config, config.save_config, **resolved)
        screen.say(f"options saved: {config.save_config}")
    if check is not None:
        check(models, data)
    cache = part.cache(cache, run_dir) if config.cache_dir is None else cache
    settings, recorded = request.settings(run_dir=run_dir, cache_dir=cache), request.options.record(**resolved)
    try:
        with screen:
            report = part.measure(gate, models, data, settings, recorded, screen)
    except KeyboardInterrupt:
        print_error(
            f"interrupted (exit code 130); finished cells are kept in {run_dir}, run the same command again to resume"
        )
        return 130
    if report is None:
        return part.ended(screen, run_dir)
    report.to_json(run_dir / "report.json")
    if gate is not None:  # the report is on disk even if it turns out that it cannot be judged
        gate.judge(report)
        report.to_json(run_dir / "report.json")
    if config.json_file is not None:
        report.to_json(config.json_file)
    if saved is not None and config.save_model is not None:
        _save(config, models[0], saved, request.training, device, cache, screen)
    unsaved: list[str] = []
    if config.save_adversarial is not None:
        try:
            with screen:
                settings = request.settings(SaveConfig, cache_dir=cache)
                unsaved = save_adversarial(models[0], data, config.save_adversarial, progress=screen, **settings).failed
        except KeyboardInterrupt:
            print_error(
                f"interrupted (exit code 130); the report is {run_dir / 'report.json'}, and the sets that were finished "
                f"are in {config.save_adversarial}; run the same command again for the others"
            )
            return 130
    if not config.quiet and all(output.target != STDOUT for output in outputs):
        shown = not (sys.stdout.isatty() and sys.stderr.isatty())  # else it is on the screen already
        table: Any = reports.get("table")
        table(full=config.full, header=shown).render(report, sys.stdout)
        sys.stdout.flush()
    written = write_outputs(outputs, {run_dir.name: report})
    if judged is not None:
        judged(report)
    for line in [*map("written: {}".format, written), *closing_lines(report, run_dir / "report.json", config.full)]:
        screen.say(line)
    if config.quiet:
        print_failures(report, unsaved)
    else:
        print_exit_code(report, unsaved)
    return part.judged(exit_code(report, unsaved))


def _check_models(config: EvalCommand) -> None:
    """Refuse a model that is given twice, and several models where one is needed.

    Raises:
        SpecError: the options of the models do not fit together.
    """
    specs = config.model or ["demo"]
    models = [(spec, *options) for spec, options in zip(specs, config.per_model(len(specs)), strict=True)]
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice is not None:
        raise SpecError(f"--model {twice[0]} is given twice, with the same --arch and --normalize")
    if len(models) > 1:
        for flag, value in (("--save-model", config.save_model), ("--save-adversarial", config.save_adversarial)):
            if value is not None:
                raise SpecError(f"{flag} takes one --model, but there are {len(models)}")


def _defense_to_save(config: EvalCommand, chains: list[DefenseChain]) -> DefenseChain | None:
    from freqrobust.plugins.base import InputDefense

    if config.save_model is None:
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
        raise SpecError(f"--save-model saves weights, but {wrapping[0]} does not change the weights")
    return defended[0]


def _save(
    config: EvalCommand, model: Any, chain: DefenseChain, train_data: Any, device: Any, cache: Path, screen: Any
) -> None:
    from freqrobust.harness.defend import defend
    from freqrobust.models.classifier import frozen
    from freqrobust.models.files import save_model
    from freqrobust.plugins.context import DefenseContext

    context = DefenseContext(device=device, seed=config.seed, train_data=train_data, cache_dir=cache, progress=screen)
    with frozen(model):
        defended, _ = defend(model, chain, context)
    assert config.save_model is not None
    save_model(defended, config.save_model)
    screen.say(f"model saved: {config.save_model}")


def default_run_dir(request: LoadedRequest, gate: Gate | None) -> Path:
    """A directory under ``runs/`` named by content, so that the same command uses it again."""
    from freqrobust.core.files import identity
    from freqrobust.harness.inputs import named_by

    config = request.options
    prints = [named_by(model) for model in request.models]
    content = {
        "model": prints[0] if len(prints) == 1 else prints,
        "data": request.data.sha256,
        "defenses": [chain.spec for chain in request.defenses],
        "attacks": [plugin_spec.spec for plugin_spec in request.attacks],
        "undefended": config.undefended,
        "train_data": config.train_data,
        "seed": config.seed,
        "precision": config.precision,
    }
    if config.compile != "auto":
        content["compile"] = config.compile
    if request.certificates:
        content["certify"] = [plugin_spec.spec for plugin_spec in request.certificates]
    if gate is not None and gate.early:
        content["stopped_early"] = [gate.confident, [threshold.text for threshold in gate.thresholds]]
    first = Path(config.model[0] if config.model else "demo").stem
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", first)[:40].strip("-.") or "model"
    if len(prints) > 1:
        stem += f"-and-{len(prints) - 1}-more"
    return Path("runs") / f"{stem}-{identity(content)[:12]}"
