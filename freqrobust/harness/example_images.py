"""Example images of a report: a few samples, attacked once more after everything has been measured.

Nothing that was measured depends on them: they are made after the last cell, and are not in the journal.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.progress import Silent
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.harness.attack_batch import recorded, run_attack
from freqrobust.harness.batches import Batches
from freqrobust.harness.cell import EOT
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.run import DefenseRun, Measured
from freqrobust.harness.target_model import Prediction, TargetModel
from freqrobust.models.classifier import Classifier
from freqrobust.numerics.frequency import high_pass, low_pass
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.specs import PluginSpec
from freqrobust.plugins.suites import HEADLINE_RADIUS, scaled_radius
from freqrobust.results.examples import Example, ExamplePicture, ExampleSet, Kind
from freqrobust.results.records import ThreatRecord, Warned

#: Longest side of a stored image, in pixels.
SIDE = 224
#: Factors by which perturbations are magnified.
_FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
#: Largest magnified value: half of the range, with room for the rounding of an eps such as 0.1.
_LARGEST = 0.5 + 1e-4


@dataclass
class Shown:
    """The example images of one model, at most one set, and why there are none where they could not be made."""

    sets: list[ExampleSet] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)


def example_images(runs: Sequence[DefenseRun], measured: Sequence[Measured], count: int) -> Shown:
    """Up to ``count`` samples under the strongest attack with a budget, on the first of the runs.

    Args:
        runs: the undefended model or, where it was not measured, the first defense; empty for no examples.
        measured: of all defenses; samples that all of them classify correctly are preferred.
        count: the largest number of samples.

    Returns:
        The examples; none without such an attack or without correctly classified samples. A failure is a warning.
    """
    if not runs or count == 0 or measured[0].error is not None:
        return Shown()
    made, chosen = runs[0], strongest(measured[0])
    positions = _samples(made.run.data, measured, count)
    if chosen is None or not positions:
        return Shown()
    try:
        with running_user_code(chosen.name):
            return Shown([_example_set(made, chosen, torch.tensor(positions))])
    except FreqRobustError as error:  # the report is complete without them
        message = f"there are no example images: {one_line(error)}"
        made.run.progress.say(f"warning: {message}")
        return Shown(warnings=[Warned(code="no-examples", message=message, defense=made.chain.spec)])


def strongest(measured: Measured) -> PluginSpec[Attack] | None:
    """The attack with the lowest accuracy among those with a budget, of several the one with the fewest passes.

    Attacks whose examples depend on the other samples are left out: for a few samples, they would be others.
    """

    def rank(pair: tuple[PluginSpec[Attack], Outcome | str]) -> tuple[int, int]:
        outcome = pair[1]
        assert isinstance(outcome, Outcome)
        return int(outcome.right.sum()), outcome.numbers.forwards + outcome.numbers.backwards

    found = [(spec, outcome) for spec, outcome in measured.cells if isinstance(outcome, Outcome) and _usable(spec)]
    return min(found, key=rank)[0] if found else None


def _usable(spec: PluginSpec[Attack]) -> bool:
    attack = spec.plugin
    threat = attack.threat()
    alone = attack.batch_invariant and type(attack).prepare is Attack.prepare
    return attack.kind == "adversarial" and threat is not None and threat.eps > 0 and alone


def _samples(data: ImageData, measured: Sequence[Measured], count: int) -> list[int]:
    """Positions of correctly classified samples: the first of each class, then the next ones, in the data's order."""
    right = np.logical_and.reduce([one.clean.right for one in measured if one.error is None])
    if not right.any():
        right = measured[0].clean.right
    ranks: dict[int, int] = {}
    keyed = []
    for position in np.flatnonzero(right).tolist():
        label = int(data.labels[position])
        keyed.append((ranks.setdefault(label, 0), position))
        ranks[label] += 1
    return sorted(position for _, position in sorted(keyed)[:count])


class _Batch(NamedTuple):
    """The images of some samples, ``(n, C, H, W)``, what they are, and what the model predicts for them."""

    images: dict[Kind, torch.Tensor]
    predictions: dict[Kind, Prediction]
    labels: torch.Tensor
    ids: torch.Tensor


