"""Measuring one cell: run one attack against one defended model, check and count what it returns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

from freqrobust.core.errors import PluginError
from freqrobust.harness.batches import Batches, Timer
from freqrobust.harness.outcome import NORMS, Outcome
from freqrobust.harness.preparation import prepared
from freqrobust.harness.target_model import TargetModel
from freqrobust.numerics.norms import TOLERANCE, allowance, norms
from freqrobust.numerics.threat import norm_name
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.cell_numbers import CellNumbers

#: Share of gradients that may be exactly zero before a warning.
ZERO_GRADIENT_SHARE = 0.05
#: Draws over which gradients are averaged when the defense is stochastic.
EOT = 10
#: Bytes that the signs of one cell's perturbations may take; above, a sweep passes on only the examples.
SIGN_BYTES = 64 * 2**20


def measure_clean(target_model: TargetModel, batches: Batches) -> Outcome:
    """The clean pass, once a defense."""
    timer = Timer(target_model, batches)
    n = len(batches.data)
    predictions = np.zeros(n, dtype=np.int32)
    softmax_like = True

    def work(chunk: torch.Tensor) -> None:
        nonlocal softmax_like
        images, _, ids = batches.data.batch(chunk, batches.device)
        classes, logits = target_model.predict(images, ids)
        predictions[chunk.numpy()] = classes.cpu().numpy()
        softmax_like &= bool(((logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < 1e-4)).all())

    batches.each(torch.arange(n), work)
    outcome = timer.close(Outcome(predictions == batches.data.labels.numpy(), predictions))
    if softmax_like:
        outcome.warnings.append(
            ("softmax-outputs", "the outputs are probabilities, not logits: gradients may vanish; remove the softmax")
        )
    _warn_non_finite(outcome, target_model, "clean")
    return outcome


def _warn_non_finite(outcome: Outcome, target_model: TargetModel, what: str) -> None:
    count = target_model.non_finite + target_model.view.non_finite
    if count:
        message = f"{what}: {count} predictions were not finite; NaN counts as wrong"
        outcome.warnings.append(("non-finite-logits", message))


def measure(
    plugin_spec: PluginSpec[Attack],
    target_model: TargetModel,
    batches: Batches,
    clean: Outcome,
    lower: Outcome | None,
    seed: int,
    sweeping: bool = False,
    among: np.ndarray | None = None,
) -> Outcome:
    """One attack against one defended model.

    Args:
        plugin_spec: the attack.
        target_model: the defended model.
        batches: the samples.
        clean: the clean pass of this defense.
        lower: the same attack at the next smaller eps of its sweep, whose examples are inherited.
        seed: the seed of the run.
        sweeping: a larger eps follows, which wants to know where this one ended.
        among: the samples that an adversarial attack may try, ``(n,)``; the others stay as they are.

    Raises:
        PluginError: the attack broke its contract.
    """
    attack = plugin_spec.plugin
    if attack.kind == "shift":
        return _shift(plugin_spec, attack, target_model, batches, seed)
    return _adversarial(plugin_spec, attack, target_model, batches, clean, lower, seed, sweeping, among)


def _shift(
    plugin_spec: PluginSpec[Attack], attack: Attack, target_model: TargetModel, batches: Batches, seed: int
) -> Outcome:
    timer = Timer(target_model, batches)
    n = len(batches.data)
    predictions = np.zeros(n, dtype=np.int32)
    every_sample = torch.arange(n)
    caught_warnings: list[tuple[str, str]] = []
    with recorded(plugin_spec.spec, caught_warnings):
        context = prepared(
            attack, plugin_spec.spec, target_model, batches, every_sample, AttackContext(every_sample, seed, "decide")
        )

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        with recorded(plugin_spec.spec, caught_warnings):
            changed = run_attack(plugin_spec, attack, target_model, images, labels, context.batch(ids))
        classes, _ = target_model.predict(changed, ids)
        predictions[chunk.numpy()] = classes.cpu().numpy()

    batches.each(every_sample, work)
    outcome = timer.close(Outcome(predictions == batches.data.labels.numpy(), predictions, warnings=caught_warnings))
    outcome.numbers.notes = context.notes
    _warn_non_finite(outcome, target_model, plugin_spec.spec)
    return outcome


def _adversarial(
    plugin_spec: PluginSpec[Attack],
    attack: Attack,
    target_model: TargetModel,
    batches: Batches,
    clean: Outcome,
    lower: Outcome | None,
    seed: int,
    sweeping: bool,
    among: np.ndarray | None,
) -> Outcome:
    timer = Timer(target_model, batches)
    n = len(batches.data)
    predictions = clean.predictions.copy()
    examples = {norm: np.full(n, np.inf, dtype=np.float32) for norm in NORMS}
    inherited = np.zeros(n, dtype=bool)
    if lower is not None:
        inherited = clean.right & ~lower.right
        predictions[inherited] = lower.predictions[inherited]
        for norm in NORMS:
            examples[norm][inherited] = lower.examples[norm][inherited]
    # randomness may change a prediction that is right by a small majority, so there every sample is attacked
    tried = np.ones(n, dtype=bool) if target_model.stochastic else clean.right & ~inherited
    tried &= among if among is not None else True
    goal: Literal["decide", "maximize"] = "maximize" if target_model.stochastic else "decide"
    right = clean.right & ~inherited
    positions = torch.from_numpy(np.flatnonzero(tried))
    context = AttackContext(positions, seed, goal, eot=EOT if target_model.stochastic else 1, slack=target_model.slack)
    caught_warnings: list[tuple[str, str]] = []
    with recorded(plugin_spec.spec, caught_warnings):
        context = prepared(attack, plugin_spec.spec, target_model, batches, positions, context)
    signs = _room_for_signs(attack, batches) if sweeping else None

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        where = chunk.numpy()
        hint = _unpack_signs(lower.signs[where], images) if lower is not None and lower.signs is not None else None
        with recorded(plugin_spec.spec, caught_warnings):
            changed = run_attack(plugin_spec, attack, target_model, images, labels, context.batch(ids, hint))
        classes, _ = target_model.predict(changed, ids)
        misclassified = (classes != labels).cpu().numpy()
        if signs is not None:
            signs[where] = np.packbits(_upwards(changed, images).flatten(1).cpu().numpy(), axis=1)
        predictions[where] = classes.cpu().numpy()
        right[where] &= ~misclassified
        misclassified &= clean.right[where]
        for norm in NORMS:
            examples[norm][where[misclassified]] = norms(changed - images, norm).cpu().numpy()[misclassified]

    batches.each(positions, work)
    numbers = CellNumbers(inherited=int(inherited.sum()), breakdown=context.tally, notes=context.notes)
    outcome = timer.close(Outcome(right, predictions, examples, signs, caught_warnings, numbers))
    view = target_model.view
    if attack.needs_gradient and view.zero_gradients > ZERO_GRADIENT_SHARE * view.first_gradients:
        share = view.zero_gradients / view.first_gradients
        outcome.warnings.append(
            (
                "zero-gradients",
                f"{plugin_spec.spec}: {share:.0%} of the first gradients were exactly zero; the attack is weakened",
            )
        )
    if attack.needs_gradient and tried.any() and view.backwards == 0:
        outcome.warnings.append(("no-gradients", f"{plugin_spec.spec}: no gradient reached the images"))
    _warn_non_finite(outcome, target_model, plugin_spec.spec)
    return outcome


def measure_transfer(
    plugin_spec: PluginSpec[Attack],
    source: TargetModel,
    batches: Batches,
    targets: list[tuple[TargetModel, Outcome]],
    seed: int,
    among: np.ndarray | None = None,
) -> list[Outcome]:
    """Examples made on one model (``maximize``, whether it gets the sample right or not), shown to others.

    They are made for every sample that one of the others gets right, as no example changes anything for the rest;
    for all samples where examples depend on what else is in their batch.

    Args:
        plugin_spec: the attack.
        source: the model that the examples are made on.
        batches: the samples.
        targets: the models that predict them, each with its own clean pass.
        seed: the seed of the run.
        among: the samples that may be tried, ``(n,)``; the others stay as they are.

    Returns:
        One outcome a target. Each counts its own predictions and the passes that made the examples.

    Raises:
        PluginError: the attack broke its contract.
    """
    attack = plugin_spec.plugin
    made, timers = Timer(source, batches), [Timer(target_model, batches) for target_model, _ in targets]
    n = len(batches.data)
    outcomes = [
        Outcome(
            clean.right.copy(), clean.predictions.copy(), {norm: np.full(n, np.inf, dtype=np.float32) for norm in NORMS}
        )
        for _, clean in targets
    ]
    every_sample = torch.arange(n)
    context = AttackContext(every_sample, seed, "maximize", eot=EOT if source.stochastic else 1)
    caught_warnings: list[tuple[str, str]] = []
    with recorded(plugin_spec.spec, caught_warnings):
        context = prepared(attack, plugin_spec.spec, source, batches, every_sample, context)

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        with recorded(plugin_spec.spec, caught_warnings):
            changed = run_attack(plugin_spec, attack, source, images, labels, context.batch(ids))
        where = chunk.numpy()
        lengths = {norm: norms(changed - images, norm).cpu().numpy() for norm in NORMS}
        for (target_model, clean), outcome in zip(targets, outcomes, strict=True):
            classes, _ = target_model.predict(changed, ids)
            misclassified = (classes != labels).cpu().numpy() & clean.right[where]
            outcome.predictions[where] = classes.cpu().numpy()
            outcome.right[where] &= ~misclassified
            for norm in NORMS:
                outcome.examples[norm][where[misclassified]] = lengths[norm][misclassified]

    tried = np.any([clean.right for _, clean in targets], axis=0) | (not attack.batch_invariant)
    tried &= among if among is not None else True
    batches.each(torch.from_numpy(np.flatnonzero(tried)), work)
    crafted = made.close(Outcome(outcomes[0].right, outcomes[0].predictions))
    for timer, outcome in zip(timers, outcomes, strict=True):
        timer.close(outcome)
        outcome.warnings += caught_warnings
        _warn_non_finite(outcome, timer.target_model, f"{plugin_spec.spec}, made on another model")
        outcome.numbers.notes = context.notes
        outcome.numbers.forwards += crafted.numbers.forwards
        outcome.numbers.backwards += crafted.numbers.backwards
    return outcomes


def _room_for_signs(attack: Attack, batches: Batches) -> np.ndarray | None:
    """Packed bits for the sign of every pixel's perturbation, for Linf attacks, where they do not take too much."""
    threat = attack.threat()
    per_sample = (math.prod(batches.data.shape) + 7) // 8
    if threat is None or threat.norm != "linf" or len(batches.data) * per_sample > SIGN_BYTES:
        return None
    return np.zeros((len(batches.data), per_sample), dtype=np.uint8)


