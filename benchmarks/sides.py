"""The sides that are compared: one function each, from the same model and images to a :class:`Found`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from freqrobust import Report, evaluate
from freqrobust.harness.target_model import TargetModel
from freqrobust.models.classifier import frozen
from freqrobust.numerics import noise
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.selection import parse_attacks
from freqrobust.results.cells import Cell


@dataclass
class Found:
    """What a side found, and how many images it says went forward and backward."""

    robust: float
    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class Task:
    """One model, one batch of images, one PGD attack in Linf with a random start."""

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    eps: float = 2 / 255
    steps: int = 20

    @property
    def device(self) -> torch.device:
        """Where model and images are."""
        return self.images.device

    @property
    def step_size(self) -> float:
        """Length of a step."""
        return 2.5 * self.eps / self.steps

    @property
    def spec(self) -> str:
        """The attack as freqrobust takes it."""
        return f"pgd:eps={self.eps * 255:g}/255,steps={self.steps}"

    def chunks(self, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Images and labels in batches."""
        return list(zip(self.images.split(size), self.labels.split(size), strict=True))


class Counted(nn.Module):
    """A model that counts every image that passes through it or a copy of it, whoever sends it."""

    forwards = 0
    backwards = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Counted.forwards += len(x)
        if x.requires_grad and torch.is_grad_enabled():
            x = x.view_as(x)
            x.register_hook(self._gradient)
        return self.model(x)  # type: ignore[no-any-return]

    def _gradient(self, gradient: torch.Tensor) -> None:
        Counted.backwards += len(gradient)


def ours(task: Task) -> Found:
    """One ``evaluate`` call: clean pass, attack, verifying pass, report."""
    return _found(evaluate(task.model, (task.images, task.labels), attacks=[task.spec], device=task.device))


def _found(report: Report) -> Found:
    cells = report.cells
    cell = next(cell for cell in cells if cell.attack != "clean")
    return Found(_accuracy(cell), sum(c.forwards for c in cells), sum(c.backwards for c in cells))


def _accuracy(cell: Cell) -> float:
    if cell.accuracy is None:
        raise RuntimeError(f"{cell.attack_spec} failed: {cell.error}")
    return cell.accuracy


def true_passes(task: Task) -> Found:
    """Passes of one ``evaluate`` call, set-up and probes included, counted from outside."""
    Counted.forwards = Counted.backwards = 0
    found = ours(Task(Counted(task.model), task.images, task.labels, task.eps, task.steps))
    return Found(found.robust, Counted.forwards, Counted.backwards)


def ours_maximize(task: Task, size: int) -> Found:
    """Our PGD on every sample, none dropped (``goal="maximize"``), with clean pass and verifying pass."""
    attack = parse_attacks([task.spec])[0].plugin
    assert isinstance(attack, Attack)
    right = []
    with frozen(task.model):
        target_model = TargetModel(task.model, task.model, task.images[:4], device=task.device)
        ids = torch.arange(len(task.images), device=task.device).split(size)
        for some, (images, labels) in zip(ids, task.chunks(size), strict=True):
            clean = target_model.predict(images, some).classes
            with target_model.attacked(some, task.spec) as view:
                found = attack.perturb(view, images, labels, AttackContext(some, 0, "maximize"))
            predicted = target_model.predict(found, some).classes
            right.append((clean == labels) & (predicted == labels))
        passes = target_model.forwards + target_model.view.forwards, target_model.view.backwards
    return Found(float(torch.cat(right).float().mean()), *passes)


def torchattacks(task: Task, size: int) -> Found:
    """torchattacks.PGD, and the clean and the final prediction that a robust accuracy needs."""
    from torchattacks import PGD

    attack = PGD(task.model, eps=task.eps, alpha=task.step_size, steps=task.steps, random_start=True)
    right = []
    for images, labels in task.chunks(size):
        with torch.no_grad():
            clean = task.model(images).argmax(dim=1)
        found = attack(images, labels)
        with torch.no_grad():
            predicted = task.model(found).argmax(dim=1)
        right.append((clean == labels) & (predicted == labels))
    n = len(task.images)
    return Found(float(torch.cat(right).float().mean()), n * (task.steps + 2), n * task.steps)


