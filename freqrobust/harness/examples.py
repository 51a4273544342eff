"""Changed images of all samples of one attack on one target model, with what the model predicts for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from freqrobust.core.progress import Progress
from freqrobust.data.dataset import ImageData
from freqrobust.harness.attack_batch import gave_up, run_attack, run_in_fp32
from freqrobust.harness.batches import Batches
from freqrobust.harness.cell import EOT
from freqrobust.harness.devices import auto_batch_size
from freqrobust.harness.opening import BatchSize
from freqrobust.harness.preparation import prepared
from freqrobust.harness.target_model import Prediction, TargetModel
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext, Goal
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.specs import PluginSpec


@dataclass(frozen=True)
class Examples:
    """What an attack made of the samples, in their order, on the CPU.

    Attributes:
        images: float32 ``(N, C, H, W)``.
        predictions: int64 ``(N,)``; -1 where the logits are NaN.
        is_adversarial: bool ``(N,)``.
    """

    images: torch.Tensor
    predictions: torch.Tensor
    is_adversarial: torch.Tensor


def make_examples(
    plugin_spec: PluginSpec[Attack], target_model: TargetModel, batches: Batches, seed: int, goal: Goal = "maximize"
) -> Examples:
    """The attack's images of every sample; with ``decide`` an adversarial attack leaves those that are adversarial as they are.

    Raises:
        PluginError: the attack broke its contract.
    """
    data, attack = batches.data, plugin_spec.plugin
    images = torch.empty(data.images.shape)
    predictions = torch.empty(len(data), dtype=torch.int64)
    adversarial = torch.zeros(len(data), dtype=torch.bool)

    def keep(chunk: torch.Tensor, changed: torch.Tensor, labels: torch.Tensor, prediction: Prediction) -> None:
        images[chunk] = changed.cpu()
        predictions[chunk] = prediction.classes.cpu()
        adversarial[chunk] = prediction.is_adversarial(labels).cpu()

    def look(chunk: torch.Tensor) -> None:
        clean, labels, ids = data.batch(chunk, batches.device)
        keep(chunk, clean, labels, target_model.predict(clean, ids))

    def work(chunk: torch.Tensor) -> None:
        clean, labels, ids = data.batch(chunk, batches.device)
        inner = context.batch(ids)
        changed = run_attack(plugin_spec, attack, target_model, clean, labels, inner)
        prediction = target_model.predict(changed, ids)
        again = target_model.undecided(prediction, labels, gave_up(attack, changed, clean))
        if len(again) and attack.batch_invariant:
            second = run_in_fp32(plugin_spec, target_model, clean, labels, inner, again)
            found = target_model.predict(second, ids[again])
            success = found.is_adversarial(labels[again])
            changed[again[success]] = second[success]
            prediction = prediction.replaced(again[success], found[success])
        keep(chunk, changed, labels, prediction)

    positions = torch.arange(len(data))
    if goal == "decide" and attack.kind == "adversarial":
        batches.each(positions, look, quiet=True)
        positions = torch.nonzero(~adversarial)[:, 0]
        batches.progress.advance(len(data) - len(positions))
    eot = EOT if target_model.stochastic else 1
    context = AttackContext(
        positions, seed, goal, eot=eot, slack=target_model.slack if goal == "decide" else target_model.rounding
    )
    context = prepared(attack, plugin_spec.spec, target_model, batches, positions, context)
    batches.each(positions, work)
    return Examples(images, predictions, adversarial)


def undefended_target(
    network: nn.Module,
    data: ImageData,
    device: torch.device,
    *,
    seed: int,
    batch_size: BatchSize,
    attacked: bool,
    progress: Progress,
    criterion: Criterion | None = None,
) -> tuple[TargetModel, Batches]:
    """A network as a target model without defenses, and the samples in batches.

    Args:
        network: images in [0, 1] to logits; in eval mode, frozen and on the device.
        data: the samples.
        device: where the network runs.
        seed: all randomness of the attacks is seeded by it.
        batch_size: images per batch; ``auto`` depends on the network.
        attacked: whether attacks differentiate the network.
        progress: reports every batch.
        criterion: what counts as adversarial; by default misclassification.
    """
    probe, _, _ = data.batch(torch.arange(min(4, len(data))), device)
    size = auto_batch_size(network, data.shape, device) if batch_size == "auto" else batch_size
    target_model = TargetModel(
        network, network, probe, device=device, seed=seed, criterion=criterion, attacked=attacked
    )
    return target_model, Batches(data, device, size, batch_size == "auto", progress)
