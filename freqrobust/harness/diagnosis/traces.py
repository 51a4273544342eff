"""What an attack saw on its way: the margins and gradients of every sample at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from freqrobust.core.errors import FreqRobustError
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.harness.attack_batch import run_attack
from freqrobust.harness.batches import Timer
from freqrobust.harness.cell import add_examples, unattacked
from freqrobust.harness.diagnosis.findings import NotApplicable
from freqrobust.harness.outcome import Outcome
from freqrobust.harness.preparation import prepared
from freqrobust.numerics.norms import norms, per_sample
from freqrobust.numerics.threat import allowance
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import AttackContext
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.outcomes import pack, unpack

if TYPE_CHECKING:
    from freqrobust.harness.diagnosis.examination import Examination

#: Share of the increase of the loss that the last tenth of the steps may make up before the loss counts as still rising.
RISING = 0.05
#: L2 norm of a gradient below which its parts begin to underflow in float32.
TINY = 1e-20
#: Gaussian perturbations that a gradient is averaged over, besides the gradient at the image.
DRAWS = 8


class Recorder(nn.Module):
    """Passes images on to a model, and keeps what it answers.

    Only passes of the whole batch are kept, in the order of its samples.

    Args:
        model: the view of the target model.
        images: the clean images of the batch ``(N, C, H, W)``.
        labels: of the batch.
        criterion: its margin is recorded.
        within: which images count as examples, bool ``(N,)``.
        noises: perturbations ``(N, C, H, W)``; the answer is the mean of the logits at the image and, in passes with
            gradients, at the image plus each of them. The margin that is recorded is that at the image.
    """

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        criterion: Criterion,
        within: Callable[[torch.Tensor], torch.Tensor],
        noises: list[torch.Tensor],
    ) -> None:
        super().__init__()
        self.model, self.labels, self.criterion, self.within, self.noises = model, labels, criterion, within, noises
        self.margins: list[torch.Tensor] = []
        self.sizes: list[torch.Tensor] = []
        self.best = images.clone()
        self.best_margin = torch.full((len(images),), -math.inf, device=images.device)
        self.finite = torch.ones(len(images), dtype=torch.bool, device=images.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = len(x) == len(self.labels)
        differentiated = x.requires_grad and torch.is_grad_enabled()
        if whole and differentiated:
            x = x.view_as(x)
            x.register_hook(self._gradient)
        logits: torch.Tensor = self.model(x)
        if not whole:
            return logits
        self._look(x.detach(), logits.detach())
        if differentiated:
            for drawn in self.noises:
                logits = logits + self.model((x + drawn).clamp(0, 1))
        return logits / (1 + len(self.noises)) if differentiated else logits

    def _look(self, x: torch.Tensor, logits: torch.Tensor) -> None:
        margin = self.criterion.margin(logits, self.labels)
        finite = torch.isfinite(logits).all(dim=1)
        self.finite &= finite
        margin = torch.where(finite, margin, -math.inf)
        self.margins.append(margin)
        better = (margin > self.best_margin) & self.within(x)
        self.best = torch.where(per_sample(better, x), x, self.best)
        self.best_margin = torch.where(better, margin, self.best_margin)

    def summary(self) -> dict[str, torch.Tensor]:
        """The arrays of a :class:`Trace` that follow from what was recorded, ``(N,)`` each."""
        nothing = torch.zeros_like(self.finite)
        if not self.margins or not self.sizes:
            return {"started": nothing, "rising": nothing, "idle": nothing, "scale": ~self.finite}
        margins, sizes = torch.stack(self.margins), torch.stack(self.sizes)
        highest = margins.cummax(dim=0).values
        increase = highest[-1] - highest[0]
        tenth = math.ceil((len(margins) - 1) / 10)
        late = highest[-1] - highest[len(margins) - 1 - tenth]
        quarter = max(1, len(margins) // 4)
        return {
            "started": margins[0] < 0,
            "rising": (increase > 0) & (late > RISING * increase),
            "idle": (margins[-quarter:].mean(dim=0) <= margins[0]) | (sizes.amax(dim=0) == 0),
            "scale": (sizes[0] < TINY) | ~self.finite,
        }

    def _gradient(self, gradient: torch.Tensor) -> None:
        size = gradient.flatten(1).norm(dim=1)
        self.finite &= torch.isfinite(size)
        self.sizes.append(size)


@dataclass
class Trace:
    """What is known of an attack's way on every sample; all arrays are bool ``(n,)``.

    Attributes:
        spec: of the attack.
        steps: gradients of every sample.
        outcome: of the best images on the way that are within the budget, as the exact model predicts them.
        attacked: the samples that it was run on: those that are examined and have a correct clean image.
        returned: the example that the attack returned is adversarial.
        started: the margin at the first step was negative.
        rising: the last tenth of the steps made up more than :data:`RISING` of the increase of the margin.
        idle: the margin was no larger in the last quarter of the steps than at the first one, or all gradients were 0.
        scale: the first gradient was smaller than :data:`TINY`, or some gradient or logit was not finite.
    """

    spec: str
    steps: int
    outcome: Outcome
    attacked: np.ndarray
    returned: np.ndarray
    started: np.ndarray
    rising: np.ndarray
    idle: np.ndarray
    scale: np.ndarray


#: The arrays of a trace.
_ARRAYS = ("attacked", "returned", "started", "rising", "idle", "scale")


def trace(
    examination: Examination, plugin_spec: PluginSpec[Attack], among: np.ndarray, sigma: float | None = None
) -> Trace:
    """Run an attack to the maximum, on the samples ``among`` with a correct clean image, and watch it; once for all checks.

    It takes the passes of the attack and up to two more forward passes for each sample: for the example that the attack
    returned, and for the best image on the way.

    Args:
        examination: the model, the samples and the threat.
        plugin_spec: the attack.
        among: ``(n,)``.
        sigma: average every gradient over :data:`DRAWS` Gaussian perturbations of this standard deviation as well.

    Raises:
        NotApplicable: the attack failed.
    """
    purpose = "trace" if sigma is None else f"averaged {DRAWS} {sigma!r}"
    key = (purpose, plugin_spec.spec, among.tobytes())
    if key not in examination.traces:
        try:
            examination.traces[key] = _found(examination, plugin_spec, among, sigma, purpose)
        except NotApplicable as why:
            examination.traces[key] = why
    found = examination.traces[key]
    if not isinstance(found, Trace):
        raise found
    return found


def _found(
    examination: Examination, plugin_spec: PluginSpec[Attack], among: np.ndarray, sigma: float | None, purpose: str
) -> Trace:
    """The trace, from the journal or measured; its outcome counts among those of the checks."""
    try:
        with running_user_code(f"{plugin_spec.spec} failed"):
            piece = examination.remembered(
                purpose, plugin_spec, among, lambda: _traced(examination, plugin_spec, among, sigma)
            )
    except FreqRobustError as error:  # the other checks are kept
        raise NotApplicable(one_line(error)) from error
    n = len(examination.sample)
    arrays = {name: unpack(piece[name], n) for name in _ARRAYS}
    outcome = Outcome.from_piece(piece["outcome"])
    examination.found.append(outcome)
    return Trace(plugin_spec.spec, piece["steps"], outcome, **arrays)


def _traced(
    examination: Examination, plugin_spec: PluginSpec[Attack], among: np.ndarray, sigma: float | None
) -> dict[str, Any]:
    run, threat, clean = examination.run, examination.threat, examination.clean
    target_model, batches = run.target_model(), run.batches
    timer = Timer(target_model, batches)
    outcome = unattacked(clean)
    arrays = {name: np.zeros(len(clean.right), dtype=bool) for name in _ARRAYS}
    arrays["attacked"] = among & clean.right
    positions = torch.from_numpy(np.flatnonzero(arrays["attacked"]))
    context = AttackContext(positions, run.run.seed, "maximize")
    context = prepared(plugin_spec.plugin, plugin_spec.spec, target_model, batches, positions, context)
    steps: list[int] = []

    def look(chunk: torch.Tensor) -> None:
        images, labels, ids = batches.data.batch(chunk, batches.device)
        where, own = chunk.numpy(), context.batch(ids)

        def within(x: torch.Tensor) -> torch.Tensor:
            inside = (x.flatten(1).amin(dim=1) >= 0) & (x.flatten(1).amax(dim=1) <= 1)
            return inside & (norms(x - images, threat.norm) <= allowance(threat.eps))

        drawn = range(DRAWS if sigma is not None else 0)
        noises = [own.normal(images.shape[1:], f"averaging {i}") * (sigma or 0.0) for i in drawn]
        made: list[Recorder] = []

        def watch(view: nn.Module) -> nn.Module:
            made.append(Recorder(view, images, labels, target_model.criterion, within, noises))
            return made[0]

        changed = run_attack(plugin_spec, plugin_spec.plugin, target_model, images, labels, own, watch)
        (recorder,) = made
        returned = target_model.predict(changed, ids).is_adversarial(labels)
        add_examples(outcome, clean, where, target_model.predict(recorder.best, ids), labels, recorder.best - images)
        arrays["returned"][where] = returned.cpu().numpy()
        for name, flags in recorder.summary().items():
            arrays[name][where] = flags.cpu().numpy()
        steps.append(len(recorder.sizes))

    batches.each(positions, look)
    timer.close(outcome)
    packed = {name: pack(values) for name, values in arrays.items()}
    return {"outcome": outcome.to_piece(), "steps": min(steps, default=0), **packed}
