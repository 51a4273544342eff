"""Whether the parts of a recipe fit the data and the network, before anything is written."""

from __future__ import annotations

import torch
from torch import nn

from freqrobust.core.errors import PluginError
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.plugins.training import Batch, StepContext
from freqrobust.training.plan import TrainingPlan

SAMPLES = 2


def check_parts(plan: TrainingPlan, model: nn.Module, data: ImageData, seed: int) -> None:
    """Augment two samples and compute every penalty once.

    Raises:
        SpecError: an augmentation cannot use such images, or a regularizer such a network.
        PluginError: one of them fails, or returns something else than it should.
    """
    images, labels, ids = data.batch(torch.arange(min(SAMPLES, len(data))), torch.device("cpu"))
    batch, context = Batch(images, labels, ids, labels), StepContext(ids, seed, 0, data.classes)
    for augmentation in plan.augment:
        with running_user_code(f"the augmentation {augmentation.spec} failed"):
            augmented = augmentation.plugin.augment(batch, context)
        if not isinstance(augmented, Batch):
            raise PluginError(f"{augmentation.spec} should return a Batch, but returned {type(augmented).__name__}")
        for changed in (augmented.images, *augmented.views):
            if changed.shape != batch.images.shape:
                raise PluginError(
                    f"{augmentation.spec} should return images of the shape {tuple(batch.images.shape)}, "
                    f"but returned {tuple(changed.shape)}"
                )
        batch = augmented
    for regularizer in plan.regularizers:
        with running_user_code(f"the regularizer {regularizer.spec} failed"), torch.no_grad():
            penalty = regularizer.plugin.penalty(model)
        if not isinstance(penalty, torch.Tensor) or penalty.numel() != 1:
            shown = tuple(penalty.shape) if isinstance(penalty, torch.Tensor) else type(penalty).__name__
            raise PluginError(f"{regularizer.spec} should return a tensor with one value, but returned {shown}")
