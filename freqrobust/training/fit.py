"""The training loop of training-time defenses and of the demo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.core.errors import ModelError
from freqrobust.core.progress import Progress, Silent
from freqrobust.numerics import noise
from freqrobust.plugins.dataset import ImageDataset

#: (model, images, labels, ids, epoch) -> images
Perturb = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """Training with SGD with Nesterov momentum, a linear warm-up and a cosine decay of the learning rate."""

    epochs: int
    learning_rate: float
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: Literal["none", "flip-crop"] = "none"
    warmup: float = 0.2


def flip_and_crop(images: torch.Tensor, ids: torch.Tensor, *, seed: int, stream: str) -> torch.Tensor:
    """Random horizontal flip, and random crop after padding by an eighth of the side; seeded by sample."""
    n, _, height, width = images.shape
    pad = max(1, min(height, width) // 8)
    draw = noise.uniform(ids, (3,), seed=seed, stream=stream)
    padded = F.pad(images, (pad, pad, pad, pad))
    top = (draw[:, 0] * (2 * pad + 1)).long()
    left = (draw[:, 1] * (2 * pad + 1)).long()
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = torch.where(draw[:, 2:] < 0.5, columns, width - 1 - columns) + left[:, None]
    rows = torch.arange(height, device=images.device) + top[:, None]
    batch = torch.arange(n, device=images.device)
    return padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def fit(
    model: nn.Module,
    data: ImageDataset,
    recipe: Recipe,
    *,
    device: torch.device,
    seed: int = 0,
    perturb: Perturb | None = None,
    progress: Progress | None = None,
    label: str = "training",
) -> None:
    """Train ``model`` in place; it is in eval mode afterwards.

    Order, augmentation and perturbations are seeded by (seed, epoch, sample), so that a run can be repeated.

    Args:
        model: images in [0, 1] to logits, on ``device``.
        data: training images.
        recipe: epochs, learning rate and the rest.
        device: where to train.
        seed: the seed of the run.
        perturb: generates adversarial examples; called with the model in eval mode.
        progress: reports every batch, and loss and accuracy after every epoch.
        label: the name of the training in the progress.

    Raises:
        ModelError: the loss is not finite.
    """
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # for layers that draw random numbers, such as dropout
        torch.manual_seed(seed)
        _fit(model, data, recipe, device, seed, perturb, progress or Silent(), label)


def _fit(
    model: nn.Module,
    data: ImageDataset,
    recipe: Recipe,
    device: torch.device,
    seed: int,
    perturb: Perturb | None,
    progress: Progress,
    label: str,
) -> None:
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    per_epoch = math.ceil(len(data) / recipe.batch)
    total = per_epoch * recipe.epochs
    step = 0
    for epoch in range(recipe.epochs):
        progress.begin(f"{label}: epoch {epoch + 1}/{recipe.epochs}", len(data))
        order = noise.permutation(len(data), seed=seed, stream=f"order {epoch}")
        loss_sum, correct = 0.0, 0
        for chunk in order.split(recipe.batch):
            images, labels, ids = data.batch(chunk, device)
            if recipe.augment == "flip-crop":
                images = flip_and_crop(images, ids, seed=seed, stream=f"augment {epoch}")
            if perturb is not None:
                model.eval()
                for parameter in parameters:
                    parameter.requires_grad_(False)
                images = perturb(model, images, labels, ids, epoch)
                for parameter in parameters:
                    parameter.requires_grad_(True)
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * _schedule((step + 1) / total, recipe.warmup)
            with noise.sample_scope(ids, seed=seed, stream=f"training {epoch}"):
                logits = model(images)
            loss = F.cross_entropy(logits, labels)
            if not bool(torch.isfinite(loss)):
                raise ModelError(f"{label}: the loss is not finite in epoch {epoch + 1}; lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            loss_sum += float(loss.detach()) * len(images)
            correct += int((logits.argmax(dim=1) == labels).sum())
            progress.advance(len(images))
        progress.end(
            f"{label}: epoch {epoch + 1}/{recipe.epochs}: loss {loss_sum / len(data):.3f}, "
            f"accuracy on training batches {correct / len(data):.1%}"
        )
    model.eval()
    for parameter in parameters:
        parameter.grad = None
        parameter.requires_grad_(False)


def _schedule(done: float, warmup: float) -> float:
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