def foolbox(task: Task, size: int) -> Found:
    """foolbox.attacks.LinfPGD, which predicts its result itself, and the clean prediction."""
    from foolbox.attacks import LinfPGD
    from foolbox.models.pytorch import PyTorchModel

    model = PyTorchModel(task.model, bounds=(0, 1), device=task.device)
    attack = LinfPGD(rel_stepsize=2.5 / task.steps, steps=task.steps, random_start=True)
    right = []
    for images, labels in task.chunks(size):
        with torch.no_grad():
            clean = task.model(images).argmax(dim=1)
        _, _, broken = attack(model, images, labels, epsilons=task.eps)
        right.append((clean == labels) & ~broken)
    n = len(task.images)
    return Found(float(torch.cat(right).float().mean()), n * (task.steps + 2), n * task.steps)


def loop(task: Task, size: int, attacked: nn.Module | None = None) -> Found:
    """The least that gives the same number: a loop in plain torch over samples that still hold.

    Args:
        task: what to attack.
        size: images per batch.
        attacked: an equivalent of the model to differentiate; the model itself without it.
    """
    model = task.model
    climbed = attacked if attacked is not None else model
    trained = [p for p in [*model.parameters(), *climbed.parameters()] if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    forwards, backwards, correct = len(task.images), 0, 0
    with torch.no_grad():
        clean = torch.cat([model(images).argmax(dim=1) for images, _ in task.chunks(size)])
    right = (clean == task.labels).nonzero()[:, 0]
    for some in right.split(size):
        image, label = task.images[some], task.labels[some]
        unit = noise.uniform(some, image.shape[1:], seed=0, stream="pgd start 0")  # the start that ours takes
        low, high = (image - task.eps).clamp_(min=0), (image + task.eps).clamp_(max=1)
        x = torch.clamp(image + (2 * unit - 1) * task.eps, low, high)
        examples, active, y = x.clone(), torch.arange(len(x), device=x.device), label
        for _ in range(task.steps):
            x.requires_grad_(True)
            logits = climbed(x)
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)
            forwards, backwards = forwards + len(x), backwards + len(x)
            x = x.detach()
            holds = logits.detach().argmax(dim=1) == y
            if not holds.all():
                examples[active[~holds]] = x[~holds]
                active, x, gradient, y, low, high = (t[holds] for t in (active, x, gradient, y, low, high))
                if len(active) == 0:
                    break
            x = torch.clamp(x + task.step_size * gradient.sign_(), low, high)
        examples[active] = x
        with torch.no_grad():
            correct += int((model(examples).argmax(dim=1) == label).sum())
        forwards += len(examples)
    for parameter in trained:
        parameter.requires_grad_(True)
    return Found(correct / len(task.images), forwards, backwards)


def sweep_together(task: Task, eps: list[float]) -> list[Found]:
    """Several eps from one ``evaluate`` call; the clean pass counts with the first."""
    values = ",".join(f"{value:g}/255" for value in eps)
    attack = f"pgd:eps=[{values}],steps={task.steps}"
    report = evaluate(task.model, (task.images, task.labels), attacks=[attack], device=task.device)
    found = [Found(_accuracy(c), c.forwards, c.backwards) for c in report.cells if c.attack != "clean"]
    found[0].forwards += sum(c.forwards for c in report.cells if c.attack == "clean")
    return found


def sweep_apart(task: Task, eps: list[float]) -> list[Found]:
    """The same from one ``evaluate`` call for each eps."""
    return [ours(Task(task.model, task.images, task.labels, value / 255, task.steps)) for value in eps]


def bare_low_pass(images: torch.Tensor, radius: float) -> Callable[[], torch.Tensor]:
    """A low-pass with everything but the transforms and the product made beforehand."""
    height, width = images.shape[-2:]
    rows = torch.fft.fftfreq(height, 1 / height, device=images.device)[:, None]
    columns = torch.fft.rfftfreq(width, 1 / width, device=images.device)[None, :]
    mask = (torch.sqrt(rows**2 + columns**2) < radius).to(images.dtype)
    return lambda: torch.fft.irfft2(torch.fft.rfft2(images) * mask, s=(height, width))
