"""``evaluate``: every (defense, attack) pair over one dataset, one report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from freqrobust import corruptions, suites
from freqrobust.assembly import assemble
from freqrobust.bounds import check_batch_size, check_int64
from freqrobust.context import Progress, Silent
from freqrobust.data import ImageData, as_data
from freqrobust.devices import auto_batch_size, full_precision, resolve_device
from freqrobust.diagnosis import Depth
from freqrobust.errors import DataError, ModelError, SpecError
from freqrobust.files import user_path
from freqrobust.journal import Journal
from freqrobust.many import Models, as_network, for_each_model
from freqrobust.models import (
    Classifier,
    frozen,
    misfit,
)
from freqrobust.plugin import Attack, Defense
from freqrobust.registry import DefenseChain, Selection, parse_attacks, parse_defenses
from freqrobust.results import (
    Report,
    Warned,
)
from freqrobust.session import Run
from freqrobust.user_code import running_user_code
from freqrobust.victim import Precision, check_logits


@for_each_model
def evaluate(
    model: Models,
    data: Any,
    *,
    attacks: Iterable[str | Attack | Selection] | None = None,
    suite: str | None = None,
    defenses: Iterable[str | Defense | DefenseChain | Sequence[Defense]] = (),
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
    progress: Progress | None = None,
) -> Report:
    """Measure a classifier, undefended and with each defense, under each attack.

    Prints nothing, and writes nothing unless ``run_dir`` or ``cache_dir`` is given.

    Args:
        model: an ``nn.Module`` from images in [0, 1] ``(N, C, H, W)`` to logits ``(N, K)``, or a model spec; or
            several of them in a sequence, or in a mapping from names: one report, all on the same samples.
        data: ``(images, labels)``, a map-style dataset, an :class:`ImageData` or a data spec.
        attacks: attack specs or objects; instead of ``suite``.
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
        progress: told what happens.

    Returns:
        The report; cells that failed say why.

    Raises:
        FreqRobustError: the model, the data or a spec is wrong; one line that says what would work.
    """
    watch = progress or Silent()
    if attacks is not None and suite is not None:
        raise SpecError("give either attacks or a suite, not both")
    check_batch_size(batch_size)
    check_int64("seed", seed)
    if precision not in ("fp32", "bf16"):
        raise SpecError(f"precision should be fp32 or bf16, but got {precision!r}")
    where = resolve_device(device)
    images = as_data(data)
    training = as_data(train_data, "train data") if train_data is not None else None
    chains = parse_chains(defenses, baseline, training)
    if isinstance(attacks, str | Attack):
        attacks = [attacks]
    chosen = parse_attacks(
        attacks if attacks is not None else suites.resolve("standard" if suite is None else suite, images.shape)
    )
    for selection in chosen:
        if isinstance(selection.plugin, Attack):
            with running_user_code(f"{selection.spec} failed"):
                selection.plugin.check_data(images)
    reference = _reference(mce_reference, images, chosen)
    network = as_network(model, images, where)
    home = next((p.device for p in network.parameters()), None)
    network = network.to(where)
    try:
        with full_precision(), frozen(network) as stuck:
            warnings = warn_about(network, stuck)
            warnings += check_fit(network, images, where)
            size = auto_batch_size(network, images.shape, where) if batch_size == "auto" else int(batch_size)
            folder = _first_path(run_dir)
            run = Run(
                network=network,
                data=images,
                training=training,
                chosen=chosen,
                device=where,
                precision=precision,
                seed=seed,
                batch_size=size,
                adaptive=batch_size == "auto",
                journal=Journal(folder),
                checked=Journal(folder, "checks"),
                cache_dir=_first_path(cache_dir, run_dir),
                watch=watch,
            )
            measured = run.all(chains, oblivious, diagnose)
    finally:
        if home is not None and home != where:
            network.to(home)
    if diagnose == "full" and all(one.examined is None for one in measured):
        message = "nothing was diagnosed: no attack with a budget (norm and eps above 0) was measured"
        warnings.append(Warned(code="not-diagnosed", message=message))
    for path in [*run.journal.damaged, *run.checked.damaged]:
        warnings.append(Warned(code="damaged-journal", message=f"{path} was damaged and has been measured again"))
    return assemble(run, measured, warnings, reference)


def _reference(
    given: str | os.PathLike[str] | Report | None, data: ImageData, chosen: list[Selection]
) -> corruptions.Reference | None:
    wanted = [selection.params for selection in chosen if selection.name == corruptions.ATTACK]
    if given is None:
        return corruptions.alexnet() if corruptions.applies_alexnet(data, wanted) else None
    return corruptions.read_reference(given, data, wanted)


def _first_path(*paths: str | os.PathLike[str] | None) -> Path | None:
    return next((user_path(path, "run_dir or cache_dir") for path in paths if path is not None), None)


def parse_chains(
    defenses: Iterable[str | Defense | DefenseChain | Sequence[Defense]], baseline: bool, training: ImageData | None
) -> list[DefenseChain]:
    """The chains of defense specs or objects, the undefended model first.

    Raises:
        SpecError: a spec is wrong, nothing is left, or training data is missing.
    """
    if isinstance(defenses, str | Defense):
        defenses = [defenses]
    chains = with_baseline(parse_defenses(defenses), baseline)
    if not chains:
        raise SpecError("without the baseline there has to be a defense")
    for chain in chains:
        for part in chain.parts:
            if isinstance(part.plugin, Defense) and part.plugin.needs_train_data and training is None:
                raise SpecError(f"{part.spec} needs training data: give --train-data (in Python: train_data=...)")
    return chains


def with_baseline(chains: Sequence[DefenseChain], baseline: bool) -> list[DefenseChain]:
    """What is measured: the undefended model first, where it is wanted, and the rest as given."""
    chains = list(chains)
    if baseline and all(chain.parts for chain in chains):
        chains.insert(0, DefenseChain())
    return sorted(chains, key=lambda chain: len(chain.parts) > 0)


def warn_about(network: nn.Module, stuck: list[str]) -> list[Warned]:
    """What is to be known about a model before it is measured; ``stuck`` are its layers that stay in train mode."""
    warnings = []
    if stuck:
        shown = ", ".join(stuck[:3])
        warnings.append(Warned(code="train-mode-layers", message=f"{len(stuck)} layers stay in train mode: {shown}"))
    if isinstance(network, Classifier) and network.note:
        warnings.append(Warned(code="several-networks", message=network.note))
    if isinstance(network, Classifier) and network.chosen.warning:
        warnings.append(Warned(code="normalization", message=network.chosen.warning))
    return warnings


def check_fit(network: nn.Module, data: ImageData, device: torch.device) -> list[Warned]:
    """Two forward passes of the first samples, to say clearly what does not fit, or that it changes between them.

    Raises:
        DataError: the images or labels are not for this model.
        ModelError: the model does not return finite logits.
    """
    images, _, _ = data.batch(torch.arange(min(2, len(data))), device)
    with running_user_code(lambda error: misfit(network, data, error)), torch.no_grad():
        logits = network(images)
        again = network(images)
    check_logits(logits, images)
    if not bool(torch.isfinite(logits).any(dim=1).any()):
        raise ModelError("the model returns NaN or infinite values for the first images")
    classes = logits.shape[1]
    highest = int(data.labels.max())
    if highest >= classes:
        raise DataError(f"{data.spec} has labels up to {highest}, but the model has {classes} classes")
    if float((logits - again).abs().max()) <= 1e-4 * float(logits.abs().max()):
        return []
    message = "the model's outputs change from one call to the next; robust accuracies of random models need stochastic = True"
    return [Warned(code="changing-outputs", message=message)]