def _example_set(made: DefenseRun, spec: PluginSpec[Attack], positions: torch.Tensor) -> ExampleSet:
    run, target_model = made.run, made.target_model()
    radius = _radius(run.attacks, run.data.shape)
    goal = "maximize" if target_model.stochastic else "decide"
    context = AttackContext(
        run.data.ids[positions],
        run.seed,
        goal,  # type: ignore[arg-type]
        eot=EOT if target_model.stochastic else 1,
        criterion=target_model.criterion,
        slack=target_model.slack,
    )
    done: list[_Batch] = []

    def work(chunk: torch.Tensor) -> None:
        images, labels, ids = run.data.batch(chunk, run.device)
        with recorded(spec.spec, []):
            changed = run_attack(spec, spec.plugin, target_model, images, labels, context.batch(ids))
        shown: dict[Kind, torch.Tensor] = {
            "clean": images,
            "adversarial": changed,
            "lfc": low_pass(images, radius),
            "hfc": high_pass(images, radius),
        }
        done.append(_Batch(shown, _predictions(target_model, shown, ids), labels, ids))

    # a progress of its own: these batches are no part of a cell
    Batches(run.data, run.device, run.batch_size, run.adaptive, Silent()).each(positions, work, quiet=True)
    largest = max(float((one.images["adversarial"] - one.images["clean"]).abs().max()) for one in done)
    factor = max([k for k in _FACTORS if k * largest <= _LARGEST], default=1) if largest > 0 else 1
    threat = spec.plugin.threat()
    assert threat is not None
    names = _class_names(run.data, run.network)
    return ExampleSet(
        defense=made.chain.name,
        defense_spec=made.chain.spec,
        attack_spec=spec.spec,
        threat=ThreatRecord(norm=threat.norm, eps=threat.eps),
        radius=radius,
        magnified=factor,
        width=run.data.shape[2],
        height=run.data.shape[1],
        samples=[_example(one, row, factor, names) for one in done for row in range(len(one.labels))],
    )


def _predictions(
    target_model: TargetModel, shown: dict[Kind, torch.Tensor], ids: torch.Tensor
) -> dict[Kind, Prediction]:
    return {kind: target_model.predict(images, ids) for kind, images in shown.items()}


def _radius(attacks: Sequence[PluginSpec[Attack]], shape: tuple[int, int, int]) -> float:
    """The radius of the headline, unless only others were measured: then the first of them."""
    usual = scaled_radius(HEADLINE_RADIUS, shape)
    measured = [float(getattr(spec.plugin, "radius", usual)) for spec in attacks if spec.name in ("lfc", "hfc")]
    return usual if usual in measured or not measured else measured[0]


def _class_names(data: ImageData, network: nn.Module) -> Sequence[str]:
    """The names of the classes that labels number, from the data or else from the model."""
    if data.class_names:
        return data.class_names
    labels = network.labels if isinstance(network, Classifier) else ()
    if data.class_subset:
        return tuple(labels[index] for index in data.class_subset) if len(labels) > max(data.class_subset) else ()
    return labels


def _example(batch: _Batch, row: int, factor: float, names: Sequence[str]) -> Example:
    def name(number: int) -> str | None:
        return names[number] if 0 <= number < len(names) else None

    def picture(kind: Kind, image: torch.Tensor) -> ExamplePicture:
        prediction = int(batch.predictions[kind].classes[row]) if kind in batch.predictions else None
        label = name(prediction) if prediction is not None else None
        return ExamplePicture(kind=kind, base64=as_png(image), prediction=prediction, name=label)

    clean, adversarial = batch.images["clean"][row], batch.images["adversarial"][row]
    success = batch.predictions["adversarial"].is_adversarial(batch.labels)[row]
    label = int(batch.labels[row])
    return Example(
        id=int(batch.ids[row]),
        label=label,
        name=name(label),
        adversarial=bool(success),
        pictures=[
            picture("clean", clean),
            picture("adversarial", adversarial),
            picture("perturbation", 0.5 + factor * (adversarial - clean)),
            picture("lfc", batch.images["lfc"][row]),
            picture("hfc", 0.5 + batch.images["hfc"][row]),
        ],
    )


def as_png(image: torch.Tensor) -> str:
    """An image ``(C, H, W)`` as base64 of a PNG, clipped to [0, 1], at most :data:`SIDE` pixels on a side.

    Three channels are colours; of any other number the mean is shown, in shades of grey.
    """
    from PIL import Image

    levels = image.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    if len(levels) == 3:
        made = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
    else:
        made = Image.fromarray(levels.float().mean(dim=0).round().to(torch.uint8).numpy())
    if max(made.size) > SIDE:
        made.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    made.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