def _upwards(changed: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Where a perturbation points up; a pixel that the box has stopped points at its wall."""
    return (changed > images) | ((changed == images) & (images > 0.5))


def _unpack_signs(packed: np.ndarray, images: torch.Tensor) -> torch.Tensor:
    """Signs -1 and 1 shaped like ``images``."""
    bits = np.unpackbits(packed, axis=1, count=images[0].numel())
    return torch.from_numpy(bits).to(images.device, images.dtype).view_as(images) * 2 - 1


@contextmanager
def recorded(spec: str, caught_warnings: list[tuple[str, str]]) -> Iterator[None]:
    """Adds the Python warnings of an attack to the warnings of its cell, each once, instead of printing them."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for one in caught:
        warning = ("attack-warning", f"{spec}: {one.category.__name__}: {' '.join(str(one.message).split())}")
        if warning not in caught_warnings:
            caught_warnings.append(warning)


def run_attack(
    plugin_spec: PluginSpec[Attack],
    attack: Attack,
    target_model: TargetModel,
    images: torch.Tensor,
    labels: torch.Tensor,
    context: AttackContext,
) -> torch.Tensor:
    """The attack's images for one batch, checked against what it declares.

    Raises:
        PluginError: wrong type, shape or range, not finite, or outside of the budget.
    """
    draws = 1 if attack.averages_draws else context.eot
    with (
        target_model.attacked(context.ids, plugin_spec.spec, draws) as view,
        torch.set_grad_enabled(attack.needs_gradient),
    ):
        changed = attack.perturb(view, images.clone(), labels.clone(), context)
    name = plugin_spec.spec
    if not isinstance(changed, torch.Tensor):
        raise PluginError(f"{name} should return images, but returned a {type(changed).__name__}")
    changed = changed.detach()
    if changed.shape != images.shape or not changed.is_floating_point():
        raise PluginError(
            f"{name} should return float images {tuple(images.shape)}, but returned {changed.dtype} {tuple(changed.shape)}"
        )
    changed = changed.float()
    if not bool(torch.isfinite(changed).all()):
        raise PluginError(f"{name} returned images with NaN or infinite values")
    if attack.kind == "adversarial":
        low, high = float(changed.min()), float(changed.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise PluginError(f"{name} returned images outside of [0, 1]: [{low:g}, {high:g}]")
        threat = attack.threat()
        if threat is not None:
            farthest = float(norms(changed - images, threat.norm).max())
            if farthest > allowance(threat.eps):
                raise PluginError(
                    f"{name} exceeds its perturbation budget: {norm_name(threat.norm)} {farthest:.6g} > {threat.eps_text}"
                )
    return changed.contiguous()
