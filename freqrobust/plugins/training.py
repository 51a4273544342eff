"""What training is made of: methods, augmentations, regularizers, optimizers and schedules, each a plugin.

This module does not import torch, so that help texts can be built without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from freqrobust.core.errors import PluginError
from freqrobust.plugins.plugin import Plugin

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.plugins.context import AttackContext


@dataclass(frozen=True)
class Batch:
    """The samples of one optimisation step.

    Attributes:
        images: ``(N, C, H, W)``, float32 in [0, 1].
        labels: int64 ``(N,)``.
        ids: dataset indices, int64 ``(N,)``.
        targets: what the loss compares the logits with: the labels, or probabilities ``(N, K)`` of augmentations that
            mix images.
        views: further versions of the same images, for losses that compare several.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor
    targets: torch.Tensor
    views: tuple[torch.Tensor, ...] = ()

    def replace(self, **changes: Any) -> Batch:
        """A copy with other values."""
        return replace(self, **changes)


@dataclass(frozen=True)
class StepContext:
    """What methods and augmentations get beside the model and the batch: position, randomness, memory.

    Attributes:
        ids: dataset indices of the samples of the batch, int64 ``(N,)``.
        seed: the seed of the run.
        epoch: number of the epoch, from 0.
        classes: number of classes.
        replay: number of the step on this batch, from 0; methods with ``replays`` > 1 make several.
        memory: is empty at the beginning of an epoch, and is otherwise left to the method.
    """

    ids: torch.Tensor
    seed: int
    epoch: int
    classes: int
    replay: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    def uniform(self, shape: Sequence[int], stream: str) -> torch.Tensor:
        """Uniform noise in [0, 1), ``(N, *shape)``: the same for a sample and an epoch in every batch."""
        from freqrobust.numerics import noise

        return noise.uniform(self.ids, shape, seed=self.seed, stream=f"{stream} {self.epoch}")

    def normal(self, shape: Sequence[int], stream: str) -> torch.Tensor:
        """Standard normal noise, ``(N, *shape)``: the same for a sample and an epoch in every batch."""
        from freqrobust.numerics import noise

        return noise.normal(self.ids, shape, seed=self.seed, stream=f"{stream} {self.epoch}")

    def attack_context(self) -> AttackContext:
        """The context for an attack that generates training examples; its noise differs from epoch to epoch."""
        from freqrobust.plugins.context import AttackContext

        return AttackContext(self.ids, seed=self.seed + 1_000_003 * (self.epoch + 1), goal="maximize")

    @contextmanager
    def attacked(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model in eval mode and without gradients of its parameters; in train mode and with them afterwards."""
        from torch.nn.parallel import DistributedDataParallel

        if isinstance(model, DistributedDataParallel):  # it would wait for gradients of the parameters
            model = model.module
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        model.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield model
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
            model.train()


class TrainingMethod(Plugin):
    """How the loss of a batch is computed. Subclasses implement :meth:`losses`."""

    #: it takes batches whose targets are probabilities
    soft_targets: ClassVar[bool] = False
    #: it takes batches with several views of each image
    takes_views: ClassVar[bool] = False
    command: ClassVar[str | None] = "train"

    @property
    def steps_per_batch(self) -> int:
        """Optimisation steps on every batch, one after the other."""
        return 1

    def losses(self, model: nn.Module, batch: Batch, context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each sample ``(N,)``, and logits ``(N, K)`` from which the accuracy on training batches is computed.

        ``model`` maps images in [0, 1] to logits and is in train mode; use ``context.attacked(model)`` for generating
        adversarial examples. The loop averages the losses, adds the penalties of regularizers, differentiates and makes
        the step.
        """
        raise PluginError(f"{type(self).__name__} does not implement losses()")

    def after_backward(self, batch: Batch, context: StepContext) -> None:
        """Called between the backward pass and the step of the optimizer, for methods that use gradients in the images."""

    def probes(self) -> list[str]:
        """Specs of attacks that should be watched while this method trains."""
        return []


class Augmentation(Plugin):
    """A random change of training images. Subclasses implement :meth:`augment`."""

    #: the targets become probabilities
    mixes: ClassVar[bool] = False

    @property
    def makes_views(self) -> bool:
        """Whether it adds views."""
        return False

    def augment(self, batch: Batch, context: StepContext) -> Batch:
        """The changed batch; its images stay ``(N, C, H, W)`` in [0, 1]. All randomness comes from ``context``."""
        raise PluginError(f"{type(self).__name__} does not implement augment()")


class Regularizer(Plugin):
    """A penalty that is added to the loss. Subclasses implement :meth:`penalty`."""

    def penalty(self, model: nn.Module) -> torch.Tensor:
        """A scalar that can be differentiated in the parameters."""
        raise PluginError(f"{type(self).__name__} does not implement penalty()")


class Optimizer(Plugin):
    """An optimizer and its parameters. Subclasses implement :meth:`make`."""

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters; its learning rate is the highest of the schedule."""
        raise PluginError(f"{type(self).__name__} does not implement make()")


class Schedule(Plugin):
    """A learning-rate schedule. Subclasses implement :meth:`factor`."""

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """The learning rate of a step, as a share of the optimizer's.

        Args:
            step: number of the step, from 0.
            steps: of the whole training.
            per_epoch: steps of one epoch.
        """
        raise PluginError(f"{type(self).__name__} does not implement factor()")
