"""``evaluate``: every (defense, attack) pair over one dataset, one report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.files import user_path
from freqrobust.core.numbers import check_int64
from freqrobust.core.progress import Progress, watching
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.data.sources import as_data
from freqrobust.harness.diagnosis.examine import Depth, Examined, examine
from freqrobust.harness.multi_model import Models, as_network, join, named
from freqrobust.harness.opening import check_settings, open_run, try_out
from freqrobust.harness.provenance import data_record
from freqrobust.harness.report_builder import assemble
from freqrobust.harness.run import DefenseRun, Measured, Run
from freqrobust.plugins import corruption_names, suites
from freqrobust.plugins.base import Attack, Defense
from freqrobust.plugins.selection import parse_chains, parse_selections
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results import corruption_summary
from freqrobust.results.records import Precision, Warned
from freqrobust.results.report import Report


def evaluate(
    model: Models,
    data: Any,
    *,
    attacks: Iterable[str | Attack | PluginSpec[Attack]] | None = None,
    suite: str | None = None,
    defenses: Iterable[str | Defense | DefenseChain | Sequence[Defense]] | None = (),
    baseline: bool = True,
    oblivious: bool = True,
    diagnose: Depth | None = "quick",
    train_data: Any = None,
    batch_size: int | Literal["auto"] = "auto",
    device: str | torch.device = "auto",
    precision: Precision = "fp32",
    seed: int = 0,
    mce_reference: str | os.PathLike[str] | Report | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | bool | None = None,
) -> Report:
    """Measure a classifier, undefended and with each defense, under each attack.

    Prints nothing, and writes nothing unless ``run_dir`` or ``cache_dir`` is given.

    Args:
        model: an ``nn.Module`` from images in [0, 1] ``(N, C, H, W)`` to logits ``(N, K)``, or a model spec; or
            several of them in a sequence, or in a mapping from names: one report, all on the same samples.
        data: ``(images, labels)``, a map-style dataset, an :class:`ImageData` or a data spec.
        attacks: attack specs or objects, instead of ``suite``; ``["clean"]`` measures the clean accuracy alone.
        suite: a suite's name or file; ``standard`` when ``attacks`` is not given either.
        defenses: defense specs or objects; a sequence of objects is a composition, left first.
        baseline: measure the undefended model too.
        oblivious: also show each defended model the examples made on the undefended one, for every adversarial
            attack: how robust the defense looks to an attack that does not know of it.
        diagnose: check whether the robust accuracies are to be believed: ``"quick"`` takes three forward passes and
            one backward pass of 200 samples, ``"full"`` runs other attacks on them as well; None: not at all.
        train_data: what training-time defenses learn from, in any form that ``data`` takes.
        batch_size: images per batch; results do not depend on it.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: of the attacks' passes; predictions are always made in fp32.
        seed: all randomness is keyed by it.
        mce_reference: the report, or its file, of the model that corruption errors are divided by; ``alexnet`` for
            the published errors, which are also the default where the complete ImageNet-C files are evaluated.
        run_dir: journal of finished cells; the same call resumes from it.
        cache_dir: where trained defenses are kept; by default the ``run_dir``.
        progress: ``True`` shows progress on standard error; an object with the methods of
            :class:`freqrobust.Progress` is told what happens; by default nothing is shown.

    Returns:
        The report; cells that failed say why.

    Raises:
        FreqRobustError: the model, the data or a spec is wrong; one line that says what would work.
    """
    if attacks is not None and suite is not None:
        raise SpecError("give either attacks or a suite, not both")
    settings = check_settings(device, precision, batch_size)
    check_int64("seed", seed)
    pairs = named(model)
    images = as_data(data)
    training = as_data(train_data, "train data") if train_data is not None else None
    chains = parse_chains(defenses, baseline, training is not None)
    if attacks is None:
        attacks = suites.resolve("standard" if suite is None else suite, images.shape)
    chosen = parse_selections(attacks)
    for plugin_spec in chosen:
        with running_user_code(f"{plugin_spec.spec} failed"):
            plugin_spec.plugin.check_data(images)
    reference = _reference(mce_reference, images, chosen)
    networks = [as_network(one, images, settings.device) for _, one in pairs]
    # several: what is wrong with one of them is said before the first is measured
    fits = [try_out(network, images) for network in networks] if len(networks) > 1 else [None]
    reports = []
    with watching(progress) as watch:
        for (name, _), network, fit in zip(pairs, networks, fits, strict=True):
            if len(pairs) > 1:
                watch.say(f"measuring {name or getattr(network, 'spec', type(network).__name__)}")
            opened = open_run(
                network,
                images,
                settings,
                training=training,
                chosen=chosen,
                seed=seed,
                run_dir=_first_path(run_dir),
                cache_dir=_first_path(cache_dir, run_dir),
                watch=watch,
                fit=fit,
            )
            with opened as run:
                measured, examined = _measure(run, chains, oblivious, diagnose)
            warnings = [*run.warnings, *_warnings(run, examined, diagnose)]
            report = assemble(run, measured, examined, warnings, reference)
            if name is not None:
                report.models[0].name = name
            reports.append(report)
    return reports[0] if len(reports) == 1 else join(reports)


def _measure(
    run: Run, chains: Sequence[DefenseChain], oblivious: bool, depth: Depth | None
) -> tuple[list[Measured], list[Examined | None]]:
    """All cells of all defenses; then those that need several models; and what was examined of each defense."""
    runs = [DefenseRun(run, chain) for chain in chains]
    source = next((one for one in runs if not one.chain.parts), DefenseRun(run, DefenseChain()))
    measured: list[Measured] = []
    examined: list[Examined | None] = []
    several_models = oblivious or depth == "full"
    for one in runs:
        measured.append(one.measure())
        if not several_models:
            examined.append(_examine(one, measured[-1], depth, source))
            one.forget()  # one model at a time
    if not several_models:
        return measured, examined
    targets = [(r, m) for r, m in zip(runs, measured, strict=True) if r.chain.parts and m.error is None]
    for plugin_spec in run.chosen if oblivious else []:
        attack = plugin_spec.plugin
        if isinstance(attack, Attack) and attack.kind == "adversarial" and targets:
            run.transfer(plugin_spec, source, targets)
    return measured, [_examine(r, m, depth, source) for r, m in zip(runs, measured, strict=True)]


def _examine(run: DefenseRun, measured: Measured, depth: Depth | None, source: DefenseRun) -> Examined | None:
    """What checks find of the robust accuracies of one defense; None where there is nothing to examine."""
    if depth is None or measured.error is not None:
        return None
    origin = source if run.chain.parts else None
    try:
        with running_user_code(run.chain.name):
            return examine(run, measured.clean, measured.cells, measured.oblivious, depth, origin)
    except FreqRobustError as error:  # the cells are kept
        run.run.watch.say(f"{run.chain.spec}: the diagnosis failed: {one_line(error)}")
        return Examined(depth, failed=one_line(error))


def _warnings(run: Run, examined: Sequence[Examined | None], diagnose: Depth | None) -> list[Warned]:
    """What is to be known about a run as a whole."""
    warnings = []
    if diagnose == "full" and all(one is None for one in examined):
        message = "nothing was diagnosed: no attack with a budget (norm and eps above 0) was measured"
        warnings.append(Warned(code="not-diagnosed", message=message))
    for path in [*run.journal.damaged, *run.checked.damaged]:
        warnings.append(Warned(code="damaged-journal", message=f"{path} was damaged and has been measured again"))
    return warnings


def _reference(
    given: str | os.PathLike[str] | Report | None, data: ImageData, chosen: list[PluginSpec[Attack]]
) -> corruption_summary.Reference | None:
    wanted = [plugin_spec.params for plugin_spec in chosen if plugin_spec.name == corruption_names.ATTACK]
    record = data_record(data)
    if given is None:
        return corruption_summary.alexnet() if corruption_summary.applies_alexnet(record, wanted) else None
    return corruption_summary.read_reference(given, record, wanted)


def _first_path(*paths: str | os.PathLike[str] | None) -> Path | None:
    return next((user_path(path, "run_dir or cache_dir") for path in paths if path is not None), None)
