"""The training loop: the only one, of ``freqrobust train``, of training-time defenses and of the experiments."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from freqrobust.core.compiler import torch_compile
from freqrobust.core.errors import PluginError, TrainingError
from freqrobust.core.progress import Progress, Silent, describe, describes
from freqrobust.numerics import noise
from freqrobust.plugins.dataset import ImageDataset
from freqrobust.plugins.training import Batch, StepContext
from freqrobust.training.plan import TrainingPlan
from freqrobust.training.threads import suitable_threads
from freqrobust.training.workers import Workers

#: Seconds between two updates of the live display, and before the first: each waits for the device.
_LIVE, _FIRST = 0.5, 0.1
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
#: Several forward passes come before one backward pass, so that buffers must not be copied before a forward pass.
NO_COPIES: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


class EpochNumbers(NamedTuple):
    """What one epoch showed.

    Attributes:
        epoch: number of finished epochs, from 1.
        loss: mean loss of the training batches, without penalties.
        accuracy: on the training batches, as they were augmented or attacked.
        learning_rate: of the last step.
        seconds: that the epoch took.
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


@dataclass
class _Sums:
    """Sums over the batches of an epoch; they stay on the device until its end."""

    loss: torch.Tensor
    correct: torch.Tensor
    count: int = 0


class Training:
    """A network in training: one call of :meth:`run_epoch` is one pass over the data.

    Order, augmentation and adversarial examples are seeded by (seed, epoch, sample), so that a training can be repeated,
    and continued from :meth:`state` at the end of any epoch with the same result.

    Args:
        model: images in [0, 1] to logits, on ``device``; it is trained in place. Parameters that are frozen stay as they
            are, unless all of them are frozen, as in a network that was trained or loaded for evaluation.
        data: the training images.
        plan: what to do.
        device: where to train.
        seed: the seed of the run.
        workers: the processes that train together.
        label: names the training in messages.

    Attributes:
        epoch: number of finished epochs.
        step: number of finished optimisation steps.
        remarks: what the live display shows behind loss and accuracy, such as the latest values of probes.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageDataset,
        plan: TrainingPlan,
        *,
        device: torch.device,
        seed: int = 0,
        workers: Workers | None = None,
        label: str = "training",
    ) -> None:
        self.model, self.data, self.plan = model, data, plan
        self.device, self.seed, self.label = device, seed, label
        self.workers = workers or Workers()
        self.epoch = self.step = 0
        self.remarks: list[str] = []
        self.parameters = parameters = trainable(model)
        for parameter in parameters:
            parameter.requires_grad_(True)
        self.optimizer = plan.optimizer.plugin.make(parameters)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(plan.ema), use_buffers=True)
            if plan.ema is not None
            else None
        )
        self.per_epoch = len(batches(torch.arange(len(data)), plan.batch_size)) * plan.method.plugin.steps_per_batch
        self.steps = self.per_epoch * plan.epochs
        self.forward: Any = torch_compile(model) if plan.compile else model
        if self.workers.size > 1:
            self.forward = DistributedDataParallel(self.forward, **NO_COPIES)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and saved: the averaged one where there is an average."""
        network: nn.Module = self.average.module if self.average is not None else self.model
        return network

    def run_epoch(self, progress: Progress | None = None) -> EpochNumbers:
        """One pass over the data.

        Raises:
            TrainingError: the loss is not finite, or the weights after the last step.
            PluginError: the method does not return the loss of each sample.
        """
        progress = progress or Silent()
        start = time.perf_counter()
        devices = [self.device.index or 0] if self.device.type == "cuda" else []
        threads = suitable_threads(self.model, self.data.shape, self.device)
        with threads, torch.random.fork_rng(devices=devices):  # for layers that draw random numbers, such as dropout
            torch.manual_seed((self.seed * 1_000_003 + self.epoch) * 1_000_003 + self.workers.rank & (1 << 63) - 1)
            sums = self._epoch(progress)
        if not all(bool(torch.isfinite(parameter.detach()).all()) for parameter in self.parameters):
            raise self._diverged(f"the weights are not finite after step {self.step}")  # never in a checkpoint
        for network in {id(n): n for n in (self.model, self.evaluated)}.values():
            self.workers.average_buffers(network)
        loss, correct, count = self.workers.total(torch.stack([sums.loss, sums.correct]), sums.count)
        self.epoch += 1
        rate = self.optimizer.param_groups[0]["lr"]
        return EpochNumbers(self.epoch, loss / count, correct / count, rate, time.perf_counter() - start)

    def _epoch(self, progress: Progress) -> _Sums:
        plan, workers = self.plan, self.workers
        progress.begin(f"{self.label}: epoch {self.epoch + 1}/{plan.epochs}", len(self.data))
        order = noise.permutation(len(self.data), seed=self.seed, stream=f"order {self.epoch}")
        zero = torch.zeros((), device=self.device)
        sums, memory = _Sums(zero, zero.clone()), dict[str, Any]()
        self._describe(progress, None)
        shown = time.perf_counter() - _LIVE + _FIRST
        chunks = batches(order, plan.batch_size)
        shares = [workers.share(chunk) for chunk in chunks]
        for number, (chunk, (share, counts)) in enumerate(zip(chunks, shares, strict=True)):
            self.data.prefetch(torch.cat([share for share, _ in shares[number : number + 2]]))
            images, labels, ids = self.data.batch(share, self.device)
            context = StepContext(ids, self.seed, self.epoch, self.data.classes, memory=memory)
            batch = Batch(images, labels, ids, labels)
            for augmentation in plan.augment:
                batch = augmentation.plugin.augment(batch, context)
            for replay in range(plan.method.plugin.steps_per_batch):
                step = StepContext(ids, self.seed, self.epoch, self.data.classes, replay, memory)
                self._step(batch, step, len(chunk), counts, sums)
            progress.advance(len(chunk))
            if time.perf_counter() - shown > _LIVE:
                self._describe(progress, sums)
                shown = time.perf_counter()
        return sums

    def _describe(self, progress: Progress, sums: _Sums | None) -> None:
        """Show loss and accuracy of the epoch so far, of this process, where there is a display that takes them."""
        if not describes(progress):
            return
        parts = [f"{self.label} {self.epoch + 1}/{self.plan.epochs}"]
        if sums is not None:
            loss, correct = (torch.stack([sums.loss, sums.correct]) / max(sums.count, 1)).tolist()
            parts += [f"loss {loss:.3f}", f"acc {correct:.0%}"]
        describe(progress, [*parts, *self.remarks])

    def _step(self, batch: Batch, context: StepContext, total: int, counts: bool, sums: _Sums) -> None:
        """One optimisation step; ``total`` is the number of samples of all processes.

        Where the samples of this process do not count, it makes the step with the gradients of the others.
        """
        plan = self.plan
        factor = plan.schedule.plugin.factor(self.step, self.steps, self.per_epoch)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        self.forward.train()
        reduced = torch.autocast(self.device.type, torch.bfloat16) if plan.precision == "bf16" else nullcontext()
        self.optimizer.zero_grad(set_to_none=True)
        scope = noise.sample_scope(batch.ids, seed=self.seed, stream=f"training {self.epoch}")
        with reduced, scope:
            losses, logits = plan.method.plugin.losses(self.forward, batch, context)
        if losses.shape != batch.labels.shape:
            raise PluginError(
                f"{plan.method.spec} should return the loss of each sample, of the shape {tuple(batch.labels.shape)}, "
                f"but returned {tuple(losses.shape)}"
            )
        # processes average their gradients, so that each sums over its share of the mean
        objective = losses.float().sum() * (self.workers.size / total if counts else 0.0)
        loss = objective.detach()
        for regularizer in plan.regularizers:
            objective = objective + regularizer.plugin.penalty(self.model)
        if not self.workers.finite(objective):
            raise self._diverged(f"the loss is not finite in step {self.step + 1}")
        objective.backward()
        plan.method.plugin.after_backward(batch, context)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        sums.loss += loss * (total / self.workers.size)
        if counts:
            sums.correct += (logits.detach().argmax(dim=1) == batch.labels).sum()
            sums.count += len(batch.labels)

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(f"{self.label}: {what} (epoch {self.epoch + 1}); lower the learning rate")

    def finish(self) -> nn.Module:
        """The evaluated network in eval mode, its parameters frozen and without gradients."""
        for network in {id(n): n for n in (self.model, self.evaluated)}.values():
            network.eval()
            for parameter in network.parameters():
                parameter.grad = None
                parameter.requires_grad_(False)
        return self.evaluated

    def state(self) -> dict[str, Any]:
        """Everything that :meth:`load` needs to continue."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.epoch, self.step = state["epoch"], state["step"]


def batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Consecutive parts of ``size`` samples; the last one may have fewer.

    A single sample that is left over is added to the last part, as batch norm cannot normalise it on its own.
    """
    parts = list(order.split(size))
    if size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that a training changes: those that are not frozen, or all of them where all are frozen."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    return [parameter for parameter in parameters if parameter.requires_grad] or parameters


