"""What an analysis gets beside the model and the images: passes, attacks, gradients, layers, a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from freqrobust.core.errors import PluginError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.data.dataset import ImageData
from freqrobust.harness.attack_batch import run_attack
from freqrobust.harness.batches import Batches
from freqrobust.harness.cell import EOT, concluded, measure, measure_clean
from freqrobust.harness.outcome import distances
from freqrobust.harness.preparation import prepared
from freqrobust.harness.target_model import Prediction, TargetModel
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.specs import PluginSpec

T = TypeVar("T")
Reading = Literal["low", "high", "both", "neither"]
#: Frequencies at which the low ones end, as a share of the shorter side: half of the Nyquist frequency.
LOW_SHARE = 0.25
#: A band dominates where it has more than this share of both bands' means.
DOMINANT = 2 / 3


def split_radius(shape: tuple[int, ...]) -> float:
    """Where the high frequencies begin by default, for images ``(C, H, W)``: half of the Nyquist frequency."""
    return LOW_SHARE * min(shape[-2:])


def lean(low: float, high: float) -> Reading:
    """Which band dominates: ``low`` and ``high`` are means over the frequencies of each, at least 0."""
    if low <= 0 and high <= 0:
        return "neither"
    share = high / (low + high)
    return "high" if share > DOMINANT else "low" if share < 1 - DOMINANT else "both"


class Laboratory(Protocol):
    """What all subjects of one analysis share."""

    memory: dict[str, Any]
    subjects: int

    def reference(self, spec: str | None) -> tuple[str, TargetModel]:
        """Label and model of a reference: a model spec, else the first model, undefended."""


@dataclass
class AnalysisContext:
    """One model under one defense, ready to be analysed.

    Attributes:
        label: names the model and its defense.
        target_model: the defended model: predictions in fp32, gradients.
        batches: the samples in batches.
        seed: the seed of the run.
        laboratory: what all subjects share.
        warnings: code and message of what attacks reported; the record of the analysis has them.
    """

    label: str
    target_model: TargetModel
    batches: Batches
    seed: int
    laboratory: Laboratory
    warnings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def data(self) -> ImageData:
        return self.batches.data

    @property
    def device(self) -> torch.device:
        return self.batches.device

    def each(self, what: str, total: int, work: Callable[[torch.Tensor], None]) -> None:
        """Call ``work`` with positions of ``range(total)``, int64, in batches that fit the memory.

        The positions are made in blocks, so that millions of them take no memory. A batch that is out of memory is
        repeated in halves: ``work`` adds to its results last.
        """
        self._each(what, total, work, samples=False)

    def _each(self, what: str, total: int, work: Callable[[torch.Tensor], None], samples: bool) -> None:
        self.batches.progress.begin(f"{self.label}: {what}", total)
        for start in range(0, total, 64 * self.batches.batch_size):
            positions = torch.arange(start, min(start + 64 * self.batches.batch_size, total))
            self.batches.each(positions, work, samples=positions if samples else positions[:0])

    def each_batch(
        self, what: str, work: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
    ) -> None:
        """Call ``work(images, labels, ids, positions)`` for all samples; ``positions`` are on the CPU."""
        self._each(what, len(self.data), lambda chunk: work(*self.data.batch(chunk, self.device), chunk), samples=True)

    def predict(self, images: torch.Tensor, ids: torch.Tensor) -> Prediction:
        """Predicted classes and logits, and which predictions are correct."""
        return self.target_model.predict(images, ids)

    def classes(self, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Predicted classes ``(N,)``: the majority of the votes where the defense is random."""
        return self.predict(images, ids).classes

    def logits(self, images: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted classes ``(N,)`` and the logits ``(N, K)`` of the first vote."""
        prediction = self.predict(images, ids)
        return prediction.classes, prediction.logits

    def attacker(
        self, attack: PluginSpec[Attack]
    ) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
        """``(images, labels, ids) -> images`` after an attack, of the highest loss it finds, or after a shift."""
        plugin = attack.plugin
        plugin.check_data(self.data)
        everyone = torch.arange(len(self.data))
        context = AttackContext(everyone, self.seed, "maximize", eot=EOT if self.target_model.stochastic else 1)
        context = prepared(plugin, attack.spec, self.target_model, self.batches, everyone, context)

        def changed(images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return run_attack(attack, plugin, self.target_model, images, labels, context.batch(ids))

        return changed

    def distances(self, attack: PluginSpec[Attack]) -> np.ndarray:
        """How far the nearest adversarial example of every sample is that a minimum-norm attack finds, float32 ``(n,)``.

        The attack is run as ``evaluate`` runs it, with the same result: 0 where the clean image is misclassified,
        infinite where no example was found.

        Raises:
            SpecError: it is no minimum-norm attack, or does not fit the data.
        """
        norm = attack.plugin.minimizes()
        if norm is None:
            raise SpecError(f"expected a minimum-norm attack, such as fmn, but got {attack.spec}")
        attack.plugin.check_data(self.data)
        target_model, view = self.target_model, self.target_model.view
        before = target_model.forwards + view.forwards, view.backwards  # each measurement counts from 0
        self.batches.progress.begin(f"{self.label}: {attack.spec}", len(self.data))
        clean = concluded(measure_clean(target_model, self.batches), None)
        outcome = concluded(measure(attack, target_model, self.batches, clean, None, self.seed), attack)
        target_model.forwards += before[0] + clean.numbers.forwards
        view.backwards += before[1]
        self.warnings += [*clean.warnings, *outcome.warnings]
        return distances(clean, outcome, norm)

    def gradient(self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Gradient of each sample's cross-entropy in its image ``(N, C, H, W)``; the mean of several draws where
        the defense is random."""
        draws = EOT if self.target_model.stochastic else 1
        total = torch.zeros_like(images)
        with self.target_model.attacked(ids, "gradient") as view:
            for _ in range(draws):
                x = images.clone().requires_grad_(True)
                with torch.enable_grad():
                    loss = F.cross_entropy(view(x), labels, reduction="sum")
                    (gradient,) = torch.autograd.grad(loss, x)
                total += gradient
        return total / draws

    def once(self, key: str, make: Callable[[], T]) -> T:
        """``make()``, called by the first subject and remembered for the others."""
        memory = self.laboratory.memory
        if key not in memory:
            memory[key] = make()
        value: T = memory[key]
        return value

    def layer(self, name: str) -> nn.Module:
        """A layer of the defended model by its name in the network, such as ``conv1`` or ``layer3.0.bn2``.

        Raises:
            SpecError: there is none of that name, or several.
        """
        return find_layer(self.target_model.exact, name)


class Missing:
    """Stands for the images or the model of an analysis that was run without."""

    def __init__(self, analysis: str, declared: str, what: str) -> None:
        self.analysis, self.declared, self.what = analysis, declared, what

    def __getattr__(self, name: str) -> Any:
        raise PluginError(f"{self.analysis} declares {self.declared}, but asks for {self.what}: {name!r} is not there")


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name; what defenses and the normalisation put in front of it may be left out."""
    named: dict[str, nn.Module] = {full: module for full, module in model.named_modules() if full}
    if name in named:
        return named[name]
    ending = {full: module for full, module in named.items() if full.endswith(f".{name}")}
    if ending:
        outermost = min(ending, key=lambda full: full.count("."))
        rivals = [full for full in ending if full.count(".") == outermost.count(".")]
        if len(rivals) > 1:
            raise SpecError(f"layer {name!r} could be {' or '.join(rivals[:3])}; write more of its name")
        return ending[outermost]
    shown = [short for short in dict.fromkeys(map(short_name, named)) if short not in _WRAPPERS]
    listed = ", ".join(shown[:8]) + (f", ... {len(shown)} in all" if len(shown) > 8 else "")
    raise SpecError(f"the model has no layer {name!r}{near_miss(name, shown)} (layers: {listed})")


#: What the normalisation, defenses and checkpoints put in front of a layer's name.
_WRAPPERS = ("model", "network", "exact", "surrogate", "module", "normalize")


def short_name(name: str) -> str:
    """A layer's name without what wraps the network."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(parts)


@contextmanager
def output_of(layer: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collects the layer's output, flattened to ``(N, D)`` float32, at every pass inside; a list that grows.

    Raises:
        SpecError: the layer's output is no tensor.
    """
    outputs: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, torch.Tensor) or output.dim() < 2:
            raise SpecError(f"the layer's output is no tensor of features, but a {type(output).__name__}")
        outputs.append(output.detach().flatten(1).float())

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()
