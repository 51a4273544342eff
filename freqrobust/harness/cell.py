"""Measuring one cell: run one attack on one target model, check the images it returns, and predict them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from freqrobust.core.progress import skip
from freqrobust.data.dataset import ImageData
from freqrobust.harness.attack_batch import gave_up, recorded, run_attack, run_in_fp32
from freqrobust.harness.batches import Batches, Timer
from freqrobust.harness.outcome import NORMS, Outcome
from freqrobust.harness.preparation import prepared
from freqrobust.harness.rounding import Verification
from freqrobust.harness.target_model import Prediction, TargetModel
from freqrobust.numerics.norms import norms
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.cell_numbers import CellNumbers

#: Share of gradients that may be exactly zero before a warning.
ZERO_GRADIENT_SHARE = 0.05
#: Draws over which gradients are averaged when the defense is stochastic.
EOT = 10
#: Largest size in bytes of the signs of one cell's perturbations; above it the next eps is not initialised from them.
SIGN_BYTES = 64 * 2**20


def measure_clean(target_model: TargetModel, batches: Batches) -> Outcome:
    """The clean pass, once for each defense; see :func:`concluded`."""
    found = 0

    def look(prediction: Prediction) -> None:
        nonlocal found
        logits = prediction.logits
        probabilities = (logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-4)
        found += int((~probabilities).sum())

    outcome = _correct_predictions(Timer(target_model, batches), batches, lambda images, labels, ids: images, look)
    outcome.counts.logits = found
    return outcome


def concluded(outcome: Outcome, plugin_spec: PluginSpec[Attack] | None, transferred: bool = False) -> Outcome:
    """The outcome on all samples, with the warnings that follow from what was counted.

    Args:
        outcome: of an attack or a shift, or of the clean pass; all of its blocks joined.
        plugin_spec: the attack or the shift.
        transferred: the examples were made on another model.
    """
    counts, found = outcome.counts, list[tuple[str, str]]()
    what = plugin_spec.spec if plugin_spec is not None else "clean"
    attack = plugin_spec.plugin if plugin_spec is not None else None
    if attack is None and counts.logits == 0:
        found.append(
            ("softmax-outputs", "the outputs are probabilities, not logits: gradients may vanish; remove the softmax")
        )
    if attack is not None and attack.kind == "adversarial" and attack.needs_gradient and not transferred:
        if counts.zero_gradients > ZERO_GRADIENT_SHARE * counts.first_gradients:
            share = counts.zero_gradients / counts.first_gradients
            message = f"{what}: {share:.0%} of the first gradients were exactly zero; the attack is weakened"
            found.append(("zero-gradients", message))
        if counts.attacked and outcome.numbers.backwards == 0:
            found.append(("no-gradients", f"{what}: no gradient reached the images"))
    if counts.non_finite:
        about = f"{what}, made on another model" if transferred else what
        message = f"{about}: {counts.non_finite} predictions were not finite; NaN counts as misclassified"
        found.append(("non-finite-logits", message))
    return replace(outcome, warnings=[*outcome.warnings, *found])


def _correct_predictions(
    timer: Timer,
    batches: Batches,
    change: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    look: Callable[[Prediction], None] = lambda prediction: None,
) -> Outcome:
    """Which samples are predicted correctly after ``change(images, labels, ids)``; ``look`` sees the predictions."""
    n = len(batches.data)
    outcome = Outcome(np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int32))

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        prediction = timer.target_model.predict(change(images, labels, ids), ids)
        outcome.right[chunk.numpy()] = prediction.is_correct(labels).cpu().numpy()
        outcome.predictions[chunk.numpy()] = prediction.classes.cpu().numpy()
        look(prediction)

    batches.each(torch.arange(n), work)
    return timer.close(outcome)


def unattacked(clean: Outcome) -> Outcome:
    """The outcome of an attack that has found no adversarial example yet."""
    nowhere = {norm: np.full(len(clean.right), np.inf, dtype=np.float32) for norm in NORMS}
    return Outcome(clean.right.copy(), clean.predictions.copy(), nowhere)


def add_examples(
    outcome: Outcome,
    clean: Outcome,
    where: np.ndarray,
    prediction: Prediction,
    labels: torch.Tensor,
    perturbations: torch.Tensor,
) -> None:
    """Record what an attack reached on the samples at the positions ``where``.

    Adversarial samples are not robust; the perturbations of those that are correct on the clean image are measured.
    """
    adversarial = prediction.is_adversarial(labels).cpu().numpy()
    outcome.predictions[where] = prediction.classes.cpu().numpy()
    outcome.right[where] &= ~adversarial
    success = adversarial & clean.right[where]
    for norm in NORMS:
        outcome.examples[norm][where[success]] = norms(perturbations, norm).cpu().numpy()[success]


def measure(
    plugin_spec: PluginSpec[Attack],
    target_model: TargetModel,
    batches: Batches,
    clean: Outcome | None,
    lower: Outcome | None,
    seed: int,
    keep_signs: bool = False,
    among: np.ndarray | None = None,
    rounding: bool = True,
) -> Outcome:
    """One attack on one target model; see :func:`concluded`.

    Args:
        plugin_spec: the attack.
        target_model: the defended model.
        batches: the samples.
        clean: the clean pass of this defense; shifts do without it.
        lower: the same attack at the next smaller eps of its sweep; samples that are adversarial there are inherited.
        seed: the seed of the run.
        keep_signs: keep the signs of the perturbations, from which the next larger eps is initialised.
        among: the samples that an adversarial attack may change, ``(n,)``; the others stay as they are.
        rounding: predict examples also with pixels rounded to 8 bits.

    Raises:
        PluginError: the attack broke its contract.
    """
    if plugin_spec.plugin.kind == "shift":
        return _shift(plugin_spec, target_model, batches, seed)
    assert clean is not None
    return _adversarial(plugin_spec, target_model, batches, clean, lower, seed, keep_signs, among, rounding)


def _shift(plugin_spec: PluginSpec[Attack], target_model: TargetModel, batches: Batches, seed: int) -> Outcome:
    timer = Timer(target_model, batches)
    everyone = torch.arange(len(batches.data))
    messages: list[tuple[str, str]] = []
    context = AttackContext(everyone, seed, "decide")
    with recorded(plugin_spec.spec, messages):
        context = prepared(plugin_spec.plugin, plugin_spec.spec, target_model, batches, everyone, context)

    def change(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        with recorded(plugin_spec.spec, messages):
            return run_attack(plugin_spec, plugin_spec.plugin, target_model, images, labels, context.batch(ids))

    outcome = _correct_predictions(timer, batches, change)
    outcome.warnings, outcome.numbers.notes = messages, context.notes
    return outcome


def _adversarial(
    plugin_spec: PluginSpec[Attack],
    target_model: TargetModel,
    batches: Batches,
    clean: Outcome,
    lower: Outcome | None,
    seed: int,
    keep_signs: bool,
    among: np.ndarray | None,
    rounding: bool,
) -> Outcome:
    timer, attack = Timer(target_model, batches), plugin_spec.plugin
    outcome = unattacked(clean)
    verification = Verification(target_model, clean, outcome, attack.threat(), rounding)
    inherited = np.zeros(len(batches.data), dtype=bool)
    if lower is not None:
        inherited = clean.right & ~lower.right
        outcome.right &= ~inherited
        outcome.predictions[inherited] = lower.predictions[inherited]
        for norm in NORMS:
            outcome.examples[norm][inherited] = lower.examples[norm][inherited]
        verification.inherit(inherited, lower)
    # of a stochastic defense every sample is attacked: one that is correct by a narrow majority may change by chance
    attacked = np.full(len(inherited), True) if target_model.stochastic else clean.right & ~inherited
    attacked &= among if among is not None else True
    positions = torch.from_numpy(np.flatnonzero(attacked))
    if among is None:
        skip(batches.progress, len(attacked) - len(positions))
    goal: Literal["decide", "maximize"] = "maximize" if target_model.stochastic else "decide"
    eot = EOT if target_model.stochastic else 1
    context = AttackContext(positions, seed, goal, eot=eot, slack=target_model.slack)
    messages: list[tuple[str, str]] = []
    with recorded(plugin_spec.spec, messages):
        context = prepared(attack, plugin_spec.spec, target_model, batches, positions, context)
    signs = _empty_signs(batches) if keep_signs else None

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        where = chunk.numpy()
        initial = _unpack_signs(lower.signs[where], images) if lower is not None and lower.signs is not None else None
        with recorded(plugin_spec.spec, messages):
            inner = context.batch(ids, initial)
            changed = run_attack(plugin_spec, attack, target_model, images, labels, inner)
            examples, prediction = verification.verify(where, changed, images, labels, ids)
            again = target_model.undecided(prediction, labels, gave_up(attack, changed, images))
            again = again if attack.batch_invariant else again[:0]
            if len(again):
                rows = where[again.cpu().numpy()]
                changed[again] = run_in_fp32(plugin_spec, target_model, images, labels, inner, again)
                second = verification.verify(rows, changed[again], images[again], labels[again], ids[again])
                examples[again] = second.images
                prediction = prediction.replaced(again, second.prediction)
        if signs is not None:
            signs[where] = np.packbits(_upwards(changed, images).flatten(1).cpu().numpy(), axis=1)
        add_examples(outcome, clean, where, prediction, labels, examples - images)

    batches.each(positions, work)
    outcome.signs, outcome.warnings = signs, messages
    outcome.numbers = CellNumbers(inherited=int(inherited.sum()), breakdown=context.tally, notes=context.notes)
    timer.close(outcome)
    outcome.counts.attacked = int(attacked.sum())
    return outcome


def measure_transfer(
    plugin_spec: PluginSpec[Attack],
    source: TargetModel,
    batches: Batches,
    targets: list[tuple[TargetModel, Outcome]],
    seed: int,
    among: np.ndarray | None = None,
    rounding: bool = True,
    right: np.ndarray | None = None,
) -> list[Outcome]:
    """Examples made on one model (``maximize``, whether its predictions are correct or not), predicted by others.

    They are made for every sample that one of the others predicts correctly, as no example changes anything for the
    rest; for all samples where examples depend on what else is in their batch.

    Args:
        plugin_spec: the attack.
        source: the model that the examples are made on.
        batches: the samples.
        targets: the models that predict them, each with its own clean pass.
        seed: the seed of the run.
        among: the samples that may be attacked, ``(n,)``; the others stay as they are.
        rounding: predict examples also with pixels rounded to 8 bits.
        right: the samples that any of the models predicts correctly, ``(n,)``; by default any of ``targets``.

    Returns:
        One outcome for each target; see :func:`concluded`. Each counts its own predictions and the passes that made the examples.

    Raises:
        PluginError: the attack broke its contract.
    """
    attack = plugin_spec.plugin
    made, timers = Timer(source, batches), [Timer(target_model, batches) for target_model, _ in targets]
    outcomes = [unattacked(clean) for _, clean in targets]
    threat = attack.threat()
    verifications = [
        Verification(model, clean, outcome, threat, rounding)
        for (model, clean), outcome in zip(targets, outcomes, strict=True)
    ]
    everyone = torch.arange(len(batches.data))
    context = AttackContext(everyone, seed, "maximize", eot=EOT if source.stochastic else 1, slack=source.rounding)
    messages: list[tuple[str, str]] = []
    with recorded(plugin_spec.spec, messages):
        context = prepared(attack, plugin_spec.spec, source, batches, everyone, context)

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        with recorded(plugin_spec.spec, messages):
            inner = context.batch(ids)
            changed = run_attack(plugin_spec, attack, source, images, labels, inner)
            if source.rounding and attack.batch_invariant:
                again = gave_up(attack, changed, images).nonzero()[:, 0]
                if len(again):  # the image itself is what is asked for where it is misclassified
                    again = again[~source.predict(images[again], ids[again]).is_adversarial(labels[again])]
                if len(again):
                    changed[again] = run_in_fp32(plugin_spec, source, images, labels, inner, again)
        for verification in verifications:
            examples, prediction = verification.verify(chunk.numpy(), changed, images, labels, ids)
            add_examples(verification.outcome, verification.clean, chunk.numpy(), prediction, labels, examples - images)

    right = np.any([clean.right for _, clean in targets], axis=0) if right is None else right
    attacked = right | (not attack.batch_invariant)
    attacked &= among if among is not None else True
    if among is None:
        skip(batches.progress, int((~attacked).sum()))
    batches.each(torch.from_numpy(np.flatnonzero(attacked)), work)
    crafted = made.close(Outcome(outcomes[0].right, outcomes[0].predictions))
    for timer, outcome in zip(timers, outcomes, strict=True):
        timer.close(outcome)
        outcome.warnings += messages
        outcome.numbers.notes = context.notes
        outcome.numbers.forwards += crafted.numbers.forwards
        outcome.numbers.backwards += crafted.numbers.backwards
    return outcomes


def keeps_signs(attack: Attack, data: ImageData) -> bool:
    """Whether the signs of the perturbations of a sweep are kept: of Linf attacks, where they are not too large."""
    threat = attack.threat()
    return threat is not None and threat.norm == "linf" and len(data) * _sign_bytes(data) <= SIGN_BYTES


def _sign_bytes(data: ImageData) -> int:
    return (math.prod(data.shape) + 7) // 8


def _empty_signs(batches: Batches) -> np.ndarray:
    """Packed bits for the sign of every pixel's perturbation."""
    return np.zeros((len(batches.data), _sign_bytes(batches.data)), dtype=np.uint8)


def _upwards(changed: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Pixels whose perturbation is positive; of those that are unchanged, the bright ones, that may be clipped at 1."""
    return (changed > images) | ((changed == images) & (images > 0.5))


def _unpack_signs(packed: np.ndarray, images: torch.Tensor) -> torch.Tensor:
    """Signs -1 and 1 shaped like ``images``."""
    bits = np.unpackbits(packed, axis=1, count=images[0].numel())
    return torch.from_numpy(bits).to(images.device, images.dtype).view_as(images) * 2 - 1