def fit(
    model: nn.Module,
    data: ImageDataset,
    plan: TrainingPlan,
    *,
    device: torch.device,
    seed: int = 0,
    progress: Progress | None = None,
    label: str = "training",
    each_epoch: Callable[[nn.Module, EpochNumbers], None] | None = None,
) -> nn.Module:
    """Train ``model`` in place; it is in eval mode afterwards, and returned, or instead of it its average.

    Args:
        model: images in [0, 1] to logits, on ``device``.
        data: training images.
        plan: what to do.
        device: where to train.
        seed: the seed of the run.
        progress: reports every batch, and loss and accuracy after every epoch.
        label: the name of the training in the progress.
        each_epoch: is called after each epoch with the evaluated network in eval mode, and the numbers of the epoch.

    Raises:
        TrainingError: the loss is not finite.
    """
    progress = progress or Silent()
    training = Training(model, data, plan, device=device, seed=seed, label=label)
    for _ in range(plan.epochs):
        numbers = training.run_epoch(progress)
        progress.end(
            f"{label}: epoch {numbers.epoch}/{plan.epochs}: loss {numbers.loss:.3f}, "
            f"accuracy on training batches {numbers.accuracy:.1%}"
        )
        if each_epoch is not None:
            training.evaluated.eval()
            with torch.no_grad():
                each_epoch(training.evaluated, numbers)
    return training.finish()
